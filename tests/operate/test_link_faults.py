"""Faults of links in the prepared mesh are found by `status`, `trace` and `nodes`: slow, blocked, a duplicate id."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.operate.faulty_mesh import FaultyMesh, faulty_mesh
from tests.waiting import WITHIN


@pytest.fixture(scope="module")
def mesh() -> Iterator[FaultyMesh]:
    with faulty_mesh("slow", "twin", "shut") as mesh:
        yield mesh


@pytest.fixture
def warned(mesh: FaultyMesh) -> Callable[..., str]:
    """Waits until a node warns of something, and gives the line for people, which has `start`."""

    def warned(node: str, code: str, start: str = "") -> str:
        until = time.monotonic() + WITHIN
        while time.monotonic() < until:
            done = mesh.zmesh("status", node, "--json")
            found: list[dict[str, Any]] = json.loads(done.stdout)["warnings"] if done.returncode == 0 else []
            for warning in found:
                if warning["code"] == code and warning["text"].startswith(start):
                    return str(warning["text"])
        raise AssertionError(f"{node} does not warn of {code}: {done.stdout!r} {done.stderr!r}")

    return warned


@pytest.mark.parametrize("node", ["slow", "hub"])
def test_a_slow_link_is_found_at_either_end(warned: Callable[..., str], node: str) -> None:
    text = warned(node, "link_slow", f"the link with {'hub' if node == 'slow' else 'slow'} takes ")
    assert int(text.split()[5]) >= 300


def test_a_trace_shows_which_link_of_a_path_is_slow(mesh: FaultyMesh, warned: Callable[..., str]) -> None:
    warned("hub", "link_slow", "the link with slow takes ")
    steps = [json.loads(line) for line in mesh.zmesh("trace", "slow", "--at", "shut", "--json").stdout.splitlines()]
    assert [step["node"] for step in steps] == ["shut", "hub", "slow"]
    assert max(0.3, steps[0]["hop"]["rtt_s"]) <= steps[1]["hop"]["rtt_s"]
    assert steps[1]["hop"]["link_cost"] == 250


def test_a_blocked_port_is_a_link_that_is_down_with_how_it_fails(mesh: FaultyMesh, warned: Callable[..., str]) -> None:
    url = mesh.blocked.partition("?")[0]
    until_tried = warned("shut", "link_down")
    while "not linked yet" in until_tried:
        until_tried = warned("shut", "link_down")
    assert until_tried.startswith(f"no link with {url} for ")
    assert "timed out" in until_tried or "nothing answers" in until_tried
    shown = mesh.zmesh("status", "shut").stdout.decode()
    assert f"\n  ! no link with {url} for " in shown


def test_two_machines_with_one_identity_are_named_with_where_the_other_one_is(
    mesh: FaultyMesh, warned: Callable[..., str]
) -> None:
    text = warned("hub", "duplicate_id")
    assert text.startswith("two live nodes are called twin")
    assert "give one of them another id" in text
    assert b"two of them" in mesh.zmesh("nodes").stdout
