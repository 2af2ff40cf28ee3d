"""Valid inputs of the fuzzer's targets, from which its corpus was grown."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping

import msgpack

from tests.fuzz.targets import KINDS, NOW, joined, leaf_key, ssh_string, the_world
from zmesh.core import wire
from zmesh.core.message import Address, MessageId, NodeId, RequestHeader
from zmesh.core.wire import Kind
from zmesh.identity import Ticket, join_request, renew_request, signed_fields
from zmesh.identity.credentials import to_binary
from zmesh.identity.grant import read_given, read_shown
from zmesh.identity.identity import write_trust
from zmesh.identity.sealing import Session
from zmesh.remote.records import Kind as RecordKind
from zmesh.remote.records import pack, record


def seeds() -> Mapping[str, list[bytes]]:
    """Valid inputs of each target, from which the fuzzer begins."""
    world = the_world()
    certificate, authority = world.certificate, world.authority
    grant = world.credentials.grant(NodeId(Address("cli")), leaf_key().public, NOW)
    heads: dict[Kind, tuple[object, ...]] = {
        Kind.HELLO: wire.Hello("a", 1, 0.0, False, 9, 0),
        Kind.REFUSE: wire.Refuse("own_id", "taken", 1.0),
        Kind.GOODBYE: wire.Goodbye("leaving"),
        Kind.PROBE: wire.Probe(1.0, 1, 1, 3.0, 1),
        Kind.ECHO: wire.Echo(1.0),
        Kind.SEQNO_REQUEST: (wire.SeqnoRequest("c", 1, 0, 3),),
        Kind.RESEND: wire.Resend(True, True, True),
        Kind.RECORD: (wire.encode(wire.Record("c", 3, 4, ("x:y",), (("a", 100),), bytes(32))),),
        Kind.CERTIFICATE: (to_binary(certificate),),
        Kind.STATEMENT: (b"r" + authority.revoke("c", NOW).encode(), b"e" + authority.endorse(authority).encode()),
        Kind.CHUNK: wire.Chunk(
            MessageId(bytes(16)), True, 0, wire.FLAG_FIRST, 1, 0, 1, 2, RequestHeader("x:y", 1.0, 5.0), None
        ),
        Kind.ACK: wire.Ack(1, 2, (wire.AckItem(MessageId(bytes(16)), True, 1, 4096),)),
        Kind.CANCEL: wire.Cancel(MessageId(bytes(16)), True, 1, 0, 1, 2),
        Kind.UNREACHABLE: wire.Unreachable(Kind.CHUNK, "no_route", "a", "c", ("d",), 3.0),
        Kind.EXPIRED: wire.Expired(Kind.CHUNK, "a", "c"),
        Kind.KEY_EXCHANGE: wire.KeyExchange(
            7, bytes(32), b"", wire.encode_proof(wire.Proof(1000 * NOW, bytes(64), to_binary(certificate)))
        ),
        Kind.GRANT: wire.Grant(leaf_key().public, grant),
    }
    encoded = {kind: wire.encode(value) for kind, value in heads.items()}
    (update,) = wire.encode_update(wire.Update(0, 1, [wire.Entry("c", 1, 1, 100, 1)]))
    encoded[Kind.UPDATE] = update[16:]
    acks = wire.encode_packet(Kind.ACK, "b", "a", encoded[Kind.ACK], b"")
    encoded[Kind.BATCH] = wire.encode_batch([acks, acks])[0][wire.HEADER_BYTES :]
    numbered = [bytes((KINDS.index(kind),)) + head for kind, head in encoded.items()]
    ticket = Ticket("lab", "b", ("tcp://hub:7323",), bytes(32), bytes(32), bytes(16), NOW)
    proof = wire.encode_proof(wire.Proof(1000 * NOW, bytes(64), to_binary(certificate)))
    revocation, endorsement = authority.revoke("c", NOW), authority.endorse(authority)
    answered = {"version": 1, **signed_fields(certificate, authority.trust(), ("tcp://hub:7323",))}
    asked = {"words": [b"true"], "environment": {b"A": b"b"}, "seconds": 1.5, "terminal": [24, 80]}
    session = Session(bytes(32), bytes(32), b"them", b"ours")
    signed = msgpack.packb(("lab", "b", "cli", bytes(32), NOW - 9, NOW + 9, 1))
    return {
        "packet": [joined(*wire.encode_packet(Kind.CHUNK, "b", "a@c", numbered[0], body)) for body in (b"", b"x" * 99)],
        "head": numbered,
        "record": [encoded[Kind.RECORD][4:]],
        "proof": [proof, wire.encode_endorsements([b"e" + endorsement.encode()]), bytes(80)],
        "engine": [joined(*numbered[:8]), joined(*(each for head in numbered for each in (head, b"")))],
        "hello": [proof],
        "key_exchange": [
            joined(*(b"%c" % number + encoded[Kind.KEY_EXCHANGE] for number in range(4))),
            joined(*(b"\0" + encoded[kind] for kind in (Kind.GRANT, Kind.KEY_EXCHANGE) * 2)),
        ],
        "session": [b"\xff\xff".join(session.seal(b"route", b"head", body)) for body in (b"", b"body")],
        "certificate": [certificate.line.encode(), to_binary(certificate)],
        "signed_certificate": [
            joined(
                bytes(32),
                b"edge",
                ssh_string(b"edge") + ssh_string(b"tag:gpu"),
                ssh_string(b"mesh@zmesh") + ssh_string(ssh_string(b"lab")),
                b"",
                struct.pack(">QIQQ", 1, 2, NOW - 9, NOW + 9),
            )
        ],
        "statement": [revocation.encode(), endorsement.encode(), b"r" + revocation.encode()],
        "grant": [grant, read_given(grant)[2], read_shown(read_given(grant)[2])[0].encode(), signed],
        "ticket": [str(ticket).encode(), base64.urlsafe_b64decode(str(ticket)[3:] + "==")[:-4]],
        "key": [world.key.to_openssh(), world.key.to_openssh("secret"), certificate.line.encode()],
        "agent": [
            b"\x0c\0\0\0\x01" + ssh_string(ssh_string(b"ssh-ed25519") + ssh_string(bytes(32))) + ssh_string(b"comment"),
            b"\x0e" + ssh_string(ssh_string(b"ssh-ed25519") + ssh_string(bytes(64))),
        ],
        "enrolment": [
            json.dumps(answered).encode(),
            json.dumps(join_request(ticket, world.key)).encode(),
            json.dumps(renew_request(certificate, world.key)).encode(),
            json.dumps({"refused": {"reason": "token", "text": "used"}}).encode(),
        ],
        "state": [world.identity.profile.encode(), write_trust(authority.trust(revocations=[revocation]))],
        "policy": [b'[allow]\n"exec:*" = ["ops", "tag:admin"]\n', b'max_work = 3\nlisten = ["tcp://*:1"]\n'],
        "zap": [joined(b"id", b"", b"1.0", b"7", b"zmesh-1", b"127.0.0.1", b"", b"CURVE", bytes(32))],
        "url": [b"tcp://host:7323?cost=3&proxy=socks5://u:p@h:1", b"ipc:///tmp/x", b"rnps://[::1]:1?key=" + b"A" * 43],
        "exec": [record(RecordKind.START, pack(asked)) + record(RecordKind.INPUT, b"x")],
    }
