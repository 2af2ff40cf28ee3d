"""`zmesh trace` and `zmesh why`: the path to a node, and why it is that one."""

import re
import subprocess
from collections.abc import Callable
from typing import Any

Lines = Callable[[subprocess.CompletedProcess[bytes]], list[dict[str, Any]]]


def test_each_hop_is_shown_with_the_link_to_the_next(mesh: Any) -> None:
    done = mesh.run("trace", "far", environment={"COLUMNS": "60"})
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode().splitlines()
    assert max(map(len, shown)) <= 60
    link = r"    \| [\d.]+ ms, cost \d+, nothing queued, 127\.0\.0\.1"
    for line, pattern in zip(
        shown,
        ["from hub to far", r" 1  hub  answers in [\d.]+ ms", link, r" 2  mid  answers in [\d.]+ ms", link,
         r" 3  far  answers in [\d.]+ ms", "and back over the same path"],
        strict=True,
    ):  # fmt: skip
        assert re.fullmatch(pattern, line), line


def test_with_json_each_hop_is_an_object(mesh: Any, lines: Lines) -> None:
    steps = lines(mesh.run("trace", "hub", "--at", "far", "--json"))
    assert [(step["schema"], step["number"], step["node"], step["arrived"]) for step in steps] == [
        ("zmesh.trace/1", 1, "far", False),
        ("zmesh.trace/1", 2, "mid", False),
        ("zmesh.trace/1", 3, "hub", True),
    ]
    assert [step["hop"]["next_hop"] for step in steps] == ["mid", "hub", None]


def test_a_path_that_ends_early_says_where_and_why(
    shell: Any, lines: Lines, eventually: Callable[[Callable[[], object]], None]
) -> None:
    hub, _, far = shell.chain("hub", "mid", "far")
    shell.environment["ZMESH_PEER"] = hub.url
    eventually(lambda: lines(shell.run("nodes", "far", "--json"))[0]["heard_by"] == ["mid"])
    far.process.kill()
    hub.event("node_left")
    done = shell.run("trace", "far")
    assert done.returncode == 3
    assert re.fullmatch(
        rb"zmesh: no path to 'far': 'hub' has no route to 'far': it left \d+ s ago, last heard by 'mid'\n", done.stderr
    )
    assert lines(shell.run("trace", "far", "--json"))[-1]["error"].startswith("'hub' has no route to 'far'")
    done = shell.run("why", "far", environment={"COLUMNS": "60"})
    shown = done.stdout.decode()
    assert done.returncode == 3
    assert re.match(
        r"hub has no route to far: it left \d+ s ago\nthe last route had cost \d+ and 2 hops over mid\n", shown
    )
    assert "mid lost it: the connection was closed\n" in shown
    assert "No offer of mid\n" in shown
    done = shell.run("ping", "--all")
    assert done.returncode == 3
    assert re.search(
        rb"^far: no answer: left \d+ s ago, last heard by 'mid': the connection was closed; "
        rb"last hop that answers: mid$",
        done.stdout,
        re.MULTILINE,
    )
    assert b"--- 2 of 3 nodes answer\nround trip min " in done.stdout
    assert max(map(len, done.stdout.splitlines()[-2:])) <= 60


def test_why_shows_the_offers_of_the_neighbours(mesh: Any, lines: Lines) -> None:
    done = mesh.run("why", "far", environment={"COLUMNS": "60"})
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode().splitlines()
    assert max(map(len, shown)) <= 60
    assert shown[0].startswith("hub sends to far over mid: cost ")
    table = shown[shown.index("Offers of the neighbours") + 1 :]
    assert table[0].split() == ["NEIGHBOUR", "STATE", "COST", "OFFERED", "LINK", "HOPS"]
    assert table[1].split()[:2] == ["mid", "selected"]
    assert table[2].strip() == "the cheapest feasible route (at 127.0.0.1)"
    (found,) = lines(mesh.run("why", "far", "--json"))
    assert (found["schema"], found["node"], found["next_hop"]) == ("zmesh.why/1", "hub", "mid")
    assert mesh.run("why", "hub").stdout == b"hub is hub itself\n"


def test_why_of_an_unknown_node_suggests_one(mesh: Any) -> None:
    done = mesh.run("why", "mids")
    assert done.returncode == 3
    assert done.stdout.startswith(b"hub has no route to mids, and never had one; did you mean mid?\n")


def test_a_node_that_cannot_be_asked_and_a_malformed_id_are_named(mesh: Any) -> None:
    done = mesh.run("why", "far", "--at", "hubb")
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"did you mean 'hub'?" in done.stderr
    for command in ("why", "trace"):
        done = mesh.run(command, "no id")
        assert (done.returncode, done.stdout.count(b"\n") < 2) == (2, True)
        assert done.stderr.count(b"\n") == 1


def test_all_nodes_are_pinged_and_it_ends_when_all_have_answered(mesh: Any, lines: Lines) -> None:
    *results, summary = lines(mesh.run("ping", "--all", "--json", "--timeout", "500"))
    assert sorted((each["node"], each["hops"]) for each in results) == [("far", 3), ("hub", 1), ("mid", 2)]
    assert all(each["schema"] == "zmesh.ping-all/1" and each["rtt_s"] > 0 for each in results)
    assert summary == {"schema": "zmesh.ping-all-summary/1", "nodes": 3, "answered": 3, "missing": 0}
    done = mesh.run("ping", "mid,!far")
    assert re.fullmatch(rb"mid: hops=2 time=[\d.]+ ms\n--- 1 of 1 nodes answer\nround trip min .*\n", done.stdout)


def test_a_target_and_all_or_neither_is_a_usage_error(mesh: Any) -> None:
    for words in (("ping",), ("ping", "mid", "--all")):
        done = mesh.run(*words)
        assert (done.returncode, done.stderr) == (
            2,
            b"zmesh: give either a TARGET, such as edge-7 or tag:gpu, or --all\n",
        )
