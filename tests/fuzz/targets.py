"""Targets of the fuzzer: each takes bytes, hands them to one decoder, and lets only that decoder's own errors pass.

A target that raises anything has found a bug. `seeds` has valid inputs for each, from which the corpus was grown.
"""

from __future__ import annotations

import base64
import struct
import tempfile
import tomllib
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgpack

from zmesh.config import Config
from zmesh.core import wire
from zmesh.core.credentials import Disbelieved, Unsealable
from zmesh.core.engine import Engine
from zmesh.core.message import MessageId, RequestHeader
from zmesh.core.wire import Kind, WireError
from zmesh.errors import MeshError, NotTrusted
from zmesh.identity import (
    Endorsement,
    Grant,
    Identity,
    IdentityKey,
    Issuer,
    LeafKey,
    NodeCredentials,
    Policy,
    Profile,
    Revocation,
    State,
    Ticket,
    TrustError,
    answer,
    public_from_openssh,
    read_answer,
    read_certificate,
    read_json,
    read_renewal,
    read_signed,
)
from zmesh.identity.agent import AgentError, read_keys, read_signature
from zmesh.identity.grant import read_given, read_shown
from zmesh.identity.identity import read_trust
from zmesh.identity.sealing import Session
from zmesh.remote.commands import read_request
from zmesh.remote.records import Decoder, unpack
from zmesh.remote.records import Kind as RecordKind
from zmesh.testing.authority import TestAuthority
from zmesh.transport.address import parse_url
from zmesh.transport.zap import ZapHandler

NOW = 1_800_000_000
LINK_HEADS: Mapping[Kind, Callable[[bytes], object]] = {
    Kind.HELLO: wire.decode_hello,
    Kind.REFUSE: wire.decode_refuse,
    Kind.GOODBYE: wire.decode_goodbye,
    Kind.PROBE: wire.decode_probe,
    Kind.ECHO: wire.decode_echo,
    Kind.UPDATE: wire.decode_update,
    Kind.RECORD: wire.decode_records,
    Kind.SEQNO_REQUEST: wire.decode_seqno_requests,
    Kind.RESEND: wire.decode_resend,
    Kind.CERTIFICATE_REQUEST: wire.decode_certificate_requests,
    Kind.CERTIFICATE: wire.decode_certificates,
    Kind.STATEMENT: wire.decode_statements,
    Kind.CHUNK: wire.decode_chunk,
    Kind.ACK: wire.decode_ack,
    Kind.CANCEL: wire.decode_cancel,
    Kind.UNREACHABLE: wire.decode_unreachable,
    Kind.EXPIRED: wire.decode_expired,
    Kind.KEY_EXCHANGE: wire.decode_key_exchange,
    Kind.BATCH: wire.decode_batch,
    Kind.GRANT: wire.decode_grant,
}
KINDS = [*LINK_HEADS]


# -- the wire ------------------------------------------------------------------------------------------------------


def fuzz_packet(data: bytes) -> None:
    """A packet of one or two parts, or three, as they come from a socket."""
    frames = split(data)
    with suppress(WireError):
        packet = wire.decode_packet(frames)
        wire.pass_on(frames, {packet.destination.encode(): 1}, wire.host_of(packet.source).encode())
        wire.verify(frames, packet)


def fuzz_head(data: bytes) -> None:
    """The head of a packet; the first byte chooses the kind."""
    if data:
        with suppress(WireError):
            LINK_HEADS[KINDS[data[0] % len(KINDS)]](data[1:])


def fuzz_record(data: bytes) -> None:
    """One record, and what is signed of it."""
    with suppress(WireError):
        wire.signed_record("lab", wire.decode_record(data), bytes(wire.DIGEST_BYTES))


def fuzz_proof(data: bytes) -> None:
    """The extensions of HELLO and RECORD that prove who a node is."""
    for decode in (wire.decode_proof, wire.decode_endorsements, wire.decode_signature, wire.decode_seal):
        with suppress(WireError):
            decode(data)


def fuzz_engine(data: bytes) -> None:
    """Frames from a neighbour that has not greeted yet, then from one that has; the engine never raises."""
    engine = _engine()
    for number, frame in enumerate(split(data)[:16]):
        link = engine_link(engine, number)
        if len(frame) > 1 and frame[0] < 128:  # a sound packet around a head that the fuzzer has made
            kind = KINDS[frame[0] % len(KINDS)]
            to, of = ("b", "a") if kind >= wire.FIRST_ROUTED else ("", "")
            parts = (b"", frame[1:]) if kind == Kind.BATCH else (frame[1:], b"")
            engine.receive(link, wire.encode_packet(kind, to, of, *parts), 1.0)
        else:
            engine.receive(link, (frame[1:],), 1.0)
    engine.tick(1.5)
    engine.check()


def engine_link(engine: Engine, number: int) -> int:
    """Even frames come from the neighbour `a`, odd ones from a connection that has said nothing."""
    return 1 + number % 2


def _engine() -> Engine:
    engine = Engine("b", 2, now=0.0, epoch=float(NOW), serial=100)
    for link in (1, 2):
        engine.link_up(link, 0.0, dialled=False)
    (hello,) = wire.encode_link(Kind.HELLO, wire.Hello("a", 1, 0.0, False, 9, 0))
    engine.receive(1, (hello,), 0.0)
    engine.receive(1, wire.encode_update(wire.Update(0, 1, [wire.Entry("a", 1, 1, 0, 0)])), 0.0)
    engine.send(MessageId(bytes(16)), "a", RequestHeader("x:y", 0.0), b"x", 0.0)
    return engine


def fuzz_hello(data: bytes) -> None:
    """The identity in a HELLO, at a node that has one itself: refused with a reason, whatever it is."""
    world = the_world()
    engine = Engine("b", 2, now=0.0, epoch=float(NOW), serial=100, credentials=world.credentials)
    engine.link_up(1, 0.0, dialled=False, channel=bytes(64))
    hello = wire.Hello("a", 1, 0.0, False, 9, 0, extensions={wire.IDENTITY: data[: wire.MAX_PROOF]})
    engine.receive(1, wire.encode_link(Kind.HELLO, hello), 0.0)
    engine.check()


def fuzz_key_exchange(data: bytes) -> None:
    """A KEY_EXCHANGE at a node with an identity, and frames for a leaf that has one from its node."""
    for engine in (_leaf_engine(), _identified_engine(), _granted_engine()):
        for number, head in enumerate(split(data)[:8]):
            kind = (Kind.KEY_EXCHANGE, Kind.ACK, Kind.UNREACHABLE, Kind.EXPIRED)[head[0] % 4 if head else 0]
            source = ("x.1@a", "c", "a", "x@a")[number % 4]
            to = engine.address
            frames = wire.encode_packet(kind, to, source, head[1:], head)
            engine.receive(1, frames, 1.0)
            engine.receive(1, wire.encode_sealed(kind, to, source, head[1:], head, sealed=6), 1.0)
            engine.receive(1, wire.encode_packet(Kind.GRANT, "", "", head[1:], b""), 1.0)
        engine.tick(1.5)
        engine.check()


def _identified_engine() -> Engine:
    engine = Engine("b", 2, now=0.0, epoch=float(NOW), serial=100, credentials=the_world().credentials)
    return _linked(engine, "a", dialled=False)


def _leaf_engine() -> Engine:
    engine = Engine("b.1", 2, now=0.0, epoch=float(NOW), serial=100, credentials=the_world().credentials, leaf=True)
    return _linked(engine, "a", dialled=True)


def _granted_engine() -> Engine:
    """A leaf at the own socket of `a`, which has given it a grant."""
    engine = Engine("cli", 2, now=0.0, epoch=float(NOW), serial=100, leaf=True, leaf_key=leaf_key())
    engine.link_up(1, 0.0, dialled=True, local=True)
    hello = wire.Hello("a", 1, 0.0, False, 9, 1, extensions={wire.GRANTS: b""})
    engine.receive(1, wire.encode_link(Kind.HELLO, hello), 0.0)
    engine.send(MessageId(bytes(16)), "c", RequestHeader("x:y", 0.0), b"x", 0.0)
    key = leaf_key().public
    grant = the_world().credentials_of("a").grant("cli", key, float(NOW))
    engine.receive(1, wire.encode_link(Kind.GRANT, wire.Grant(key, grant)), 0.0)
    return engine


@cache
def leaf_key() -> LeafKey:
    return LeafKey(bytes)


def _linked(engine: Engine, node: str, *, dialled: bool) -> Engine:
    """The engine with a link to a node that shows its certificate."""
    world, channel = the_world(), bytes(64)
    engine.link_up(1, 0.0, dialled=dialled, channel=channel)
    time, key = 1000 * NOW, world.credentials_of(node)
    signed = (
        wire.signed_by_listener("lab", channel, time, node, 1, engine.node, engine.incarnation)
        if dialled
        else wire.signed_by_dialler("lab", channel, time, node, 1)
    )
    proof = wire.encode_proof(wire.Proof(time, key.sign(signed), key.own.data))
    hello = wire.Hello(node, 1, 0.0, False, 9, 1 if dialled else 0, extensions={wire.IDENTITY: proof})
    engine.receive(1, wire.encode_link(Kind.HELLO, hello), 0.0)
    assert engine.links()
    engine.send(MessageId(bytes(16)), "c", RequestHeader("x:y", 0.0), b"x", 0.0)
    return engine


def fuzz_session(data: bytes) -> None:
    """A sealed packet: opened or refused, and a refused one changes nothing."""
    session = Session(bytes(32), bytes(32), b"ours", b"them")
    head, _, body = data.partition(b"\xff\xff")
    try:
        session.open(b"route", head, body)
    except Unsealable:
        assert session.highest == 0
    with suppress(Unsealable):
        session.reopen(b"route", head)


# -- identity ------------------------------------------------------------------------------------------------------


def fuzz_certificate(data: bytes) -> None:
    """A certificate as a line of OpenSSH, and in its binary form."""
    with suppress(MeshError):
        read_certificate(data)
    with suppress(Disbelieved):
        the_world().credentials.read(data)


def fuzz_signed_certificate(data: bytes) -> None:
    """A certificate with any fields that an authority has signed, as an SSH authority may (PROTOCOL.certkeys)."""
    nonce, key_id, principals, options, extensions, rest = [*split(data), *6 * [b""]][:6]
    serial, kind, begins, ends = struct.unpack(">QIQQ", rest[:28].ljust(28, b"\0"))
    authority = the_world().authority.key
    public = ssh_string(b"ssh-ed25519") + ssh_string(authority.public)
    body = (
        ssh_string(b"ssh-ed25519-cert-v01@openssh.com") + ssh_string(nonce) + ssh_string(bytes(the_world().key.public))
    )
    body += (
        struct.pack(">QI", serial, kind)
        + ssh_string(key_id)
        + ssh_string(principals)
        + struct.pack(">QQ", begins, ends)
    )
    body += ssh_string(options) + ssh_string(extensions) + ssh_string(b"") + ssh_string(public)
    body += ssh_string(ssh_string(b"ssh-ed25519") + ssh_string(authority.sign(body)))
    with suppress(MeshError):
        certificate = read_certificate(b"ssh-ed25519-cert-v01@openssh.com " + base64.b64encode(body))
        with suppress(NotTrusted):
            the_world().identity.trust.check(certificate, NOW, certificate.node_id, here="b", their_clock=NOW - 1e9)


def ssh_string(data: bytes) -> bytes:
    """A string as SSH has it (RFC 4251 section 5)."""
    return len(data).to_bytes(4, "big") + data


def fuzz_statement(data: bytes) -> None:
    """A revocation or an endorsement, and what the credentials make of either."""
    for decode in (Revocation.decode, Endorsement.decode):
        with suppress(NotTrusted):
            decode(data)
    with suppress(Disbelieved):
        the_world().credentials.learn(data)


def fuzz_grant(data: bytes) -> None:
    """A grant as others are shown it and as its leaf gets it; and one of any fields that its node has signed."""
    world = the_world()
    for read in (Grant.decode, read_given, read_shown):
        with suppress(TrustError):
            read(data)
    signed = msgpack.packb((data, world.key.sign(b"zmesh grant 1\0" + data)))
    for shown in (data, signed):
        with suppress(Disbelieved):
            certified = world.credentials.read_grant(shown, "cli", "b")
            world.credentials.check(certified, "b", NOW, NOW - 1e9)
    with suppress(Disbelieved):
        LeafKey(bytes).accept(data, "cli", "b", NOW)


def fuzz_ticket(data: bytes) -> None:
    """A ticket as text; and with a checksum that fits, so that its fields are reached."""
    with suppress(MeshError):
        Ticket.parse(data.decode(errors="replace"))
    sound = data + zlib.crc32(data).to_bytes(4, "big")
    with suppress(MeshError):
        Ticket.parse("zm1" + base64.urlsafe_b64encode(sound).decode().rstrip("="))


def fuzz_key(data: bytes) -> None:
    """Key files of OpenSSH."""
    for read in (IdentityKey.from_openssh, public_from_openssh):
        with suppress(MeshError):
            read(data)


def fuzz_agent(data: bytes) -> None:
    """Answers of ssh-agent."""
    for read in (read_keys, read_signature):
        with suppress(AgentError):
            read(data)


def fuzz_enrolment(data: bytes) -> None:
    """Requests to enrol and to renew, and the answers to both, as JSON."""
    world = the_world()
    with suppress(MeshError):
        fields = read_json(data, "here")
        with suppress(TrustError):
            answer(world.issuer, fields, NOW)
        with suppress(TrustError):
            read_answer(fields, world.key, "b", "lab", bytes(32), NOW)
        with suppress(TrustError):
            read_renewal(world.identity, fields, NOW)
        with suppress(TrustError):
            read_signed(fields)


def fuzz_state(data: bytes) -> None:
    """What lies in a folder of state: mesh.json and trust.json."""
    with suppress(MeshError):
        Profile.decode(data, "mesh.json")
    with suppress(MeshError):
        read_trust(data, "lab", "trust.json")


def fuzz_policy(data: bytes) -> None:
    """The tables of a configuration, as TOML; `[allow]` decides about something."""
    with suppress(tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        tables = tomllib.loads(data.decode())
        for name, value in tables.items():
            with suppress(MeshError, TypeError):  # TypeError: no setting of that name
                Config(**{name: value})  # type: ignore[arg-type]
        allow = tables.get("allow")
        if isinstance(allow, dict):
            with suppress(MeshError):
                policy = Policy(allow)
                policy.offers("exec:run")
                policy.decide("exec:run", "a", ("gpu",))


# -- transport and directives --------------------------------------------------------------------------------------


def fuzz_zap(data: bytes) -> None:
    """A request to the ZAP handler: no connection is admitted without a CURVE handshake in an open domain."""
    request = split(data)
    reply = _handler()._answer(request)
    if reply is not None and reply[4] == b"200":
        assert request[4] == b"zmesh-1"
        assert request[7] == b"CURVE"
        assert [len(part) for part in request[8:]] == [32]


def fuzz_url(data: bytes) -> None:
    """A URL to dial or to listen at."""
    with suppress(MeshError):
        parse_url(data.decode(errors="replace"))


def fuzz_exec(data: bytes) -> None:
    """The records of `exec:run`, and the command in the first of them."""
    with suppress(MeshError):
        for each in Decoder().feed(data):
            if each.kind == RecordKind.START:
                read_request(each.body)
            else:
                unpack(each.body)


# -- what they need ------------------------------------------------------------------------------------------------


@cache
def _handler() -> ZapHandler:
    handler = ZapHandler()
    handler._domains = frozenset({b"zmesh-1"})
    return handler


class _World:
    """An authority with its own node, as the decoders of enrolment need it; its folder goes with the process."""

    def __init__(self) -> None:
        self.authority = TestAuthority(begins=NOW - 86400)
        self.credentials = self.authority.credentials("b")
        self.key = IdentityKey.from_seed(bytes(range(32)))
        self._folder = tempfile.TemporaryDirectory(prefix="zmesh-fuzz-")
        state = State(Path(self._folder.name))
        trust = self.authority.trust()
        self.certificate = self.authority.certificate("b", self.key)
        self.identity = Identity.create(state, Profile("lab", "b"), self.key, self.certificate, trust)
        self.issuer = Issuer(state, trust, self.authority.key)
        self._others: dict[str, NodeCredentials] = {}

    def credentials_of(self, node: str) -> NodeCredentials:
        """The credentials of another node, the same each time."""
        if node not in self._others:
            self._others[node] = self.authority.credentials(node)
        return self._others[node]


@cache
def the_world() -> _World:
    return _World()


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    name.removeprefix("fuzz_"): target for name, target in list(globals().items()) if name.startswith("fuzz_")
}


def split(data: bytes) -> list[bytes]:
    """The parts of a message: each has its length in two bytes before it."""
    parts = []
    while len(data) >= 2 and len(parts) < 32:
        size = int.from_bytes(data[:2], "big")
        parts.append(data[2 : 2 + size])
        data = data[2 + size :]
    return parts


def joined(*parts: bytes) -> bytes:
    """The opposite of `split`."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)
