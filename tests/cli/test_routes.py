"""`zmesh routes`."""

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

from tests.waiting import WITHIN

Lines = Callable[[subprocess.CompletedProcess[bytes]], list[dict[str, Any]]]


def test_without_a_node_it_is_the_table_of_the_peer_itself(mesh: Any, lines: Lines) -> None:
    done = mesh.run("routes", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    (tables,) = lines(done)
    assert list(tables) == ["schema", "node", "routes", "edges", "capabilities", "duplicates", "tags"]
    assert (tables["schema"], tables["node"]) == ("zmesh.routes/1", "hub")
    keys = ("destination", "next_hop", "hops", "why")
    assert [tuple(route[key] for key in keys) for route in tables["routes"]] == [
        ("far", "mid", 2, "the only one offered"),
        ("mid", "mid", 1, "the only one offered"),
    ]
    for route in tables["routes"]:
        assert route["metric"] >= 100 * route["hops"]  # more where the machine is too busy to answer at once
        assert {type(route[key]) for key in ("rtt_ms", "age_s")} == {float}
    assert tables["duplicates"] == []
    assert [edge[:2] for edge in tables["edges"]] == [["far", "mid"], ["hub", "mid"]]
    assert all(cost >= 100 for _, _, cost in tables["edges"])
    assert set(tables["capabilities"]) == {"far", "hub", "mid"}
    assert "echo:echo" in tables["capabilities"]["far"]


def test_with_a_node_it_is_the_table_of_that_node(mesh: Any, lines: Lines) -> None:
    (tables,) = lines(mesh.run("routes", "far", "--json"))
    assert tables["node"] == "far"
    assert {route["destination"]: route["next_hop"] for route in tables["routes"]} == {"hub": "mid", "mid": "mid"}


def test_without_json_the_tables_are_aligned(mesh: Any) -> None:
    done = mesh.run("routes", "mid")
    assert done.returncode == 0
    shown = done.stdout.decode().splitlines()
    assert [re.sub(r"[\d.]+ (ms|s|min) +| \d{3,} (?!ms|s |min)", " _ ", line).split() for line in shown[:4]] == [
        ["Routes", "of", "mid"],
        ["DESTINATION", "NEXT", "HOP", "COST", "HOPS", "RTT", "AGE", "WHY"],
        ["far", "far", "_", "1", "_", "_", "the", "only", "one", "offered"],
        ["hub", "hub", "_", "1", "_", "_", "the", "only", "one", "offered"],
    ]
    assert len({line.index(word) for line, word in zip(shown[1:4], ("WHY", "the", "the"), strict=True)}) == 1
    assert any(re.fullmatch(r"  hub   mid  +\d+", line) for line in shown)
    assert shown[-1].startswith("  all 3 nodes: digest:sha256, echo:echo, ")


def test_a_node_that_is_alone_says_so(shell: Any, lines: Lines) -> None:
    shell.node("alone")
    assert b"none; it knows of no other node" in shell.run("routes").stdout
    (tables,) = lines(shell.run("routes", "--json"))
    assert (tables["routes"], tables["edges"], list(tables["capabilities"])) == ([], [], ["alone"])


def test_an_unknown_node_fails_with_the_likely_id(mesh: Any) -> None:
    done = mesh.run("routes", "hubb", "--json")
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"(did you mean 'hub'?)" in done.stderr


def test_a_table_is_one_line_of_ascii(mesh: Any) -> None:
    out = mesh.run("routes", "--json").stdout
    assert out.isascii()
    assert out.count(b"\n") == 1
    assert json.loads(out)


def test_an_id_that_two_nodes_use_comes_first(shell: Any, lines: Lines) -> None:
    """Each of two meshes has a `twin`, and then they are linked."""
    left, right = shell.node("left"), shell.node("right")
    for hub in (left, right):
        shell.node("twin", "--peer", hub.url)
    shell.node("bridge", "--peer", left.url, "--peer", right.url)
    for hub in (left, right):
        assert hub.event("duplicate_id", within=WITHIN)["node"] == "twin"
        assert shell.run("routes", "--peer", hub.url).stdout.startswith(b"Two live nodes are called twin: ")
