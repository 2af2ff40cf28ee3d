"""The directives that every node has: `echo:echo`, `sleep:execute`, `digest:sha256` and `http:execute`."""
