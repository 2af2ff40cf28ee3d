"""`zmesh nodes`: nodes, targets and tags."""

import json
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="module")
def tagged(new_shell: Callable[[], Any]) -> Any:
    """A shell beside two nodes, the second one with tags, whose commands join at the first."""
    shell = new_shell()
    shell.hub = shell.node("hub")
    (shell.folder / "edge.toml").write_text('tags = ["gpu", "lab"]\n')
    shell.edge = shell.node("edge-7", "--peer", shell.hub.url, "--config", str(shell.folder / "edge.toml"))
    shell.hub.event("node_joined")
    shell.environment["ZMESH_PEER"] = shell.hub.url
    return shell


def test_all_nodes_are_listed_with_their_tags(tagged: Any) -> None:
    done = tagged.run("nodes")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [line.split() for line in done.stdout.decode().splitlines()] == [
        ["NODE", "NEXT", "HOP", "HOPS", "TAGS", "OWN", "TAGS"],
        ["edge-7", "edge-7", "1", "-", "gpu", "lab"],
        ["hub", "-", "0", "-", "-"],
    ]


def test_a_target_chooses_nodes(tagged: Any) -> None:
    chosen = [json.loads(line) for line in tagged.run("nodes", "tag:gpu,dead", "--json").stdout.splitlines()]
    assert [(each["schema"], each["node"], each["reachable"], each["own_tags"]) for each in chosen] == [
        ("zmesh.nodes/1", "edge-7", True, ["gpu", "lab"]),
        ("zmesh.nodes/1", "dead", False, []),
    ]
    assert tagged.run("nodes", "tag:none").stdout == b"no node\n"
    assert b"unreachable" in tagged.run("nodes", "dead").stdout


def test_a_term_that_is_none_is_named(tagged: Any) -> None:
    done = tagged.run("nodes", "a,tag:")
    said = b"zmesh: 'tag:' in 'a,tag:' is no target: give the id of a node, tag:NAME, or !NODE\n"
    assert (done.returncode, done.stderr) == (2, said)
