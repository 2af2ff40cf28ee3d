"""`zmesh nodes`: nodes, targets and tags, and what is known of each."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

import zmesh


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


def test_all_nodes_are_listed_with_what_is_known_of_each(tagged: Any) -> None:
    done = tagged.run("nodes")
    assert (done.returncode, done.stderr) == (0, b"")
    head, edge, hub = done.stdout.decode().splitlines()
    assert head.split() == ["NODE", "NEXT", "HOP", "HOPS", "RTT", "HEARD", "VERSION", "TAGS"]
    version = re.escape(zmesh.__version__)
    assert re.fullmatch(rf"edge-7 +edge-7 +1 +[\d.]+ ms +\d+ s ago +{version} +gpu \(own\), lab \(own\)", edge)
    assert re.fullmatch(rf"hub +- +0 +- +- +{version} +-", hub)


def test_in_60_columns_the_tags_stand_below(tagged: Any) -> None:
    shown = tagged.run("nodes", environment={"COLUMNS": "60"}).stdout.decode().splitlines()
    assert max(map(len, shown)) <= 60
    assert [line.split()[0] for line in shown] == ["NODE", "edge-7", "gpu", "hub"]


def test_a_target_chooses_nodes(tagged: Any) -> None:
    chosen = [json.loads(line) for line in tagged.run("nodes", "tag:gpu,dead", "--json").stdout.splitlines()]
    assert [(each["schema"], each["node"], each["reachable"], each["own_tags"]) for each in chosen] == [
        ("zmesh.nodes/1", "edge-7", True, ["gpu", "lab"]),
        ("zmesh.nodes/1", "dead", False, []),
    ]
    assert tagged.run("nodes", "tag:none").stdout == b"no node\n"
    pinged = tagged.run("ping", "tag:none")
    assert (pinged.returncode, pinged.stderr) == (
        2,
        b"zmesh: no node is meant: 'zmesh nodes' lists them, with their tags\n",
    )
    assert b"unreachable" in tagged.run("nodes", "dead").stdout
    assert tagged.run("nodes", "--tag", "gpu", "--json").stdout.count(b"\n") == 1


def test_another_node_may_be_asked(tagged: Any) -> None:
    listed = [json.loads(line) for line in tagged.run("nodes", "--at", "edge-7", "--json").stdout.splitlines()]
    assert {each["node"]: each["next_hop"] for each in listed} == {"edge-7": None, "hub": "hub"}


def test_a_term_that_is_none_is_named(tagged: Any) -> None:
    done = tagged.run("nodes", "a,tag:")
    said = b"zmesh: 'tag:' in 'a,tag:' is no target: give the id of a node, tag:NAME, or !NODE\n"
    assert (done.returncode, done.stderr) == (2, said)
    done = tagged.run("nodes", "a", "--tag", "gpu")
    assert done.returncode == 2
    assert b"give either a TARGET or --tag" in done.stderr


def test_a_node_that_was_killed_comes_last_with_who_heard_it(
    shell: Any, eventually: Callable[[Callable[[], object]], None]
) -> None:
    hub, _, far = shell.chain("hub", "mid", "far")
    eventually(lambda: b'"heard_by":["mid"]' in shell.run("nodes", "far", "--json", "--peer", hub.url).stdout)
    far.process.kill()
    hub.event("node_left")
    shown = shell.run("nodes", "--peer", hub.url).stdout.decode().splitlines()
    assert re.fullmatch(rf"far +left +- +- +\d+ s ago, mid +{re.escape(zmesh.__version__)} +-", shown[-1])
