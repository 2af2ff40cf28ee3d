"""The command itself: help, version, errors of usage, unexpected errors, Ctrl-C."""

import re
import signal
import socket
import subprocess
import sys
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
    assert b"Did you mean 'ping'" in done.stderr


@pytest.mark.parametrize("words", [("ping",), ("send", "a"), ("cancel",), ("routes", "a", "b"), ("node", "a")])
def test_too_few_or_too_many_arguments_are_a_usage_error(shell: Any, words: tuple[str, ...]) -> None:
    done = shell.run(*words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(rb"zmesh: .*; .zmesh \w+ -h. has its usage\n|zmesh: give either .*\n", done.stderr)


def test_an_unexpected_error_is_one_line_and_a_traceback_with_zmesh_debug(shell: Any) -> None:
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
    done = shell.run("ping", "a", "--peer", "no/url")  # the node raises the first error of its task group
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"zmesh: 'no/url' is no address")
    assert done.stderr.count(b"\n") == 1


INTERRUPTED_AT_IMPORT = """
import signal, sys
class Interruption:
    def find_spec(self, name, *_):
        if name == {module!r}:
            sys.meta_path.remove(self)
            {interrupt}
sys.meta_path.insert(0, Interruption())
"""
"""Has a command interrupt itself at the import of this module."""

DROPPED = """
import gc
class Cycle:
    def __init__(self): self.me = self
    def __del__(self): signal.raise_signal(signal.SIGINT)
"""
"""Raises the signal where the interpreter prints an exception and drops it, as in callbacks of weak references."""


@pytest.mark.parametrize(
    "module",
    [
        "zmesh_cli.stdio",
        "typer",
        "typer.core",
        "zmesh_cli.ping",
        "zmesh",
        "zmesh.controller",
        "zmq",
        "zmesh_cli.signals",
    ],
)
def test_ctrl_c_at_an_import_ends_the_command_at_once(mesh: Any, module: str) -> None:
    setup = INTERRUPTED_AT_IMPORT.format(module=module, interrupt="signal.raise_signal(signal.SIGINT)")
    ping = mesh.start("ping", "far", "-c", "100", setup=setup)
    out, err = ping.communicate(timeout=90)
    assert (ping.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize("module", ["zmesh_cli.stdio", "zmesh.controller"])
def test_ctrl_c_where_exceptions_are_dropped_ends_the_command_at_once(mesh: Any, module: str) -> None:
    setup = INTERRUPTED_AT_IMPORT.format(module=module, interrupt="Cycle(); gc.collect()") + DROPPED
    ping = mesh.start("ping", "far", "-c", "100", setup=setup)
    out, err = ping.communicate(timeout=90)
    assert (ping.returncode, out, err) == (130, b"", b"")


def test_a_command_that_was_started_to_ignore_ctrl_c_goes_on(mesh: Any) -> None:
    setup = INTERRUPTED_AT_IMPORT.format(module="typer", interrupt="signal.raise_signal(signal.SIGINT)")
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    send = mesh.start("send", "far", "echo:echo", "x", setup=setup, **ignoring)
    out, err = send.communicate(timeout=90)
    assert (send.returncode, out, err) == (0, b"x", b"")


@pytest.mark.parametrize("words", [("ping", "a"), ("send", "a", "echo:echo", "x"), ("routes",), ("cancel", "0" * 32)])
def test_ctrl_c_while_a_command_joins_ends_it_in_silence(shell: Any, words: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = shell.start(*words, "--peer", f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        connection, _ = silent.accept()
        with connection:
            command.send_signal(signal.SIGINT)
            out, err = command.communicate(timeout=90)
    assert (command.returncode, out, err) == (130, b"", b"")


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
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
