import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.core.wire.wire_strategies import U64, addresses, refused, unsealed
from zmesh.core import wire
from zmesh.core.wire import Kind, WireError, encode

# --- the route ----------------------------------------------------------------------------------------------------


@given(st.sampled_from([kind for kind in Kind if kind >= wire.FIRST_ROUTED]), addresses, addresses, st.integers(0, 255))
def test_the_route_of_a_frame_says_where_it_goes_and_how_it_looks_one_link_further(kind, to, of, ttl):
    route = wire.decode_route(wire.encode_route(kind, to, of, ttl))
    assert route[:5] == (wire.VERSION, kind, ttl, to, of)
    assert route.host == to.rpartition("@")[2]
    assert route.onward == (wire.encode_route(kind, to, of, ttl - 1) if ttl > 1 else b"")


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind < wire.FIRST_ROUTED])
def test_a_frame_that_stays_on_its_link_has_no_address(kind):
    assert wire.decode_route(wire.encode_route(kind))[:5] == (wire.VERSION, kind, wire.MAX_TTL, "", "")
    refused(wire.decode_route, wire.encode_route(kind, "a", ""), "stays on its link")
    refused(wire.decode_route, wire.encode_route(kind, "", "a"), "stays on its link")


@pytest.mark.parametrize(("to", "of"), [("", "a"), ("a", ""), ("a", "b c"), ("a@", "b"), ("@a", "b"), ("a@b@c", "b")])
def test_a_frame_that_travels_has_two_good_addresses(to, of):
    refused(wire.decode_route, wire.encode_route(Kind.CHUNK, to, of), "not an address")


def test_the_longest_addresses_there_are_fit_into_a_route():
    longest = f"{'l' * 64}@{'h' * 64}"
    assert wire.decode_route(wire.encode_route(Kind.CHUNK, longest, longest))[3:5] == (longest, longest)


def test_a_link_frame_is_a_route_a_head_and_no_body():
    for kind, value, head in ((Kind.ECHO, wire.Echo(1.5), encode(wire.Echo(1.5))), (Kind.ASK, (), b"\x90")):
        frames = wire.encode_link(kind, value)
        assert (frames[0], frames[2]) == (wire.encode_route(kind), b"")
        assert unsealed(frames)[1] == head


def test_only_a_hello_of_a_foreign_version_is_read():
    for kind in Kind:
        data = encode((wire.VERSION + 1, int(kind), 255, "", ""))
        if kind is Kind.HELLO:
            assert wire.decode_route(data).version == wire.VERSION + 1
        else:
            refused(wire.decode_route, data, "version 2, not 1")


def test_an_unknown_kind_is_refused():
    known = {int(kind) for kind in Kind}
    for kind in set(range(256)) - known:
        refused(wire.decode_route, wire.encode_route(kind, "a", "b"), f"unknown kind {kind}")


# --- the checksum -------------------------------------------------------------------------------------------------


def test_the_checksum_of_a_frame_is_the_crc_32_of_its_kind_addresses_body_and_head():
    route, head, body = wire.seal(Kind.CHUNK, "b", "a@c", b"head", b"body")
    assert (route, body) == (wire.encode_route(Kind.CHUNK, "b", "a@c"), b"body")
    assert head == b"head" + zlib.crc32(b"16 b a@cbodyhead").to_bytes(wire.SUM_BYTES, "little")


@given(addresses, addresses, st.binary(max_size=40), st.binary(max_size=40), st.integers(2, wire.MAX_TTL))
def test_the_checksum_fits_after_any_number_of_hops(to, of, content, data, ttl):
    _, head, body = wire.seal(Kind.CHUNK, to, of, content, data)
    route = wire.decode_route(wire.decode_route(wire.encode_route(Kind.CHUNK, to, of, ttl)).onward)
    assert wire.unseal(route, head, body) == content


@given(
    st.sampled_from([(Kind.CHUNK, "edge-7", "cli@hub"), (Kind.ACK, "b", "a"), (Kind.PROBE, "", "")]),
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.data(),
)
def test_no_frame_with_a_bit_turned_over_is_taken_for_what_its_source_sent(way, content, data, draw):
    frames = list(wire.seal(*way, content, data))
    index = draw.draw(st.sampled_from([index for index, part in enumerate(frames) if part]), "part")
    byte = draw.draw(st.integers(0, len(frames[index]) - 1), "byte")
    spoilt = bytearray(frames[index])
    spoilt[byte] ^= 1 << draw.draw(st.integers(0, 7), "bit")
    frames[index] = bytes(spoilt)
    try:
        route = wire.decode_route(frames[0])
        wire.unseal(route, frames[1], frames[2])
    except WireError:
        return
    good = wire.decode_route(wire.encode_route(*way))
    assert (route.kind, route.destination, route.source) == (good.kind, good.destination, good.source)
    assert (index, route.ttl == good.ttl and route.version == good.version) == (0, False)


@pytest.mark.parametrize("size", range(wire.SUM_BYTES))
def test_a_head_too_short_for_a_checksum_is_refused(size):
    route = wire.decode_route(wire.encode_route(Kind.PROBE))
    with pytest.raises(wire.ChecksumError):
        wire.unseal(route, bytes(size), b"")


# --- digests ------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=50))
@example(b"")
def test_a_digest_is_of_64_bits_and_the_same_each_time(data):
    assert 0 <= wire.digest(data) <= U64
    assert wire.digest(data) == wire.digest(bytes(bytearray(data)))
