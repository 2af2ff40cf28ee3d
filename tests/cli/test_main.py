"""The command itself: help, version, what it makes of nonsense, and of errors that nobody foresaw."""

import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from zmesh_cli.terminal import printable


def test_the_version_is_that_of_the_library(shell: Any) -> None:
    import zmesh

    done = shell.run("--version")
    assert (done.returncode, done.stdout.decode()) == (0, f"zmesh {zmesh.__version__}\n")


@pytest.mark.parametrize("words", [(), ("node",), ("ping",), ("send",), ("routes",), ("cancel",), ("demo",)])
def test_every_command_has_a_help_that_fits_a_terminal(shell: Any, words: tuple[str, ...]) -> None:
    done = shell.run(*words, "--help")
    assert done.returncode == 0
    out = done.stdout.decode()
    assert "Usage: zmesh" in out
    assert "until-stdin" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert "..." not in out.replace("[ARGS]...", "")


def test_without_a_command_it_shows_its_help(shell: Any) -> None:
    done = shell.run()
    assert done.returncode == 2
    assert b"Usage: zmesh" in done.stdout + done.stderr


def test_an_unknown_command_comes_with_a_suggestion(shell: Any) -> None:
    done = shell.run("pong")
    assert done.returncode == 2
    assert b"Did you mean 'ping'?" in done.stderr


@pytest.mark.parametrize("words", [("ping",), ("send", "a"), ("cancel",), ("routes", "a", "b"), ("node", "a")])
def test_too_few_or_too_many_arguments_are_a_usage_error(shell: Any, words: tuple[str, ...]) -> None:
    done = shell.run(*words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Error: " in done.stderr


def test_an_error_that_nobody_foresaw_is_one_line_unless_more_is_asked_for(shell: Any) -> None:
    script = (
        "import sys, zmesh_cli.routes\n"
        "async def broken(*args, **settings): raise KeyError('oh')\n"
        "zmesh_cli.routes.routes = broken\n"
        "from zmesh_cli.main import main; main()"
    )
    command = [sys.executable, "-P", "-c", script, "routes", "--peer", "tcp://127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, timeout=90, env=shell.environment)
    assert done.returncode == 1
    assert done.stderr.startswith(b"zmesh: this should not have happened: KeyError: 'oh'; ZMESH_DEBUG=1 ")
    assert done.stderr.count(b"\n") == 1
    debug = shell.environment | {"ZMESH_DEBUG": "1"}
    done = subprocess.run(command, capture_output=True, timeout=90, env=debug)
    assert done.returncode == 1
    assert b"Traceback" in done.stderr


@pytest.mark.parametrize(
    "failing",
    [
        "raise RuntimeError('Error calling __set_name__') from KeyboardInterrupt()",
        "raise BaseExceptionGroup('of a task group', [OSError(), KeyboardInterrupt()])",
        "try: raise KeyboardInterrupt\n    finally: raise OSError('could not clean up')",
    ],
    ids=["caused by it", "in a group with it", "raised while it was handled"],
)
def test_an_error_that_ctrl_c_caused_is_an_interruption(shell: Any, failing: str) -> None:
    script = (
        "import zmesh_cli.routes\n"
        f"async def interrupted(*args, **settings):\n    {failing}\n"
        "zmesh_cli.routes.routes = interrupted\n"
        "from zmesh_cli.main import main; main()"
    )
    command = [sys.executable, "-P", "-c", script, "routes", "--peer", "tcp://127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, timeout=90, env=shell.environment)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_an_error_whose_context_is_a_group_with_the_same_error_is_one_line(shell: Any) -> None:
    done = shell.run("ping", "a", "--peer", "nonsense")  # the node raises the first error of its task group
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"zmesh: 'nonsense' is no address")
    assert done.stderr.count(b"\n") == 1


def test_ctrl_c_leaves_no_traceback_at_any_moment(mesh: Any) -> None:
    for delay_ms in range(30, 130, 12):
        ping = mesh.start("ping", "far", "-c", "100", environment={"PYTHONWARNINGS": ""})  # an import may be cut short
        time.sleep(delay_ms / 1000)  # whatever it is doing by then
        ping.send_signal(signal.SIGINT)
        _, err = ping.communicate(timeout=90)
        starting = b"Fatal Python error" in err or (
            ping.returncode in (-signal.SIGINT, 1) and b"in main\n" not in err and b"zmesh:" not in err
        )
        if not starting:  # the interpreter itself, which is none of ours
            assert (ping.returncode, err) == (130, b"")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 漢字", "plain äöü 漢字"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("\x9b31m \u202e \u2028", "\\x9b31m \\u202e \\u2028"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_others_say_can_do_nothing_to_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
