"""`zmesh send --output FILE`: the file appears when it is complete, and not before."""

import errno
import hashlib
import os
import pty
import resource
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminals import read_until
from tests.waiting import WITHIN

Lines = Callable[[subprocess.CompletedProcess[bytes]], list[dict[str, Any]]]


def test_the_replies_are_in_the_file_and_nowhere_else(mesh: Any, tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    file = tmp_path / "out"
    done = mesh.run("send", "far", "echo:echo", "-", "--output", str(file), stdin=data)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert file.read_bytes() == data
    assert os.listdir(tmp_path) == ["out"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask


def test_a_file_of_that_name_is_replaced_and_keeps_its_mode(mesh: Any, tmp_path: Path) -> None:
    file, link = tmp_path / "out", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    assert mesh.run("send", "far", "echo:echo", "new", "-o", str(link)).returncode == 0
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("new", 0o640)
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["far", "far:nothing"], 1),
        (["far", "sleep:execute", "60", "--timeout", "0.2"], 4),
        (["nobody", "echo:echo", "x", "--timeout", "8"], 3),
    ],
)
def test_a_failure_leaves_the_file_as_it_was_and_nothing_beside_it(
    mesh: Any, tmp_path: Path, words: list[str], code: int
) -> None:
    file = tmp_path / "out"
    for before in (None, "old"):
        if before is not None:
            file.write_text(before)
        assert mesh.run_joined("send", *words, "-o", str(file)).returncode == code
        assert os.listdir(tmp_path) == ([] if before is None else ["out"])
    assert file.read_text() == "old"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_file(mesh: Any, tmp_path: Path, eventually: Any, number: int) -> None:
    send = mesh.start("send", "far", "echo:echo", "-", "-o", str(tmp_path / "out"), stdin=subprocess.PIPE)
    eventually(lambda: os.listdir(tmp_path))
    send.send_signal(number)
    assert send.wait(WITHIN) == 130
    assert os.listdir(tmp_path) == []
    send.communicate()


def test_with_json_the_lines_have_the_size_and_the_file_has_the_payload(
    mesh: Any, tmp_path: Path, lines: Lines
) -> None:
    file = tmp_path / "out"
    done = mesh.run("send", "far", "echo:echo", "hällo", "-o", str(file), "--json")
    assert [(line["payload"], line["size"], line["eof"], line["code"]) for line in lines(done)] == [
        ("", 6, False, 0),
        ("", 0, True, 0),
    ]
    assert file.read_text() == "hällo"
    done = mesh.run("send", "far", "far:nothing", "-o", str(file), "--json")
    assert [(line["code"], line["size"]) for line in lines(done)] == [(1, 0)]
    assert file.read_text() == "hällo"


@pytest.mark.parametrize("name", ["", "missing/out", "x" * 300])
def test_a_file_that_cannot_be_written_is_a_usage_error_before_anything_is_sent(
    mesh: Any, tmp_path: Path, name: str
) -> None:
    done = mesh.run("send", "far", "echo:echo", "x", "-o", f"{tmp_path}/{name}")
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"can't write the file '{tmp_path}/{name}': ".encode() in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_full_is_explained_and_leaves_nothing(mesh: Any, tmp_path: Path) -> None:
    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    out = tmp_path / "out"
    done = mesh.run("send", "far", "echo:echo", "-", "-o", str(out), stdin=bytes(5_000_000), preexec_fn=small_files)
    assert done.returncode == 1
    assert done.stderr.decode() == f"zmesh: can't write the file '{out}': {os.strerror(errno.EFBIG)}\n"
    assert os.listdir(tmp_path) == []


def test_a_device_or_a_named_pipe_is_written_to_as_it_is(mesh: Any, tmp_path: Path) -> None:
    done = mesh.run("send", "far", "echo:echo", "x", "-o", "/dev/stdout")
    assert (done.returncode, done.stdout) == (0, b"x")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    send = mesh.start("send", "far", "echo:echo", "through", "-o", str(fifo))
    assert fifo.read_text() == "through"
    assert send.wait(WITHIN) == 0
    send.communicate()
    assert os.listdir(tmp_path) == ["fifo"]


def test_on_a_terminal_the_received_bytes_are_shown_and_erased(mesh: Any, tmp_path: Path) -> None:
    parent, child = pty.openpty()
    file = tmp_path / "out"
    send = mesh.start("send", "far", "echo:echo", "-", "-o", str(file), stdin=subprocess.PIPE, stderr=child)
    os.close(child)
    send.stdin.write(bytes(1_000_000))
    send.stdin.flush()
    seen = read_until(parent, lambda seen: b"MiB received" in seen)
    send.communicate(bytes(1_000_000), timeout=WITHIN)
    while select.select([parent], [], [], 0)[0]:
        try:
            seen += os.read(parent, 65536)
        except OSError:
            break
    os.close(parent)
    assert seen.endswith(b"\r\x1b[K")
    assert file.stat().st_size == 2_000_000


# --- large ones -----------------------------------------------------------------------------------------------------

LARGE = 300 * (1 << 20)

PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, file=sys.stderr)
sys.exit(done.returncode)
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A sparse file of 300 MiB."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(LARGE)
    return path


def peak_of(mesh: Any, *words: str, **options: Any) -> tuple[int, bytes]:
    """The most memory that a command took, in MiB, and what it printed."""
    command = [sys.executable, "-c", PEAK, sys.executable, "-P", "-m", "zmesh_cli", *words]
    done = subprocess.run(command, capture_output=True, timeout=WITHIN, env=mesh.environment, **options)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1]), done.stdout


def test_hundreds_of_megabytes_from_a_pipe_take_no_more_memory_than_a_byte(mesh: Any, large: Path) -> None:
    small, _ = peak_of(mesh, "send", "far", "digest:sha256", "x")
    with subprocess.Popen(["cat", str(large)], stdout=subprocess.PIPE) as cat:
        peak, digest = peak_of(mesh, "send", "far", "digest:sha256", "-", stdin=cat.stdout)
    with large.open("rb") as file:
        assert digest.decode() == hashlib.file_digest(file, "sha256").hexdigest()
    assert peak < small + 32


def test_a_reply_of_hundreds_of_megabytes_is_written_as_it_comes(mesh: Any, large: Path, tmp_path: Path) -> None:
    """It is the one reply of a plugin that returns a path, and is in no temporary file in between."""
    program = (
        "import pathlib, sys, zmesh, zmesh.sync\n"
        "with zmesh.sync.Controller(zmesh.Config(node_id='depot', peers=sys.argv[1:2])) as mesh:\n"
        "    mesh.register('depot:fetch', lambda work: pathlib.Path(sys.argv[2]))\n"
        "    mesh.wait_for('far', 90)\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, mesh.environment["ZMESH_PEER"], str(large)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as depot:
        assert depot.stdout is not None
        assert depot.stdout.readline() == b"ready\n"
        small, _ = peak_of(mesh, "send", "far", "echo:echo", "x")
        out = tmp_path / "out"
        peak, _ = peak_of(mesh, "send", "depot", "depot:fetch", "--timeout", "600", "-o", str(out))
        assert out.stat().st_size == LARGE
        assert peak < small + 32
        with out.open("wb") as file:  # a redirected stdout: with no room for a temporary file, it must do without one
            environment = mesh.environment | {"TMPDIR": "/proc"}
            send = mesh.start("send", "depot", "depot:fetch", "--timeout", "600", stdout=file, environment=environment)
            assert send.wait(WITHIN) == 0
            send.communicate()
        assert out.stat().st_size == LARGE
        depot.communicate()
