"""The directives of every node: `echo:echo`, `echo:stream`, `sleep:execute`, `digest:sha256` and `http:execute`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NoSettings:
    """The settings of a plugin without any: its table may only be empty."""
