"""Grants: tokens with which one node reads files of another on behalf of a client that may read them.

A client that copies from one node to another has the first one grant what it reads to the second one, which then
fetches it. So each of the two decides by its own permissions what the client may do there, and lends it none of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from zmesh.errors import NotAllowed


@dataclass(frozen=True, slots=True)
class Grant:
    """The right to read `paths`, of the node `reader` alone, for `client`."""

    reader: str
    paths: tuple[bytes, ...]
    recursive: bool
    client: str


class Grants:
    """The grants of a node. Each lasts as long as the request of its client does."""

    def __init__(self) -> None:
        self._grants: dict[bytes, Grant] = {}

    @contextmanager
    def given(self, grant: Grant) -> Iterator[bytes]:
        """Give a grant; its token, 32 random bytes."""
        token = secrets.token_bytes(32)
        self._grants[token] = grant
        try:
            yield token
        finally:
            del self._grants[token]

    def find(self, token: object, reader: str) -> Grant:
        """The grant of that token, for that node alone. Raises NotAllowed."""
        grant = self._grants.get(token) if isinstance(token, bytes) else None
        if grant is None or grant.reader != reader:
            raise NotAllowed(f"nothing is granted to {reader!r} here by that token, or not any more; copy it again")
        return grant
