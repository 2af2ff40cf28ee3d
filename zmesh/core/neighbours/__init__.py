"""Adjacent nodes: their links, the handshake that opens one, the keepalive that watches it, and failing dials."""
