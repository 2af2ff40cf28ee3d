"""Server-side state of one exchange, from its first chunk to its final reply.

A directive that streams is started with the first chunk of its request, any other one when the payload is whole. Credit
is released to the client as the payload is read, or as it is collected (and spooled to disk when large).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from zmesh.core.effects import Deliver, Report
from zmesh.core.message import Eof, NodeId, ReplyHeader, RequestHeader, make_stream
from zmesh.errors import Cancelled, MeshError, NodeOverloaded, RemoteError
from zmesh.payloads import (
    JSON,
    BufferedPayload,
    OutboundWriter,
    Outgoing,
    Payload,
    Source,
    StreamedPayload,
    StreamFeeder,
)
from zmesh.runtime import describe, log_exception, must_propagate, text_of
from zmesh.serving.overload import overload_report
from zmesh.serving.work import Work

if TYPE_CHECKING:
    from contextvars import Context

    from zmesh.observe import Ended
    from zmesh.serving.serving import Serving

log = logging.getLogger(__name__)

SUCCESS = Eof()

MAX_INLINE_BYTES = 16 * 1024
"""Maximum payload of a built-in directive, in bytes."""


class IncomingRequest:
    """A request at its server: the handle of its exchange in the engine, and the sender of its replies.

    `serial` is the number of its last reply. `pending_result` is there while a built-in directive waits for its result.
    """

    __slots__ = (
        "_feeder",
        "_payload",
        "_serving",
        "_spooled",
        "_writer",
        "content_type",
        "context",
        "deadline",
        "directive",
        "ended",
        "endings",
        "id",
        "indexed",
        "metadata",
        "pending_result",
        "sender",
        "serial",
        "started",
        "stream",
        "timestamp",
    )

    def __init__(self, serving: Serving, chunk: Deliver, opening: RequestHeader) -> None:
        self._serving = serving
        self.id = chunk.stream.message_id
        self.sender = chunk.peer
        self.directive = opening.directive
        self.timestamp = opening.timestamp
        self.content_type = opening.content_type
        self.metadata = opening.metadata
        self.deadline: float | None = None
        if opening.lifetime is not None:
            self.deadline = asyncio.get_running_loop().time() + opening.lifetime
        self.stream = make_stream((self.id, False))
        self.serial = 0
        self.started = False
        self.ended = False
        """Whether the final reply has been handed over."""
        self.endings: list[Ended] | None = None
        """The callbacks of observers, for its end."""
        self.context: Context | None = None
        """The context that the work runs in, if an observer has set one."""
        self.indexed = False
        self.pending_result: asyncio.Future[object] | None = None
        self._payload: BufferedPayload | StreamedPayload | None = None
        self._spooled = False
        self._feeder: StreamFeeder | None = None
        self._writer: OutboundWriter | None = None

    @property
    def message_id(self) -> str:
        """The message id, 32 hex digits."""
        return self.id.hex()

    @property
    def is_feeding(self) -> bool:
        """Whether a reply is, or was, read from a source or waited for room."""
        return self._feeder is not None or self._writer is not None

    # -- from the engine (its Handle) ----------------------------------------------------------------------------

    def begin(self, chunk: Deliver) -> None:
        """Take the first chunk."""
        serving = self._serving
        if chunk.last:
            self._start(Payload(chunk.body, spool_dir=serving.storage.folder))
            return
        release = partial(serving.driver.release_credit, chunk.stream)
        if self.directive not in serving.builtins and serving.runner.wants_stream(self.directive):
            streamed = self._payload = StreamedPayload(release, partial(serving.driver.stop_sending, self.id))
            self._start(streamed)
        else:
            self._payload = serving.storage.buffered(release, self._refuse, self._admit_spooled)
        self._feed(self._payload, chunk)

    def on_chunk(self, chunk: Deliver) -> None:
        """The next chunk of the payload."""
        payload = self._payload
        if payload is None:
            self._serving.driver.release_credit(chunk.stream, chunk.credit)
        else:
            self._feed(payload, chunk)

    def on_room(self) -> None:
        """The reply stream has send credit again."""
        if self._feeder is not None:
            self._feeder.on_room()
        elif self._writer is not None:
            self._writer.on_room()

    def on_stream_over(self) -> None:
        """The reply stream is closed for sending."""
        if self._feeder is not None:
            self._feeder.on_stream_over()
        elif self._writer is not None:
            self._writer.on_stream_over()

    def on_abort(self, reason: str, reset_code: int) -> None:
        """The client cancelled the request, or is gone."""
        self.stop(reason, reset_code=reset_code)
        if self._feeder is not None:
            self._feeder.stop()

    def on_probe(self) -> None:
        """The client probes: report what the work waits for, if it has not begun."""
        if self.started and not self.ended and (cause := self._serving.runner.delay(self.message_id)):
            self._serving.driver.report_delay(self.id, f"node {self._serving.node_id!r}: {cause}")

    def on_failure(self, error: BaseException) -> None:
        """Called when a chunk could not be processed."""
        text = f"node {self._serving.node_id!r} failed to take it in: {describe(error)}"
        self.finish(reason=RemoteError.code, error=text)

    # -- its work ------------------------------------------------------------------------------------------------

    def stop(self, reason: str, by: str | None = None, reset_code: int = 0) -> None:
        """Cancel the work. `reason` is a code of zmesh.errors; `by` is the node that asked, unless it is the client."""
        if self.ended:
            return
        payload = self._payload
        if self.pending_result is not None:
            self.pending_result.cancel()
        elif self.started:
            if isinstance(payload, StreamedPayload):
                text = "the request was cancelled before all of its payload had come"
                payload.fail(Cancelled(text, node=self.sender, message_id=self.message_id, reset_code=reset_code))
            self._serving.runner.cancel(self.message_id, reason, by, reset_code)
        else:
            if payload is not None:
                payload.close()
            text = f"{self.directive} was stopped at {self._serving.node_id!r} before all of its payload had come"
            self.finish(reason=reason, error=text if by is None else f"{text}, by {by!r}")

    async def reply(self, outgoing: Outgoing) -> None:
        """Send one reply; waits while the client has no room. A reply to a client that is gone is dropped."""
        driver = self._serving.driver
        room = 0 if self.ended else driver.room(self.stream)
        if not room and not self.ended:
            room = await self._open_feeder().room()
        if not room:
            self._drop(outgoing)
            return
        header, body = self._open(outgoing), outgoing.body
        if isinstance(body, bytes):
            driver.reply(self.id, header, body)
        else:
            driver.reply(self.id, header, b"", last=False)
            await self._open_feeder().feed(body)

    def open_reply(self, content_type: str, metadata: Mapping[str, str]) -> OutboundWriter:
        """Open the only reply; the writer that is returned writes its payload, up to its `end`."""
        driver = self._serving.driver
        writer = self._writer = OutboundWriter(driver, self.stream)
        driver.reply(self.id, self._open(Outgoing(b"", content_type, metadata)), b"", last=False)
        if driver.is_open(self.stream):
            writer.begin()
        else:
            writer.on_stream_over()
        return writer

    def finish(
        self,
        outgoing: Outgoing | None = None,
        *,
        reason: str | None = None,
        error: str | None = None,
        reset_code: int | None = None,
    ) -> None:
        """Send the final reply, and with `outgoing` one more before it; nothing if that was done already.

        `reason` is the code of a class in zmesh.errors, None for success, and `error` its text. With a `reset_code`
        the replies that were not sent yet are dropped. A Source that is handed over here or to `reply` is read and
        closed by this.
        """
        if self.ended:
            if outgoing is not None:
                outgoing.close()
            return
        self.ended = True
        serving = self._serving
        if reason is not None:
            serving.counts.failed(self.sender, self.directive, reason)
        if self.indexed:
            serving.forget(self)
            if outgoing is not None and not serving.driver.is_open(self.stream):
                self._drop(outgoing)
                outgoing = None
        eof = SUCCESS if reason is None else Eof(1, reason, error or reason)
        body = b"" if outgoing is None else outgoing.body
        if (
            type(body) is not bytes and outgoing is not None and isinstance(body, Source)
        ):  # perhaps the file that the request's payload lies in
            writer = self._open_feeder()
            writer.spawn(serving.tasks, self._finish_with(outgoing, body, eof), f"zmesh reply {self.message_id}")
            return
        if self.endings is not None:
            self._end_observation(eof)
        if self._spooled:
            serving.spool_quota.end(self.id)
        if reset_code is not None:
            serving.driver.reset(self.id, reset_code, error or "")
        elif outgoing is None:
            serving.driver.reply(self.id, None, b"", last=False, eof=eof)
        elif isinstance(body, bytes):
            serving.driver.reply(self.id, self._open(outgoing), body, eof=eof)

    # -- inside --------------------------------------------------------------------------------------------------

    def _end_observation(self, eof: Eof) -> None:
        for ended in self.endings or ():
            ended(eof.reason if eof.code else "", eof.error if eof.code else "")

    def _open_feeder(self) -> StreamFeeder:
        if self._feeder is None:
            self._feeder = StreamFeeder(self._serving.driver, self.stream)
        return self._feeder

    def _open(self, outgoing: Outgoing) -> ReplyHeader:
        """The header of the next reply."""
        self.serial += 1
        return ReplyHeader(time.time(), self.serial, outgoing.content_type, outgoing.metadata)

    def _drop(self, outgoing: Outgoing) -> None:
        outgoing.close()
        self._serving.note(Report("reply_dropped", NodeId(self.sender), None, "the client is gone"))

    def _feed(self, payload: BufferedPayload | StreamedPayload, chunk: Deliver) -> None:
        try:
            if self.directive in self._serving.builtins:
                _check_inline(self.directive, len(payload) + len(chunk.body))
            later = payload.feed(chunk.body)
        except (MeshError, OSError) as error:
            payload.fail(error)
            self._refuse(error)
            return
        if chunk.last:
            if isinstance(payload, StreamedPayload):
                self._payload = None
                payload.finish()
            else:
                payload.finish(partial(self._start_with, payload))
        self._serving.driver.release_credit(chunk.stream, chunk.credit - later)

    def _admit_spooled(self, size_bytes: int) -> None:
        serving = self._serving
        self._spooled = True
        serving.spool_quota.grow(self.id, self.sender, size_bytes, serving.driver.engine.neighbour_of(self.id))

    def _refuse(self, error: Exception) -> None:
        """End the request, because its payload can't be stored, or a limit is reached."""
        self._payload = None
        if not self.ended and (report := overload_report(error, self.sender)) is not None:
            self._serving.note(report)
        self.finish(reason=error.code if isinstance(error, MeshError) else RemoteError.code, error=text_of(error))

    def _start_with(self, payload: Payload) -> None:
        """Called when the payload is complete and stored in memory or on disk."""
        self._payload = None
        self._start(payload)

    def _start(self, payload: Payload) -> None:
        serving, directive, message_id = self._serving, self.directive, self.message_id
        self.started = True
        header = {
            "message_id": message_id,
            "sender": self.sender,
            "recipient": serving.node_id,
            "timestamp": self.timestamp,
            "directive": directive,
        }
        section = serving.sections.get(directive.partition(":")[0]) or {}
        payload.describe(self.content_type, self.metadata)
        work = Work(message_id, directive, self.sender, header, payload, section, False, self.deadline, self.metadata)
        work._open_reply = self.open_reply
        builtin = serving.builtins.get(directive)
        if builtin is None:
            if self.context is None:
                serving.runner.start(work, self)
            else:
                work._context = self.context
                self.context.run(serving.runner.start, work, self)
            return
        try:
            _check_inline(directive, len(payload))
            result = builtin(work)
            if isinstance(result, asyncio.Future):
                self.pending_result = result
                result.add_done_callback(self._on_result)
            else:
                self.finish(_written(result))
        except NodeOverloaded as error:
            self._refuse(error)
        except Exception as error:  # noqa: BLE001  # any malformed payload gets an error reply
            self.finish(reason=RemoteError.code, error=describe(error))
        payload.close()

    def _on_result(self, result: asyncio.Future[object]) -> None:
        if result.cancelled():
            self.finish(reason="cancelled", error="cancelled")
        elif (error := result.exception()) is not None:
            self.finish(reason=RemoteError.code, error=describe(error))
        else:
            self.finish(_written(result.result()))

    async def _finish_with(self, outgoing: Outgoing, source: Source, eof: Eof) -> None:
        serving = self._serving
        serving.driver.reply(self.id, self._open(outgoing), b"", last=False)
        try:
            await self._open_feeder().feed(source)
        except asyncio.CancelledError:
            text = "the request was cancelled while the payload of its last reply was read"
            eof = Eof(1, "cancelled", text)
            serving.driver.reply(self.id, None, b"", last=False, eof=eof)
            raise
        except BaseException as error:  # the work's own file or iterator may raise anything
            if must_propagate(error):
                raise
            log_exception(log, "the payload of a reply of %s could not be read", self.directive, error=error)
            eof = Eof(1, RemoteError.code, describe(error))
        finally:
            self._end_observation(eof)
            if self._spooled:
                serving.spool_quota.end(self.id)
        serving.driver.reply(self.id, None, b"", last=False, eof=eof)


def _written(result: object) -> Outgoing:
    """The reply of a built-in directive; an Outgoing is one that was written already."""
    return result if isinstance(result, Outgoing) else Outgoing(json.dumps(result).encode(), JSON)


def _check_inline(directive: str, size_bytes: int) -> None:
    if size_bytes > MAX_INLINE_BYTES:
        text = f"{directive} takes a payload of {MAX_INLINE_BYTES} bytes at most, not of {size_bytes}"
        raise NodeOverloaded(text, limit="payload_bytes")
