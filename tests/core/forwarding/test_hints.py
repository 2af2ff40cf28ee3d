import difflib

import pytest

from zmesh.core import wire
from zmesh.core.forwarding.hints import MAX_NAMES_COMPARED, MAX_NAMES_MATCHED, MAX_NAMES_SHOWN, MAX_NEAR_CACHED
from zmesh.core.limits import DEFAULT_LIMITS
from zmesh.core.wire import Record


def test_an_error_names_the_nodes_there_are_and_the_likely_one(node):
    assert node.forwarding.hint("x", 0.0) == "; 'x' was never known to 'a'; known nodes: c"
    node.reach(1, "edge-1", "hub")
    text = "; 'edge-9' was never known to 'a'; known nodes: c, edge-1, hub (did you mean 'edge-1'?)"
    assert node.forwarding.hint("edge-9", 0.0) == text
    assert node.forwarding.hint("cli@edge-9", 0.0) == text
    node.lose(1, 0.0)
    assert node.forwarding.hint("x", 0.0) == "; 'x' was never known to 'a'; known nodes: none"


def test_an_error_about_a_node_that_has_left_says_when_and_names_no_others(node):
    assert not node.forwarding.has_left("c")
    node.lose(1, 6.0)
    assert node.forwarding.has_left("c")
    assert node.forwarding.hint("c", 18.0) == "; 'c' left 12 s ago, last heard by 'a'"


@pytest.mark.parametrize("leaf", ["gone@a", "gone@c"])
def test_an_error_about_a_leaf_of_a_node_that_is_there_does_not_say_that_the_node_has_left(node, leaf):
    assert node.forwarding.hint(leaf, 0.0).startswith("; known nodes: c")


@pytest.mark.parametrize("more", [0, 1])
def test_an_error_names_a_few_nodes_only(node, more):
    node.reach(1, *(f"n{number:02}" for number in range(MAX_NAMES_SHOWN - 1 + more)))
    assert (", ..." in node.forwarding.hint("x", 0.0)) is bool(more)


def test_a_name_that_is_known_resembles_no_other(node):
    node.reach(1, "edge-1")
    assert node.forwarding.hints.near("edge-2", 0.0) == ("edge-1",)
    record = Record("edge-3", 1, 1, (), (), b"")
    node.routing.on_records(1, [(record, wire.encode(record))], 0.0)
    assert node.forwarding.hints.near("edge-3", 0.0) == ()


def test_at_most_three_names_are_near_the_closest_first(node):
    node.reach(1, "edge-11", "edge-12", "edge-1", "edge-2", "edge-3")
    near = node.forwarding.hints.near("edge-1x", 0.0)
    assert len(near) == 3
    assert near[0] == "edge-1"


def test_near_names_follow_the_routes(node):
    node.reach(1, "edge-1")
    assert node.forwarding.hints.near("edge-2", 0.0) == ("edge-1",)
    node.reach(1, "edge-22")
    assert node.forwarding.hints.near("edge-2", 0.0) == ("edge-1",)
    node.reach(2, "elsewhere", now=6.0)
    assert set(node.forwarding.hints.near("edge-2", 0.0)) == {"edge-1", "edge-22"}


def test_a_flood_of_unknown_names_is_not_remembered(node):
    node.reach(1, "edge-1")
    for number in range(2 * MAX_NEAR_CACHED + 1):
        assert node.forwarding.hints.near(f"edge-1{number}", 10.0 * number)[:1] == ("edge-1",)
        assert len(node.forwarding.hints._near) <= MAX_NEAR_CACHED


def test_so_many_unknown_names_are_compared_a_second_and_no_more(node, monkeypatch):
    """A member may address a new unknown node with every frame, and each comparison costs as much as forty frames."""
    node.reach(1, *(f"edge-{number}" for number in range(300)))
    compared = []
    match = difflib.get_close_matches
    monkeypatch.setattr(difflib, "get_close_matches", lambda name, of, **options: (
        compared.append(len(of)), match(name, of, **options))[1])  # fmt: skip
    rate = DEFAULT_LIMITS.suggestions
    suggested = [node.forwarding.hints.near(f"edge-{number}x", number / 1000) for number in range(10_000)]
    assert sum(map(bool, suggested)) == len(compared)
    assert rate.burst < len(compared) <= rate.burst + 10 * rate.per_second + 1
    assert max(compared) <= MAX_NAMES_MATCHED
    assert node.forwarding.hints.near("edge-2x", 11.0) != ()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("db-prmary", "db-primary"),
        ("db-pprimary", "db-primary"),
        ("bd-primary", "db-primary"),
        ("db-primarz", "db-primary"),
        ("edge-0777", "edge-077"),
    ],
)
def test_a_typing_error_in_a_large_mesh_still_finds_what_was_meant(node, typed, meant):
    node.reach(1, "db-primary", *(f"edge-{number:03}" for number in range(400)), "db-replica")
    assert node.forwarding.hints.near(typed, 0.0)[0] == meant


def test_of_a_large_mesh_only_so_many_names_are_compared(node):
    node.reach(1, *(f"filler-{number}" for number in range(MAX_NAMES_COMPARED)))
    node.reach(1, "the-one")
    assert node.forwarding.hints.near("the-onf", 0.0) == ()
