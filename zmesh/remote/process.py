"""Commands at a node: processes with pipes or a terminal, each the leader of a session that its supervisor ends.

`Processes` starts them through the supervisor (`supervisor.py`), which it starts with the first. A `Process` has its
output read in order, as far as its reader keeps up, and is over when the command has exited and its output was read.
"""

from __future__ import annotations

import array
import asyncio
import errno
import fcntl
import marshal
import os
import signal
import struct
import tempfile
import termios
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from zmesh.errors import Closed, RemoteError
from zmesh.remote.supervisor_client import SupervisorClient
from zmesh.runtime import close_in_child, closing

READ_BYTES = 64 * 1024
LINGER = 1.0
"""Seconds that output of other processes which have the command's streams open is waited for when it has exited."""
KILL_GRACE = 3.0
"""Seconds from SIGTERM to SIGKILL, by default."""
STDOUT, STDERR = 1, 2


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command to execute: words, environment, an absolute directory.

    `user` is (uid, gid, groups) to change to, `limits` the soft and hard limit by number of the resource, `terminal`
    the rows and columns of one to run in, `merged` whether stderr goes where stdout goes.
    """

    words: Sequence[bytes]
    environment: Mapping[bytes, bytes]
    directory: bytes = b"/"
    user: tuple[int, int, list[int]] | None = None
    limits: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    grace: float = KILL_GRACE
    terminal: tuple[int, int] | None = None
    merged: bool = False


class NotStarted(Exception):
    """The command can't be executed: `errno`, and the `stage` that failed (directory, execute, user, ...)."""

    def __init__(self, number: int, stage: str) -> None:
        super().__init__(f"{stage}: {os.strerror(number)}")
        self.errno = number
        self.stage = stage


class Processes:
    """The commands that run at a node. Bound to the loop that it is first used on."""

    def __init__(self) -> None:
        self._client: SupervisorClient | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def start(self, command: CommandLine) -> Process:
        """Start a command; it has been executed when this returns. Raises NotStarted, OSError and Closed."""
        client = await self._opened()
        process = Process(client, command)
        with ExitStack() as undo:
            undo.callback(process.close)
            await process.begin()
            undo.pop_all()
        return process

    async def close(self) -> None:
        """End all commands, and the supervisor."""
        self._closed = True
        async with self._opening:
            client, self._client = self._client, None
            if client is not None:
                await client.close()

    async def _opened(self) -> SupervisorClient:
        async with self._opening:
            if self._closed:
                raise Closed("the node is closing")
            if self._client is not None and self._client.lost:
                await self._client.close()
                self._client = None
            if self._client is None:
                self._client = await SupervisorClient.open()
            return self._client


class Process:
    """One command: its output, its input, and how it ends.

    `exited` is done when the command has: its exit code, or minus the signal that killed it; None if its supervisor
    was killed.
    """

    def __init__(self, client: SupervisorClient, command: CommandLine) -> None:
        self._client = client
        self._command = command
        self._loop = asyncio.get_running_loop()
        self._id = client.begin(self._on_report)
        self._started: asyncio.Future[int] = self._loop.create_future()
        self.exited: asyncio.Future[int | None] = self._loop.create_future()
        self.pid = 0
        self._input = -1
        self._outputs: dict[int, int] = {}
        """The descriptors that are read, and which stream each of them is."""
        self._terminal = -1
        self._closed = False
        self._woken: asyncio.Future[None] | None = None
        self._nudged = False

    async def begin(self) -> None:
        """Have it executed. Raises NotStarted and OSError."""
        command, theirs = self._command, self._open_streams()
        try:
            with _memory_file() as file:
                os.write(file, marshal.dumps(_marshalled(command)))
                await self._client.order({"id": self._id, "start": True}, [file, *theirs])
        finally:
            for descriptor in set(theirs):
                os.close(descriptor)
        try:
            self.pid = await asyncio.shield(self._started)
        except asyncio.CancelledError:
            await asyncio.shield(self.end(0.0))
            raise

    async def output(self) -> AsyncGenerator[tuple[int, bytes], None]:
        """Its output, as (STDOUT or STDERR, bytes), in order, until it has exited and all of it was read.

        When it has exited, what other processes still write to its streams is waited for, for LINGER seconds at most.
        After `wake` it gives (0, b"") if there is nothing else to give.
        """
        unread: dict[int, int] = {}
        until = 0.0
        while self._outputs:
            if self.exited.done() and not until:
                until = self._loop.time() + LINGER
                unread = {descriptor: _waiting(descriptor) for descriptor in self._outputs}
            found = False
            for descriptor, stream in list(self._outputs.items()):
                data = self._read(descriptor)
                if data:
                    found = True
                    unread[descriptor] = unread.get(descriptor, 0) - len(data)
                    yield stream, data
            if not self._outputs:
                break
            if self._nudged:
                self._nudged = False
                yield 0, b""
            if not until:
                if not found:
                    await self._readable(None)
            elif self._loop.time() >= until and all(unread.get(each, 0) <= 0 for each in self._outputs):
                break
            elif not found:
                await self._readable(until)
        for descriptor in list(self._outputs):
            self._close_output(descriptor)
        if not self.exited.done():
            await asyncio.shield(self.exited)

    def wake(self) -> None:
        """Have `output` give something now."""
        self._nudged = True
        self._wake()

    async def write(self, data: bytes) -> bool:
        """Write to its stdin, as it reads; False if it does not read any more."""
        view = memoryview(data)
        while view and self._input >= 0:
            try:
                view = view[os.write(self._input, view) :]
            except BlockingIOError:
                await self._writable()
            except OSError:  # EPIPE; EIO of a terminal
                self.close_input()
        return self._input >= 0

    def close_input(self) -> None:
        """End its stdin; in a terminal as Ctrl-D does."""
        if self._terminal >= 0:
            with suppress(OSError):
                os.write(self._terminal, termios.tcgetattr(self._terminal)[6][termios.VEOF])
        elif self._input >= 0:
            self._loop.remove_writer(self._input)
            closing(self._input)
            os.close(self._input)
            self._input = -1

    def send_signal(self, number: int) -> None:
        """Send a signal to its process group, if it still runs."""
        if not self.exited.done():
            self._client.order_soon({"id": self._id, "signal": int(number)})

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of its terminal, if it has one; the kernel sends it SIGWINCH."""
        if self._terminal >= 0:
            with suppress(OSError):
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def stop(self, grace: float | None = None) -> None:
        """Stop it and its session: SIGTERM, and SIGKILL after `grace` seconds; returns when that is done."""
        if not self.exited.done():
            await self._client.order({"id": self._id, "end": self._command.grace if grace is None else grace})
            await asyncio.shield(self.exited)

    async def end(self, grace: float | None = None) -> None:
        """Stop it, and close its streams."""
        await self.stop(grace)
        self.close()

    def close(self) -> None:
        """Close its streams."""
        if self._closed:
            return
        self._closed = True
        self._client.forget(self._id)
        for descriptor in list(self._outputs):
            self._close_output(descriptor)
        if self._terminal < 0:
            self.close_input()
        else:
            if self._input >= 0:
                self._loop.remove_writer(self._input)
                closing(self._input)
                os.close(self._input)
            self._input = self._terminal = -1

    # -- inside --------------------------------------------------------------------------------------------------

    def _open_streams(self) -> list[int]:
        """Open pipes or a terminal; the descriptors of the command's end, for stdin, stdout and stderr.

        Raises OSError, and then leaves none of these.
        """
        with ExitStack() as undo:
            if self._command.terminal is not None:
                self._terminal, theirs = os.openpty()
                undo.callback(os.close, theirs)
                self._outputs[self._terminal] = STDOUT
                self._input = os.dup(self._terminal)
                self.resize(*self._command.terminal)
                streams = [theirs, theirs, theirs]
            else:
                stdin, self._input = os.pipe()
                undo.callback(os.close, stdin)
                stdout = self._open_output(STDOUT, undo)
                stderr = stdout if self._command.merged else self._open_output(STDERR, undo)
                streams = [stdin, stdout, stderr]
            for descriptor in (self._input, *self._outputs):
                os.set_blocking(descriptor, False)
                close_in_child(descriptor)  # or the command would never see the end of its input
            undo.pop_all()
        return streams

    def _open_output(self, stream: int, undo: ExitStack) -> int:
        ours, theirs = os.pipe()
        undo.callback(os.close, theirs)
        self._outputs[ours] = stream
        return theirs

    def _on_report(self, report: dict[str, Any]) -> None:
        if "pid" in report:
            if not self._started.done():
                self._started.set_result(report["pid"])
            return
        if "errno" in report:
            if not self._started.done():
                self._started.set_exception(NotStarted(report["errno"], report["stage"]))
        elif not self._started.done():
            self._started.set_exception(RemoteError("the process that starts commands has exited; try again"))
        elif "lost" in report and not self.exited.done():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if not self.exited.done():
            self.exited.set_result(report.get("code"))
        self._wake()

    def _read(self, descriptor: int) -> bytes:
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:  # EIO: no process has the terminal open
            if error.errno != errno.EIO:
                raise
            data = b""
        if not data:
            self._close_output(descriptor)
        return data

    def _close_output(self, descriptor: int) -> None:
        del self._outputs[descriptor]
        self._loop.remove_reader(descriptor)
        closing(descriptor)
        os.close(descriptor)

    async def _readable(self, until: float | None) -> None:
        """Wait until there is output, the command exits, or (a time of the loop) it is too late."""
        self._woken = self._loop.create_future()
        for descriptor in self._outputs:
            self._loop.add_reader(descriptor, self._wake)
        timer = None if until is None else self._loop.call_at(until, self._wake)
        try:
            await self._woken
        finally:
            self._woken = None
            if timer is not None:
                timer.cancel()
            for descriptor in self._outputs:
                self._loop.remove_reader(descriptor)

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def _writable(self) -> None:
        writable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._input, _resolve, writable)
        try:
            await writable
        finally:
            if self._input >= 0:
                self._loop.remove_writer(self._input)


def _marshalled(command: CommandLine) -> dict[str, Any]:
    return {
        "words": list(command.words),
        "environment": dict(command.environment),
        "directory": command.directory,
        "user": command.user,
        "limits": dict(command.limits),
        "grace": command.grace,
        "terminal": command.terminal is not None,
    }


@contextmanager
def _memory_file() -> Iterator[int]:
    """The descriptor of a file in memory, for the length of the block."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("zmesh-command")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _waiting(descriptor: int) -> int:
    """Bytes that can be read now."""
    count = array.array("i", [0])
    try:
        fcntl.ioctl(descriptor, termios.FIONREAD, count)
    except OSError:
        return 0
    return count[0]


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
