"""The payload of a command: text, standard input or a file; the latter two are read while they are sent."""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import termios
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

from zmesh import Source
from zmesh_cli.exit_codes import USAGE, Failure
from zmesh_cli.terminal import STDIN, Descriptor, print_error

FROM_STDIN = "-"
FROM_FILE = "@"
NO_PAYLOAD = f"as no PAYLOAD was given: '{FROM_STDIN}' sends it"


def open_input(payload: str | None) -> bytes | Input | None:
    """The payload for the argument PAYLOAD, None without one. Opening a named pipe waits for its writer.

    Raises Failure for a file that can't be read.
    """
    if payload is None:
        return None
    if payload == FROM_STDIN:
        return Input(STDIN)
    if not payload.startswith(FROM_FILE):
        return os.fsencode(payload)
    path = payload.removeprefix(FROM_FILE)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise IsADirectoryError(21, "it is a folder")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Failure(f"can't read the file {path!r}: {reason}; for text that begins with @, use -", USAGE) from None
    return Input(descriptor, owned=True)


def has_unread(descriptor: int) -> bool:
    """Whether a pipe or socket has data, or a file is at its start and not empty; nothing is read.

    A file that is past its start is being read by another program, such as the loop of a shell.
    """
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            return status.st_size > 0 and os.lseek(descriptor, 0, os.SEEK_CUR) == 0
        if not (stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)):
            return False
        waiting = array("i", [0])
        fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
    except OSError:
        return False
    return waiting[0] > 0


@contextmanager
def mention_unread(advice: str | None) -> Iterator[None]:
    """Print a line with the advice if stdin has data that the command leaves there, before the block or after it.

    None: the command reads stdin, or was told not to.
    """
    mentioned = advice is None or _mention(advice)
    try:
        yield
    finally:
        if advice is not None and not mentioned:
            _mention(advice)


def _mention(advice: str) -> bool:
    found = has_unread(STDIN)
    if found:
        print_error(f"stdin has data that is not sent, {advice}, '</dev/null' silences this")
    return found


class Input(Source):
    """A payload that is read from a file descriptor as data comes, until its end or `stop`."""

    def __init__(self, descriptor: int, *, owned: bool = False) -> None:
        self.size_read = 0
        """Bytes read so far."""
        self.error: str | None = None
        """Why it could not be read to its end, if so."""
        self._owned = owned
        self._from = Descriptor(descriptor)
        self._stopped = False
        self._waiter: asyncio.Future[None] | None = None
        status = os.fstat(descriptor)
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        """Bytes in all, 0 if that is unknown."""

    async def read(self, limit: int) -> bytes:
        """The next bytes, up to `limit`; b"" at the end, or after `stop`. Raises OSError."""
        try:
            while await self._readable():
                try:
                    data = os.read(self._from.descriptor, limit)
                except BlockingIOError:
                    continue
                self.size_read += len(data)
                return data
        except OSError as error:
            self.error = error.strerror or str(error)
            raise
        return b""

    def stop(self) -> None:
        """Read no more, and end a read that waits, since the rest of the payload is not needed."""
        self._stopped = True
        self._wake()

    def close(self) -> None:
        """Close the file, if it was opened for this."""
        if self._owned:
            self._owned = False
            os.close(self._from.descriptor)

    async def _readable(self) -> bool:
        """Wait for data or the end; False after `stop`."""
        if not self._from.waits:
            await asyncio.sleep(0)  # a file never waits, and other tasks need their turn
        elif not self._stopped:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            loop.add_reader(self._from.descriptor, self._wake)
            try:
                await self._waiter
            finally:
                loop.remove_reader(self._from.descriptor)
                self._waiter = None
        return not self._stopped

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
