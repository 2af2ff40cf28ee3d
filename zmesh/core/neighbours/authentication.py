"""Proof of identity in the handshake: a HELLO carries its node's certificate and a signature.

The signature covers the CURVE keys of the connection (`Link.channel`), so that it can't be passed on over another one.
The dialler's CURVE key is made at each start, which makes its signature new; the listener's outlives restarts, so it
signs both incarnations.

A leaf on the node's own socket, which only its user can open, needs no certificate: both ends say in their HELLOs that
its node may give it a grant (`zmesh.core.grants`). Several leaves may share one,
such as the commands of one person: their ids are its node id, a dot, and something of their own. A leaf that says that
it is enrolling is let in without one, to redeem a ticket or to renew one that has expired, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from zmesh.core import wire
from zmesh.core.credentials import Certified, Credentials, Disbelieved, LeafKey
from zmesh.core.message import NodeId
from zmesh.core.neighbours.links import Link
from zmesh.core.timers import WallClock
from zmesh.core.wire import ENDORSEMENTS, ENROLLING, GRANTS, IDENTITY

ENROL_WITHIN = 60.0
"""Seconds that a leaf without a certificate may take to get one."""


class Authentication:
    """The proofs of one node; `credentials` None: it has no identity, and believes only those that have none either."""

    def __init__(
        self,
        node: NodeId,
        incarnation: int,
        credentials: Credentials | None,
        clock: WallClock,
        leaf_key: LeafKey | None = None,
        *,
        leaf: bool,
        enrolling: bool = False,
    ) -> None:
        self._node = node
        self._incarnation = incarnation
        self._credentials = credentials
        self._clock = clock
        self._leaf = leaf
        self._enrolling = enrolling
        self._grantee = leaf_key is not None and "." not in node

    @property
    def is_on(self) -> bool:
        """Whether this node has an identity."""
        return self._credentials is not None

    @property
    def expires(self) -> bool:
        """Whether this node has certificates or a grant to look at from time to time."""
        return self.is_on or self._grantee

    def takes_grants(self, link: Link) -> bool:
        """Whether this end gives a grant to a leaf on that link, or takes one as a leaf."""
        return link.local and (self._grantee if self._leaf else self.is_on)

    def prove(self, link: Link, now: float) -> Mapping[int, bytes]:
        """The extensions of a HELLO on that link, which name the other end if this one listens."""
        credentials = self._credentials
        grants = {GRANTS: b""} if self.takes_grants(link) else {}
        if credentials is None:
            return {ENROLLING: b""} if self._enrolling else grants
        time = max(0, int(1000 * self._clock.at(now)))
        signature = credentials.sign(self._made_here(credentials, link, time))
        proof = {**grants, IDENTITY: wire.encode_proof(wire.Proof(time, signature, credentials.own.data))}
        endorsements = credentials.endorsements()
        return {**proof, ENDORSEMENTS: wire.encode_endorsements(endorsements)} if endorsements else proof

    def endorsements(self, hello: wire.Hello) -> list[bytes]:
        """The endorsements of the authority of its certificate that a HELLO has. Raises WireError."""
        data = hello.extensions.get(ENDORSEMENTS)
        return wire.decode_endorsements(data) if data is not None and self.is_on else []

    def learn(self, endorsements: list[bytes]) -> None:
        """Believe endorsements that a node has sent, at a leaf, which gets no statements by flooding."""
        credentials = self._credentials
        if credentials is not None:
            for each in endorsements:
                with suppress(Disbelieved):
                    credentials.learn(each)

    def verify(self, link: Link, hello: wire.Hello, now: float) -> Certified | None:
        """The certificate of the node that has sent a HELLO, None if none is needed. Raises Disbelieved, WireError."""
        data, credentials = hello.extensions.get(IDENTITY), self._credentials
        if credentials is None:
            if data is None or (self._leaf and link.local) or self._enrolling:
                return None
            text = (
                f"node {self._node!r} has no certificate, and node {hello.node!r} links to nobody without; on "
                f"{self._node!r}: zmesh join, with a ticket that zmesh invite {self._node} makes in that mesh"
            )
            raise Disbelieved("no_certificate", text)
        if data is None:
            if hello.leaf and link.local:
                return None
            if hello.leaf and ENROLLING in hello.extensions and not link.dialled:
                link.enrolling = True
                return None
            text = (
                f"node {hello.node!r} shows no certificate, and node {self._node!r} of the mesh {credentials.mesh!r} "
                f"links to nobody without; zmesh invite {hello.node} makes a ticket for it to join"
            )
            raise Disbelieved("no_certificate", text)
        proof = wire.decode_proof(data)
        certified = credentials.read(proof.certificate)
        holder = _holder(certified, hello.node, leaf=hello.leaf)
        if hello.leaf and hello.node == holder:
            text = f"leaf {hello.node!r} has a certificate of its own; its id is that, a dot, and more: {holder}.1"
            raise Disbelieved("id", text)
        credentials.check(certified, holder, self._clock.at(now), proof.time / 1000)
        statement = self._made_there(credentials, link, proof.time, hello)
        if not credentials.is_signed(certified, proof.signature, statement):
            text = (
                f"node {hello.node!r} shows the certificate of the key {certified.identity.key}, but its signature is "
                "not for this connection: another node may pass it on"
            )
            raise Disbelieved("signature", text)
        link.skew = proof.time / 1000 - self._clock.at(now)
        return certified

    def check(self, link: Link, latest: Certified | None, now: float) -> Disbelieved | None:
        """Why the node at the other end is not believed any more, or None; `latest`: the certificate of its record.

        So a node that has renewed its certificate keeps its links.
        """
        certified, credentials = link.certified, self._credentials
        if link.enrolling and now > link.greeted + ENROL_WITHIN:
            return Disbelieved("no_certificate", f"node {link.node!r} has not enrolled within {ENROL_WITHIN:g} s")
        if certified is None or credentials is None:
            return None
        if latest is not None and latest.public == certified.public:
            certified = link.certified = latest
        wall = self._clock.at(now)
        their_wall = wall + link.skew if link.skew is not None else None
        try:
            credentials.check(certified, _holder(certified, link.node, leaf=link.leaf), wall, their_wall)
        except Disbelieved as error:
            return error
        return None

    def _made_here(self, credentials: Credentials, link: Link, time: int) -> bytes:
        """The bytes that the signature of this node's HELLO on that link covers."""
        mesh, channel, ends = credentials.mesh, link.channel, (self._node, self._incarnation)
        if link.dialled:
            return wire.signed_by_dialler(mesh, channel, time, *ends)
        return wire.signed_by_listener(mesh, channel, time, *ends, link.node, link.incarnation)

    def _made_there(self, credentials: Credentials, link: Link, time: int, hello: wire.Hello) -> bytes:
        """The bytes that the signature of a HELLO from that link must cover."""
        mesh, channel, ends = credentials.mesh, link.channel, (hello.node, hello.incarnation)
        if not link.dialled:
            return wire.signed_by_dialler(mesh, channel, time, *ends)
        return wire.signed_by_listener(mesh, channel, time, *ends, self._node, self._incarnation)


def _holder(certified: Certified, node: NodeId, *, leaf: bool) -> NodeId:
    """Whose certificate a node has to show: its own, and a leaf `ada.4f2a` that of `ada`."""
    id = certified.identity.id
    return id if leaf and node.startswith(f"{id}.") else node
