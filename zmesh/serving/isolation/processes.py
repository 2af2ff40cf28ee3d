"""The processes of isolated directives, from the node's side: started, fed, listened to, and ended.

The keeper (`keeper.py`) makes them; it is started with the first. A run is an async generator of replies, as any
directive's function may be: the next one is read off the process's socket when the last one has been taken.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgpack

from zmesh.errors import Closed, NotAllowed, RemoteError, UnknownDirective
from zmesh.payloads.payload import PayloadLike, StreamedPayload
from zmesh.payloads.source import PieceSource, Source
from zmesh.payloads.spool import Spool, default_folder
from zmesh.runtime.exceptions import text_of
from zmesh.runtime.tasks import abandon
from zmesh.runtime.thread_pool import ThreadPool
from zmesh.serving.isolation.ipc import MAX_FRAME, PIECE, Channel, Frame, Job
from zmesh.serving.isolation.limits import Isolation, Limits

if TYPE_CHECKING:
    from zmesh.serving.work import Work

logger = logging.getLogger(__name__)

CLOSE_WITHIN = 5.0
"""Seconds that the keeper has to kill what is left and to end."""

_OWN_WORDS: dict[str, type[RemoteError]] = {kind.code: kind for kind in (NotAllowed, UnknownDirective)}
_KEEPER = "import sys; sys.path[:] = {path!r}; from zmesh.serving.isolation.forkserver import keep; keep({descriptor})"


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a process ended: its exit code, or minus the signal that killed it; the CPU time it used, in seconds."""

    code: int | None
    cpu: float = 0.0
    error: str = "its keeper has ended"


class Processes:
    """Runs isolated directives, at most `limit` at a time. Belongs to the loop that it is first used on."""

    def __init__(self, limit: int, settings: Mapping[str, Mapping[str, Any]], folder: str | None) -> None:
        self._settings = settings
        self._folder = os.path.abspath(folder or default_folder())
        self._slots = asyncio.Semaphore(limit)
        self._starting = asyncio.Lock()
        self._keeper: _Keeper | None = None
        self._runs: set[_Run] = set()
        self._closed = False

    def limits(self, directive: str, isolation: Isolation) -> Limits:
        """What the process of this directive may use, as the node is set."""
        return isolation.limits(directive, self._settings)

    async def run(self, work: Work, isolation: Isolation) -> AsyncGenerator[PayloadLike, None]:
        """The replies of one run. When this ends, closed early or not, so has the process.

        Raises RemoteError for what the function raises, and for a process that ends before the function has.
        """
        async with self._slots:
            keeper = await self._kept()
            limits = self.limits(work.directive, isolation)
            spool = work.payload.spooled()
            job = Job(
                origin=isolation.origin,
                message_id=work.message_id,
                directive=work.directive,
                sender=work.sender,
                header=dict(work.header),
                config=dict(work.config),
                lifetime=None if work.deadline is None else work.deadline - asyncio.get_running_loop().time(),
                stream=isinstance(work.payload, StreamedPayload),
                size=None if spool is None else spool.size,
                folder=self._folder,
                name=f"zmesh-{secrets.token_hex(8)}",
                search=sys.path,
            )
            run = _Run(keeper, work, limits)
            self._runs.add(run)
            try:
                await run.start(pickle.dumps(job), os.path.join(self._folder, job.name), spool)
                while (reply := await run.reply()) is not None:
                    yield reply
                    if isinstance(reply, _Reply):
                        await reply.skip()
            finally:
                self._runs.discard(run)
                await run.end()

    async def close(self) -> None:
        """Kill what still runs, and end the keeper."""
        self._closed = True
        async with self._starting:
            keeper, self._keeper = self._keeper, None
            if keeper is not None:
                await keeper.close()

    def close_now(self) -> None:
        """Kill what still runs, and end the keeper, without the loop; blocks until the keeper has ended."""
        self._closed = True
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.close_now()
        for run in self._runs:
            run.close_now()

    async def _kept(self) -> _Keeper:
        async with self._starting:
            if self._closed:
                raise Closed("the node is closing")
            if self._keeper is not None and self._keeper.lost:
                await self._keeper.close()
                self._keeper = None
            if self._keeper is None:
                self._keeper = await _Keeper.open()
            return self._keeper


class _Keeper:
    """The keeper, as the node talks to it: orders out, and notes of processes that have ended in."""

    def __init__(self, control: socket.socket, threads: ThreadPool) -> None:
        self._control = control
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._running: dict[int, asyncio.Future[_Ending]] = {}
        self._count = 0
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self.lost = False

    @classmethod
    async def open(cls) -> _Keeper:
        """Start it. Raises OSError if that can't be done."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        keeper = cls(ours, ThreadPool(1, "zmesh-keeper"))
        command = [sys.executable, "-c", _KEEPER.format(path=sys.path, descriptor=theirs.fileno())]

        def launch() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # so that no Ctrl-C of a terminal reaches it
            )

        keeper._loop.add_reader(ours, keeper._listen)
        starting = asyncio.ensure_future(keeper._threads.call(launch))
        try:
            keeper._process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(OSError):
                keeper._process = await starting  # it takes milliseconds; then it can be ended properly
            theirs.close()
            await keeper.close()
            raise
        except OSError:
            theirs.close()
            await keeper.close()
            raise
        theirs.close()
        return keeper

    def begin(self) -> tuple[int, asyncio.Future[_Ending]]:
        """A number for a new process, and the future of how it ends."""
        self._count += 1
        ended: asyncio.Future[_Ending] = self._loop.create_future()
        if self.lost:
            ended.set_result(_Ending(None))
        else:
            self._running[self._count] = ended
        return self._count, ended

    def forget(self, id: int) -> None:
        """The process with this number was not ordered after all."""
        self._running.pop(id, None)

    async def order(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Have something done. Waits while the keeper is busy."""
        packed = msgpack.packb(message)
        async with self._sending:
            while not self.lost:
                try:
                    socket.send_fds(self._control, [packed], descriptors)
                except BlockingIOError:
                    await self._writable()
                except ConnectionError:
                    self._lose()
                else:
                    return

    async def close(self) -> None:
        """End it, and with it all that it keeps; returns when it has ended."""
        self._lose()
        self._control.close()
        if self._process is not None:
            process = self._process
            try:
                await self._threads.call(partial(process.wait, CLOSE_WITHIN))
            except subprocess.TimeoutExpired:
                process.kill()
                await self._threads.call(process.wait)
        self._threads.close()
        self._threads.join(1.0)  # it is idle, so this is a matter of microseconds

    def close_now(self) -> None:
        """End it, and with it all that it keeps, without the loop; blocks until it has ended."""
        if not self.lost:
            self.lost = True
            self._loop.remove_reader(self._control)
        self._control.close()
        if self._process is not None:
            try:
                self._process.wait(CLOSE_WITHIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._threads.close()

    async def _writable(self) -> None:
        writable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._control, _settle, writable)
        try:
            await writable
        finally:
            self._loop.remove_writer(self._control)

    def _listen(self) -> None:
        while True:
            try:
                message = self._control.recv(4096)
            except BlockingIOError:
                return
            except ConnectionError:
                message = b""
            if not message:
                self._lose()
                return
            note = msgpack.unpackb(message)
            ended = self._running.pop(note["id"], None)
            if ended is not None and not ended.done():
                ended.set_result(_Ending(note.get("code"), note.get("cpu", 0.0), note.get("error", "")))

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self._loop.remove_reader(self._control)
        for ended in self._running.values():
            if not ended.done():
                ended.set_result(_Ending(None))
        self._running.clear()


class _Run:
    """One process, from its start to its end."""

    def __init__(self, keeper: _Keeper, work: Work, limits: Limits) -> None:
        self._keeper = keeper
        self._work = work
        self._limits = limits
        self._socket, self._theirs = socket.socketpair()
        self._channel = Channel(self._socket, MAX_FRAME)
        self._id, self._ended = keeper.begin()
        self._supply: asyncio.Task[None] | None = None
        self._ordered = self._closed = False
        self._done = False

    async def start(self, job: bytes, file: str, spool: Spool | None) -> None:
        """Have it made, and begin to send it the job and the payload."""
        descriptors = [self._theirs.fileno()]
        if spool is not None:
            descriptors.append(spool.fileno())
        limits = self._limits
        self._ended.add_done_callback(self._hang_up)
        await self._keeper.order(
            {
                "id": self._id,
                "file": file,
                "max_memory_bytes": limits.max_memory_bytes,
                "max_cpu_seconds": limits.max_cpu_seconds,
                "grace": limits.grace,
            },
            descriptors,
        )
        self._ordered = True
        self._theirs.close()
        self._supply = asyncio.create_task(self._send(job, spool is None), name="zmesh isolated payload")

    async def reply(self) -> bytes | Source | None:
        """The next reply; None when the function has ended. Raises RemoteError if it, or its process, has failed."""
        kind, body = await self.receive()
        if kind == Frame.REPLY:
            return body
        if kind == Frame.OPEN:
            return _Reply(self)
        if kind == Frame.DONE:
            self._done = True
            return None
        raise RemoteError(f"the process of {self._work.directive} sent what is none of its frames ({kind})")

    async def receive(self) -> tuple[int, bytes]:
        """The next frame. Raises RemoteError for a failure, or when there will be none."""
        received = await self._channel.receive()
        if received is None:
            with suppress(TimeoutError):  # it has closed the connection, but goes on
                await asyncio.wait_for(asyncio.shield(self._ended), self._limits.grace)
            await self.end()
            raise RemoteError(self._epitaph(self._ended.result()))
        if received[0] == Frame.FAILED:
            self._done = True
            raise self._failure(msgpack.unpackb(received[1]))
        return received

    async def end(self) -> None:
        """See it to its end: at once if it has said that it is done, else by SIGTERM and, after the grace, SIGKILL."""
        if self._closed:
            return
        if self._supply is not None:
            self._supply.cancel()
            await asyncio.wait((self._supply,))
        if self._ordered:
            if not self._done and not self._ended.done():
                await self._signal(signal.SIGTERM)
            if not self._ended.done():
                await asyncio.wait((self._ended,), timeout=self._limits.grace)
            if not self._ended.done():
                await self._signal(signal.SIGKILL)
                await self._ended
        else:
            self._keeper.forget(self._id)
        self._theirs.close()
        self._socket.close()

    def close_now(self) -> None:
        """Close the sockets; the keeper, and the process with it, has ended."""
        self._closed = True
        if self._supply is not None:
            abandon(self._supply)
        self._theirs.close()
        self._socket.close()

    async def _signal(self, number: int) -> None:
        await self._keeper.order({"id": self._id, "signal": int(number)}, [])

    def _hang_up(self, ended: asyncio.Future[_Ending]) -> None:
        """The process is gone: what it has sent can be read, then comes the end, whoever else has the socket open."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    async def _send(self, job: bytes, with_payload: bool) -> None:
        channel = self._channel
        try:
            await channel.send(Frame.JOB, job)
            if not with_payload:
                return
            pieces = aiter(self._work.payload)
            while True:
                try:
                    piece = await anext(pieces, b"")
                except Exception as error:  # noqa: BLE001  # that of a disk, too, is the function's to hear of
                    await channel.send(Frame.FAILED, msgpack.packb({"text": text_of(error)}))
                    return
                if not piece:
                    await channel.send(Frame.END)
                    return
                await channel.send(Frame.PIECE, piece)
        except OSError:
            pass  # the process is gone, and how is told elsewhere

    def _failure(self, word: dict[str, Any]) -> RemoteError:
        work, memory = self._work, self._limits.max_memory_bytes
        if word["trace"]:
            logger.warning("%s for %s failed in its process\n%s", work.directive, work.sender, word["trace"])
        text = word["text"]
        if word["memory"] and memory is not None:
            text = f"the process of {work.directive} ran out of its {memory / 2**20:g} MiB of memory"
        return _OWN_WORDS.get(word["reason"], RemoteError)(text)

    def _epitaph(self, ending: _Ending) -> str:
        who = f"the process of {self._work.directive}"
        code, cpu = ending.code, self._limits.max_cpu_seconds
        if code is None:
            text = f"{who} could not be kept: {ending.error}"
        elif code >= 0:
            text = f"{who} ended with exit status {code}"
        elif cpu is not None and (code == -signal.SIGXCPU or (code == -signal.SIGKILL and ending.cpu >= cpu)):
            text = f"{who} used up its {cpu} s of CPU time"
        else:
            text = f"{who} was killed by {_name(-code)}"
            if code == -signal.SIGKILL:
                text += ", as the system does when memory runs out"
        logger.warning("%s (for %s)", text, self._work.sender)
        return text


class _Reply(PieceSource):
    """A reply that is read off the process's socket as there is room for it."""

    __slots__ = ("_over", "_run")

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self._run = run
        self._over = False

    async def _next(self, limit: int) -> bytes:
        while not self._over:
            try:
                kind, body = await self._run.receive()
            except RemoteError:
                self._over = True
                raise
            if kind == Frame.END:
                self._over = True
            elif body:
                return body
        return b""

    async def skip(self) -> None:
        """Read what nobody wanted to have, up to where the next reply begins."""
        while await self._next(PIECE):
            pass


def _settle(writable: asyncio.Future[None]) -> None:
    if not writable.done():
        writable.set_result(None)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
