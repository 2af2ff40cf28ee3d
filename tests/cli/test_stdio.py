"""Standard streams that are closed, full, or without a reader: each command ends as other programs do."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import WITHIN

COMMANDS = [
    ("ping", "far", "-c", "1"),
    ("ping", "far", "-c", "3", "-i", "0"),
    ("ping", "far", "-c", "1", "--json"),
    ("send", "far", "echo:echo", "x"),
    ("send", "far", "echo:echo", "x", "--json"),
    ("routes",),
    ("routes", "--json"),
    ("cancel", "0" * 32, "--json"),
    ("nodes", "--json"),
    ("status", "far"),
    ("trace", "far", "--json"),
    ("why", "far"),
    ("graph",),
    ("events", "far"),
    ("doctor", "far"),
    ("config", "show"),
    ("completion", "bash"),
    ("demo",),
    ("--help",),
    ("ping", "--help"),
    ("--version",),
]
BROKEN_PIPE = 141


@pytest.mark.parametrize("words", COMMANDS)
def test_a_stdout_without_a_reader_ends_a_command_in_silence(mesh: Any, words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = mesh.start(*words, stdout=writing)
    os.close(writing)
    _, err = command.communicate(timeout=WITHIN)
    assert (command.returncode, err) == (BROKEN_PIPE, b"")


def test_a_reader_of_the_first_line_only_sees_no_error(mesh: Any) -> None:
    ping = mesh.start("ping", "far", "-c", "1000", "-i", "0.01")
    assert ping.stdout.readline().startswith(b"answer from far")
    ping.stdout.close()
    assert ping.wait(WITHIN) == BROKEN_PIPE
    with ping.stderr:
        assert ping.stderr.read() == b""


@pytest.mark.parametrize("words", COMMANDS)
def test_a_stdout_on_a_full_disk_is_one_line_and_a_failure(mesh: Any, words: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        command = mesh.start(*words, stdout=full)
    _, err = command.communicate(timeout=WITHIN)
    assert (command.returncode, err) == (1, b"zmesh: can't write the output: No space left on device\n")


@pytest.mark.parametrize("words", [*COMMANDS, ("node", "--id", "a", "--json")])
def test_a_closed_stdout_is_an_error_in_one_line(mesh: Any, words: tuple[str, ...]) -> None:
    command = mesh.start(*words, stdout=None, preexec_fn=lambda: os.close(1))
    _, err = command.communicate(timeout=WITHIN)
    assert (command.returncode, err) == (1, b"zmesh: can't write the output: Bad file descriptor\n")


def test_a_closed_stdin_is_an_error_only_if_it_is_read(mesh: Any) -> None:
    closed: dict[str, Any] = {"stdin": None, "preexec_fn": lambda: os.close(0)}
    for words, code, out in ((("x",), 0, b"x"), ((), 0, b""), (("-",), 2, b"")):
        command = mesh.start("send", "far", "echo:echo", *words, **closed)
        assert (command.communicate(timeout=WITHIN)[0], command.returncode) == (out, code)


def stderr_of(kind: str) -> dict[str, Any]:
    if kind == "closed":
        return {"stderr": None, "preexec_fn": lambda: os.close(2)}
    if kind == "full":
        return {"stderr": os.open("/dev/full", os.O_WRONLY)}
    reading, writing = os.pipe()
    os.close(reading)
    return {"stderr": writing}


@pytest.mark.parametrize("kind", ["closed", "full", "without a reader"])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("send", "far", "echo:echo", "x", "-vv"), 0),
        (("send", "far", "no:such"), 1),
        (("ping", "nobody", "-c", "1"), 3),
        (("ping", "far", "-c", "none"), 2),
        (("nonsense",), 2),
        ((), 2),
    ],
)
def test_a_stderr_that_can_not_be_written_changes_no_exit_code(
    mesh: Any, kind: str, words: tuple[str, ...], code: int
) -> None:
    options = stderr_of(kind)
    command = mesh.start(*words, **options)
    if options["stderr"] is not None:
        os.close(options["stderr"])
    out, _ = command.communicate(timeout=WITHIN)
    assert command.returncode == code
    assert code or out == b"x"


def test_a_node_needs_no_standard_streams(shell: Any, eventually: Callable[..., None]) -> None:
    node = shell.start("node", "--id", "a", stdout=None, stderr=None, preexec_fn=lambda: os.closerange(0, 3))
    try:
        eventually(lambda: shell.run("ping", "a", "-c", "1").returncode == 0)
    finally:
        node.terminate()
        assert node.wait(WITHIN) == 0


def test_with_no_stream_open_no_socket_gets_the_number_of_one(mesh: Any, tmp_path: Path) -> None:
    with (tmp_path / "err").open("wb") as file:
        command = mesh.start(
            "send",
            "far",
            "echo:echo",
            "x",
            stdin=None,
            stdout=None,
            stderr=file,
            preexec_fn=lambda: os.closerange(0, 2),
        )
        assert command.wait(WITHIN) == 1
    assert (tmp_path / "err").read_bytes() == b"zmesh: can't write the output: Bad file descriptor\n"


@pytest.mark.parametrize("pipefail", [False, True])
def test_the_pipeline_of_a_shell_ends_as_with_any_other_program(mesh: Any, pipefail: bool) -> None:
    script = f'{"set -o pipefail; " if pipefail else ""}"$@" ping far -c 10000 -i 0 | head -n 1'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *mesh.command], env=mesh.environment, capture_output=True, timeout=WITHIN
    )
    assert (done.returncode, done.stderr) == (BROKEN_PIPE if pipefail else 0, b"")
    assert done.stdout.count(b"\n") == 1
