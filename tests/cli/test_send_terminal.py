"""`zmesh send` on a terminal: escapes, the end of the last line, progress."""

import os
import pty
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminals import read_until


def test_on_a_terminal_control_characters_are_shown_as_escapes(mesh: Any) -> None:
    ours, theirs = pty.openpty()
    text = b"plain \xc3\xa4\ttab\r\nred \x1b[31m bell \x07 \xff\n"
    send = mesh.start("send", "far", "echo:echo", "-", stdin=subprocess.PIPE, stdout=theirs)
    os.close(theirs)
    send.stdin.write(text)
    send.stdin.close()
    shown = read_until(ours, lambda shown: shown.endswith(b"xff\r\n"))
    os.close(ours)
    assert send.wait(90) == 0
    send.stderr.close()
    assert shown == b"plain \xc3\xa4\ttab\r\nred \\x1b[31m bell \\x07 \\xff\r\n"


@pytest.mark.parametrize(("payload", "shown"), [("no end", b"no end\r\n"), ("an end\n", b"an end\r\n"), ("", b"")])
def test_on_a_terminal_a_last_line_is_ended(mesh: Any, payload: str, shown: bytes) -> None:
    ours, theirs = pty.openpty()
    send = mesh.start("send", "far", "echo:echo", payload, stdout=theirs)
    _, err = send.communicate(timeout=90)
    os.write(theirs, b"$")
    seen = read_until(ours, lambda seen: seen.endswith(b"$"))
    os.close(ours)
    os.close(theirs)
    assert (send.returncode, err, seen) == (0, b"", shown + b"$")


def test_on_a_terminal_the_progress_of_a_long_transfer_is_shown_and_erased(mesh: Any, tmp_path: Path) -> None:
    file = tmp_path / "big"
    with file.open("wb") as sparse:
        sparse.truncate(1 << 31)
    ours, theirs = pty.openpty()
    send = mesh.start("send", "far", "digest:sha256", f"@{file}", stderr=theirs)
    os.close(theirs)
    read_until(ours, lambda shown: b"of 2048.0 MiB" in shown)
    send.send_signal(signal.SIGINT)
    read_until(ours, lambda shown: shown.endswith(b"\r\x1b[K"))
    os.close(ours)
    assert send.communicate(timeout=90)[0] == b""
    assert send.returncode == 130
