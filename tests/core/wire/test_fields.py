import math
import struct

import pytest

from tests.core.wire.wire_strategies import U64, hello, refused, valid_chunk
from zmesh.core import wire
from zmesh.core.wire import FLAG_FIRST, encode


@pytest.mark.parametrize("whole", [0, 7, -7, 1 << 40])
def test_a_number_may_be_whole(whole):
    token = wire.decode_echo(encode((whole,))).token
    assert (token, type(token)) == (whole, float)


def test_a_number_may_be_an_integer():
    assert wire.decode_echo(encode([U64])) == wire.Echo(float(U64))


def test_a_float_and_an_integer_are_one_number_to_a_reader():
    assert wire.decode_echo(b"\x91\x05") == wire.decode_echo(b"\x91\xcb" + struct.pack(">d", 5.0))


@pytest.mark.parametrize("number", [1e18, -1e18, math.inf, -math.inf, math.nan])
def test_a_number_out_of_range_is_refused(number):
    for data, decode in [
        (encode((number,)), wire.decode_echo),
        (encode((number, 0, 0, 0.0, 0)), wire.decode_probe),
        (encode((0.0, 0, 0, number, 0)), wire.decode_probe),
        (hello(started=number), wire.decode_hello),
        (valid_chunk(flags=FLAG_FIRST, header=("a:b", number, None, False, "", {})), wire.decode_chunk),
        (valid_chunk(flags=FLAG_FIRST, header=("a:b", 1.0, number, False, "", {})), wire.decode_chunk),
        (valid_chunk(request=False, flags=FLAG_FIRST, header=(number, 1, "", {})), wire.decode_chunk),
    ]:
        refused(decode, data, "not a number")


@pytest.mark.parametrize("number", [math.nextafter(1e18, 0), -math.nextafter(1e18, 0), -(10**17), 10**17, 5e-324])
def test_a_number_within_the_range_is_read(number):
    assert wire.decode_echo(encode((number,))).token == number


def test_a_text_may_be_of_any_script():
    text = "\N{SNOWMAN}" * wire.MAX_TEXT
    assert wire.decode_goodbye(encode((text,))).reason == text
