"""Permissions: the most specific pattern decides, and what takes over a machine is off until it is allowed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.errors import ConfigError
from zmesh.identity.policy import Policy

POLICY = Policy(
    {
        "exec:*": ["ops", "tag:admin"],
        "exec:uptime": "*",
        "inventory:*": ["tag:lab"],
        "inventory:secrets": [],
        "file:read": ["tag:lab", "ops"],
    }
)


@pytest.mark.parametrize(
    ("directive", "node", "tags", "allowed"),
    [
        ("exec:run", "ops", (), True),
        ("exec:run", "edge-7", ("admin",), True),
        ("exec:run", "edge-7", ("lab",), False),
        ("exec:uptime", "edge-7", (), True),
        ("inventory:facts", "edge-7", ("lab",), True),
        ("inventory:facts", "ops", (), False),
        ("inventory:secrets", "ops", ("lab",), False),
        ("file:read", "ops", (), True),
        ("file:write", "ops", (), False),
        ("tcp:connect", "ops", (), False),
        ("echo:echo", "anyone", (), True),
    ],
)
def test_the_most_specific_pattern_decides(directive, node, tags, allowed):
    assert POLICY.decide(directive, node, tags).allowed is allowed


def test_a_tag_is_no_node_id_and_a_node_id_no_tag():
    assert not Policy({"a:b": ["tag:ops"]}).decide("a:b", "ops").allowed
    assert not Policy({"a:b": ["ops"]}).decide("a:b", "x", ["ops"]).allowed


def test_a_star_for_all_directives_does_not_open_what_takes_over_a_machine():
    policy = Policy({"*": "*"})
    assert policy.decide("echo:echo", "a").allowed
    assert not policy.decide("exec:run", "a").allowed
    assert not Policy({"*": ["ops"]}).decide("echo:echo", "a").allowed


def test_a_refusal_says_the_rule_and_the_line_that_would_allow_it():
    refused = POLICY.decide("exec:run", "edge-7")
    assert refused.rule == '"exec:*" = ["ops", "tag:admin"]'
    assert refused.remedy == '[allow] "exec:*" = ["edge-7", "ops", "tag:admin"]'
    assert POLICY.decide("tcp:connect", "edge-7").remedy == '[allow] "tcp:*" = ["edge-7"]'
    assert POLICY.decide("echo:echo", "a").rule == "no rule: any member may"


@given(st.text("abc:*", max_size=8), st.text("abx", min_size=1, max_size=4))
def test_the_line_of_a_refusal_allows_it(directive, node):
    refused = POLICY.decide(directive, node)
    if not refused.allowed:
        pattern, _, subjects = refused.remedy.removeprefix("[allow] ").partition(" = ")
        again = Policy({pattern.strip('"'): [word.strip(' "[]') for word in subjects.split(",")]})
        assert again.decide(directive, node).allowed


@pytest.mark.parametrize(
    "allow",
    [
        {"exec": ["a"]},
        {"": ["a"]},
        {"exec:*:x*": ["a"]},
        {"*:run": ["a"]},
        {7: ["a"]},
        {"a:b": 7},
        {"a:b": ["two words"]},
        {"a:b": ["tag:"]},
        {"a:b": [7]},
        {"a:b": {"ops": True}},
        {"a:b": b"ops"},
        {"a:b": ["x"] * 4097},
        {f"a:b{number}": [] for number in range(1025)},
    ],
)
def test_what_is_no_rule_is_refused(allow):
    with pytest.raises(ConfigError, match=r"\[allow\]"):
        Policy(allow)


def test_what_nobody_may_call_is_not_offered():
    policy = Policy({"exec:run": ["hub"], "file:*": [], "text:*": [], "*": ["hub"]})
    offered = [each for each in ("exec:run", "exec:x", "file:get", "text:up", "echo:echo") if policy.offers(each)]
    assert offered == ["exec:run", "echo:echo"]
    assert [each for each in ("exec:run", "echo:echo") if Policy().offers(each)] == ["echo:echo"]


@given(st.sampled_from(["exec:run", "execute:run", "file:read", "inventory:facts", "tcp:connect", "a:b"]), st.text())
def test_everybody_is_allowed_where_no_rules_are_only_what_the_rules_would_allow(directive, node):
    assert Policy().allows_all(directive) is Policy().decide(directive, node).allowed
    assert not POLICY.allows_all(directive)
