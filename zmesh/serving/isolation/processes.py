"""Worker processes of isolated directives, from the node's side: start, send the payload, read replies, terminate.

The fork server (`forkserver.py`) forks them; it is started with the first. A run is an async generator of replies, as
the function of any directive may be: the next reply is read from the socket when the last one has been consumed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import secrets
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from zmesh.arguments import check_metadata
from zmesh.core.message import NO_METADATA
from zmesh.errors import Closed, NodeOverloaded, RemoteError
from zmesh.payloads import ChunkSource, Outgoing, Spool, StreamedPayload, default_folder
from zmesh.runtime import EXHAUSTED, ControlledProcess, abandon, close_in_child, text_of
from zmesh.serving.isolation.ipc import CHUNK_BYTES, MAX_FRAME, Channel, Frame, Job
from zmesh.serving.isolation.limits import Isolation, ProcessLimits
from zmesh.serving.isolation.slots import Slots
from zmesh.serving.work import WorkReset

if TYPE_CHECKING:
    from zmesh.serving.failure_log import FailureLog
    from zmesh.serving.work import Work

logger = logging.getLogger(__name__)

CLOSE_WITHIN = 5.0
"""Seconds for the fork server to kill its workers and exit."""

_PROGRAM = """
import sys
sys.path[:] = {path!r}
from zmesh.serving.isolation.forkserver import serve
serve({descriptor})
"""


@dataclass(frozen=True, slots=True)
class _ProcessExit:
    """Exit of a worker: its exit code, or minus the signal that killed it, and the CPU time it used in seconds."""

    code: int | None
    cpu: float = 0.0
    error: str = "its fork server has exited"


class Processes:
    """Runs isolated directives, at most `limit` at a time. Bound to the loop that it is first used on."""

    def __init__(
        self, limit: int, settings: Mapping[str, Mapping[str, Any]], folder: str | None, failures: FailureLog
    ) -> None:
        self._settings = settings
        self._failures = failures
        self._folder = os.path.abspath(folder or default_folder())
        self._slots = Slots(limit)
        self._starting = asyncio.Lock()
        self._fork_server: _ForkServerClient | None = None
        self._runs: set[_Run] = set()
        self._waiting: set[str] = set()
        """The message ids of work that waits for a slot."""
        self._closed = False

    def is_waiting(self, message_id: str) -> bool:
        """Whether the work of that message id waits for others to end, as `limit` processes run."""
        return message_id in self._waiting

    def configure(self, limit: int, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Apply another limit, and other settings, to the processes that start from now on."""
        self._settings = settings
        self._slots.set_limit(limit)

    def limits(self, directive: str, isolation: Isolation) -> ProcessLimits:
        """The resource limits of this directive's workers, given the node's settings."""
        return isolation.limits(directive, self._settings)

    async def run(self, work: Work, isolation: Isolation) -> AsyncGenerator[Outgoing, None]:
        """Run a directive and yield its replies. The worker has exited when this ends, closed early or not.

        Raises RemoteError if the function raises, or if the worker exits before the function has returned, and
        NodeOverloaded where there is no descriptor, process or memory to run it with.
        """
        self._waiting.add(work.message_id)
        async with AsyncExitStack() as slot:
            try:
                await slot.enter_async_context(self._slots)
            finally:
                self._waiting.discard(work.message_id)
            with _nothing_left(work.directive):
                fork_server = await self._started_fork_server()
            limits = self.limits(work.directive, isolation)
            spool = work.payload.spooled()
            job = Job(
                origin=isolation.origin,
                message_id=work.message_id,
                directive=work.directive,
                sender=work.sender,
                header=dict(work.header),
                content_type=work.payload.content_type,
                metadata=dict(work.metadata),
                config=dict(work.config),
                lifetime=None if work.deadline is None else work.deadline - asyncio.get_running_loop().time(),
                stream=isinstance(work.payload, StreamedPayload),
                size=None if spool is None else spool.size,
                folder=self._folder,
                name=f"zmesh-{secrets.token_hex(8)}",
                sys_path=sys.path,
            )
            with _nothing_left(work.directive):
                run = _Run(fork_server, work, limits, self._failures)
            self._runs.add(run)
            try:
                await run.start(pickle.dumps(job), os.path.join(self._folder, job.name), spool)
                while (reply := await run.reply()) is not None:
                    yield reply
                    if isinstance(reply.body, _Reply):
                        await reply.body.skip()
            finally:
                self._runs.discard(run)
                await run.end()

    async def close(self) -> None:
        """Kill all workers and stop the fork server."""
        self._closed = True
        async with self._starting:
            fork_server, self._fork_server = self._fork_server, None
            if fork_server is not None:
                await fork_server.close()

    def close_now(self) -> None:
        """Kill all workers and stop the fork server, without the loop; blocks until the fork server has exited."""
        self._closed = True
        fork_server, self._fork_server = self._fork_server, None
        if fork_server is not None:
            fork_server.close_now()
        for run in self._runs:
            run.close_now()

    async def _started_fork_server(self) -> _ForkServerClient:
        async with self._starting:
            if self._closed:
                raise Closed("the node is closing")
            if self._fork_server is not None and self._fork_server.lost:
                await self._fork_server.close()
                self._fork_server = None
            if self._fork_server is None:
                self._fork_server = await _ForkServerClient.open()
            return self._fork_server


class _ForkServerClient:
    """The node's connection to the fork server: sends requests, receives exits."""

    def __init__(self) -> None:
        self._process = ControlledProcess("zmesh-forkserver", self._on_packet, self._on_lost, close_within=CLOSE_WITHIN)
        self._running: dict[int, asyncio.Future[_ProcessExit]] = {}
        self._count = 0
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls) -> _ForkServerClient:
        """Start the fork server. Raises OSError if that fails."""
        fork_server = cls()
        await fork_server._process.launch(
            lambda descriptor: ["-c", _PROGRAM.format(path=sys.path, descriptor=descriptor)]
        )
        return fork_server

    @property
    def lost(self) -> bool:
        """Whether the fork server has exited, or is closed."""
        return self._process.lost

    def begin(self) -> tuple[int, asyncio.Future[_ProcessExit]]:
        """Allocate the number of a new worker, and the future of its exit."""
        self._count += 1
        ended: asyncio.Future[_ProcessExit] = self._loop.create_future()
        if self.lost:
            ended.set_result(_ProcessExit(None))
        else:
            self._running[self._count] = ended
        return self._count, ended

    def forget(self, id: int) -> None:
        """Drop the number of a worker that was not requested after all."""
        self._running.pop(id, None)

    async def request(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Send a request, waiting while the socket is full; nothing is sent if the fork server has exited."""
        await self._process.send(msgpack.packb(message), descriptors)

    async def close(self) -> None:
        """Stop the fork server and its workers; returns when it has exited."""
        await self._process.close()

    def close_now(self) -> None:
        """Stop the fork server and its workers, without the loop; blocks until it has exited."""
        self._process.close_now()

    def _on_packet(self, packet: bytes) -> None:
        report = msgpack.unpackb(packet)
        ended = self._running.pop(report["id"], None)
        if ended is not None and not ended.done():
            ended.set_result(_ProcessExit(report.get("code"), report.get("cpu", 0.0), report.get("error", "")))

    def _on_lost(self) -> None:
        for ended in self._running.values():
            if not ended.done():
                ended.set_result(_ProcessExit(None))
        self._running.clear()


class _Run:
    """One worker process, from its start to its exit."""

    def __init__(self, fork_server: _ForkServerClient, work: Work, limits: ProcessLimits, failures: FailureLog) -> None:
        self._fork_server = fork_server
        self._failures = failures
        self._work = work
        self._limits = limits
        self._socket, self._theirs = socket.socketpair()
        close_in_child(self._socket)
        close_in_child(self._theirs)
        self._channel = Channel(self._socket, MAX_FRAME)
        self._id, self._ended = fork_server.begin()
        self._supply: asyncio.Task[None] | None = None
        self._requested = self._closed = False
        self._done = False

    async def start(self, job: bytes, file: str, spool: Spool | None) -> None:
        """Request the worker, and begin to send it the job and the payload."""
        descriptors = [self._theirs.fileno()]
        if spool is not None:
            descriptors.append(spool.fileno())
        limits = self._limits
        self._ended.add_done_callback(self._hang_up)
        await self._fork_server.request(
            {
                "id": self._id,
                "file": file,
                "max_memory_bytes": limits.max_memory_bytes,
                "max_cpu_seconds": limits.max_cpu_seconds,
                "grace": limits.grace,
            },
            descriptors,
        )
        self._requested = True
        self._theirs.close()
        self._supply = asyncio.create_task(self._send(job, spool is None), name="zmesh isolated payload")

    async def reply(self) -> Outgoing | None:
        """The next reply; None when the function has returned. Raises RemoteError if it or its worker failed."""
        kind, body = await self.receive()
        content_type, metadata = "", NO_METADATA
        if kind == Frame.DESCRIPTION:
            content_type, described = msgpack.unpackb(body)
            metadata = check_metadata(described)
            kind, body = await self.receive()
        if kind in (Frame.REPLY, Frame.OPEN):
            return Outgoing(body if kind == Frame.REPLY else _Reply(self), content_type, metadata)
        if kind == Frame.DONE:
            self._done = True
            return None
        raise RemoteError(f"the process of {self._work.directive} sent an unexpected frame of kind {kind}")

    async def receive(self) -> tuple[int, bytes]:
        """The next frame. Raises RemoteError or WorkReset for FAILED, and RemoteError if the worker has exited."""
        received = await self._channel.receive()
        if received is None:
            with suppress(TimeoutError):  # it has closed the socket but not exited
                await asyncio.wait_for(asyncio.shield(self._ended), self._limits.grace)
            await self.end()
            raise RemoteError(self._exit_reason(self._ended.result()))
        if received[0] == Frame.FAILED:
            self._done = True
            raise self._failure(msgpack.unpackb(received[1]))
        return received

    async def end(self) -> None:
        """Wait for the worker's exit; unless it has sent DONE, by SIGTERM and, after the grace period, SIGKILL."""
        if self._closed:
            return
        if self._supply is not None:
            self._supply.cancel()
            await asyncio.wait((self._supply,))
        if self._requested:
            if not self._done and not self._ended.done():
                await self._signal(signal.SIGTERM)
            if not self._ended.done():
                await asyncio.wait((self._ended,), timeout=self._limits.grace)
            if not self._ended.done():
                await self._signal(signal.SIGKILL)
                await self._ended
        else:
            self._fork_server.forget(self._id)
        self._theirs.close()
        self._socket.close()

    def close_now(self) -> None:
        """Close the sockets; the fork server and the worker have exited."""
        self._closed = True
        if self._supply is not None:
            abandon(self._supply)
        self._theirs.close()
        self._socket.close()

    async def _signal(self, number: int) -> None:
        await self._fork_server.request({"id": self._id, "signal": int(number)}, [])

    def _hang_up(self, ended: asyncio.Future[_ProcessExit]) -> None:
        """The worker has exited: end the stream after what it has sent, even if a descendant holds the socket open."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    async def _send(self, job: bytes, with_payload: bool) -> None:
        channel = self._channel
        try:
            await channel.send(Frame.JOB, job)
            if not with_payload:
                return
            chunks = aiter(self._work.payload)
            while True:
                try:
                    chunk = await anext(chunks, b"")
                except Exception as error:  # noqa: BLE001  # also that of a disk is raised in the function
                    await channel.send(Frame.FAILED, msgpack.packb({"text": text_of(error)}))
                    return
                if not chunk:
                    await channel.send(Frame.END)
                    return
                await channel.send(Frame.CHUNK, chunk)
        except OSError:
            pass  # the worker has exited; `receive` raises for it

    def _failure(self, report: dict[str, Any]) -> RemoteError | WorkReset:
        work, memory = self._work, self._limits.max_memory_bytes
        if "reset_code" in report:
            return WorkReset(report["text"], report["reset_code"])
        if report["trace"] and (end := self._failures.next()) is not None:
            logger.warning("%s for %s failed in its process%s\n%s", work.directive, work.sender, end, report["trace"])
        text = report["text"]
        if report["memory"] and memory is not None:
            text = f"the process of {work.directive} ran out of its {memory / 2**20:g} MiB of memory"
        error = NodeOverloaded(text, limit=report["limit"]) if report.get("limit") else RemoteError(text)
        error.code = report["reason"]  # type: ignore[misc]  # that of a class which may be the plugin's own
        return error

    def _exit_reason(self, ending: _ProcessExit) -> str:
        subject = f"the process of {self._work.directive}"
        code, cpu = ending.code, self._limits.max_cpu_seconds
        if code is None:
            text = f"{subject} could not be run: {ending.error}"
        elif code >= 0:
            text = f"{subject} ended with exit status {code}"
        elif cpu is not None and (code == -signal.SIGXCPU or (code == -signal.SIGKILL and ending.cpu >= cpu)):
            text = f"{subject} used up its {cpu} s of CPU time"
        else:
            text = f"{subject} was killed by {_signal_name(-code)}"
            if code == -signal.SIGKILL:
                text += ", as the system does when memory runs out"
        if (end := self._failures.next()) is not None:
            logger.warning("%s (for %s)%s", text, self._work.sender, end)
        return text


class _Reply(ChunkSource):
    """A reply of several chunks, read from the worker's socket on demand."""

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
        """Discard the rest of this reply, up to the start of the next one."""
        while await self._next(CHUNK_BYTES):
            pass


@contextmanager
def _nothing_left(directive: str) -> Iterator[None]:
    """Raises NodeOverloaded in place of the errors of a process or machine that has nothing left."""
    try:
        yield
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        reason = os.strerror(error.errno).lower()
        text = f"the node has nothing left to run {directive} with: {reason}"
        raise NodeOverloaded(text, limit="system_resources") from None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
