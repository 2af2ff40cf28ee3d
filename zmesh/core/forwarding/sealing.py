"""Sealing: the head and the body of a routed packet, from the node of its source to the node of its destination.

The engine does it where a packet begins and where it ends, so that all between see routes and sizes only. The keys are
those of the two nodes' signed records; what is done with them is the credentials' business. A leaf has no record: if it
has neither a certificate nor a grant, its node seals and opens for it.

A session is a pair of keys, one of this node and one of the other. It is made when it is first needed, and dropped
when the record of the other node is gone or names another incarnation. A key pair may come again after that, and then
neither may a counter be used again nor a packet be taken again: this node goes on above all counters that it has used
in dropped sessions, and remembers the highest counter that has come in each of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from zmesh.core import wire
from zmesh.core.credentials import Credentials, Disbelieved, Session, Unsealable
from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import Address, NodeId
from zmesh.core.routing import Routing
from zmesh.core.wire import KEY_ID_BYTES, Packet, Record

KEY_LIFETIME = 86400.0
"""Seconds after which a node makes another key."""

KEY_SETTLES = 10.0
"""Seconds for which sessions go on with the former one, until the others have the record with the new one."""

KEY_PACKETS = 1 << 32
"""Packets that are sealed with one key for one other node at most; another key is made after half of that."""

_IDS_BYTES = 2 * KEY_ID_BYTES
_NOTES = (int(wire.Kind.UNREACHABLE), int(wire.Kind.EXPIRED))  # a look-up in an enum costs as much as a call

SPARE = 64
MAX_FORMER = 64
MAX_ROUTES = 4096
"""Routes (destination, source, kind) whose authenticated bytes are cached."""


class SessionKey(NamedTuple):
    """Names a session: the other node, and the ids of its key and of the own one."""

    node: NodeId
    theirs: bytes
    ours: bytes


class Sealing:
    """The sessions of one node with others."""

    def __init__(
        self,
        node: NodeId,
        incarnation: int,
        credentials: Credentials,
        routing: Routing,
        now: float,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._here = (node, incarnation)
        self._credentials = credentials
        self.record = routing.record
        """The record of a node, whose key packets for its incarnation are sealed with."""
        self._max_forgotten = limits.forgotten_peers
        self._sessions: dict[tuple[NodeId, bytes, bytes], tuple[int, Session]] = {}
        """By SessionKey: the incarnation of the other node, and the session with it."""
        self._routes: dict[tuple[int, str, str], bytes] = {}
        self._sending: dict[NodeId, tuple[bytes, Session]] = {}
        """For each node its public key of the moment, and the session that packets for it are sealed with."""
        own = credentials.exchange_key
        self._keys = {own[:KEY_ID_BYTES]: own}
        """The own public keys that others may seal for, by their ids."""
        self._former: dict[bytes, None] = {}
        self._sweep_at = SPARE
        self._floor = 0
        self._highest: dict[SessionKey, int] = {}
        self._rotates_at = now + KEY_LIFETIME
        self._settles_at: float | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def knows(self, node: NodeId, incarnation: int) -> bool:
        """Whether there is a key to seal with for that incarnation of a node."""
        record = self.record(node)
        return record is not None and record.incarnation == incarnation

    # -- packets -------------------------------------------------------------------------------------------------

    def seal(
        self, kind: int, destination: Address, source: Address, head: bytes, body: bytes
    ) -> tuple[bytes, bytes] | None:
        """The head and the body of a packet as they travel; None if there is no key of the destination's node."""
        node = wire.host_of(destination) if "@" in destination else NodeId(destination)
        record = self.record(node)
        if record is None:
            return None
        found = self._sending.get(node)
        if found is None or found[0] != record.public_key:
            own = self._credentials.exchange_key
            session = self._session(node, record, record.public_key[:KEY_ID_BYTES], own)
            if session is None:
                return None
            found = self._sending[node] = (record.public_key, session)
        session = found[1]
        if session.counter >= KEY_PACKETS // 2:
            if self._settles_at is None:
                self._rotates_at = -math.inf
            if session.counter >= KEY_PACKETS:
                return None
        route = self._routes.get((kind, destination, source)) or self._route(kind, destination, source)
        return session.seal(route, head, body)

    def open(self, packet: Packet, *, reopens: bool = True) -> Packet:
        """A packet for this node or a leaf of it, with its head and its body in plain. Raises Unsealable, WireError.

        `reopens`: a packet that an error returns was sealed here; else a leaf may have sealed it, which opens it then.

        The reason `restarted` means that its source does not know of this incarnation yet.
        """
        if not packet.sealed:
            raise Unsealable("not_sealed")
        kind, _, destination, source, _, head, body = packet[:7]
        node = wire.host_of(source) if "@" in source else NodeId(source)
        record = self.record(node)
        found = self._sessions.get((node, head[:KEY_ID_BYTES], head[KEY_ID_BYTES:_IDS_BYTES]))
        if found is not None and record is not None and found[0] == record.incarnation:
            session = found[1]
        else:
            session = self._begin(node, record, *wire.key_ids(head))
        route = self._routes.get((kind, destination, source)) or self._route(kind, destination, source)
        head, body = session.open(route, head, body)
        if kind in _NOTES:
            body = self._open_returned(packet, head, body, reopens=reopens)
        return wire.in_plain(packet, head, body)

    def reopen(self, kind: int, destination: Address, source: Address, head: bytes) -> bytes:
        """The head of a packet that was sealed here, and comes back. Raises Unsealable, WireError."""
        seal = wire.decode_seal(head)
        found = self._sessions.get(SessionKey(wire.host_of(destination), seal.receiver, seal.sender))
        if found is None:
            raise Unsealable("not_ours")
        return found[1].reopen(wire.authenticated(kind, destination, source), head)

    def _open_returned(self, packet: Packet, head: bytes, body: bytes, *, reopens: bool) -> bytes:
        """The head of the own packet that an error is about. A node speaks for itself alone."""
        note = read_note(packet.kind, head, wire.host_of(packet.source))
        try:
            return self.reopen(note.kind, note.destination, packet.destination, body)
        except (Unsealable, wire.WireError):
            if reopens:
                raise
            return body

    def _route(self, kind: int, destination: Address, source: Address) -> bytes:
        """The authenticated bytes of a route, cached."""
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        route = self._routes[kind, destination, source] = wire.authenticated(kind, destination, source)
        return route

    # -- sessions ------------------------------------------------------------------------------------------------

    def _begin(self, node: NodeId, record: Record | None, sender: bytes, receiver: bytes) -> Session:
        """The session that a packet names which is the first of it, or not of the incarnation in the record. Raises
        Unsealable.
        """
        ours = self._keys.get(receiver)
        if ours is None:
            raise Unsealable("former_key" if receiver in self._former else "restarted")
        session = self._session(node, record, sender, ours) if record is not None else None
        if session is None:
            raise Unsealable("no_key")
        return session

    def _session(self, node: NodeId, record: Record, theirs: bytes, own: bytes) -> Session | None:
        """The session of these keys; it is made if `theirs` is the key of the record."""
        key = SessionKey(node, theirs, own[:KEY_ID_BYTES])
        found = self._sessions.get(key)
        if found is not None and found[0] == record.incarnation:
            return found[1]
        if record.public_key[:KEY_ID_BYTES] != theirs:
            return None
        if found is not None:
            self._drop(key, found[1])
        if len(self._sessions) >= self._sweep_at:
            self._drop_stale()
        there = (node, record.incarnation)
        highest = self._highest.pop(key, 0)
        try:
            session = self._credentials.session(own, record.public_key, self._here, there, self._floor, highest)
        except Disbelieved:
            return None
        self._sessions[key] = (record.incarnation, session)
        return session

    def _drop_stale(self) -> None:
        """Drop the sessions with nodes whose record is gone or names another incarnation."""
        for key, (incarnation, session) in list(self._sessions.items()):
            record = self.record(key[0])
            if record is None or record.incarnation != incarnation:
                self._drop(SessionKey(*key), session)
        self._sweep_at = 2 * len(self._sessions) + SPARE

    def _drop(self, key: SessionKey, session: Session) -> None:
        del self._sessions[key]
        if self._sending.get(key.node, (b"", None))[1] is session:
            del self._sending[key.node]
        if key.ours in self._keys:
            self._floor = max(self._floor, session.counter)
            self._highest[key] = session.highest
            if len(self._highest) > self._max_forgotten:
                del self._highest[next(iter(self._highest))]

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> bool:
        """Make another key when it is time; True if the own record has to be signed anew."""
        if self._settles_at is not None and now >= self._settles_at:
            self._settles_at = None
            self._sending.clear()
        if now < self._rotates_at or self._settles_at is not None:
            return False
        self._rotates_at, self._settles_at = now + KEY_LIFETIME, now + KEY_SETTLES
        before = self._credentials.exchange_key
        self._credentials.rotate()
        new, self._floor = self._credentials.exchange_key, 0
        for id in [id for id, key in self._keys.items() if key != before]:
            del self._keys[id]
            self._former[id] = None
        if len(self._former) > MAX_FORMER:
            del self._former[next(iter(self._former))]
        self._keys[new[:KEY_ID_BYTES]] = new
        for key, (_, session) in list(self._sessions.items()):
            if key[2] not in self._keys:
                self._drop(SessionKey(*key), session)
        return True

    def check(self) -> None:
        """Raise AssertionError if packets would be sealed with a session that is not in the table."""
        known = {id(session) for _, session in self._sessions.values()}
        if any(id(session) not in known for _, session in self._sending.values()):
            raise AssertionError("a session that is used and not in the table")


def read_note(kind: int, head: bytes, at: NodeId) -> wire.Unreachable | wire.Expired:
    """An UNREACHABLE or EXPIRED, in which node `at` speaks for itself alone. Raises Unsealable, WireError."""
    note = wire.decode_unreachable(head) if kind == wire.Kind.UNREACHABLE else wire.decode_expired(head)
    speaks_for_another = (
        isinstance(note, wire.Unreachable)
        and note.reason in ("restarted", "gone", "no_key", "queued", "not_trusted")
        and wire.host_of(note.destination) != at
    )
    if note.at != at or speaks_for_another:
        raise Unsealable("forged")
    return note
