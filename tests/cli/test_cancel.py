"""`zmesh cancel`: work stops at another node, and the command ends after it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Lines = Callable[[subprocess.CompletedProcess[bytes]], list[dict[str, Any]]]
KEYS = ["schema", "message_id", "node", "cancelled", "directive", "sender", "unanswered"]


def work_at(shell: Any, node: str) -> list[dict[str, Any]]:
    work: list[dict[str, Any]] = json.loads(shell.run("ping", node, "-c", "1", "--json").stdout.splitlines()[0])[
        "active_work"
    ]
    return work


@pytest.fixture
def sleeper(mesh: Any, eventually: Any) -> Any:
    """A `zmesh send --json` whose work sleeps at `far`, and that work as a ping lists it."""
    send = mesh.start("send", "far", "sleep:execute", "3600", "--json")
    eventually(lambda: work_at(mesh, "far"))
    yield send, work_at(mesh, "far")[0]
    send.terminate()
    send.communicate()
    eventually(lambda: not work_at(mesh, "far"))


def test_the_id_in_a_ping_names_the_work_and_its_sender_learns_which_node_cancelled_it(
    mesh: Any, sleeper: Any, lines: Lines
) -> None:
    send, work = sleeper
    done = mesh.run("cancel", work["id"], "far", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    (answer,) = lines(done)
    assert list(answer) == KEYS
    assert answer == {
        "schema": "zmesh.cancel/1",
        "message_id": work["id"],
        "node": "far",
        "cancelled": True,
        "directive": "sleep:execute",
        "sender": work["sender"],
        "unanswered": [],
    }
    assert work_at(mesh, "far") == [], "it has ended when the command is done"
    stdout, stderr = send.communicate(timeout=90)
    final = json.loads(stdout)
    assert (send.returncode, final["code"], final["eof"]) == (1, 1, True)
    assert final["in_response_to"] == answer["message_id"]
    assert "sleep:execute was cancelled by 'cli-" in final["error"]
    assert b"was cancelled by" in stderr


def test_the_number_in_the_reply_of_a_ping_is_the_same_id(mesh: Any, sleeper: Any, lines: Lines) -> None:
    _, work = sleeper
    (listed,) = json.loads(mesh.run("send", "far", "zmesh:ping").stdout)["active_work"]
    assert listed == {"message_id": work["id"], **work, "id": int(work["id"], 16)}
    assert mesh.run("cancel", str(listed["id"]), "far").returncode == 0


def numbers_of(value: Any) -> Iterator[float]:
    """All numbers in a value of JSON."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from numbers_of(each)
    elif isinstance(value, (int, float)):
        yield value


def test_no_command_prints_a_number_in_json_that_its_readers_would_round(mesh: Any, sleeper: Any, lines: Lines) -> None:
    _, work = sleeper
    commands = [
        ("ping", "far", "-c", "2", "-i", "0", "--json"),
        ("send", "far", "echo:echo", "x", "--json"),
        ("send", "far", "no:such", "--json"),
        ("routes", "--json"),
        ("routes", "far", "--json"),
        ("ping", "--all", "--json"),
        ("nodes", "--json"),
        ("status", "far", "--json"),
        ("trace", "far", "--json"),
        ("why", "far", "--json"),
        ("events", "far", "--json"),
        ("doctor", "far", "--json"),
        ("config", "show", "--json"),
        ("cancel", work["id"], "far", "--json"),
    ]
    for words in commands:
        printed = lines(mesh.run(*words))
        assert printed, words
        numbers = [number for line in printed for number in numbers_of(line)]
        assert all(abs(number) < 1 << 53 for number in numbers), words


def test_without_a_node_the_work_is_found_wherever_it_runs(mesh: Any, sleeper: Any) -> None:
    _, work = sleeper
    done = mesh.run("cancel", work["id"])
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"cancelled sleep:execute of {work['sender']} at far\n"


def test_the_id_that_verbose_send_logs_names_the_work(mesh: Any, eventually: Any) -> None:
    send = mesh.start("send", "far", "sleep:execute", "3600", "-v")
    while b"the message id is " not in (line := send.stderr.readline()):
        assert line
    message_id = line.split()[-1].decode()
    eventually(lambda: work_at(mesh, "far"))
    assert mesh.run("cancel", message_id, "far").returncode == 0
    send.communicate(timeout=90)
    assert send.returncode == 1


def test_the_id_of_a_reply_names_the_work_too(mesh: Any) -> None:
    program = (
        "import asyncio, sys, zmesh\n"
        "async def ticks(work):\n"
        "    yield 'tick'\n"
        "    yield 'tick'\n"
        "    await asyncio.Event().wait()\n"
        "async def main():\n"
        "    mesh = zmesh.Controller(zmesh.Config(node_id='ticker', peers=sys.argv[1:]))\n"
        "    mesh.register('t:ticks', ticks)\n"
        "    async with mesh:\n"
        "        await mesh.wait_for('far', 90)\n"
        "        print('ready', flush=True)\n"
        "        await asyncio.to_thread(sys.stdin.read)\n"
        "asyncio.run(main())\n"
    )
    url = mesh.environment["ZMESH_PEER"]
    command = [sys.executable, "-c", program, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ticker:
        assert ticker.stdout is not None
        assert ticker.stdout.readline() == b"ready\n"
        send = mesh.start("send", "ticker", "t:ticks", "--json")
        send.stdout.readline()
        reply = json.loads(send.stdout.readline())
        assert reply["message_id"] != reply["in_response_to"]
        assert mesh.run("cancel", reply["message_id"], "ticker").returncode == 0
        *_, last = send.communicate(timeout=90)[0].splitlines()
        assert "was cancelled by" in json.loads(last)["error"]
        ticker.communicate()


@pytest.mark.parametrize("where", [["far"], []])
def test_a_cancel_of_work_that_does_not_run_fails_and_says_so(mesh: Any, lines: Lines, where: list[str]) -> None:
    done = mesh.run("cancel", "0" * 32, *where)
    assert (done.returncode, done.stdout) == (1, b"")
    place = "at 'far'" if where else "at any node that replied"
    assert done.stderr.decode() == (
        f"zmesh: no work for message {'0' * 32} runs {place}; it may be over; "
        f"'zmesh ping {where[0] if where else 'NODE'} --json' lists what runs\n"
    )
    done = mesh.run("cancel", "0" * 32, *where, "--json")
    assert done.returncode == 1
    (answer,) = lines(done)
    assert (answer["cancelled"], answer["directive"], answer["sender"]) == (False, None, None)
    assert answer["node"] == (where[0] if where else None)


@pytest.mark.parametrize("where", [["far"], []])
def test_a_misspelt_id_fails_with_the_likely_one(mesh: Any, sleeper: Any, where: list[str]) -> None:
    _, work = sleeper
    done = mesh.run("cancel", f"{int(work['id'], 16) ^ (1 << 120):032x}", *where)
    assert done.returncode == 1
    assert f"(did you mean {work['id']}?)" in done.stderr.decode()


@pytest.mark.parametrize("word", ["work", "-1", "0x17", "f" * 31, "g" * 32, str(1 << 128)])
def test_a_malformed_id_is_a_usage_error(mesh: Any, word: str) -> None:
    done = mesh.run("cancel", "--", word, "far")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"is not a message id: that is 32 hex digits" in done.stderr


def test_an_unknown_node_fails_with_the_likely_id(mesh: Any) -> None:
    done = mesh.run("cancel", "0" * 32, "farr")
    assert done.returncode == 3
    assert b"(did you mean 'far'?)" in done.stderr


def test_work_that_does_not_end_in_time_is_a_time_out(mesh: Any, eventually: Any) -> None:
    program = (
        "import sys, threading, zmesh, zmesh.sync\n"
        "stop = threading.Event()\n"
        "with zmesh.sync.Controller(zmesh.Config(node_id='deaf', peers=sys.argv[1:])) as mesh:\n"
        "    mesh.register('t:deaf', lambda work: stop.wait())\n"
        "    mesh.wait_for('far', 90)\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
        "    stop.set()\n"
    )
    command = [sys.executable, "-c", program, mesh.environment["ZMESH_PEER"]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        assert deaf.stdout.readline() == b"ready\n"
        send = mesh.start("send", "deaf", "t:deaf", "-v")
        while b"the message id is " not in (line := send.stderr.readline()):
            assert line
        message_id = line.split()[-1].decode()
        eventually(lambda: work_at(mesh, "deaf"))
        for where in (["deaf"], []):
            done = mesh.run("cancel", message_id, *where, "--timeout", "3")
            assert (done.returncode, done.stdout) == (4, b""), done.stderr
            assert re.search(
                rb"no final reply from 'deaf' within [\d.]+ s; the request had reached 'deaf'", done.stderr
            )
        deaf.communicate()
        send.communicate(timeout=90)
