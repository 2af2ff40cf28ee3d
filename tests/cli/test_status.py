"""`zmesh status`."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

Lines = Callable[[subprocess.CompletedProcess[bytes]], list[dict[str, Any]]]


@pytest.fixture
def well(mesh: Any, lines: Lines, eventually: Callable[..., None]) -> None:
    """Waits until no link is slow, as one is on a busy machine whose first round trips were."""
    for node in ("far", "mid"):
        eventually(lambda node=node: not lines(mesh.run("status", node, "--json"))[0]["warnings"])


def test_a_node_is_shown_as_one_object(mesh: Any, well: None, lines: Lines) -> None:
    done = mesh.run("status", "far", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    (status,) = lines(done)
    assert (status["schema"], status["node"], status["warnings"]) == ("zmesh.status/1", "far", [])
    assert [(link["node"], link["dialled"], link["state"]) for link in status["links"]] == [("mid", True, "up")]
    assert abs(status["skew_s"]) < 60


def test_for_people_it_fits_60_columns_and_says_first_that_all_is_well(mesh: Any, well: None) -> None:
    done = mesh.run("status", "mid", environment={"COLUMNS": "60"})
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode().splitlines()
    assert shown[0] == "mid: all is well"
    assert max(map(len, shown)) <= 60
    table = shown[shown.index("Links") + 1 :]
    assert table[0].split() == ["NODE", "HERE", "STATE", "COST", "RTT", "IN", "OUT"]
    assert [(line.split()[:3]) for line in (table[1], table[3])] == [["far", "listens", "up"], ["hub", "dials", "up"]]
    assert table[2].strip() == "from 127.0.0.1"
    assert table[4].strip().startswith("at tcp://127.0.0.1:")


def test_a_link_that_is_down_comes_first_with_its_reason(shell: Any) -> None:
    shell.node("alone", "--peer", "tcp://127.0.0.1:1").event("dial_failed")
    shown = shell.run("status", environment={"COLUMNS": "60"}).stdout.decode()
    assert shown.startswith("alone: 1 warning\n  ! no link with tcp://127.0.0.1:1 for ")
    assert "connection refused" in shown
    assert "  ?     dials  down " in shown


def test_an_unknown_node_fails_with_the_likely_id(mesh: Any) -> None:
    done = mesh.run("status", "hubb", "--json")
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"(did you mean 'hub'?)" in done.stderr


def test_one_that_does_not_allow_it_is_named_with_the_way_out(shell: Any) -> None:
    shell.environment["ZMESH_ALLOW"] = '{"zmesh:status": ["ops"]}'
    node = shell.node("shy")
    done = shell.run("status", "--peer", node.url)  # over its own socket its user may do anything
    assert (done.returncode, done.stdout) == (6, b"")
    assert b"node 'shy' does not let 'shy' call zmesh:status" in done.stderr
    assert done.stderr.count(b"\n") == 1
