"""Tickets: one line there and back, and every slip of the hand is said."""

import base64
import zlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.errors import ConfigError
from zmesh.identity.tickets import MAX_URLS, Ticket, hash_of

TICKET = Ticket(
    "lab", "edge-7", ("tcp://hub:7323",), bytes(range(32)), bytes(range(32, 64)), bytes(range(16)), 1_800_000_000
)
names = st.text(min_size=1, max_size=64)
keys = st.binary(min_size=32, max_size=32)
tickets = st.builds(
    Ticket,
    names,
    names,
    st.lists(st.text(max_size=40), min_size=1, max_size=MAX_URLS).map(tuple),
    keys,
    keys,
    st.binary(min_size=16, max_size=16),
    st.integers(0, (1 << 62) - 1),
)


@given(tickets)
def test_a_ticket_is_read_as_it_was_written(ticket):
    text = str(ticket)
    assert text.startswith("zm1")
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()
    assert Ticket.parse(f"  {text}\n") == ticket


def test_a_ticket_of_one_hub_is_a_short_line():
    assert len(str(TICKET)) < 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a ticket begins with zm1"),
        ("zm2abc", "a ticket begins with zm1"),
        ("zm1", "not complete"),
        (str(TICKET)[:-2], "not complete"),
        (str(TICKET)[:39], "not complete"),
        (str(TICKET)[:40], "copy all of it again"),
        (str(TICKET).replace("A", "B", 1), "not complete, or was changed"),
        (str(TICKET) + "!", "characters that no ticket has"),
        ("zm1" + "A" * 5000, "4096 are allowed"),
    ],
)
def test_a_slip_of_the_hand_is_said(text, said):
    with pytest.raises(ConfigError, match=said):
        Ticket.parse(text)


def packed(fields):
    data = msgpack.packb(fields)
    return "zm1" + base64.urlsafe_b64encode(data + zlib.crc32(data).to_bytes(4, "big")).decode().rstrip("=")


@pytest.mark.parametrize(
    "fields",
    [
        7,
        (),
        (*TICKET, 1),
        TICKET._replace(mesh=""),
        TICKET._replace(node_id="x" * 65),
        TICKET._replace(urls=()),
        TICKET._replace(urls=("u",) * (MAX_URLS + 1)),
        TICKET._replace(urls=(7,)),
        TICKET._replace(authority=bytes(31)),
        TICKET._replace(curve="x" * 32),
        TICKET._replace(token=bytes(15)),
        TICKET._replace(expires=-1),
        TICKET._replace(expires=1.5),
        {"a": 1},
    ],
)
def test_a_ticket_with_a_wrong_field_is_refused(fields):
    with pytest.raises(ConfigError):
        Ticket.parse(packed(fields))


@given(st.text(max_size=60), st.binary(max_size=60))
def test_garbage_raises_config_error_and_nothing_else(text, data):
    words = (text, f"zm1{text}", "zm1" + base64.urlsafe_b64encode(data + zlib.crc32(data).to_bytes(4, "big")).decode())
    for word in words:
        with pytest.raises(ConfigError):
            Ticket.parse(word)


def test_the_secret_is_not_shown_and_only_its_hash_is_kept():
    assert TICKET.token.hex() not in repr(TICKET)
    assert "token" not in repr(TICKET)
    assert TICKET.token_hash == hash_of(TICKET.token) != TICKET.token
