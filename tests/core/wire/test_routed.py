"""The fixed heads: what is written is read again, and nothing but WireError is raised by anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.wire.wire_strategies import U63, bytes16, chunks, u63, u64
from zmesh.core.message import MAX_RESET_CODE, Eof, ReplyHeader, RequestHeader
from zmesh.core.wire import CRITICAL, UnknownExtension, WireError
from zmesh.core.wire.fields import MAX_EXTENSION, MAX_EXTENSIONS, pack
from zmesh.core.wire.limits import MAX_ACKS
from zmesh.core.wire.routed import (
    FLAG_BLOCKED,
    FLAG_EOF,
    FLAG_EXTENDED,
    FLAG_FIRST,
    FLAG_LAST,
    FLAG_REQUEST,
    MAX_CONTENT_TYPE,
    MAX_METADATA,
    MAX_METADATA_ENTRIES,
    RESET_CODE,
    Ack,
    AckItem,
    Cancel,
    decode_ack,
    decode_cancel,
    decode_chunk,
    encode_ack,
    encode_cancel,
    encode_chunk,
)


@given(chunks())
def test_a_chunk_is_read_as_it_was_written(chunk):
    assert decode_chunk(encode_chunk(*chunk)) == chunk


def chunk_with(flags, *tail):
    """A chunk's head with these flags as they stand on the wire, and that tail."""
    head = encode_chunk(bytes(16), False, 1, 0, 2, 3, 4, 5)
    return head[:16] + bytes((flags,)) + head[17:] + (pack(tail) if tail else b"")


REQUEST = ("a:b", 1.0, None, False, "", {})
ENDING = (0, "", "")


@pytest.mark.parametrize(
    ("flags", "tail", "fits"),
    [
        (0, (), True),
        (FLAG_LAST | FLAG_BLOCKED, (), True),
        (FLAG_REQUEST | FLAG_FIRST, (REQUEST, None, None), True),
        (FLAG_REQUEST | FLAG_FIRST | FLAG_EOF, (REQUEST, ENDING, {2: b"x"}), True),
        (FLAG_EOF, (None, ENDING, None), True),
        (FLAG_EXTENDED, (None, None, {}), True),
        (0, (None, None, None), False),
        (FLAG_FIRST, (), False),
        (FLAG_FIRST, (None, None, None), False),
        (FLAG_EOF, (None, None, None), False),
        (FLAG_EXTENDED, (REQUEST, None, None), False),
        (FLAG_EXTENDED, (None, ENDING, None), False),
        (FLAG_EXTENDED, (None, None), False),
        (8, (), False),
        (128, (), False),
    ],
)
def test_the_flags_of_a_chunk_agree_with_what_it_has(flags, tail, fits):
    data = chunk_with(flags, *tail)
    if fits:
        assert decode_chunk(data)[1::2][:2] == (bool(flags & FLAG_REQUEST), flags & ~FLAG_REQUEST)
    else:
        with pytest.raises(WireError):
            decode_chunk(data)


@pytest.mark.parametrize("code", [1, MAX_RESET_CODE])
def test_the_code_of_a_reset_travels_as_an_extension_of_the_end(code):
    head = encode_chunk(bytes(16), False, 1, FLAG_EOF, 2, 3, 4, 5, None, Eof(1, "cancelled", "no", code))
    chunk = decode_chunk(head)
    assert chunk.eof == Eof(1, "cancelled", "no", code)
    assert (chunk.flags, chunk.extensions) == (FLAG_EOF | FLAG_EXTENDED, {RESET_CODE: code.to_bytes(4, "big")})


@pytest.mark.parametrize("code", [b"", b"123", b"12345"])
def test_a_reset_code_of_another_length_is_refused(code):
    with pytest.raises(WireError):
        decode_chunk(chunk_with(FLAG_EOF | FLAG_EXTENDED, None, ENDING, {RESET_CODE: code}))


@pytest.mark.parametrize("at", [2, 4, 5])
def test_a_number_of_64_bits_is_refused_where_63_are_allowed(at):
    fields = [bytes(16), False, 1, 0, 2, 3, 4, 5]
    fields[at] = U63
    assert decode_chunk(encode_chunk(*fields))[at] == U63
    fields[at] = U63 + 1
    with pytest.raises(WireError):
        decode_chunk(encode_chunk(*fields))


def test_the_time_left_is_never_below_nothing():
    head = chunk_with(FLAG_FIRST | FLAG_REQUEST, ("a:b", 1.0, -5.0, False, "", {}), None, None)
    assert decode_chunk(head).header == RequestHeader("a:b", 1.0, 0.0)


@pytest.mark.parametrize("header", [7, {}, "text", (), (1.0,) * 5, (1.0,) * 7])
def test_a_header_that_is_no_array_of_its_fields_is_refused(header):
    for side, name in ((FLAG_REQUEST, "a request"), (0, "a reply")):
        with pytest.raises(WireError, match=f"not the header of {name}"):
            decode_chunk(chunk_with(FLAG_FIRST | side, header, None, None))


@pytest.mark.parametrize(
    "metadata",
    [["a"], {"a": 1}, {"a": b"x"}, {1: "a"}, {"k": "v" * MAX_METADATA}, {"é" * (MAX_METADATA // 2): "x"}],
)
def test_metadata_that_is_not_text_to_text_or_too_long_is_refused(metadata):
    with pytest.raises(WireError):
        decode_chunk(chunk_with(FLAG_FIRST | FLAG_REQUEST, ("a:b", 1.0, None, False, "", metadata), None, None))
    with pytest.raises(WireError):
        decode_chunk(chunk_with(FLAG_FIRST, (1.0, 1, "", metadata), None, None))


def test_metadata_of_the_most_entries_is_read_and_one_more_is_refused():
    most = {f"{number:03}": "" for number in range(MAX_METADATA_ENTRIES)}
    for header in [("a:b", 1.0, None, False, ""), (1.0, 1, "")]:
        flags = FLAG_FIRST | (FLAG_REQUEST if len(header) == 5 else 0)
        assert decode_chunk(chunk_with(flags, (*header, most), None, None)).header.metadata == most
        with pytest.raises(WireError):
            decode_chunk(chunk_with(flags, (*header, {**most, "more": ""}), None, None))


def test_a_content_type_of_the_most_characters_is_read_and_one_more_is_refused():
    longest = "é" * MAX_CONTENT_TYPE
    for header in [("a:b", 1.0, None, False), (1.0, 1)]:
        flags = FLAG_FIRST | (FLAG_REQUEST if len(header) == 4 else 0)
        assert decode_chunk(chunk_with(flags, (*header, longest, {}), None, None)).header.content_type == longest
        with pytest.raises(WireError):
            decode_chunk(chunk_with(flags, (*header, longest + "x", {}), None, None))


def test_metadata_of_the_most_bytes_is_read():
    most = {"é" * (MAX_METADATA // 4): "v" * (MAX_METADATA // 2)}
    head = encode_chunk(bytes(16), False, 1, FLAG_FIRST, 2, 3, 4, 5, ReplyHeader(1.0, 1, "text/plain", most))
    assert decode_chunk(head).header.metadata == most


@pytest.mark.parametrize(
    "extra",
    [
        ["x"],
        {256: b""},
        {-1: b""},
        {1: "text"},
        {1: bytes(MAX_EXTENSION + 1)},
        dict.fromkeys(range(MAX_EXTENSIONS + 1), b""),
    ],
)
def test_what_is_no_extension_map_is_refused(extra):
    with pytest.raises(WireError):
        decode_chunk(chunk_with(FLAG_EXTENDED, None, None, extra))


def test_an_unknown_extension_is_ignored_unless_it_is_critical():
    most = {CRITICAL - number: bytes(MAX_EXTENSION) for number in range(1, MAX_EXTENSIONS + 1)}
    assert decode_chunk(chunk_with(FLAG_EXTENDED, None, None, most)).extensions == most
    with pytest.raises(UnknownExtension, match="extension 128 is critical"):
        decode_chunk(chunk_with(FLAG_EXTENDED, None, None, {CRITICAL: b""}))


@given(u64, u64, st.lists(st.tuples(bytes16, st.booleans(), u63, u63), max_size=5))
def test_an_acknowledgement_is_read_as_it_was_written(incarnation, target, acks):
    expected = Ack(incarnation, target, tuple(AckItem(*item) for item in acks))
    assert decode_ack(encode_ack(incarnation, target, acks)) == expected


def test_acknowledgements_that_are_too_many_too_long_or_out_of_range_are_refused():
    item = (bytes(16), True, 1, 2)
    assert len(decode_ack(encode_ack(1, 2, [item] * MAX_ACKS)).acks) == MAX_ACKS
    sound = encode_ack(1, 2, [item])
    for wrong in (
        encode_ack(1, 2, [item] * (MAX_ACKS + 1)),
        encode_ack(1, 2, [(bytes(16), True, U63 + 1, 2)]),
        encode_ack(1, 2, [(bytes(16), True, 1, U63 + 1)]),
        encode_ack(1, 2, [(bytes(16), 2, 1, 2)]),
        sound[:-1],
        sound + b"x",
        b"",
    ):
        with pytest.raises(WireError):
            decode_ack(wrong)


@given(st.builds(Cancel, bytes16, st.booleans(), u63, u63, u64, u64, st.integers(0, MAX_RESET_CODE)))
def test_a_cancel_is_read_as_it_was_written(cancel):
    assert decode_cancel(encode_cancel(cancel)) == cancel
    with pytest.raises(WireError):
        decode_cancel(encode_cancel(cancel)[:-1])


def test_a_cancel_out_of_range_is_refused():
    for wrong in (Cancel(bytes(16), 2, 1, 2, 3, 4), Cancel(bytes(16), True, U63 + 1, 2, 3, 4)):
        with pytest.raises(WireError):
            decode_cancel(encode_cancel(wrong))


@given(st.sampled_from([decode_chunk, decode_ack, decode_cancel]), st.binary(max_size=120))
def test_garbage_raises_wire_error_and_nothing_else(decode, data):
    try:
        decode(data)
    except WireError:
        pass
