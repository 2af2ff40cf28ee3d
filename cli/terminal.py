"""Output to stdout and stderr: control characters of others are escaped, and no write blocks the event loop.

Text from other nodes (errors, names) is escaped wherever it is shown. A payload goes to stdout unchanged, unless that
is a terminal: there, all that is not printable is escaped, except newlines and tabs.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import select
import stat
import sys
from typing import Any, Protocol

from zmesh_cli.stdio import write_error

STDIN, STDOUT, STDERR = 0, 1, 2
ATOMIC = select.PIPE_BUF
"""Bytes that a pipe which is ready is sure to take without blocking."""


def printable(text: str, keep: str = "") -> str:
    """The text with every control character but those in `keep` written as an escape (`\\x1b`)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


class LineFormat(Protocol):
    """Formats what is printed on stderr; `level` is one of the setting `log_level`."""

    def __call__(self, text: str, *, level: str) -> str:
        """The line, without its end."""


format_line: LineFormat | None = None
"""How lines on stderr are formatted, where the log is no plain text."""


def print_error(text: str) -> None:
    """Print a line on stderr that begins with the name of the program."""
    print_line(f"zmesh: {text}", level="error")


def print_line(text: str, *, level: str = "info") -> None:
    """Print a line on stderr."""
    line = printable(text) if format_line is None else format_line(text, level=level)
    try:
        os.write(STDERR, line.encode(errors="backslashreplace") + b"\n")
    except OSError:
        pass  # there is no other place to report it


def write_line(text: str) -> None:
    """Write a line on stdout, of a command that runs no event loop. Raises BrokenPipeError and Failure."""
    sys.stdout.write(text)


def is_terminal(descriptor: int) -> bool:
    """Whether it is a terminal that can erase a line."""
    return os.isatty(descriptor) and os.environ.get("TERM") != "dumb"


def record(schema: str, **fields: Any) -> str:
    """A line of JSON, in ASCII, so that it has no control characters for a terminal."""
    return json.dumps({"schema": schema, **fields}, separators=(",", ":")) + "\n"


class Descriptor:
    """A file descriptor; the event loop waits for it if it is of a kind that may block."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        mode = os.fstat(descriptor).st_mode
        self.is_terminal = os.isatty(descriptor)
        self.waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or self.is_terminal
        """False for files and devices such as /dev/null, which are always ready and which epoll refuses."""


class Output(Descriptor):
    """An output, which errors call `name`. `write` waits for a slow reader, and does not block the loop."""

    def __init__(self, descriptor: int = STDOUT, name: str = "the output") -> None:
        super().__init__(descriptor)
        self._name = name
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._in_line = False

    def ready(self) -> bool:
        """Whether ATOMIC bytes can be written without waiting (or writing fails at once)."""
        return not self.waits or bool(self._poll.poll(0))

    async def write(self, data: bytes) -> None:
        """Write all of the data. Raises BrokenPipeError if there is no reader, Failure if it can't be written."""
        view = memoryview(data)
        while view:
            try:
                if self.ready():
                    view = view[os.write(self.descriptor, view[:ATOMIC] if self.waits else view) :]
                    continue
            except BlockingIOError:
                pass
            except OSError as error:
                raise write_error(error, self._name) from None
            await self._writable()

    async def text(self, text: str) -> None:
        """Write text in which nothing has to be escaped."""
        await self.write(text.encode(errors="backslashreplace"))

    async def payload(self, data: bytes) -> None:
        """Write data from another node: unchanged, or with control characters escaped if this is a terminal."""
        if self.is_terminal:
            shown = self._decoder.decode(data).replace("\r\n", "\n")
            data = printable(shown, keep="\n\t").encode(errors="backslashreplace")
        if data:
            self._in_line = not data.endswith(b"\n")
        await self.write(data)

    async def end_payload(self) -> None:
        """On a terminal, write the newline that the payload does not end in."""
        if self.is_terminal and self._in_line:
            self._in_line = False
            await self.write(b"\n")

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_writer(self.descriptor, _resolve, ready)
        try:
            await ready
        finally:
            loop.remove_writer(self.descriptor)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
