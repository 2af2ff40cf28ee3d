"""Key exchanges: sessions between a leaf that has a certificate or a grant and the nodes that it talks to.

A leaf has no record that would carry its key, and no records of others. So it sends a KEY_EXCHANGE, with a key that it
has made for this other end, its certificate and a signature; the other end answers with one that names that key. Both
keys are used for nothing else (a signed Diffie-Hellman exchange, as in RFC 7296), so whoever learns a key that is kept
opens nothing of it. Between the two, packets are sealed end to end: the node that the leaf is attached to passes them
on, and reads them as little as any other on the path. Neither end takes a packet in the other's name that is not sealed
so, since that node could have made it.

A leaf at its node's own socket has a grant of that node in the place of a certificate (`zmesh.core.grants`): it names
the leaf and the key that its signatures are made with. So it is known as `leaf@node`, and no other node can grant that
name. Where a node does not take grants, or has no room, its own node seals for it as for a leaf without one.

The other end's sessions are kept for as long as it has exchanges with this node, and until others need the room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from zmesh.core import wire
from zmesh.core.credentials import Certified, Disbelieved, KeyCredentials, PeerIdentity, PrivateKey, Session, Unsealable
from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import Address, NodeId
from zmesh.core.timers import WallClock
from zmesh.core.wire import KEY_ID_BYTES, Kind, Packet

KEY_LIFETIME = 86400.0
"""Seconds after which a leaf exchanges keys anew."""

KEY_PACKETS = 1 << 32
"""Packets that are sealed with one key at most; a leaf exchanges keys anew after half of that, in either direction."""

MAX_WAITING = 16
"""Packets of a leaf that wait for the answer to a KEY_EXCHANGE, for each other end."""


class Waiting(NamedTuple):
    """A packet that waits for a key."""

    kind: Kind
    destination: Address
    head: bytes
    body: bytes


class Party:
    """The other end of key exchanges: a leaf, by its id and `@` or its address, or for a leaf a node (`wire.name_of`).

    `sessions` has the last one and the one before it, `sending` is the one that packets are sealed with. `requested`:
    what was made for a KEY_EXCHANGE that is not answered; `shown`: the time in the last one that was. `taken` and
    `answer`: the last one that has come, and the answer to it. `by_home`: it takes no grants, so that the node of this
    leaf seals for it.
    """

    __slots__ = (
        "address",
        "answer",
        "by_home",
        "certified",
        "incarnation",
        "is_believed",
        "is_idle",
        "made_at",
        "name",
        "requested",
        "sending",
        "sessions",
        "shown",
        "taken",
        "time",
        "waiting",
    )

    def __init__(self, address: Address) -> None:
        self.address = address
        self.name = wire.name_of(address)
        self.certified: Certified | None = None
        self.incarnation = 0
        self.time = 0
        self.made_at = 0.0
        self.sessions: list[tuple[bytes, bytes, Session]] = []
        """Each with the ids of this node's key and of the other one's."""
        self.sending: Session | None = None
        self.requested: tuple[PrivateKey, bytes, int] | None = None
        self.shown = 0
        self.waiting: list[Waiting] = []
        self.taken = b""
        self.answer = b""
        self.is_believed = True
        self.is_idle = False
        self.by_home = False

    @property
    def holder(self) -> str:
        """Whose certificate it has shown; "" before it has."""
        return self.certified.identity.id if self.certified is not None else ""


class KeyExchanges:
    """The key exchanges of one node or leaf. `in_use`: whether there are exchanges with that name and incarnation.

    `home`: the node of a leaf that gets its credentials by `take_grant`, and can do nothing before.
    """

    def __init__(
        self,
        node: NodeId,
        incarnation: int,
        credentials: KeyCredentials | None,
        clock: WallClock,
        *,
        leaf: bool,
        limits: Limits = DEFAULT_LIMITS,
        home: NodeId | None = None,
    ) -> None:
        self._name = f"{node}@{home or ''}" if leaf else node
        self._incarnation = incarnation
        self._held = credentials
        self.home = home
        self._renews_at = math.inf
        self._clock = clock
        self._leaf = leaf
        self._limits = limits
        self._parties: dict[str, Party] = {}
        self.in_use: Callable[[str, int], bool] = lambda name, incarnation: False

    def __len__(self) -> int:
        return len(self._parties)

    # -- the grant of a leaf -------------------------------------------------------------------------------------

    @property
    def has_credentials(self) -> bool:
        """False for a leaf that waits for its grant."""
        return self._held is not None

    @property
    def _credentials(self) -> KeyCredentials:
        if self._held is None:
            raise Unsealable("no_grant")
        return self._held

    def take_grant(self, credentials: KeyCredentials, now: float) -> list[Address]:
        """Use a grant; the addresses to exchange keys with anew, before the former one ends."""
        self._held = credentials
        self._renews_at = now + (credentials.own.valid_until - self._clock.at(now)) / 2
        wanted = [each for each in self._parties.values() if each.sending is not None or each.requested is not None]
        for party in wanted:
            party.requested = None
        return [party.address for party in wanted]

    def clock_set(self, now: float) -> None:
        """The machine's clock was set: a grant may be out of its time, and what is not answered yet names another."""
        if self._held is not None and self.home is not None:
            self._renews_at = now
        for party in self._parties.values():
            party.requested = None

    def is_grant_due(self, now: float) -> bool:
        """Whether half of the grant's time is over."""
        return now >= self._renews_at

    def is_by_home(self, address: Address) -> bool:
        """Whether the node of this leaf seals what is for that address."""
        party = self._parties.get(wire.name_of(address))
        return party is not None and party.by_home

    def use_home(self, address: Address) -> None:
        """The other end, which a KEY_EXCHANGE was sent to, takes no grants: the node of this leaf seals for it."""
        party = self._parties[wire.name_of(address)]
        party.by_home, party.requested, party.sessions, party.sending = True, None, [], None

    def is_about(self, address: Address, head: bytes) -> bool:
        """Whether that is the head of the KEY_EXCHANGE that was sent to the address, and is not answered."""
        party = self._parties.get(wire.name_of(address))
        return party is not None and party.requested is not None and party.requested[1] == head

    # -- what is known ---------------------------------------------------------------------------------------------

    def knows(self, address: Address) -> bool:
        """Whether a key was exchanged with the node that has that address, itself."""
        party = self._parties.get(wire.name_of(address))
        return party is not None and party.sending is not None

    def identity(self, address: Address) -> PeerIdentity | None:
        """The proven identity of the leaf at that address."""
        party = self._parties.get(wire.name_of(address))
        if party is None or party.certified is None or not party.is_believed:
            return None
        return party.certified.identity

    # -- KEY_EXCHANGE --------------------------------------------------------------------------------------------

    def request(self, address: Address, now: float) -> bytes | None:
        """The head of the KEY_EXCHANGE for that address, the same until it is answered; None if there is no room."""
        party = self._party(address)
        if party is None:
            return None
        if party.requested is None:
            key = self._credentials.new_key()
            time = max(self._time(now), party.shown + 1)  # an earlier one is a replay there, and this clock may be set
            party.requested = (key, self._encode(party.name, key.public, b"", time), time)
        return party.requested[1]

    def _party(self, address: Address) -> Party | None:
        """The other end at an address, in the table from now on; None if that is full."""
        name = wire.name_of(address)
        party = self._parties.get(name)
        if party is None and (len(self._parties) < self._limits.key_parties or self._forget_idle(self._parties)):
            party = self._parties[name] = Party(address)
        return party

    def take(self, packet: Packet, now: float) -> bytes | None:
        """Take a KEY_EXCHANGE in; the head of the answer, None if it is one. Raises Disbelieved, Unsealable, WireError.

        A node answers leaves only, and a leaf everybody.
        """
        credentials, name = self._credentials, wire.name_of(packet.source)
        party = self._parties.get(name)
        if party is not None and party.taken == packet.head:
            return party.answer
        if not (self._leaf or "@" in name):
            raise Unsealable("not_a_leaf")
        said = wire.decode_key_exchange(packet.head)
        if said.answers and (party is None or party.requested is None or party.requested[0].public != said.answers):
            raise Unsealable("unrequested")
        proof = wire.decode_proof(said.proof)
        certified = self._verify(name, said, proof, now)
        if party is not None and not said.answers and proof.time <= party.time:
            raise Unsealable("replayed")
        if party is None or party.certified is None:
            self._make_room(certified)
        requested = party.requested if party is not None and said.answers else None
        key = requested[0] if requested is not None else credentials.new_key()
        there = (name, said.incarnation)
        session = credentials.agree(key, said.key, (self._name, self._incarnation), there)
        party = self._party(packet.source)
        if party is None:
            raise Unsealable("key_parties")
        party.address = packet.source
        self._install(party, said, certified, proof.time, (key.public[:KEY_ID_BYTES], said.key[:KEY_ID_BYTES], session))
        party.made_at = now
        if said.answers:
            party.requested, party.sending = None, session  # the other end has it already
            party.shown = requested[2] if requested is not None else party.shown
            return None
        party.taken, party.answer = packet.head, self._encode(name, key.public, said.key, self._time(now))
        return party.answer

    def take_waiting(self, address: Address) -> list[Waiting]:
        """Take out the packets that wait for a key of that address, which there is now, or will not be."""
        party = self._parties.get(wire.name_of(address))
        if party is None:
            return []
        waiting, party.waiting = party.waiting, []
        return waiting

    def wait(self, address: Address, packet: Waiting) -> None:
        """Keep a packet until a KEY_EXCHANGE is answered; the oldest is dropped, as its stream sends it again."""
        party = self._party(address)
        if party is None:
            return
        party.waiting.append(packet)
        del party.waiting[:-MAX_WAITING]

    def forget(self, address: Address) -> None:
        """The other end has lost its sessions: exchange keys anew."""
        party = self._parties.get(wire.name_of(address))
        if party is not None:
            party.sessions, party.sending = [], None

    def _verify(self, name: str, said: wire.KeyExchange, proof: wire.Proof, now: float) -> Certified:
        credentials = self._credentials
        id, at, home = name.partition("@")
        holder = NodeId(Address(home or id))
        if home:
            certified = credentials.read_grant(proof.certificate, NodeId(Address(id)), holder)
        else:
            certified = credentials.read(proof.certificate)
        if at and not home:
            holder = certified.identity.id
            if not id.startswith(f"{holder}."):
                raise Disbelieved("id", f"leaf {id!r} shows the certificate of {holder!r}")
        credentials.check(certified, holder, self._clock.at(now), proof.time / 1000)
        signed = self._statement(name, self._name, said, proof.time)
        if not credentials.is_signed(certified, proof.signature, signed):
            by = "the key of its grant" if home else certified.identity.key
            raise Disbelieved("signature", f"the keys of {id!r} are not signed by {by}")
        return certified

    def _statement(self, name: str, other: str, said: wire.KeyExchange, time: int) -> bytes:
        mesh = self._credentials.mesh
        return wire.signed_key_exchange(mesh, time, name, said.incarnation, said.key, other, said.answers)

    def _time(self, now: float) -> int:
        return max(0, int(1000 * self._clock.at(now)))

    def _encode(self, other: str, key: bytes, answers: bytes, time: int) -> bytes:
        credentials = self._credentials
        said = wire.KeyExchange(self._incarnation, key, answers, b"")
        signature = credentials.sign(self._statement(self._name, other, said, time))
        return wire.encode(said._replace(proof=wire.encode_proof(wire.Proof(time, signature, credentials.own.data))))

    @staticmethod
    def _install(
        party: Party, said: wire.KeyExchange, certified: Certified, time: int, session: tuple[bytes, bytes, Session]
    ) -> None:
        """Add a session; one before it is used until a packet has come that is sealed with this one."""
        if party.incarnation != said.incarnation:
            party.sessions, party.sending = [], None
        party.incarnation, party.certified, party.time, party.is_believed = said.incarnation, certified, time, True
        party.sessions = [*party.sessions[-1:], session]
        if party.sending is None:
            party.sending = session[2]
        party.is_idle = party.by_home = False

    def _make_room(self, certified: Certified) -> None:
        """Forget one of a holder's parties where those are too many. Raises Unsealable if all of them are in use."""
        holder = certified.identity.id
        own = {party.name: party for party in self._parties.values() if party.holder == holder}
        if len(own) >= self._limits.key_parties_per_identity and not self._forget_idle(own):
            raise Unsealable("key_parties_per_identity")

    def _forget_idle(self, parties: Mapping[str, Party]) -> bool:
        """Forget the oldest of these that is not in use; False if all are."""
        idle = next((party for party in parties.values() if not self._is_in_use(party)), None)
        if idle is not None:
            del self._parties[idle.name]
        return idle is not None

    def _is_in_use(self, party: Party) -> bool:
        return self.in_use(party.name, party.incarnation)

    # -- packets -------------------------------------------------------------------------------------------------

    def seal(
        self, party_at: Address, kind: int, destination: Address, source: Address, head: bytes, body: bytes
    ) -> tuple[bytes, bytes] | None:
        """The head and the body of a packet, sealed for a party that `knows`; None if there is no key that may seal."""
        party = self._parties[wire.name_of(party_at)]
        session = party.sending
        if session is None or not party.is_believed or session.counter >= KEY_PACKETS:
            return None
        return session.seal(wire.authenticated(kind, destination, source), head, body)

    def is_for_here(self, packet: Packet) -> bool:
        """Whether a packet is sealed for a key of this end, rather than of a leaf of it. Raises WireError."""
        party, ours = self._parties.get(wire.name_of(packet.source)), wire.decode_seal(packet.head).receiver
        return party is not None and any(own == ours for own, _, _ in party.sessions)

    def open(self, packet: Packet) -> tuple[bytes, bytes]:
        """The head and the body of a packet in plain. Raises Unsealable, WireError."""
        seal = wire.decode_seal(packet.head)
        party = self._party_of(packet.source)
        if party is None:
            raise Unsealable("no_key")
        if not party.is_believed:
            raise Unsealable("disbelieved")
        for own, theirs, session in party.sessions:
            if (own, theirs) == (seal.receiver, seal.sender):
                route = wire.authenticated(packet.kind, packet.destination, packet.source)
                opened = session.open(route, packet.head, packet.body)
                party.is_idle = False
                if session is party.sessions[-1][2]:
                    party.sending = session
                return opened
        raise Unsealable("no_key")

    def reopen(self, kind: int, destination: Address, source: Address, head: bytes) -> bytes:
        """The head of a packet that was sealed here, and comes back. Raises Unsealable, WireError."""
        seal = wire.decode_seal(head)
        party = self._party_of(destination)
        for own, theirs, session in party.sessions if party is not None else ():
            if (own, theirs) == (seal.sender, seal.receiver):
                return session.reopen(wire.authenticated(kind, destination, source), head)
        raise Unsealable("not_ours")

    def _party_of(self, address: Address) -> Party | None:
        """The node that seals for an address: the leaf itself, or the node that it is attached to."""
        party = self._parties.get(wire.name_of(address))
        return party if party is not None and party.sessions else self._parties.get(wire.host_of(address))

    def worn(self, now: float) -> list[Address]:
        """The addresses for which it is time for another KEY_EXCHANGE."""
        return [party.address for party in self._parties.values() if _is_worn(party, now)]

    # -- trust and time ------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Forget parties without exchanges since the last sweep, and distrust those whose certificate is not believed.

        The keys of one that is not believed stay until its exchanges are over: nothing is sealed for it any more, and
        not for its node in its place.
        """
        wall = self._clock.at(now)
        for party in list(self._parties.values()):
            certified = party.certified
            if not self._is_in_use(party) and not party.waiting:
                if party.is_idle:
                    del self._parties[party.name]
                    continue
                party.is_idle = True
            if certified is None:
                continue
            id = NodeId(Address(party.name)) if "@" not in party.name else certified.identity.id
            try:
                self._credentials.check(certified, id, wall)
            except Disbelieved:
                party.is_believed = False

    def check(self) -> None:
        """Raise AssertionError if a party has more sessions or waiting packets than it may, or is filed wrongly."""
        for name, party in self._parties.items():
            if party.name != name or len(party.sessions) > 2 or len(party.waiting) > MAX_WAITING:
                raise AssertionError(f"a key exchange with {name!r} that is not in order")


def _is_worn(party: Party, now: float) -> bool:
    session = party.sending
    if session is None:
        return False
    if party.requested is not None:  # it was lost
        return True
    return now >= party.made_at + KEY_LIFETIME or max(session.counter, session.highest) >= KEY_PACKETS // 2
