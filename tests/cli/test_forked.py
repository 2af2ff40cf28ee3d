"""A fork that runs `zmesh` is like an interpreter that is started for it, so that tests may have either."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.forked import COMMAND, Command, servers
from tests.serving.isolation.descendants import descendants
from tests.waiting import WITHIN


def looked_at(start: Any, *words: Any, **options: Any) -> tuple[Any, bool]:
    """A command, and whether it is a fork; one that has ended already shows that no more, and is started again."""
    while True:
        command = start(*words, **options)
        if shown := Path(f"/proc/{command.pid}/cmdline").read_bytes():
            return command, b"forked.py" in shown
        with command:
            command.communicate(timeout=WITHIN)


@pytest.fixture
def start(shell: Any) -> Any:
    """Starts a command as a fork; what it has for stdin, stdout and stderr are pipes."""
    with Command(["--version"], env=shell.environment, stdout=subprocess.DEVNULL) as first:  # which is never a fork
        assert first.wait(WITHIN) == 0
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return lambda *words, **options: Command([*words], **{"env": shell.environment, **pipes, **options})


def test_it_is_forked_unless_it_is_given_what_a_fork_can_not_have(start: Any) -> None:
    for options, forked in (({}, True), ({"preexec_fn": os.getpid}, False), ({"umask": 0o77}, False)):
        command, is_forked = looked_at(start, "--version", **options)
        with command:
            assert is_forked is forked
            assert command.communicate(timeout=WITHIN)[0].startswith(b"zmesh ")


@pytest.mark.parametrize(
    "words",
    [
        ("--version",),
        ("ping", "--help"),
        ("png",),
        ("config", "show"),
        ("config", "check", "--config", "none.toml"),
        ("nodes", "--peer", "tcp://127.0.0.1:1"),
        ("config", "check", "--config", Path("none.toml")),
        ("config", "check", "--config", b"n\xff.toml"),
    ],
)
def test_it_prints_the_same_and_ends_alike(shell: Any, start: Any, words: tuple[Any, ...]) -> None:
    variables = shell.environment | {"ZMESH_NODE_ID": "a", "COLUMNS": "70"}
    command, is_forked = looked_at(start, *words, env=variables)
    with command:
        assert is_forked
        out, err = command.communicate(timeout=WITHIN)
    started = subprocess.run([*COMMAND, *words], capture_output=True, env=variables, timeout=WITHIN)
    assert (command.returncode, out, err) == (started.returncode, started.stdout, started.stderr)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_it_is_a_child_of_its_own_with_the_folder_and_the_session_that_it_was_given(
    tmp_path: Path, start: Any, number: int, code: int
) -> None:
    with start("node", "--json", "--id", "a", cwd=tmp_path, start_new_session=number == signal.SIGINT) as node:
        assert node.stdout.readline().startswith(b"{")
        folder = Path(f"/proc/{node.pid}")
        _, parent, group, session, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
        assert int(parent) == os.getpid()
        own = (os.getpgrp(), os.getsid(0)) if number != signal.SIGINT else (node.pid, node.pid)
        assert (int(group), int(session)) == own
        assert Path(os.readlink(folder / "cwd")) == tmp_path
        pipes = [os.fstat(file.fileno()).st_ino for file in (node.stdin, node.stdout, node.stderr)]
        assert [os.readlink(folder / "fd" / str(stream)) for stream in range(3)] == [f"pipe:[{ino}]" for ino in pipes]
        node.send_signal(number)
        node.communicate(timeout=WITHIN)
    assert node.returncode == code


def test_two_of_them_have_nothing_random_in_common(start: Any) -> None:
    with start("node", "--json") as one, start("node", "--json") as other:
        assert one.stdout.readline() != other.stdout.readline()
        for node in (one, other):
            node.terminate()
            node.communicate(timeout=WITHIN)


def test_what_is_forked_is_left_out_where_children_are_counted(start: Any) -> None:
    with start("node", "--json") as node:
        assert node.stdout.readline()
        assert servers()
        assert node.pid in descendants()
        assert not servers() & descendants().keys()
        node.kill()
        node.communicate(timeout=WITHIN)
