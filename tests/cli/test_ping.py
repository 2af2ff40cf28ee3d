"""`zmesh ping`."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

Lines = Callable[[subprocess.CompletedProcess[bytes]], list[dict[str, Any]]]


def test_every_answer_is_a_line_and_the_summary_is_the_last(mesh: Any, lines: Lines) -> None:
    done = mesh.run("ping", "far", "-c", "3", "-i", "0.01", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    *pings, summary = lines(done)
    assert [list(ping) for ping in pings] == [["schema", "node", "seq", "rtt_ms", "hops", "active_work"]] * 3
    assert sorted(ping["seq"] for ping in pings) == [1, 2, 3]  # the first one is sent anew, and may come in later
    assert {(ping["schema"], ping["node"], ping["hops"]) for ping in pings} == {("zmesh.ping/1", "far", 3)}
    assert all(ping["rtt_ms"] > 0 and ping["active_work"] == [] for ping in pings)
    figures = ["sent", "received", "loss", "min_ms", "avg_ms", "p50_ms", "p99_ms", "max_ms"]
    assert list(summary) == ["schema", "node", *figures]
    assert (summary["schema"], summary["node"]) == ("zmesh.ping-summary/1", "far")
    assert (summary["sent"], summary["received"], summary["loss"]) == (3, 3, 0)
    times = sorted(ping["rtt_ms"] for ping in pings)
    assert [summary[f"{name}_ms"] for name in ("min", "p50", "p99", "max")] == [times[0], times[1], times[2], times[2]]
    assert summary["avg_ms"] == pytest.approx(sum(times) / 3, abs=0.001)


def test_without_json_the_lines_are_like_those_of_ping(mesh: Any) -> None:
    done = mesh.run("ping", "hub", "-c", "2", "-i", "0")
    first, second, head, count, times = done.stdout.decode().splitlines()
    assert first.startswith("answer from hub: seq=1 hops=1 time=")
    assert second.startswith("answer from hub: seq=2 hops=1 time=")
    assert (head, count) == ("--- hub", "2 sent, 2 received, 0 % lost")
    assert times.startswith("round trip min/avg/p50/p99/max = ")
    assert done.returncode == 0


def test_the_pings_are_sent_at_the_interval(mesh: Any) -> None:
    began = time.monotonic()
    done = mesh.run("ping", "mid", "-c", "3", "-i", "0.4", "--json")
    assert done.returncode == 0
    assert time.monotonic() - began >= 0.8


def test_running_work_is_listed(shell: Any, lines: Lines, eventually: Callable[..., None]) -> None:
    hub = shell.node("hub")
    peer = ("--peer", hub.url)
    work = shell.start("send", "hub", "sleep:execute", "3600", *peer)
    try:
        seen: list[dict[str, Any]] = []

        def busy() -> bool:
            seen[:] = lines(shell.run("ping", "hub", "-c", "1", "--json", *peer))[0]["active_work"]
            return bool(seen)

        eventually(busy)
        assert seen[0]["directive"] == "sleep:execute"
        assert list(seen[0]) == ["id", "directive", "sender"]
        assert re.fullmatch("[0-9a-f]{32}", seen[0]["id"])
        assert b"working on 1" in shell.run("ping", "hub", "-c", "1", *peer).stdout
    finally:
        work.send_signal(signal.SIGINT)
        work.communicate(timeout=90)


def test_an_unknown_node_in_a_settled_mesh_fails_at_once_with_the_likely_id(
    mesh: Any, eventually: Callable[..., None]
) -> None:
    def settled() -> bool:
        done = mesh.run("ping", "fr")
        assert (done.returncode, done.stdout) == (3, b"")
        assert b"zmesh: no node 'fr' can be reached from 'hub'" in done.stderr
        assert b"(did you mean 'far'?)" in done.stderr
        assert done.stderr.count(b"\n") == 1
        return b" after " not in done.stderr  # how long it has looked for it

    eventually(settled)


def test_an_unknown_node_with_json_is_counted_as_lost(mesh: Any, lines: Lines) -> None:
    done = mesh.run("ping", "nobody", "-c", "1", "--json")
    assert done.returncode == 3
    (summary,) = lines(done)
    assert (summary["sent"], summary["received"], summary["loss"]) == (1, 0, 1)
    assert [summary[f"{name}_ms"] for name in ("min", "avg", "p50", "p99", "max")] == [None] * 5


def test_a_node_that_comes_up_a_moment_later_is_waited_for(shell: Any, lines: Lines) -> None:
    hub = shell.node("hub")
    ping = shell.start("ping", "late", "-c", "1", "--json", "--timeout", "600", "--peer", hub.url, setup=shell.young)
    hub.event("link_up")
    shell.node("late", "--peer", hub.url)
    out, _ = ping.communicate(timeout=90)
    assert ping.returncode == 0
    answer, summary = (json.loads(line) for line in out.splitlines())
    assert answer["rtt_ms"] == summary["max_ms"]
    assert summary["received"] == 1


def test_a_node_that_is_silent_times_out(shell: Any, lines: Lines) -> None:
    patient = shell.folder / "patient.toml"
    patient.write_text("heartbeat = 30\n")  # so that the hub still takes it for alive when it is asked
    hub = shell.node("hub", "--config", str(patient))
    mute = shell.node("mute", "--config", str(patient), "--peer", hub.url)
    hub.event("node_joined")
    mute.send(signal.SIGSTOP)
    try:
        done = shell.run("ping", "mute", "-c", "2", "-i", "0.1", "--timeout", "0.3", "--json", "--peer", hub.url)
        assert done.returncode == 4
        assert [(line["sent"], line["received"]) for line in lines(done)] == [(2, 0)]
    finally:
        mute.send(signal.SIGCONT)


def test_ctrl_c_prints_the_summary(mesh: Any) -> None:
    ping = mesh.start("ping", "far", "-c", "1000", "-i", "0.05")
    assert ping.stdout.readline().startswith(b"answer from far: seq=")
    ping.send_signal(signal.SIGINT)
    out, err = ping.communicate(timeout=90)
    assert ping.returncode == 130
    assert err == b""
    assert b"--- far\n" in out
    assert out.splitlines()[-1].startswith(b"round trip min/avg/p50/p99/max")


def test_pings_go_on_while_a_node_is_away_and_are_counted_as_lost(shell: Any) -> None:
    hub = shell.node("hub")
    edge = shell.node("edge", "--peer", hub.url)
    hub.event("node_joined")
    ping = shell.start("ping", "edge", "-c", "100000", "-i", "0.05", "--timeout", "1", "--json", "--peer", hub.url)
    first = json.loads(ping.stdout.readline())
    edge.close()
    hub.event("node_left")
    shell.node("edge", "--peer", hub.url)
    answers = 0
    while (line := json.loads(ping.stdout.readline())) and answers < 3:
        answers += line["seq"] > first["seq"] + 3
    ping.send_signal(signal.SIGINT)
    out, _ = ping.communicate(timeout=90)
    assert ping.returncode == 130
    assert json.loads(out.splitlines()[-1])["received"] > 3


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("-c", "0"), b"1 or more"),
        (("-c", "x"), b"-c"),
        (("-i", "-1"), b"0 or more"),
        (("--timeout", "nan"), b"above 0"),
        (("--timeout", "0"), b"above 0"),
        (("--nonsense",), b"--nonsense"),
    ],
)
def test_an_option_that_makes_no_sense_is_a_usage_error(mesh: Any, words: tuple[str, ...], complaint: bytes) -> None:
    done = mesh.run("ping", "far", *words)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_a_malformed_node_id_is_a_usage_error(mesh: Any) -> None:
    done = mesh.run("ping", "no such\x1b[31m")
    assert done.returncode == 2
    assert b"is not the id of a node" in done.stderr
    assert b"\x1b" not in done.stderr
