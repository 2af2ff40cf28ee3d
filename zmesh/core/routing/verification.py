"""Verification of records: which ones are believed, and which are not believed any more."""

from __future__ import annotations

from collections.abc import Callable

from zmesh.core.effects import Report
from zmesh.core.message import LinkId, NodeId
from zmesh.core.routing.certificates import Certificates, Unverified
from zmesh.core.routing.records import Records
from zmesh.core.routing.routes import Routes
from zmesh.core.wire import Record


class Verification:
    """The records of a node with an identity, checked against the certificates that it knows.

    A record of a node that is alive with another key is refused, and both keys are reported.
    """

    __slots__ = ("_certificates", "_emit", "_node", "_records", "_routes")

    def __init__(
        self,
        node: NodeId,
        certificates: Certificates,
        records: Records,
        routes: Routes,
        emit: Callable[[Report], None],
    ) -> None:
        self._node = node
        self._certificates = certificates
        self._records = records
        self._routes = routes
        self._emit = emit

    def accepts(self, link: LinkId, record: Record, blob: bytes, known: Record | None, now: float) -> bool:
        """True for news with a valid signature; a record whose certificate is not known yet is held until it is."""
        if not self._records.is_news(record, blob):
            return False
        try:
            if not self._certificates.verify(link, record, blob, known, now):
                return False
            self._check_key(record, known)
        except Unverified as error:
            self._records.refused[link, error.reason] += 1
            return False
        return True

    def drop_disbelieved(self, now: float, *, in_full: bool) -> list[NodeId]:
        """Drop the records of nodes that are not believed any more, and return these; `in_full`: trust has changed."""
        dropped = []
        for node in list(self._records.names()):
            record = self._records.get(node)
            if record is None or node == self._node:
                continue
            reason = self._certificates.disbelief(record, now, in_full=in_full)
            if reason:
                self._records.forget(node)
                self._records.refused[None, reason] += 1
                dropped.append(node)
        return dropped

    def _check_key(self, record: Record, known: Record | None) -> None:
        """Raise Unverified if the node is alive with another key."""
        ours, theirs = self._certificates.of(known), self._certificates.of(record)
        if known is None or ours is None or theirs is None or ours.public == theirs.public or record.node == self._node:
            return
        selected = self._routes.get(record.node)
        if selected is not None and selected.incarnation == known.incarnation:
            keys = (ours.identity.key, theirs.identity.key)
            text = f"two nodes called {record.node!r} are alive, with the keys {keys[0]} and {keys[1]}"
            text = f"{text}; zmesh revoke the key of the one that must go"
            self._emit(Report("duplicate_id", record.node, None, text))
            raise Unverified("another_key")
