"""A child process that serves this one over a socket: launched without blocking the loop, ended when the socket closes.

The fork server of isolated directives and the supervisor of commands are such processes: a node has threads, so what it
forks comes from a small process of one thread, which it sends packets to and gets packets from.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from zmesh.runtime.forks import close_in_child
from zmesh.runtime.thread_pool import ThreadPool

MAX_PACKET = 4096
"""Bytes of a packet from the process."""


class ControlledProcess:
    """A process of this interpreter at the other end of a Unix socket of packets (SOCK_SEQPACKET).

    `on_packet` gets each packet of it, and `on_lost` is called once when it has closed its end, or `close` was called.
    It gets the descriptor of its end by `arguments`, ends when this end is closed, and is killed if that takes longer
    than `close_within` seconds. Bound to the loop that it is made in.
    """

    def __init__(
        self, name: str, on_packet: Callable[[bytes], None], on_lost: Callable[[], None], *, close_within: float
    ) -> None:
        self.lost = False
        """Whether its end of the socket, or this one, is closed."""
        self._on_packet = on_packet
        self._on_lost = on_lost
        self._close_within = close_within
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPool(1, name)
        self._control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        close_in_child(self._control)
        close_in_child(self._theirs)
        self._launched: subprocess.Popen[bytes] | None = None
        self._sending = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Its process id, once it was started."""
        return None if self._launched is None else self._launched.pid

    async def launch(self, arguments: Callable[[int], Sequence[str]], *, stdout: int | None = None) -> None:
        """Start it, with `arguments(descriptor)` for the interpreter. Raises OSError if that fails."""
        theirs = self._theirs

        def launch() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, *arguments(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # so that Ctrl-C in a terminal does not reach it
            )

        self._loop.add_reader(self._control, self._on_readable)
        starting = asyncio.ensure_future(self._threads.call(launch))
        try:
            launched = await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(OSError):
                self._own(await starting)  # it takes milliseconds, and leaves a process to close
            await self.close()
            raise
        except (OSError, RuntimeError):  # the latter where no thread can be started
            await self.close()
            raise
        finally:
            theirs.close()
        self._own(launched)

    async def send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a packet, waiting while the socket is full. It is dropped if the process is lost."""
        async with self._sending:
            while not self.lost:
                try:
                    socket.send_fds(self._control, [packet], descriptors)
                except BlockingIOError:
                    await self._writable()
                except ConnectionError:
                    self._lose()
                else:
                    return

    def send_soon(self, packet: bytes) -> None:
        """Send a packet without waiting; one for which the socket has no room follows in a task."""
        try:
            if not self.lost and not self._sending.locked():
                self._control.send(packet)
                return
        except BlockingIOError:
            pass
        except ConnectionError:
            self._lose()
        if not self.lost:
            self._loop.create_task(self.send(packet))

    async def close(self) -> None:
        """Close the socket and wait for its end; it is killed after `close_within`. Harmless when done twice."""
        self._lose()
        self._control.close()
        if self._launched is not None and self._launched.returncode is None:
            try:
                await self._threads.call(partial(self._launched.wait, self._close_within))
            except subprocess.TimeoutExpired:
                self._launched.kill()
                await self._threads.call(self._launched.wait)
        self._threads.close()
        self._threads.join(1.0)  # it is idle, so this takes microseconds

    def close_now(self) -> None:
        """As `close`, without the loop: blocks until it has ended, and calls neither `on_packet` nor `on_lost`."""
        if not self.lost:
            self.lost = True
            self._loop.remove_reader(self._control)
        self._control.close()
        if self._launched is not None:
            try:
                self._launched.wait(self._close_within)
            except subprocess.TimeoutExpired:
                self._launched.kill()
                self._launched.wait()
        self._threads.close()

    def _own(self, launched: subprocess.Popen[bytes]) -> None:
        self._launched = launched
        weakref.finalize(self, _leave, self._control, launched).atexit = False

    async def _writable(self) -> None:
        writable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._control, _resolve, writable)
        try:
            await writable
        finally:
            self._loop.remove_writer(self._control)

    def _on_readable(self) -> None:
        while True:
            try:
                packet = self._control.recv(MAX_PACKET)
            except BlockingIOError:
                return
            except ConnectionError:
                packet = b""
            if not packet:
                self._lose()
                return
            self._on_packet(packet)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self._loop.remove_reader(self._control)
            self._on_lost()


def _leave(control: socket.socket, launched: subprocess.Popen[bytes]) -> None:
    """No loop is left to close the process: it ends when the socket is closed, and is not waited for."""
    control.close()
    if launched.poll() is None:
        launched.returncode = 0  # or Popen would warn


def _resolve(writable: asyncio.Future[None]) -> None:
    if not writable.done():
        writable.set_result(None)
