"""One directive in a process of its own, from the inside: the keeper has forked it, the node is at the other end.

An async function runs on a loop, a plain one in the main thread of the process, so that SIGTERM reaches it: an async
one gets CancelledError, a plain one SystemExit, each once, and `work.cancelled` is true from then on. A function that
ends of it ends the process as SIGTERM would have; the node knows why.
"""

from __future__ import annotations

import asyncio
import faulthandler
import inspect
import io
import os
import pickle
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, closing, contextmanager, suppress
from importlib.metadata import EntryPoint
from typing import Any, cast

import msgpack

from zmesh.errors import MeshError, RemoteError
from zmesh.payloads.payload import Payload, StreamedPayload, encode
from zmesh.payloads.source import Source, source
from zmesh.payloads.spool import Spool
from zmesh.runtime.exceptions import code_of, describe, is_a, text_of, traceback_of
from zmesh.serving.isolation.ipc import PIECE, Channel, Frame, Job, Line
from zmesh.serving.plugin import Plugin
from zmesh.serving.shape import Shape, shape_of
from zmesh.serving.work import Work

_UNREAD_BYTES = 4 * PIECE


class _Whole(Payload):
    """A payload that is complete, in memory or in a file that the node has spooled it to.

    Its file has the one name that the keeper deletes when the process has ended, however it ends.
    """

    __slots__ = ("_file_name",)

    def __init__(self, content: bytes | None, job: Job, descriptor: int | None) -> None:
        super().__init__(content or b"", spool_dir=job.folder)
        self._file_name = job.name
        if descriptor is not None and job.size is not None:
            self._content = None
            self._spool = Spool.adopt(descriptor, job.size, job.folder, job.name)

    @property
    def name(self) -> str:
        """The path of a real file with this content, which is deleted with the process."""
        if self._spool is None:
            content = self._read_at(0, len(self))
            self._spool = Spool(self._spool_dir, self._file_name)
            self._spool.write(content)
        return self._spool.path()


class _Piped(Payload):
    """A payload that a plain function reads off the socket, as far as it wants, while the rest is under way."""

    __slots__ = ("_ended", "_line", "_rest", "_size")

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line
        self._rest = b""
        self._size = 0
        self._ended = False

    def read(self, size: int | None = -1, /) -> bytes:
        """The next `size` bytes, waiting for them, fewer at the end only; all that is left if negative or None."""
        parts = []
        left = -1 if size is None or size < 0 else size
        while left and (part := self._rest or self._take()):
            self._rest = b"" if left < 0 else part[left:]
            parts.append(part if left < 0 else part[:left])
            left -= len(parts[-1]) if left > 0 else 0
        data = b"".join(parts)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        """All of it, once nothing was read before. Raises UnsupportedOperation after a read."""
        if self._position:
            raise io.UnsupportedOperation("a streaming payload can be read once only")
        return self.read()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Raises UnsupportedOperation."""
        raise io.UnsupportedOperation("a streaming payload can't seek")

    @property
    def name(self) -> str:
        """Raises UnsupportedOperation."""
        raise io.UnsupportedOperation("a streaming payload has no file")

    def close(self) -> None:
        """Read no more of it."""
        self._rest = b""
        self._ended = True

    def __len__(self) -> int:
        return self._size

    def __bool__(self) -> bool:
        return self._size > 0 or not self._ended

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._rest or self._take():
            self._rest = b""
            self._position += len(chunk)
            yield chunk

    def _outgoing(self) -> bytes | Source:
        return source(iter(self))

    def _take(self) -> bytes:
        if self._ended:
            return b""
        kind, body = self._line.receive()
        if kind == Frame.PIECE:
            self._size += len(body)
            return body
        self._ended = True
        if kind == Frame.FAILED:
            raise MeshError(msgpack.unpackb(body)["text"])
        return b""


class _Feed:
    """Moves a payload that is under way from the socket to a StreamedPayload, no faster than that is read."""

    def __init__(self, channel: Channel) -> None:
        self.payload = StreamedPayload(self._consumed)
        self._channel = channel
        self._unread = 0
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Until all of it has come."""
        while (received := await self._channel.receive()) is not None:
            kind, body = received
            if kind == Frame.PIECE:
                self._unread += len(body)
                self.payload.feed(body)
                while self._unread > _UNREAD_BYTES:
                    self._room.clear()
                    await self._room.wait()
            elif kind == Frame.END:
                self.payload.finish()
                return
            else:
                self.payload.fail(MeshError(msgpack.unpackb(body)["text"]))
                return

    def _consumed(self, size_bytes: int) -> None:
        self._unread -= size_bytes
        self._room.set()


class _Process:
    """This process: the job, and what has been made of it."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.terminated = False
        self.ended = False
        self.work: Work | None = None

    def run(self, descriptor: int | None) -> None:
        """All of the job, up to the function's end. Raises what that raises."""
        _, body = self.line.receive()
        job: Job = pickle.loads(body)  # the node has made it
        sys.path[:] = job.search
        function, plugin = _load(job)
        shape = shape_of(function)
        plain = shape in (Shape.FUNCTION, Shape.GENERATOR)
        payload: Payload | None = None
        if not job.stream:
            payload = _Whole(None if descriptor is not None else _Piped(self.line).read(), job, descriptor)
        elif plain:
            payload = _Piped(self.line)
        if plain and payload is not None:
            with _started(plugin):
                self._run_plain(shape, function, self._begin(job, payload))
        else:
            asyncio.run(self._run_async(shape, function, job, payload, plugin))
        self.ended = True

    def stop(self, number: int, at: object) -> None:
        """SIGTERM has come for a plain function."""
        if self._terminate():
            raise SystemExit("terminated")

    def _terminate(self) -> bool:
        """Take note of a SIGTERM; whether it is the first one."""
        first = not self.terminated
        self.terminated = True
        if self.work is not None:
            self.work.cancelled = True
        return first

    def _begin(self, job: Job, payload: Payload) -> Work:
        self.work = Work(
            message_id=job.message_id,
            directive=job.directive,
            sender=job.sender,
            header=job.header,
            payload=payload,
            config=job.config,
            cancelled=self.terminated,
            deadline=None if job.lifetime is None else time.monotonic() + job.lifetime,
        )
        return self.work

    # --- plain functions ---------------------------------------------------------------------------------------------

    def _run_plain(self, shape: Shape, function: Callable[[Work], Any], work: Work) -> None:
        with closing(work.payload):
            if shape is Shape.GENERATOR:
                with closing(function(work)) as values:
                    for value in values:
                        self._reply(value)
            else:
                self._reply(function(work))

    def _reply(self, value: Any) -> None:
        if value is None:
            return
        encoded = encode(value)
        if isinstance(encoded, Source):
            asyncio.run(self._send_source(encoded, self._send))
        else:
            for kind, body in _frames(encoded):
                self.line.send(kind, body)

    async def _send(self, kind: Frame, body: bytes = b"") -> None:
        self.line.send(kind, body)  # nothing else runs on the loop of a plain function's source

    # --- async functions ---------------------------------------------------------------------------------------------

    async def _run_async(
        self, shape: Shape, function: Callable[[Work], Any], job: Job, payload: Payload | None, plugin: Plugin | None
    ) -> None:
        loop = asyncio.get_running_loop()
        channel = Channel(self.line.socket, sys.maxsize)
        feed = None
        if payload is None:
            feeding = _Feed(channel)
            payload = feeding.payload
            feed = loop.create_task(feeding.run(), name="zmesh payload")
        task = asyncio.current_task()
        loop.add_signal_handler(signal.SIGTERM, self._stop_task, task)
        work = self._begin(job, payload)
        try:
            if plugin is not None:
                await plugin.start()
            if shape is Shape.ASYNC_GENERATOR:
                async with aclosing(function(work)) as values:
                    async for value in values:
                        await self._reply_async(channel, value)
            else:
                await self._reply_async(channel, await function(work))
        finally:
            if feed is not None:
                feed.cancel()
            payload.close()
            self.line.socket.setblocking(True)
            if plugin is not None:
                await plugin.close()

    def _stop_task(self, task: asyncio.Task[Any] | None) -> None:
        """SIGTERM has come for an async function."""
        if self._terminate() and task is not None:
            task.cancel()

    async def _reply_async(self, channel: Channel, value: Any) -> None:
        if value is None:
            return
        encoded = encode(value)
        if isinstance(encoded, Source):
            await self._send_source(encoded, channel.send)
        else:
            for kind, body in _frames(encoded):
                await channel.send(kind, body)

    async def _send_source(self, reply: Source, send: Callable[..., Coroutine[Any, Any, None]]) -> None:
        try:
            await send(Frame.OPEN)
            while piece := await reply.read(PIECE):
                await send(Frame.PIECE, piece)
            await send(Frame.END)
        finally:
            reply.close()


def _frames(reply: bytes) -> Iterator[tuple[Frame, bytes]]:
    if len(reply) <= PIECE:
        yield Frame.REPLY, reply
        return
    yield Frame.OPEN, b""
    for start in range(0, len(reply), PIECE):
        yield Frame.PIECE, reply[start : start + PIECE]
    yield Frame.END, b""


def _load(job: Job) -> tuple[Callable[[Work], Any], Plugin | None]:
    """The function, and the plugin that it belongs to if that wants to be started before."""
    origin = job.origin
    if isinstance(origin, bytes):
        return pickle.loads(origin), None
    target: Any = EntryPoint("", origin.value, "").load()
    if inspect.isclass(target):
        target = target()
    function = target if origin.attribute is None else getattr(target, origin.attribute)
    plugin = Plugin(job.directive.partition(":")[0], target)
    if plugin.starter is None:
        return function, None
    plugin.configure(job.config)
    return function, plugin


@contextmanager
def _started(plugin: Plugin | None) -> Iterator[None]:
    """Start the plugin of a plain function, and close it afterwards, in a loop that is there for both."""
    if plugin is None:
        yield
        return
    with asyncio.Runner() as runner:
        try:
            runner.run(plugin.start())
            yield
        finally:
            runner.run(plugin.close())


def _report(failure: BaseException) -> bytes:
    """What the node is told of a failure."""
    if is_a(failure, RemoteError):  # the plugin's own word to the requester
        word = {"reason": code_of(cast("RemoteError", failure)), "text": text_of(failure), "trace": ""}
    else:
        word = {"reason": RemoteError.code, "text": describe(failure), "trace": traceback_of(failure)}
    return bytes(msgpack.packb({**word, "memory": is_a(failure, MemoryError)}))


def main(connection: socket.socket, descriptor: int | None) -> None:
    """Run the job that comes over the socket and end the process. The payload may lie in the file `descriptor`."""
    line = Line(connection)
    process = _Process(line)
    signal.signal(signal.SIGTERM, process.stop)
    report: bytes | None = None
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        faulthandler.enable()
        process.run(descriptor)
    except MemoryError as failure:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))  # the keeper has left room for this
        report = _report(failure)
    except BaseException as failure:  # noqa: BLE001  # SystemExit and the like are the requester's to hear of
        if not process.terminated:
            report = _report(failure)
    _leave(process, report)


def _leave(process: _Process, report: bytes | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # from here on nothing is to be cleaned up
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    if report is None and process.terminated and not process.ended:
        os.kill(os.getpid(), signal.SIGTERM)
    with suppress(OSError):  # the node is gone
        if report is not None:
            process.line.send(Frame.FAILED, report)
        else:
            process.line.send(Frame.DONE)
    os._exit(0)
