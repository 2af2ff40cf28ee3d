"""The standard streams of this process, made fit for whatever they are: closed, full, or read by nobody.

A stream that is closed gets /dev/null in its place, lest a socket get its number; stdin and stdout get it opened the
wrong way round, so that reading the one and writing the other fail, as they do for every other program, instead of
losing data in silence.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

from zmesh_cli.exit_codes import FAILED, Failure

_INSTEAD = (os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)


def prepare() -> None:
    """To be called before anything is opened or printed."""
    for descriptor, mode in enumerate(_INSTEAD):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)
    sys.stdout = _text(_Stdout(1, "wb", closefd=False), sys.stdout)
    sys.stderr = _text(_Stderr(2, "wb", closefd=False), sys.stderr)


def flush() -> None:
    """Write what still waits. Raises BrokenPipeError and Failure."""
    sys.stdout.flush()
    sys.stderr.flush()


def forget() -> None:
    """What still waits can't be written; keep the interpreter from trying it again at its end."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.close(null)


def write_error(error: OSError, name: str = "the output") -> Exception:
    """What to raise for an output that can't be written: BrokenPipeError where nobody reads it, else Failure.

    The BrokenPipeError has no `errno`, by which Typer would know it, and end the command in its own way.
    """
    if error.errno in (errno.EPIPE, errno.EIO):  # EIO: the terminal is gone
        return BrokenPipeError()
    return Failure(f"can't write {name}: {error.strerror}", FAILED)


class _Stdout(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise write_error(error) from None


class _Stderr(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)  # nobody listens, and there is nobody else to report it to


def _text(raw: io.FileIO, like: io.TextIOBase | Any) -> io.TextIOWrapper:
    """The text stream over `raw` that is encoded as Python has set up the one in whose place it comes."""
    encoding, errors = (like.encoding, like.errors) if like is not None else ("utf-8", "backslashreplace")
    interactive = raw.isatty() or raw.fileno() == 2
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=interactive)
