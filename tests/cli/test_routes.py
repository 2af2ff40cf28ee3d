"""`zmesh routes`."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

Lines = Callable[[subprocess.CompletedProcess[bytes]], list[dict[str, Any]]]


def test_without_a_node_it_is_the_table_of_the_peer_itself(mesh: Any, lines: Lines) -> None:
    done = mesh.run("routes", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    (tables,) = lines(done)
    assert list(tables) == ["schema", "node", "routes", "edges", "capabilities"]
    assert (tables["schema"], tables["node"]) == ("zmesh.routes/1", "hub")
    assert tables["routes"] == [
        {"destination": "far", "next_hop": "mid", "metric": 200, "hops": 2},
        {"destination": "mid", "next_hop": "mid", "metric": 100, "hops": 1},
    ]
    assert tables["edges"] == [["far", "mid", 100], ["hub", "mid", 100]]
    assert set(tables["capabilities"]) == {"far", "hub", "mid"}
    assert "echo:echo" in tables["capabilities"]["far"]


def test_with_a_node_it_is_the_table_of_that_node(mesh: Any, lines: Lines) -> None:
    (tables,) = lines(mesh.run("routes", "far", "--json"))
    assert tables["node"] == "far"
    assert {route["destination"]: route["next_hop"] for route in tables["routes"]} == {"hub": "mid", "mid": "mid"}


def test_for_people_it_is_aligned(mesh: Any) -> None:
    done = mesh.run("routes", "mid")
    assert done.returncode == 0
    shown = done.stdout.decode().splitlines()
    assert shown[:4] == [
        "Routes of mid",
        "  DESTINATION  NEXT HOP  COST  HOPS",
        "  far          far        100     1",
        "  hub          hub        100     1",
    ]
    assert "  hub   mid    100" in shown
    assert any(line.startswith("  far   digest:sha256 echo:echo ") for line in shown)


def test_a_node_that_is_alone_says_so(shell: Any, lines: Lines) -> None:
    shell.node("alone")
    assert b"none; it knows of no other node" in shell.run("routes").stdout
    (tables,) = lines(shell.run("routes", "--json"))
    assert (tables["routes"], tables["edges"], list(tables["capabilities"])) == ([], [], ["alone"])


def test_an_unknown_node_fails_with_the_likely_name(mesh: Any) -> None:
    done = mesh.run("routes", "hubb", "--json")
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"(did you mean 'hub'?)" in done.stderr


def test_a_table_is_one_line_of_ascii(mesh: Any) -> None:
    out = mesh.run("routes", "--json").stdout
    assert out.isascii()
    assert out.count(b"\n") == 1
    assert json.loads(out)
