"""Dataclasses as JSON and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from zmesh.errors import RemoteError
from zmesh.operate.json_form import JsonForm, Seconds, from_json, read_answer
from zmesh.payloads.payload import Payload


@dataclass(frozen=True, slots=True)
class Inner(JsonForm):
    age: Seconds
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outer(JsonForm):
    node: str
    rtt: Seconds | None
    parts: tuple[Inner, ...]
    counts: Mapping[str, int]
    inner: Inner | None = None
    share: float = 0.0
    up: bool = False


WHOLE = Outer("a", Seconds(0.0004121234), (Inner(Seconds(1.0), "x"),), {"y": 1}, Inner(Seconds(2.0)), 0.5, True)


def test_a_field_in_seconds_has_its_unit_in_its_name_and_all_comes_back():
    shown = WHOLE.to_json()
    assert shown == {
        "node": "a",
        "rtt_s": 0.000412,
        "parts": [{"age_s": 1.0, "reason": "x"}],
        "counts": {"y": 1},
        "inner": {"age_s": 2.0, "reason": ""},
        "share": 0.5,
        "up": True,
    }
    back = from_json(Outer, json.loads(json.dumps(shown)))
    assert back.to_json() == shown
    assert back.parts == WHOLE.parts


def test_what_a_later_version_adds_is_ignored_and_what_an_earlier_one_lacks_has_its_default():
    found = from_json(Outer, {"node": "a", "rtt_s": None, "parts": [], "counts": {}, "news": [1], "schema": "x/1"})
    assert found == Outer("a", None, (), {})


FIELDS = {"node": "a", "rtt_s": 1, "parts": [], "counts": {}}


@pytest.mark.parametrize(
    "change",
    [
        {"node": 7},
        {"node": None},
        {"rtt_s": "1"},
        {"rtt_s": True},
        {"rtt_s": float("nan")},
        {"rtt_s": float("inf")},
        {"parts": {}},
        {"parts": [7]},
        {"parts": [{}]},
        {"counts": []},
        {"counts": {"a": 1.5}},
        {"inner": []},
        {"up": 1},
    ],
    ids=repr,
)
def test_what_is_no_such_object_is_a_value_error(change):
    assert from_json(Outer, FIELDS).rtt == 1.0
    with pytest.raises(ValueError, match=r"."):
        from_json(Outer, FIELDS | change)


@pytest.mark.parametrize("data", [b"[]", b"7", b"null", b"{}", b"", b"\xff", b'{"node": 1e999}', b"[" * 60_000])
def test_an_answer_that_makes_no_sense_is_a_remote_error_that_names_the_node(data):
    with pytest.raises(RemoteError, match="node 'far' answers zmesh:status with something else"):
        read_answer(Outer, Payload(data), "far", "zmesh:status")
    with pytest.raises(RemoteError, match="something else"):
        read_answer(Outer, None, "far", "zmesh:status")
