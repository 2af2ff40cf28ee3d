"""`zmesh run` at several nodes: output, summary, exit code, Ctrl-C."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pexpect
import pytest


@pytest.fixture(scope="module")
def fleet(new_shell: Callable[[], Any]) -> Any:
    """A shell beside three nodes that allow commands, which joins at `hub`; `edge-1` and `edge-2` have a tag."""
    shell = new_shell()
    shell.environment["ZMESH_ALLOW"] = '{"exec:*": ["*"]}'
    shell.hub = shell.node("hub")
    for name in ("edge-1", "edge-2"):
        shell.environment["ZMESH_TAGS"] = "gpu"
        shell.node(name, "--peer", shell.hub.url)
        shell.hub.event("node_joined")
    del shell.environment["ZMESH_TAGS"]
    shell.environment["ZMESH_PEER"] = shell.hub.url
    return shell


def lines_of(data: bytes) -> list[str]:
    return sorted(data.decode().splitlines())


def test_data_on_stdin_that_the_commands_do_not_get_is_mentioned(fleet: Any) -> None:
    text = "zmesh: stdin has data that is not sent, as commands at many nodes get none: -n says so, "
    for words, mentioned in (((), True), (("-n",), False)):
        done = fleet.run("run", "--all", *words, "--", "cat", stdin=b"data")
        assert (done.returncode, done.stdout) == (0, b"")
        assert (text in done.stderr.decode()) is mentioned


def test_each_line_has_its_node_before_it(fleet: Any) -> None:
    done = fleet.run("run", "tag:gpu,hub", "--", "sh", "-c", "echo one; printf two; echo err >&2")
    nodes = ("edge-1", "edge-2", "hub")
    assert done.returncode == 0
    assert lines_of(done.stdout) == sorted(f"{node}: {line}" for node in nodes for line in ("one", "two"))
    assert lines_of(done.stderr) == sorted([*(f"{node}: err" for node in nodes), "zmesh: 3 nodes: 3 done"])


def test_the_summary_counts_all_and_the_exit_code_is_0_only_if_all_are_done(fleet: Any) -> None:
    words = ("run", "edge-1,hub,dead", "--route-timeout", "0.3", "--", "sh", "-c", "exit 3")
    done = fleet.run(*words)
    said = done.stderr.decode()
    assert done.returncode == 1
    assert "zmesh: node 'edge-1': 'sh' exited with 3\n" in said
    assert "zmesh: 3 nodes: 2 failed, 1 unreachable\n" in said
    assert "zmesh: failed: edge-1, hub\nzmesh: unreachable: dead\n" in said


def test_equal_outputs_are_shown_once_in_groups(fleet: Any) -> None:
    done = fleet.run("run", "--all", "--group", "--", "echo", "same")
    assert done.stdout == b"--- edge-1, edge-2, hub (3): done\nsame\n"
    assert fleet.run("run", "hub", "--group", "--", "false").stdout == b"--- hub (1): exit code 1\n"


def test_on_a_terminal_a_table_shows_what_runs(fleet: Any) -> None:
    words = ("run", "--all", "--group", "--", "sh", "-c", "echo at work; exec sleep 600")
    environment = fleet.environment | {"TERM": "xterm"}
    child = pexpect.spawn(fleet.command[0], [*fleet.command[1:], *words], env=environment, timeout=90)
    child.expect_exact("0 of 3 nodes have ended, 3 running, 0 waiting")
    row = r"\r\n +{} +running +\d+ s +at work"
    child.expect(r"NODE +STATE +TIME +LAST LINE" + "".join(map(row.format, ("edge-1", "edge-2", "hub"))))
    child.sendintr()
    child.expect_exact("--- edge-1, edge-2, hub (3): stopped\r\nat work\r\n")
    child.expect_exact("3 nodes: 3 stopped")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


def test_with_json_there_is_a_line_for_each_node(fleet: Any) -> None:
    done = fleet.run("run", "tag:gpu,!edge-2,dead", "--json", "--per-node-timeout", "10", "--", "echo", "x")
    found = {each["node"]: each for each in map(json.loads, done.stdout.splitlines())}
    assert found.keys() == {"edge-1", "dead"}
    assert found["edge-1"].pop("seconds") > 0
    assert found["edge-1"] == {
        "schema": "zmesh.run/1", "node": "edge-1", "state": "done", "returncode": 0, "stdout": "x\n", "stderr": "",
        "error": None, "code": None,
    }  # fmt: skip
    assert found["dead"]["state"] in ("unreachable", "timed out")
    assert found["dead"]["code"] in ("unreachable", "timed_out")


def test_a_canary_that_fails_keeps_the_others_from_being_started(fleet: Any) -> None:
    done = fleet.run("run", "edge-1,edge-2,hub", "--canary", "1", "--max-parallel", "2", "--", "false")
    assert done.returncode == 1
    assert b"3 nodes: 1 failed, 2 not started\n" in done.stderr
    done = fleet.run("run", "edge-1,edge-2,hub", "--stop-after", "50%", "--max-parallel", "1", "--", "false")
    assert b"3 nodes: 2 failed, 1 not started\n" in done.stderr


def test_ctrl_c_stops_it_everywhere_and_says_so(fleet: Any, eventually: Callable[..., None]) -> None:
    words = ("run", "edge-1,edge-2,hub", "--max-parallel", "2", "--", "sh", "-c", "echo $$; exec sleep 600")
    with fleet.start(*words) as run:
        pids = [int(run.stdout.readline().split(b": ")[1]) for _ in range(2)]
        run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=90)[1].decode()
    assert run.returncode == 130
    assert "zmesh: stopping it at 2 nodes; once more to leave them\n" in said
    assert "zmesh: 3 nodes: 2 stopped, 1 not started\n" in said
    assert "zmesh: stopped: edge-1, edge-2\nzmesh: not started: hub\n" in said
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}/cwd") for pid in pids))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tag:none", "--", "true"), "zmesh: no node is meant: 'zmesh nodes' lists them, with their tags"),
        (("a,tag:", "--", "true"), "zmesh: 'tag:' in 'a,tag:' is no target: give the id of a node, tag:NAME, or !NODE"),
        (("hub,edge-1", "--stop-after", "few", "--", "true"), "'--stop-after': it must be a number of nodes"),
        (("hub,edge-1",), "zmesh: no command is given, such as in: zmesh run edge-7 -- uname -a"),
        (("hub,edge-1", "-t", "--", "true"), "a terminal (-t) is for one node"),
        (("hub", "--all", "--", "true"), "give either a TARGET or --all"),
        (("--", "true"), "give a TARGET, such as edge-7 or tag:gpu, or --all"),
        (("hub", "--max-parallel", "0", "--", "true"), "it must be 1 or more"),
    ],
)
def test_each_error_of_usage_says_the_way_out(fleet: Any, words: Any, said: str) -> None:
    done = fleet.run("run", *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode()


def test_a_node_that_is_known_to_be_out_of_reach_is_not_waited_for(fleet: Any, eventually: Callable[..., None]) -> None:
    def said() -> str:
        return str(fleet.run("run", "edge-1,edge-3", "--", "true").stderr.decode())

    eventually(lambda: "zmesh: no route to 'edge-3' (did you mean 'edge-" in said())
    assert "2 nodes: 1 done, 1 unreachable" in said()
