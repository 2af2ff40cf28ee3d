"""The command `python -m benchmarks.chaos`, for a few seconds, and what its judge must notice."""

import importlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COUNTERS = ("lost", "duplicated", "out_of_order", "unended", "wrong", "left_behind", "lied")


@pytest.fixture
def benchmarks(monkeypatch):
    """Imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_a_few_seconds_of_chaos_lose_double_and_disorder_nothing_and_all_that_was_sent_ends():
    command = [sys.executable, "-m", "benchmarks.chaos", "--seconds", "6", "--seed", "4", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == "zmesh.bench.chaos/1"
    assert {name: found[name] for name in COUNTERS} == dict.fromkeys(COUNTERS, 0)
    assert found["eof"] + found["error"] + found["cancelled"] + found["timed_out"] == found["sent"] > 0
    assert found["eof"] > 0
    assert found["faults"]["kill"] > 0
    assert found["starts"] > 7
    assert found["jobs"] > 0
    connections = re.search(r"^(\d+) connections, (\d+) of them whole$", done.stderr, re.MULTILINE)
    assert connections is not None
    assert int(connections[1]) >= int(connections[2]) > 0


@pytest.mark.parametrize(
    ("ending", "received", "counter"),
    [
        ("eof", "whole", ""),
        ("reset", "half", ""),
        ("eof", "half", "lost"),
        ("reset", "other", "wrong"),
        ("", "half", "unended"),
        ("remote", "half", "wrong"),
    ],
)
def test_the_judge_of_connections_compares_what_came_back(benchmarks, ending, received, counter):
    tunnels, workload = benchmarks("chaos_tunnels"), benchmarks("workload")
    connector, whole = tunnels.Connector(None, 1, ["n1"]), workload.content(0, 1000)
    tunnel = tunnels.Tunnel(0, "n1", 1000, 0.0, False)
    tunnel.received = {"whole": whole, "half": whole[:500], "other": b"other"}[received]
    tunnel.ending = ending
    connector.tunnels.append(tunnel)
    verdict = workload.Verdict()
    connector.judge(verdict)
    assert counters(verdict) == ({counter} if counter else set())
    assert len(verdict.complaints) == bool(counter)


def test_what_befalls_whom_and_when_follows_from_the_seed(benchmarks):
    cluster, chaos = benchmarks("cluster"), benchmarks("chaos")
    plans = [cluster.plan(seed, 60.0, chaos.NODES, chaos.RING) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    assert {fault.kind for fault in plans[0]} == {*cluster.NODE_FAULTS, *cluster.LINK_FAULTS}
    assert all(0 < fault.at < 60 for fault in plans[0])


def test_what_each_client_sends_follows_from_the_seed(benchmarks):
    workload = benchmarks("workload")
    rng = workload.random.Random(3), workload.random.Random(3)
    chosen = [[workload.choose(each, number, ["a", "b"]) for number in range(500)] for each in rng]
    assert chosen[0] == chosen[1]
    assert {plan.kind for plan in chosen[0]} == set(workload.KINDS)


@pytest.fixture
def series(benchmarks):
    """A stream of three replies as it was sent, with all that came of it: it ended in eof, at once."""
    workload = benchmarks("workload")
    sent = workload.Sent(workload.Plan(7, "series", "n1", 3, 5.0, None), "id")
    sent.replies = [(serial, f"7 {serial - 1}".encode()) for serial in (1, 2, 3)]
    sent.end("eof")
    return workload, sent


def counters(verdict):
    return {name for name in COUNTERS if getattr(verdict, name, 0)}


def test_the_judge_finds_nothing_in_what_went_well(series):
    workload, sent = series
    verdict = workload.judge([sent], Counter(["id"]))
    assert verdict.good
    assert (verdict.eof, counters(verdict), verdict.complaints) == (1, set(), [])


def never_ended(sent):
    sent.endings.clear()


def ended_twice(sent):
    sent.end("cancelled")


def reply_missing_at_the_end(sent):
    sent.replies.pop()


def reply_missing_in_between(sent):
    del sent.replies[1]


def reply_twice(sent):
    sent.replies.insert(1, sent.replies[0])


def replies_that_changed_places(sent):
    sent.replies.reverse()


def other_bytes(sent):
    sent.replies[1] = (2, b"7 1!")


def other_bytes_before_an_error(sent):
    other_bytes(sent)
    sent.endings[:] = ["unreachable"]


def timed_out_early(sent):
    sent.endings[:] = ["timed_out"]


def ended_late(sent):
    sent.ended += 60


def cancelled_by_nobody(sent):
    sent.endings[:] = ["cancelled"]


def ended_for_no_reason(sent):
    sent.endings[:] = ["remote"]


@pytest.mark.parametrize(
    ("spoil", "counter"),
    [
        (never_ended, "unended"),
        (ended_twice, "duplicated"),
        (reply_missing_at_the_end, "lost"),
        (reply_missing_in_between, "lost"),
        (reply_twice, "duplicated"),
        (replies_that_changed_places, "out_of_order"),
        (other_bytes, "lost"),
        (other_bytes_before_an_error, "lost"),
        (timed_out_early, "wrong"),
        (ended_late, "wrong"),
        (cancelled_by_nobody, "wrong"),
        (ended_for_no_reason, "wrong"),
    ],
)
def test_the_judge_notices(series, spoil, counter):
    workload, sent = series
    spoil(sent)
    verdict = workload.judge([sent], Counter(["id"]))
    assert counters(verdict) == {counter}
    assert not verdict.good
    assert verdict.complaints[0].startswith(f"{counter}: id (number 7, series of 3 to n1")


def test_the_judge_knows_that_nodes_which_leave_cancel_their_work(series):
    workload, sent = series
    cancelled_by_nobody(sent)
    assert workload.judge([sent], Counter(["id"]), {"n1"}).good


@pytest.mark.parametrize(
    ("ran", "counter"), [(["id", "id"], "duplicated"), (["id", "another"], "duplicated"), ([], "wrong")]
)
def test_the_judge_counts_what_the_nodes_have_run(series, ran, counter):
    workload, sent = series
    assert counters(workload.judge([sent], Counter(ran))) == {counter}


@pytest.mark.parametrize("kind", ["fail", "crash", "never", "nothing"])
def test_the_judge_does_not_believe_that_work_has_succeeded_which_can_not(benchmarks, kind):
    workload = benchmarks("workload")
    plan = workload.Plan(1, kind, "n1", 1, None, None)
    sent = workload.Sent(plan, "id")
    sent.replies = [(serial, reply) for serial, reply in enumerate(workload.answers(plan), 1)]
    sent.end("eof")
    assert counters(workload.judge([sent], Counter(["id"]))) == {"wrong"}
