import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.message import MAX_DIRECTIVE, Message, is_address, is_directive, is_node_id, reply_id

ids = st.binary(min_size=16, max_size=16)


class Empty:
    """A payload of nothing."""

    def read(self, size=-1, /):
        return b""

    def readall(self):
        return b""

    def __bool__(self):
        return False


def test_a_header_is_made_when_it_is_first_asked_for_and_once_only():
    made = []

    def make():
        made.append(1)
        return {"directive": "echo:echo"}

    message = Message(make, Empty())
    assert made == []
    assert message.header == {"directive": "echo:echo"}
    message.header["own"] = 1
    assert message.header == {"directive": "echo:echo", "own": 1}
    assert made == [1]


def test_a_message_shows_its_header():
    assert repr(Message(lambda: {"serial": 1}, Empty())) == "Message({'serial': 1})"


@given(ids, st.integers(1, 1 << 63), st.integers(1, 1 << 63))
def test_replies_to_one_request_have_ids_of_their_own(message_id, one, other):
    assert len(reply_id(message_id, one)) == 16
    assert reply_id(message_id, one) != message_id
    assert (reply_id(message_id, one) == reply_id(message_id, other)) is (one == other)


def test_the_ids_of_replies_start_over_past_the_highest():
    assert reply_id(b"\xff" * 16, 1) == bytes(16)
    assert reply_id(b"\xff" * 16, 2) == bytes(15) + b"\x01"


def test_what_the_header_says_are_attributes_too():
    header = {
        "message_id": "01",
        "in_response_to": "00",
        "sender": "far",
        "recipient": "near",
        "timestamp": 1.5,
        "serial": 2,
        "code": 1,
        "eof": True,
        "error": "no room",
        "reason": "overloaded",
    }
    message = Message(lambda: header, Empty())
    assert {name: getattr(message, name) for name in header} == header
    del header["error"], header["reason"]
    assert (message.error, message.reason) == (None, None)


def test_the_metadata_of_a_message_are_those_of_its_payload():
    payload = Empty()
    payload.metadata = {"trace": "7"}
    assert Message(dict, payload).metadata == {"trace": "7"}


@pytest.mark.parametrize("text", ["a", "edge-7", "cli", "A.b_c-9", "x" * 64])
def test_a_node_id_has_1_to_64_letters_digits_dots_dashes_and_underscores(text):
    assert is_node_id(text)
    assert is_address(text)
    assert is_address(f"{text}@hub")
    assert not is_node_id(f"{text}@hub")


@pytest.mark.parametrize("text", ["", "x" * 65, "a b", "ä", "a\n", "a@", "@a", "a@b@c", "a/b", "@x"])
def test_what_is_no_node_id_is_no_address(text):
    assert not is_node_id(text)
    assert not is_address(text)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("a:b", True), ("ä:ö", True), ("a:" + "b" * (MAX_DIRECTIVE - 2), True), ("a:" + "b" * (MAX_DIRECTIVE - 1), False),
     ("a", False), ("a:", False), (":b", False), ("a:b:c", False), ("a:b c", False), ("a:b\n", False),
     ("a:\ud800", False)],
)  # fmt: skip
def test_a_directive_is_a_namespace_and_an_action(text, is_one):
    assert is_directive(text) is is_one
