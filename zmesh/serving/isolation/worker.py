"""Worker process of one isolated directive, forked by the fork server and connected to the node by a Unix socket.

An async function runs on an event loop, a plain one in the main thread, so that SIGTERM reaches it: an async function
gets CancelledError, a plain one SystemExit, each once, and `work.cancelled` is true from then on. If the function exits
because of it, the process dies by SIGTERM, which the node reports as cancelled.
"""

from __future__ import annotations

import asyncio
import faulthandler
import inspect
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
from zmesh.payloads import Outgoing, Payload, PayloadOfPieces, Source, Spool, StreamedPayload, outgoing, source_of
from zmesh.runtime import code_of, describe, is_a, limit_of, text_of, traceback_of
from zmesh.serving.isolation.ipc import CHUNK_BYTES, BlockingChannel, Channel, Frame, Job
from zmesh.serving.plugin import Plugin
from zmesh.serving.shape import Shape, shape_of
from zmesh.serving.work import Work, WorkReset

_UNREAD_BYTES = 4 * CHUNK_BYTES


class _CompletePayload(Payload):
    """A complete payload, in memory or in the node's spool file.

    Its file gets the one name that the fork server deletes when the worker has exited, however it exits.
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


class _SocketPayload(PayloadOfPieces):
    """A streamed payload that a plain function reads from the socket, blocking."""

    __slots__ = ("_channel",)

    def __init__(self, channel: BlockingChannel) -> None:
        super().__init__()
        self._channel = channel

    def close(self) -> None:
        """Stop reading; the rest is discarded."""
        self._rest = b""
        self._ended = True

    def _outgoing(self) -> bytes | Source:
        return source_of(iter(self))

    def _take(self) -> bytes:
        if self._ended:
            return b""
        kind, body = self._channel.receive()
        if kind == Frame.CHUNK:
            self._size += len(body)
            return body
        self._ended = True
        if kind == Frame.FAILED:
            raise MeshError(msgpack.unpackb(body)["text"])
        return b""


class _PayloadReceiver:
    """Copies a payload from the socket into a StreamedPayload, no faster than that is read."""

    def __init__(self, channel: Channel) -> None:
        self.payload = StreamedPayload(self._consumed)
        self._channel = channel
        self._unread = 0
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Receive until the payload is complete or aborted."""
        while (received := await self._channel.receive()) is not None:
            kind, body = received
            if kind == Frame.CHUNK:
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
    """The state of this process: its job, and how far that has come."""

    def __init__(self, channel: BlockingChannel) -> None:
        self.channel = channel
        self.terminated = False
        self.ended = False
        self.work: Work | None = None

    def run(self, descriptor: int | None) -> None:
        """Receive the job and run its function. Raises what the function raises."""
        _, body = self.channel.receive()
        job: Job = pickle.loads(body)  # the node has pickled it
        sys.path[:] = job.sys_path
        function, plugin = _load(job)
        shape = shape_of(function)
        plain = shape in (Shape.FUNCTION, Shape.GENERATOR)
        payload: Payload | None = None
        if not job.stream:
            payload = _CompletePayload(
                None if descriptor is not None else _SocketPayload(self.channel).read(), job, descriptor
            )
        elif plain:
            payload = _SocketPayload(self.channel)
        if plain and payload is not None:
            with _started(plugin):
                self._run_plain(shape, function, self._begin(job, payload))
        else:
            asyncio.run(self._run_async(shape, function, job, payload, plugin))
        self.ended = True

    def stop(self, number: int, at: object) -> None:
        """Handle SIGTERM for a plain function: raises SystemExit at the first."""
        if self._terminate():
            raise SystemExit("terminated")

    def _terminate(self) -> bool:
        """Record a SIGTERM; True if it is the first."""
        first = not self.terminated
        self.terminated = True
        if self.work is not None:
            self.work.cancelled = True
        return first

    def _begin(self, job: Job, payload: Payload) -> Work:
        payload.describe(job.content_type, job.metadata)
        self.work = Work(
            message_id=job.message_id,
            directive=job.directive,
            sender=job.sender,
            header=job.header,
            payload=payload,
            config=job.config,
            cancelled=self.terminated,
            deadline=None if job.lifetime is None else time.monotonic() + job.lifetime,
            metadata=job.metadata,
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
        reply = outgoing(value)
        for kind, body in _frames(reply):
            self.channel.send(kind, body)
        if isinstance(reply.body, Source):
            asyncio.run(self._send_source(reply.body, self._send))

    async def _send(self, kind: Frame, body: bytes = b"") -> None:
        self.channel.send(kind, body)  # nothing else runs on the loop of a plain function's source

    # --- async functions ---------------------------------------------------------------------------------------------

    async def _run_async(
        self, shape: Shape, function: Callable[[Work], Any], job: Job, payload: Payload | None, plugin: Plugin | None
    ) -> None:
        loop = asyncio.get_running_loop()
        channel = Channel(self.channel.socket, sys.maxsize)
        feed = None
        if payload is None:
            feeding = _PayloadReceiver(channel)
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
            self.channel.socket.setblocking(True)
            if plugin is not None:
                await plugin.close()

    def _stop_task(self, task: asyncio.Task[Any] | None) -> None:
        """Handle SIGTERM for an async function."""
        if self._terminate() and task is not None:
            task.cancel()

    async def _reply_async(self, channel: Channel, value: Any) -> None:
        if value is None:
            return
        reply = outgoing(value)
        for kind, body in _frames(reply):
            await channel.send(kind, body)
        if isinstance(reply.body, Source):
            await self._send_source(reply.body, channel.send)

    async def _send_source(self, reply: Source, send: Callable[..., Coroutine[Any, Any, None]]) -> None:
        try:
            await send(Frame.OPEN)
            while chunk := await reply.read(CHUNK_BYTES):
                await send(Frame.CHUNK, chunk)
            await send(Frame.END)
        finally:
            reply.close()


def _frames(reply: Outgoing) -> Iterator[tuple[Frame, bytes]]:
    """The frames of a reply; without its content, if that is a source."""
    body = reply.body
    if reply.content_type or reply.metadata:
        yield Frame.DESCRIPTION, msgpack.packb((reply.content_type, reply.metadata))
    if isinstance(body, Source):
        return
    if len(body) <= CHUNK_BYTES:
        yield Frame.REPLY, body
        return
    yield Frame.OPEN, b""
    for start in range(0, len(body), CHUNK_BYTES):
        yield Frame.CHUNK, body[start : start + CHUNK_BYTES]
    yield Frame.END, b""


def _load(job: Job) -> tuple[Callable[[Work], Any], Plugin | None]:
    """Load the function, and its plugin if that has a `start` to run before."""
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
    """Start the plugin of a plain function, and close it afterwards, on one event loop."""
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
    """Encode an exception for a FAILED frame."""
    if is_a(failure, WorkReset):
        code = cast("WorkReset", failure).reset_code
        report: dict[str, object] = {"reason": "", "text": text_of(failure), "trace": "", "reset_code": code}
    elif is_a(failure, RemoteError):  # raised on purpose, for the client
        report = {"reason": code_of(cast("RemoteError", failure)), "text": text_of(failure), "trace": ""}
        report["limit"] = limit_of(failure)
    else:
        report = {"reason": RemoteError.code, "text": describe(failure), "trace": traceback_of(failure)}
    return bytes(msgpack.packb({**report, "memory": is_a(failure, MemoryError)}))


def main(connection: socket.socket, descriptor: int | None) -> None:
    """Run the job received over the socket and exit. The payload may lie in the file `descriptor`."""
    channel = BlockingChannel(connection)
    process = _Process(channel)
    signal.signal(signal.SIGTERM, process.stop)
    report: bytes | None = None
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        faulthandler.enable()
        process.run(descriptor)
    except MemoryError as failure:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))  # the hard limit leaves room for this
        report = _report(failure)
    except BaseException as failure:  # noqa: BLE001  # SystemExit and the like are reported to the client
        if not process.terminated:
            report = _report(failure)
    _exit(process, report)


def _exit(process: _Process, report: bytes | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to clean up
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    if report is None and process.terminated and not process.ended:
        os.kill(os.getpid(), signal.SIGTERM)
    with suppress(OSError):  # the node has closed the socket
        if report is not None:
            process.channel.send(Frame.FAILED, report)
        else:
            process.channel.send(Frame.DONE)
    os._exit(0)
