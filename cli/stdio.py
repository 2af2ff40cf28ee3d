"""The standard streams of this process, be they closed, full, or without a reader.

A stream that is closed is replaced by /dev/null, so that no socket gets its number. That is opened for writing as stdin
and for reading as stdout: reading the one and writing the other fail, as with every other program, instead of losing
data in silence.
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
    """Replace the streams that are closed. To be called before anything is opened or printed."""
    for descriptor, mode in enumerate(_INSTEAD):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)
    sys.stdout = _text(_Stdout(1, "wb", closefd=False), sys.stdout)
    sys.stderr = _text(_Stderr(2, "wb", closefd=False), sys.stderr)


def flush() -> None:
    """Write what is buffered. Raises BrokenPipeError and Failure."""
    sys.stdout.flush()
    sys.stderr.flush()


def discard() -> None:
    """Drop what is buffered and can't be written, so that the interpreter does not try again when it ends."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.close(null)


def write_error(error: OSError, name: str = "the output") -> Exception:
    """The error to raise for an output that can't be written: BrokenPipeError if it has no reader, else Failure.

    The BrokenPipeError has no `errno`: Typer would handle one that has, with an exit code of its own.
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
            return len(data)  # there is no other place to report it


def _text(raw: io.FileIO, like: io.TextIOBase | Any) -> io.TextIOWrapper:
    """The text stream over `raw`, with the encoding that Python has set up for the one that it replaces."""
    encoding, errors = (like.encoding, like.errors) if like is not None else ("utf-8", "backslashreplace")
    interactive = raw.isatty() or raw.fileno() == 2
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=interactive)
