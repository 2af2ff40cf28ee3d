import pytest

from tests.core.wire.wire_strategies import refused, valid_chunk
from zmesh.core import wire
from zmesh.core.message import RequestHeader
from zmesh.core.wire import FLAG_BLOCKED, FLAG_EOF, FLAG_FIRST, FLAG_LAST, encode


def test_the_time_left_is_never_below_nothing():
    chunk = valid_chunk(header=("echo:echo", 1.0, -5.0, False), flags=FLAG_FIRST)
    assert wire.decode_chunk(chunk).header == RequestHeader("echo:echo", 1.0, 0.0)


@pytest.mark.parametrize(
    "item",
    [
        (bytes(15), True, 0, 0),
        (bytes(17), True, 0, 0),
        ("i" * 16, True, 0, 0),
        (bytes(16), 1, 0, 0),
        (bytes(16), None, 0, 0),
        (bytes(16), True, -1, 0),
        (bytes(16), True, 0, True),
        (bytes(16), True, 0),
        7,
    ],
)
def test_an_acknowledgement_with_a_wrong_field_is_refused(item):
    refused(wire.decode_ack, encode((1, 1, [item])))


# --- the flags of a chunk -----------------------------------------------------------------------------------------

FLAG_RESERVED = 8
HEADER = ("a:b", 1.0, None, False)
ENDING = (0, "", "")


@pytest.mark.parametrize(
    ("flags", "header", "eof", "fits"),
    [
        (0, None, None, True),
        (FLAG_LAST | FLAG_RESERVED, None, None, True),
        (FLAG_BLOCKED, None, None, True),
        (FLAG_FIRST, HEADER, None, True),
        (FLAG_EOF, None, ENDING, True),
        (FLAG_FIRST | FLAG_LAST | FLAG_EOF | FLAG_RESERVED, HEADER, ENDING, True),
        (0, HEADER, None, False),
        (0, None, ENDING, False),
        (FLAG_FIRST, None, None, False),
        (FLAG_EOF, None, None, False),
        (FLAG_FIRST, None, ENDING, False),
        (FLAG_EOF, HEADER, None, False),
        (32, None, None, False),
    ],
)
def test_the_flags_of_a_chunk_agree_with_what_it_has(flags, header, eof, fits):
    data = valid_chunk(flags=flags, header=header, eof=eof)
    if fits:
        assert wire.decode_chunk(data).flags == flags
    else:
        refused(wire.decode_chunk, data)


def test_the_header_of_a_reply_is_no_header_of_a_request():
    refused(wire.decode_chunk, valid_chunk(request=True, flags=FLAG_FIRST, header=(1.0, 1)))
    refused(wire.decode_chunk, valid_chunk(request=False, flags=FLAG_FIRST, header=HEADER))
