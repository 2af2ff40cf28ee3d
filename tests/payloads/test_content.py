"""Content types: what is set for each kind of payload, and what each stands for."""

import collections
import io
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zmesh
from zmesh.errors import InvalidPayload
from zmesh.payloads import BYTES, JSON, TEXT, Outgoing, Payload, Source, content_type_of, encode, outgoing

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda values: st.lists(values) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("payload", "content_type"),
    [
        *[(each, JSON) for each in ({"a": 1}, [1], (1, 2), 7, 2.5, True, MappingProxyType({}), collections.UserDict())],
        *[("text", TEXT), ("", TEXT)],
        *[
            (each, "")
            for each in (b"bytes", bytearray(b"a"), memoryview(b"v"), None, Path("x"), io.BytesIO(), iter([b"x"]))
        ],
        (io.StringIO("a file of text"), ""),
        (Payload(b"{}").describe(JSON, {}), JSON),
        (Payload(b"x"), ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_content_type_follows_from_what_the_program_gave(payload, content_type):
    assert content_type_of(payload) == content_type


def received(payload, content_type=None):
    """The payload as its receiver has it."""
    body = encode(payload)
    return Payload(body).describe(content_type_of(payload) if content_type is None else content_type, {})


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON_VALUES) | st.lists(JSON_VALUES))
def test_the_value_of_json_is_what_was_sent(value):
    assert received(value).value() == value


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_value_of_text_is_the_text(text):
    assert received(text).value() == text


@given(st.binary())
def test_the_value_of_bytes_is_the_bytes(content):
    assert received(content).value() == content


def test_a_payload_whose_sender_said_nothing_is_bytes():
    assert (Payload(b"{}").content_type, Payload(b"{}").value()) == (BYTES, b"{}")


@pytest.mark.parametrize(
    "content_type", ["image/png", "application/JSONx", "text/html", "", ";", "text/plain; charset=idna"]
)
def test_the_value_of_an_unknown_content_type_is_the_bytes(content_type):
    assert received(b"{}", content_type).value() == b"{}"


@pytest.mark.parametrize(
    ("content_type", "content", "value"),
    [
        ("Application/JSON; charset=utf-8", b"[1]", [1]),
        ("text/plain;charset=UTF-8", "é".encode(), "é"),
        ('text/plain; format=flowed; charset="iso-8859-1"', b"\xe9", "é"),
        ("text/plain; charset=us-ascii", b"e", "e"),
    ],
)
def test_media_types_are_compared_without_case_and_parameters(content_type, content, value):
    assert received(content, content_type).value() == value


@pytest.mark.parametrize(
    ("content_type", "content", "match"),
    [
        (
            JSON,
            b"{",
            "the payload came as application/json, but is none: Expecting property name.*`readall` gives its bytes",
        ),
        (JSON, b"", "the payload came as application/json, but is none"),
        (JSON, b"\xff", "the payload came as application/json, but is none"),
        (JSON, b"[" * 100_000, "nested too deeply"),
        (JSON, b"9" * 5000, "the payload came as application/json, but is none"),
        (TEXT, b"\xff", "the payload came as text/plain, but is none: 'utf-8' codec"),
        ("text/plain; charset=us-ascii", b"\xff", "the payload came as text/plain, but is none: 'ascii' codec"),
    ],
)
def test_what_is_not_of_its_content_type_is_an_error_of_our_tree(content_type, content, match):
    payload = received(content, content_type)
    with pytest.raises(InvalidPayload, match=match) as raised:
        payload.value()
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value, zmesh.MeshError)
    assert payload.readall() == content


@given(
    st.binary(), st.text(max_size=30) | st.sampled_from([JSON, TEXT, "text/plain; charset=x", "text/plain; charset"])
)
def test_whatever_came_has_a_value_or_is_an_invalid_payload(content, content_type):
    payload = received(content, content_type)
    try:
        payload.value()
    except InvalidPayload:
        assert payload.content_type.lower().partition(";")[0].strip() in (JSON, TEXT)


# --- what a directive replies ----------------------------------------------------------------------------------------


def test_a_response_has_the_content_type_of_its_payload_or_the_given_one():
    assert outgoing(zmesh.Response({"a": 1})) == Outgoing(b'{"a":1}', JSON, {})
    assert outgoing(zmesh.Response("<p>", content_type="text/html")) == Outgoing(b"<p>", "text/html", {})
    assert outgoing(zmesh.Response(metadata={"k": "v"})) == Outgoing(b"", "", {"k": "v"})
    assert outgoing("text") == Outgoing(b"text", TEXT, {})
    assert outgoing(b"bytes") == Outgoing(b"bytes", "", {})


def test_a_response_is_closed_with_the_source_that_it_has(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"content")
    reply = outgoing(zmesh.Response(file, metadata={"name": "file"}))
    assert isinstance(reply.body, Source)
    reply.close()
    outgoing(b"bytes").close()


def test_metadata_is_copied_and_its_repr_shows_no_content():
    metadata = {"key": "secret"}
    response = zmesh.Response(b"x", metadata=metadata)
    metadata["more"] = "x"
    assert response.metadata == {"key": "secret"}
    assert "secret" not in repr(response)


@pytest.mark.parametrize("metadata", ["text", [("a", "b")], {"a": 1}, {1: "a"}, {"a": None}, {b"a": "b"}, 7])
def test_metadata_that_is_not_text_to_text_is_a_type_error(metadata):
    with pytest.raises(TypeError, match="metadata maps str to str"):
        zmesh.Response(b"", metadata=metadata)


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"k": "v" * 8192}, "metadata is up to 8192 bytes in all, not 8193; send more as the payload"),
        ({"é" * 4000: "é" * 97}, "metadata is up to 8192 bytes in all, not 8194"),
        ({str(number): "" for number in range(257)}, "metadata has up to 256 entries, not 257"),
        ({"k": "\udcff"}, "metadata is sent as UTF-8, which can't express"),
    ],
)
def test_metadata_out_of_its_limits_is_refused_with_the_limit(metadata, match):
    with pytest.raises(zmesh.ConfigError, match=match):
        zmesh.Response(b"", metadata=metadata)


def test_metadata_at_its_limits_is_taken():
    for metadata in ({"k": "v" * 8191}, {f"{number}": "" for number in range(256)}, {"": ""}):
        assert zmesh.Response(b"", metadata=metadata).metadata == metadata


@pytest.mark.parametrize("content_type", ["json", "", "a/", "/b", "a b/c", "text/plain\n", "é/x", "a/" + "b" * 127])
def test_a_content_type_that_is_no_media_type_is_refused(content_type):
    with pytest.raises(zmesh.ConfigError, match="content_type is a media type such as image/png, of up to 128"):
        zmesh.Response(b"", content_type=content_type)


@pytest.mark.parametrize("content_type", [b"text/plain", 7, ["a/b"]])
def test_a_content_type_that_is_no_str_is_a_type_error(content_type):
    with pytest.raises(TypeError, match="content_type is a str"):
        zmesh.Response(b"", content_type=content_type)


@pytest.mark.parametrize(
    "content_type", ["image/png", "application/vnd.api+json", "text/plain; charset=x", "a/" + "b" * 126]
)
def test_any_media_type_is_taken(content_type):
    assert outgoing(zmesh.Response(b"", content_type=content_type)).content_type == content_type
