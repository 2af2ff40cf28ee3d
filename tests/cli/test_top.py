"""`zmesh top`: what nodes do, as rates, in any order."""

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pexpect
import pytest

from tests.waiting import WITHIN
from zmesh import NodeLoad
from zmesh_cli.top import ASKED, SORTS, Rates, interval_for, ordered, rates, render


def load(uptime: float, **fields: Any) -> NodeLoad:
    values: dict[str, Any] = {"served": 0, "running": 0, "bytes_in": 0, "bytes_out": 0, "queued_bytes": 0, "lag": 0.0}
    return NodeLoad(node="a", uptime=uptime, cpu=0.0, memory_bytes=0, **{**values, **fields})  # type: ignore[arg-type]


def test_rates_are_the_differences_by_the_clock_of_the_node() -> None:
    before = load(10.0, served=5, bytes_in=1000, bytes_out=10)
    now = load(12.0, served=25, bytes_in=3000, bytes_out=10, queued_bytes=7, lag=0.01, running=3)
    assert rates("a", before, now) == Rates("a", 10.0, 1000.0, 0.0, 7, 0.01, 3, 0.0)


def test_a_node_that_was_restarted_counts_from_its_start_and_a_silent_one_not_at_all() -> None:
    assert rates("a", load(500.0, served=9_000), load(2.0, served=4)).requests == 2.0
    assert rates("a", None, load(2.0, served=4)).requests == 2.0
    assert rates("a", load(1.0), None) == Rates("a")
    assert rates("a", None, load(0.0)).cpu == 0.0


def test_the_interval_grows_with_the_nodes_so_that_the_requests_of_a_second_are_bounded() -> None:
    assert interval_for(5, 2.0) == 2.0
    assert interval_for(1000, 2.0) == 1000 / ASKED


ROWS = [Rates("b", 1.0, 5.0, 3.0, 0, 0.2, 0, 0.1), Rates("c"), Rates("a", 2.0, 4.0, 9.0, 8, 0.1, 7, 0.05)]


@pytest.mark.parametrize("sort", SORTS)
def test_rows_come_from_the_largest_and_silent_nodes_last(sort: str) -> None:
    names = [each.node for each in ordered(ROWS, sort)]
    expected = {"name": "abc", "requests": "abc", "out": "abc", "queue": "abc", "work": "abc"}
    assert "".join(names) == expected.get(sort, "bac")


def test_a_sample_fits_60_columns_and_names_silent_nodes() -> None:
    rows = [Rates(f"a-node-with-a-long-name-{n}", 12345.6, 1e9, 1e9, 1 << 40, 12.345, 9999, 0.999) for n in range(3)]
    lines = list(render([*rows, Rates("silent")], "cpu", 2.0, 60))
    assert max(map(len, lines)) <= 60
    assert lines[0] == "4 nodes every 2 s, by cpu; 1 do not answer"
    assert lines[1].split() == ["NODE", "REQ/S", "IN/S", "OUT/S", "QUEUE", "LAG", "WORK", "CPU"]


def test_each_sample_is_a_table_where_there_is_no_terminal(mesh: Any) -> None:
    done = mesh.run("top", "-n", "2", "-i", "0.1", "--sort", "name", environment={"COLUMNS": "60"})
    assert (done.returncode, done.stderr) == (0, b"")
    samples = done.stdout.decode().strip().split("\n\n")
    assert len(samples) == 2
    for sample in samples:
        head, _, *rows = sample.splitlines()
        assert head == "3 nodes every 0.2 s, by name"
        assert [row.split()[0] for row in rows] == ["far", "hub", "mid"]


def test_with_json_each_node_is_an_object_for_each_sample(mesh: Any) -> None:
    done = mesh.run("top", "far", "-n", "1", "--json")
    (shown,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (shown["schema"], shown["node"], shown["running"]) == ("zmesh.top/1", "far", 0)
    assert shown["bytes_in_per_s"] > 0


def test_a_column_that_there_is_not_is_a_usage_error(mesh: Any) -> None:
    done = mesh.run("top", "--sort", "height")
    assert done.returncode == 2
    assert done.stderr.startswith(b"zmesh: --sort takes one of name, requests, in, out,")


@pytest.mark.parametrize("end", ["q", "\x03"])
def test_on_a_terminal_it_is_drawn_anew_sorts_by_keys_and_leaves_the_screen_as_it_was(
    mesh: Any, end: str, eventually: Callable[..., None]
) -> None:
    environment = mesh.environment | {"TERM": "xterm"}
    program = [sys.executable, "-P", "-m", "zmesh_cli"]
    top = pexpect.spawn(
        program[0], [*program[1:], "top", "-i", "0.2"], env=environment, dimensions=(24, 60), timeout=WITHIN
    )
    try:
        top.expect_exact("\x1b[?1049h")
        top.expect(r"3 nodes every 0.2 s, by cpu")
        top.send("n")
        top.expect(r"by name")
        top.expect(re.compile(rb"far.*hub.*mid", re.DOTALL))
        top.send(end)
        top.expect_exact("\x1b[?1049l")
        top.expect(pexpect.EOF)
        top.wait()
        assert top.exitstatus == (0 if end == "q" else 130)
    finally:
        top.close(force=True)
