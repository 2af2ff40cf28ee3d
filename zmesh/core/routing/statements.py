"""Statements: what authorities have signed for all nodes, as bytes that the core passes on: revocations, endorsements.

Each node keeps all of them, in its credentials, and floods a new one on every link but that on which it came. PROBEs
carry a digest of the set; who sees another one than its own requests all of them, so the set survives losses and
partitions. Statements are few: one for each node that was ever revoked.
"""

from __future__ import annotations

from collections.abc import Iterable

from zmesh.core import wire
from zmesh.core.credentials import Credentials, Disbelieved
from zmesh.core.message import LinkId
from zmesh.core.wire import U64, Frames


class Statements:
    """The statements that one node knows, and those to be sent."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._pending: dict[LinkId, dict[bytes, None]] = {}
        self._known: frozenset[bytes] = frozenset()
        self.digest = 0
        """The sum of the digests of all of them."""
        self.has_work = False
        """Whether some are to be sent."""
        self._read()

    def __len__(self) -> int:
        return len(self._known)

    def link_up(self, link: LinkId) -> None:
        """A link to another node is up. What it lacks is sent when its digest shows that."""
        self._pending[link] = {}

    def link_down(self, link: LinkId) -> None:
        """Such a link is down."""
        self._pending.pop(link, None)

    def accept(self, link: LinkId, statements: Iterable[bytes]) -> tuple[list[str], dict[str, int]]:
        """Process statements from a neighbour: what each new one says, and how many were refused, by reason."""
        news, refused = [], dict[str, int]()
        for data in statements:
            if data in self._known:
                continue
            try:
                text = self._credentials.learn(data)
            except Disbelieved as error:
                refused[error.reason] = refused.get(error.reason, 0) + 1
                continue
            if text:
                news.append(text)
                self._send(data, link)
        if news:
            self._read()
        return news, refused

    def update(self) -> None:
        """Flood the statements that the credentials have and did not have before."""
        before = self._known
        self._read()
        for data in sorted(self._known - before):
            self._send(data, None)

    def resend(self, link: LinkId) -> int:
        """Send all of them to that neighbour; returns how many there are."""
        if link in self._pending:
            self._pending[link] = dict.fromkeys(sorted(self._known))
            self.has_work = True
        return len(self._known)

    def flush(self) -> list[tuple[LinkId, Frames]]:
        """Take out what is to be sent."""
        due: list[tuple[LinkId, Frames]] = []
        self.has_work = False
        for link, pending in self._pending.items():
            if pending:
                due.extend((link, frames) for frames in wire.encode_statements(list(pending)))
                self._pending[link] = {}
        return due

    def _send(self, data: bytes, origin: LinkId | None) -> None:
        for link, pending in self._pending.items():
            if link != origin:
                pending[data] = None
                self.has_work = True

    def _read(self) -> None:
        self._known = frozenset(self._credentials.statements())
        self.digest = sum(map(wire.digest, self._known)) & U64
