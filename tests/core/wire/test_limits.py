"""Every limit, and one past it."""

import pytest

from tests.core.wire.wire_strategies import (
    DECODERS,
    FIXED,
    U63,
    U64,
    ack,
    chunk_eof,
    hello,
    record,
    refused,
    unreachable,
    update,
    valid_chunk,
)
from zmesh.core import wire
from zmesh.core.message import MAX_DIRECTIVE
from zmesh.core.wire import CLOSED, FLAG_FIRST, INFINITY, encode

ANY_HELLO = ("a", 1, 0.0, False, 1, 0)

# name of the limit, its value, what reads, and what makes the bytes for a given value
LIMITS = [
    ("MAX_TTL", wire.MAX_TTL, wire.decode_seqno_requests, lambda n: encode([("a", 1, 1, n)])),
    ("MAX_ENTRIES", wire.MAX_ENTRIES, wire.decode_update, lambda n: update(n)),
    ("MAX_RECORDS", wire.MAX_RECORDS, wire.decode_records, lambda n: encode((record(),) * n)),
    ("MAX_NEIGHBOURS", wire.MAX_NEIGHBOURS, wire.decode_record, lambda n: record(neighbours=[("b", 1)] * n)),
    ("MAX_CAPABILITIES", wire.MAX_CAPABILITIES, wire.decode_record, lambda n: record(capabilities=["a:b"] * n)),
    ("MAX_CAPABILITY", wire.MAX_CAPABILITY, wire.decode_record, lambda n: record(capabilities=["c" * n])),
    ("MAX_KEY", wire.MAX_KEY, wire.decode_record, lambda n: record(key=bytes(n))),
    ("MAX_TEXT", wire.MAX_TEXT, wire.decode_goodbye, lambda n: encode(("t" * n,))),
    ("MAX_TEXT", wire.MAX_TEXT, wire.decode_refuse, lambda n: encode(("version", "t" * n, 0.0))),
    ("MAX_REFUSED", wire.MAX_REFUSED, wire.decode_record, lambda n: record(refused=[("b", 1, 0.0, "")] * n)),
    ("MAX_TAGS", wire.MAX_TAGS, wire.decode_tags, lambda n: wire.encode_tags(("t",) * n)),
    ("MAX_TAG", wire.MAX_TAG, wire.decode_tags, lambda n: wire.encode_tags(("t" * n,))),
    ("MAX_SOFTWARE", wire.MAX_SOFTWARE, wire.decode_record, lambda n: record(extensions={wire.SOFTWARE: b"x" * n})),
    ("MAX_WHERE", wire.MAX_WHERE, wire.decode_record, lambda n: record(refused=[("b", 1, 0.0, "w" * n)])),
    ("node id", 64, wire.decode_record, lambda n: record(refused=[("b" * n, 1, 0.0, "")])),
    ("MAX_TEXT", wire.MAX_TEXT, wire.decode_chunk, lambda n: chunk_eof(1, "remote", "t" * n)),
    ("MAX_DIRECTIVE", MAX_DIRECTIVE, wire.decode_chunk,
     lambda n: valid_chunk(flags=FLAG_FIRST, header=("d" * n, 1.0, None, False, "", {}))),
    ("MAX_ACKS", wire.MAX_ACKS, wire.decode_ack, ack),
    ("MAX_NAMES", wire.MAX_NAMES, wire.decode_unreachable, lambda n: unreachable(near=["a"] * n)),
    ("INFINITY", INFINITY, wire.decode_update, lambda n: update(1, metric=n)),
    ("INFINITY", INFINITY, wire.decode_seqno_requests, lambda n: encode([("a", 1, n, 1)])),
    ("INFINITY", INFINITY, wire.decode_record, lambda n: record(neighbours=[("b", n)])),
    ("MAX_HOPS", wire.MAX_HOPS, wire.decode_update, lambda n: update(1, hops=n)),
    ("CLOSED", CLOSED, wire.decode_ack, lambda n: ack(following=n)),
    ("CLOSED", CLOSED, wire.decode_ack, lambda n: ack(limit=n)),
    ("node id", 64, wire.decode_hello, lambda n: hello("n" * n)),
    ("node id", 64, wire.decode_update, lambda n: update(1, node="n" * n)),
    ("node id", 64, wire.decode_expired, lambda n: encode((16, "n" * n, "a"))),
    ("node id", 64, wire.decode_record, lambda n: record("n" * n)),
    ("node id", 64, wire.decode_record, lambda n: record(neighbours=[("n" * n, 1)])),
    ("node id", 64, wire.decode_seqno_requests, lambda n: encode([("n" * n, 1, 1, 1)])),
    ("node id", 64, wire.decode_unreachable, lambda n: unreachable(at="n" * n)),
    ("node id", 64, wire.decode_unreachable, lambda n: unreachable(near=["n" * n])),
    ("address", 64, wire.decode_expired, lambda n: encode((16, "a", "n" * n))),
    ("address", 64, wire.decode_unreachable, lambda n: unreachable(destination=f"{'l' * n}@a")),
    ("address", 64, wire.decode_unreachable, lambda n: unreachable(destination=f"a@{'h' * n}")),
    ("address", 64, wire.decode_packet, lambda n: wire.encode_packet(16, "n" * n, "b", b"", b"")),
    ("address", 64, wire.decode_packet, lambda n: wire.encode_packet(16, "a", "n" * n, b"", b"")),
    ("lowest", 255, wire.decode_hello, lambda n: encode((*ANY_HELLO, n, 2, {}))),
    ("highest", 255, wire.decode_hello, lambda n: encode((*ANY_HELLO, 2, n, {}))),
    ("session", U63, wire.decode_hello, lambda n: hello(session=n)),
    ("session", U63, wire.decode_hello, lambda n: hello(answers=n)),
    ("serial", U63, wire.decode_record, lambda n: record(serial=n)),
    ("serial", U63, wire.decode_chunk, lambda n: valid_chunk(request=False, flags=FLAG_FIRST, header=(1.0, n, "", {}))),
    ("seqno", U63, wire.decode_update, lambda n: update(1, seqno=n)),
    ("seqno", U63, wire.decode_seqno_requests, lambda n: encode([("a", n, 1, 1)])),
    ("sequence", U63, wire.decode_chunk, lambda n: valid_chunk(sequence=n)),
    ("request number", U63, wire.decode_chunk, lambda n: valid_chunk(request_number=n)),
    ("lowest outstanding", U63, wire.decode_chunk, lambda n: valid_chunk(lowest_outstanding=n)),
    ("request number", U63, wire.decode_cancel, lambda n: encode(wire.Cancel(bytes(16), True, n, 0, 1, 1))),
    ("lowest outstanding", U63, wire.decode_cancel, lambda n: encode(wire.Cancel(bytes(16), True, 0, n, 1, 1))),
    ("full", 3, wire.decode_update, lambda n: update(full=n)),
    ("number", U63, wire.decode_update, lambda n: encode((0, n, *[[]] * 6))),
    ("routes", U63, wire.decode_probe, lambda n: encode((1.0, n, 0, 0.0, 0))),
    ("MAX_ENTRIES", wire.MAX_ENTRIES, wire.decode_seqno_requests, lambda n: encode([("a", 1, 1, 1)] * n)),
    ("kind", 255, wire.decode_unreachable, lambda n: unreachable(kind=n)),
    ("kind", 255, wire.decode_expired, lambda n: encode((n, "a", "a"))),
    ("code", 255, wire.decode_chunk, lambda n: chunk_eof(code=n)),
    ("reason", 64, wire.decode_chunk, lambda n: chunk_eof(reason="r" * n)),
    ("reason", 64, wire.decode_refuse, lambda n: encode(("r" * n, "", 0.0))),
    ("reason", 64, wire.decode_unreachable, lambda n: unreachable(reason="r" * n)),
    ("MAX_TEXT", wire.MAX_TEXT, wire.decode_unreachable, lambda n: unreachable(text="t" * n)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "decode", "make"),
    [limit[1:] for limit in LIMITS],
    ids=[f"{name}-{decode.__name__}" for name, _, decode, _ in LIMITS],
)
def test_a_value_at_its_limit_is_read_and_one_past_it_refused(limit, decode, make):
    decode(make(limit))
    refused(decode, make(limit + 1))


COUNTS_OF_64_BITS = [
    ("incarnation", wire.decode_hello, lambda n: hello(incarnation=n)),
    ("incarnation", wire.decode_record, lambda n: record(incarnation=n)),
    ("incarnation", wire.decode_record, lambda n: record(refused=[("b", n, 0.0, "")])),
    ("incarnation", wire.decode_update, lambda n: update(1, incarnation=n)),
    ("incarnation", wire.decode_chunk, lambda n: valid_chunk(incarnation=n)),
    ("target", wire.decode_chunk, lambda n: valid_chunk(target=n)),
    ("incarnation", wire.decode_ack, lambda n: wire.encode_ack(n, 1, ())),
    ("target", wire.decode_ack, lambda n: wire.encode_ack(1, n, ())),
    ("incarnation", wire.decode_cancel, lambda n: encode(wire.Cancel(bytes(16), True, 0, 0, n, 1))),
    ("target", wire.decode_cancel, lambda n: encode(wire.Cancel(bytes(16), True, 0, 0, 1, n))),
    ("digest", wire.decode_probe, lambda n: encode((1.0, 0, n, 0.0, 0))),
    ("statements", wire.decode_probe, lambda n: encode((1.0, 0, 0, 0.0, n))),
]


@pytest.mark.parametrize(
    ("decode", "make"),
    [case[1:] for case in COUNTS_OF_64_BITS],
    ids=[f"{name}-{decode.__name__}" for name, decode, _ in COUNTS_OF_64_BITS],
)
def test_an_incarnation_or_a_digest_is_of_64_bits_and_not_negative(decode, make):
    decode(make(U64))
    decode(make(0))
    if decode not in FIXED:  # whose fields have no sign
        refused(decode, make(-1))


SIZES = [
    ("MAX_RECORD", wire.MAX_RECORD, [wire.decode_record]),
    ("MAX_HEAD", wire.MAX_HEAD,
     [decode for decode in DECODERS if decode is not wire.decode_record]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "decode"),
    [(limit, decode) for _, limit, decoders in SIZES for decode in decoders],
    ids=[decode.__name__ for _, _, decoders in SIZES for decode in decoders],
)
def test_bytes_are_counted_before_they_are_read(limit, decode):
    refused(decode, bytes(limit), "not MessagePack")
    refused(decode, bytes(limit + 1), f"{limit + 1} bytes where {limit} are allowed")


def test_a_record_with_every_field_at_its_limit_fits_into_a_frame():
    largest = record(
        "n" * 64,
        U64,
        U63,
        ["c" * wire.MAX_CAPABILITY] * wire.MAX_CAPABILITIES,
        [("b" * 64, INFINITY)] * wire.MAX_NEIGHBOURS,
        bytes(wire.MAX_KEY),
    )
    (read_back,), _ = wire.decode_records(encode((largest,)))
    assert read_back == (wire.decode_record(largest), largest)


def test_every_named_limit_is_tested_here_or_with_the_engine():
    named = {name for name in vars(wire) if name.startswith("MAX_")}
    elsewhere = {"MAX_BODY", "MAX_CERTIFICATE", "MAX_CERTIFICATES", "MAX_CONTENT_TYPE", "MAX_KNOWN", "MAX_METADATA"}
    elsewhere |= {"MAX_BATCHED", "MAX_BATCH_BYTES", "MAX_METADATA_ENTRIES", "MAX_PIGGYBACKED", "MAX_PROOF"}
    elsewhere |= {"MAX_STATEMENT", "MAX_STATEMENTS", "MAX_TTL", "MAX_VOUCHER"}
    assert named <= {name for name, *_ in LIMITS} | {name for name, *_ in SIZES} | elsewhere
