import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.wire.wire_strategies import refused
from zmesh.core import wire
from zmesh.core.wire import DIGEST_BYTES, MAX_CERTIFICATE, MAX_CERTIFICATES, MAX_VOUCHER, Kind, encode

bytes64 = st.binary(min_size=64, max_size=64)


@given(st.integers(0, 1 << 53), bytes64, st.binary(min_size=1, max_size=400))
def test_a_proof_comes_out_as_it_went_in(time, signature, certificate):
    proof = wire.Proof(time, signature, certificate)
    assert wire.decode_proof(wire.encode_proof(proof)) == proof


def test_a_proof_at_its_limits_is_read_and_one_past_them_refused():
    for size in (1, MAX_VOUCHER):
        wire.decode_proof(wire.encode_proof(wire.Proof(1 << 53, bytes(64), bytes(size))))
    for size in (0, MAX_VOUCHER + 1):
        refused(wire.decode_proof, wire.encode_proof(wire.Proof(0, bytes(64), bytes(size))))
    refused(wire.decode_proof, wire.encode_proof(wire.Proof((1 << 53) + 1, bytes(64), b"x")), "time")


@given(st.binary(min_size=16, max_size=16), bytes64)
def test_a_signature_comes_out_as_it_went_in(digest, signature):
    assert wire.decode_signature(wire.encode_signature(digest, signature)) == (digest, signature)


@pytest.mark.parametrize("size", [0, 79, 81])
def test_a_signature_of_another_length_is_refused(size):
    refused(wire.decode_signature, bytes(size), "signature")


def test_requests_for_certificates_are_split_into_frames():
    digests = [number.to_bytes(DIGEST_BYTES, "big") for number in range(MAX_CERTIFICATES + 1)]
    frames = [wire.read_packet(parts) for parts in wire.encode_certificate_requests(digests)]
    assert {packet.kind for packet in frames} == {Kind.CERTIFICATE_REQUEST}
    assert [wire.decode_certificate_requests(packet.head) for packet in frames] == [digests[:-1], digests[-1:]]
    assert wire.encode_certificate_requests([]) == []


def test_certificates_are_split_into_frames_by_their_bytes():
    certificates = [bytes([number]) * MAX_CERTIFICATE for number in range(20)]
    frames = [wire.read_packet(parts) for parts in wire.encode_certificates(certificates)]
    assert [wire.decode_certificates(packet.head) for packet in frames] == [certificates[:16], certificates[16:]]
    assert wire.encode_certificates([]) == []


@pytest.mark.parametrize("item", ["text", 1, None, b"", bytes(MAX_CERTIFICATE + 1), [b"x"]])
def test_what_is_no_certificate_is_refused(item):
    refused(wire.decode_certificates, encode((item,)))
    refused(wire.decode_certificate_requests, encode((item,)))


def test_more_certificates_than_a_frame_may_have_are_refused():
    assert len(wire.decode_certificates(encode((b"x",) * MAX_CERTIFICATES))) == MAX_CERTIFICATES
    refused(wire.decode_certificates, encode((b"x",) * (MAX_CERTIFICATES + 1)))


def test_what_is_signed_differs_in_each_field():
    statements = {
        wire.signed_by_dialler("lab", b"c", 1, "a", 1),
        wire.signed_by_dialler("lab", b"c", 1, "a", 2),
        wire.signed_by_dialler("lab", b"c", 2, "a", 1),
        wire.signed_by_dialler("lab", b"d", 1, "a", 1),
        wire.signed_by_dialler("lob", b"c", 1, "a", 1),
        wire.signed_by_listener("lab", b"c", 1, "a", 1, "b", 1),
        wire.signed_by_listener("lab", b"c", 1, "a", 1, "b", 2),
        wire.signed_by_listener("lab", b"c", 1, "a", 1, "c", 1),
    }
    assert len(statements) == 8


def test_the_signature_of_a_record_covers_all_but_serial_and_costs():
    record = wire.Record("a", 1, 5, ("x:y",), (("b", 1),), bytes(32), 1.0, (wire.Refused("c", 1, 1.0, ""),))
    signed = wire.signed_record("lab", record, b"d")
    assert wire.signed_record("lab", record._replace(serial=6, neighbours=()), b"d") == signed
    others = [
        record._replace(node="z"),
        record._replace(incarnation=2),
        record._replace(capabilities=()),
        record._replace(public_key=bytes(31) + b"x"),
        record._replace(started=2.0),
        record._replace(refused=()),
        record._replace(extensions={wire.TAGS: wire.encode_tags(("gpu",))}),
    ]
    assert signed not in {wire.signed_record("lab", other, b"d") for other in others}
    assert signed not in (wire.signed_record("lab", record, b"e"), wire.signed_record("lob", record, b"d"))


def test_endorsements_are_so_many_at_most():
    said = [bytes([number + 1]) for number in range(9)]
    assert wire.decode_endorsements(wire.encode_endorsements(said)) == said[:8]
    refused(wire.decode_endorsements, encode((b"x",) * 9))
    refused(wire.decode_endorsements, encode((b"",)))
    refused(wire.decode_endorsements, b"garbage")


def test_statements_are_split_into_frames_by_their_bytes():
    statements = [bytes([number]) * 1280 for number in range(40)]
    frames = [wire.read_packet(parts) for parts in wire.encode_statements(statements)]
    assert [wire.decode_statements(packet.head) for packet in frames] == [statements[:38], statements[38:]]
    refused(wire.decode_statements, encode((bytes(1281),)))
