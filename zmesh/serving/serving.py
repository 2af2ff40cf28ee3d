"""The answering side of an exchange: requests become work, and what the work says becomes replies.

A directive that streams is started with the first chunk of its request, any other one when the payload is whole. Room
for more is given back to the requester as the payload is read, or as it is collected (and spooled to disk when large).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from zmesh.core.effects import Deliver
from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import Eof, MessageId, ReplyHeader, RequestHeader, Stream
from zmesh.errors import MeshError, NodeOverloaded, RemoteError
from zmesh.payloads import BufferedPayload, Desk, Payload, PayloadLike, Source, StreamedPayload, encode, send_source
from zmesh.runtime import describe, log_exception, must_propagate, text_of
from zmesh.serving.directives import Directives
from zmesh.serving.incoming import Incoming
from zmesh.serving.runner import Runner
from zmesh.serving.spool_quota import SpoolQuota
from zmesh.serving.work import Work

log = logging.getLogger(__name__)

SUCCESS = Eof()

MAX_INLINE_BYTES = 16 * 1024
"""Bytes of a payload that a directive takes which the node itself answers, on its loop."""

Inline = Callable[[Work], object]
"""Gives the value that the node answers with, or a future of it. Raises ValueError for what it can't take."""


class _Request:
    """One request here: its payload while that arrives, and the count of its replies."""

    __slots__ = (
        "answer",
        "deadline",
        "directive",
        "header",
        "id",
        "message_id",
        "payload",
        "sender",
        "serial",
        "started",
        "stream",
    )

    def __init__(self, id: MessageId, sender: str, recipient: str, opening: RequestHeader) -> None:
        self.id = id
        self.message_id = id.hex()
        self.sender = sender
        self.directive = opening.directive
        self.header: dict[str, object] = {
            "message_id": self.message_id,
            "sender": sender,
            "recipient": recipient,
            "timestamp": opening.timestamp,
            "directive": opening.directive,
        }
        self.deadline: float | None = None
        self.stream = Stream(id, False)
        self.payload: BufferedPayload | StreamedPayload | None = None
        self.serial = 0
        self.started = False
        self.answer: asyncio.Future[object] | None = None


class Serving:
    """The requests of other nodes (and of this one) at this node. It is the ReplySink of the work."""

    def __init__(
        self,
        desk: Desk,
        directives: Directives,
        sections: Mapping[str, Mapping[str, object]],
        *,
        max_workers: int,
        max_work: int,
        max_payload_bytes: int,
        spool_dir: str | None,
        max_processes: int,
        isolation: Mapping[str, Mapping[str, float]],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._desk = desk
        self._sections = sections
        self._max_payload_bytes = max_payload_bytes
        self._spool_dir = spool_dir
        self._requests: Incoming[_Request] = Incoming()
        self.spool_quota = SpoolQuota(desk.node_id, limits)
        self._inline: dict[str, Inline] = {}
        self.runner = Runner(
            directives,
            self,
            max_workers=max_workers,
            max_work=max_work,
            max_processes=max_processes,
            isolation=isolation,
            spool_dir=spool_dir,
        )

    def __len__(self) -> int:
        return len(self._requests)

    def answer(self, directive: str, function: Inline) -> None:
        """Let the node itself answer a directive, at once and on the loop."""
        self._inline[directive] = function

    def near(self, message_id: str, likeness: float) -> list[str]:
        """The message id of a request under way here that agrees in that share of its digits, if there is one."""
        near = self._requests.near(int(message_id, 16), likeness)
        return [] if near is None else [near.hex()]

    def find(self, message_id: str) -> Mapping[str, object] | None:
        """The header of a request that is under way here, by its id or by that of one of its replies."""
        request = self._requests.find(int(message_id, 16))
        return request.header if request is not None and request.answer is None else None

    def cancel(self, message_id: str, by: str, ended: Callable[[], None]) -> None:
        """Stop a request for the node `by`, and call `ended` when its work has ended."""
        self.abort(MessageId(bytes.fromhex(message_id)), "cancelled", by)
        self.runner.when_ended(message_id, ended)

    # -- from the engine -----------------------------------------------------------------------------------------

    def piece(self, piece: Deliver) -> None:
        """Take the next piece of a request."""
        id = piece.stream.message_id
        header = piece.header
        if isinstance(header, RequestHeader):
            request = self._open(id, piece, header)
            if piece.last:
                self._start(request, Payload(piece.body, spool_dir=self._spool_dir))
                return
            self._receive(request, header.directive, piece)
            return
        known = self._requests.get(id)
        if known is None or known.payload is None:
            self._desk.release_credit(piece.stream, piece.credit)
            return
        self._feed(known, known.payload, piece)

    def abort(self, id: MessageId, reason: str, by: str | None = None) -> None:
        """The requester wants no more of it, or is gone, or another node (`by`) has it stopped."""
        request = self._requests.get(id)
        if request is None:
            return
        if request.answer is not None:
            request.answer.cancel()
        elif request.started:
            if isinstance(request.payload, StreamedPayload):
                request.payload.fail(MeshError("the request was cancelled before all of its payload had come"))
            self.runner.cancel(id.hex(), reason, by)
        else:
            if request.payload is not None:
                request.payload.close()
            text = f"{request.directive} was stopped at {self._desk.node_id!r} before all of its payload had come"
            self.finish(id.hex(), reason=reason, error=text if by is None else f"{text}, by {by!r}")

    def _open(self, id: MessageId, piece: Deliver, header: RequestHeader) -> _Request:
        request = self._requests.add(_Request(id, piece.peer, self._desk.node_id, header))
        if header.lifetime is not None:
            request.deadline = asyncio.get_running_loop().time() + header.lifetime
        return request

    def _receive(self, request: _Request, directive: str, piece: Deliver) -> None:
        if directive not in self._inline and self.runner.wants_stream(directive):
            stream = piece.stream
            payload = request.payload = StreamedPayload(lambda size: self._desk.release_credit(stream, size))
            self._start(request, payload)
            self._feed(request, payload, piece)
        else:
            arriving = request.payload = BufferedPayload(
                spool_dir=self._spool_dir,
                max_bytes=self._max_payload_bytes,
                disk=self._desk.disk,
                written=partial(self._desk.release_credit, piece.stream),
                failed=partial(self._refuse, request),
                admit=partial(self.spool_quota.grow, request.id, request.sender),
            )
            self._feed(request, arriving, piece)

    def _feed(self, request: _Request, payload: BufferedPayload | StreamedPayload, piece: Deliver) -> None:
        try:
            if request.directive in self._inline:
                _check_inline(request.directive, len(payload) + len(piece.body))
            later = payload.feed(piece.body)
        except (MeshError, OSError) as error:
            payload.fail(error)
            self._refuse(request, error)
            return
        if piece.last:
            if isinstance(payload, StreamedPayload):
                request.payload = None
                payload.finish()
            else:
                payload.finish(partial(self._start_with, request, payload))
        self._desk.release_credit(piece.stream, piece.credit - later)

    def _refuse(self, request: _Request, error: Exception) -> None:
        """End a request whose payload can't be kept."""
        if self._requests.get(request.id) is request:
            request.payload = None
            reason = error.code if isinstance(error, MeshError) else RemoteError.code
            self.finish(request.message_id, reason=reason, error=text_of(error))

    def _start_with(self, request: _Request, payload: Payload) -> None:
        """All of the payload has come, and is where it belongs."""
        request.payload = None
        self._start(request, payload)

    def _start(self, request: _Request, payload: Payload) -> None:
        directive, message_id = request.directive, request.message_id
        request.started = True
        section = self._sections.get(directive.partition(":")[0]) or {}
        work = Work(message_id, directive, request.sender, request.header, payload, section, False, request.deadline)
        inline = self._inline.get(directive)
        if inline is None:
            self.runner.start(work)
            return
        try:
            _check_inline(directive, len(payload))
            answer = inline(work)
            if isinstance(answer, asyncio.Future):
                request.answer = answer
                answer.add_done_callback(partial(self._answer_later, message_id))
            else:
                self.finish(message_id, json.dumps(answer).encode(), has_payload=True)
        except NodeOverloaded as error:
            self.finish(message_id, reason=error.code, error=str(error))
        except Exception as error:  # noqa: BLE001  # whatever is wrong with what somebody has sent, it is answered
            self.finish(message_id, reason=RemoteError.code, error=describe(error))
        payload.close()

    def _answer_later(self, message_id: str, answer: asyncio.Future[object]) -> None:
        if answer.cancelled():
            self.finish(message_id, reason="cancelled", error="cancelled")
        elif (error := answer.exception()) is not None:
            self.finish(message_id, reason=RemoteError.code, error=describe(error))
        else:
            self.finish(message_id, json.dumps(answer.result()).encode(), has_payload=True)

    # -- the ReplySink of the work ----------------------------------------------------------------------------------

    async def reply(self, message_id: str, payload: PayloadLike, /) -> None:
        """Send one reply; waits while the requester has no room. A reply to one who is gone goes nowhere."""
        request = self._requests.get(MessageId(bytes.fromhex(message_id)))
        body = encode(payload)
        if request is None:
            if isinstance(body, Source):
                body.close()
            return
        desk = self._desk
        if not desk.room(request.stream):
            await desk.room_for(request.stream)
        request.serial += 1
        header = ReplyHeader(time.time(), request.serial)
        if isinstance(body, bytes):
            desk.reply(request.id, header, body)
        else:
            desk.reply(request.id, header, b"", last=False)
            await send_source(desk, request.stream, body)

    def finish(
        self,
        message_id: str,
        payload: PayloadLike = None,
        /,
        *,
        has_payload: bool = False,
        reason: str | None = None,
        error: str | None = None,
    ) -> None:
        """Send the last reply; nothing if the requester is gone."""
        id = MessageId(bytes.fromhex(message_id))
        request = self._requests.pop(id)
        if request is None:
            return
        eof = SUCCESS if reason is None else Eof(1, reason, error or reason)
        if not has_payload:
            self.spool_quota.end(id)
            self._desk.reply(id, None, b"", last=False, eof=eof)
            return
        body = encode(payload)
        request.serial += 1
        header = ReplyHeader(time.time(), request.serial)
        if isinstance(body, bytes):
            self.spool_quota.end(id)
            self._desk.reply(id, header, body, eof=eof)
        else:  # which may be read from the file that the request's payload lies in
            finishing = self._finish_with(request, header, body, eof)
            self._desk.spawn(finishing, f"zmesh reply {message_id}", request.stream)

    async def _finish_with(self, request: _Request, header: ReplyHeader, source: Source, eof: Eof) -> None:
        self._desk.reply(request.id, header, b"", last=False)
        try:
            await send_source(self._desk, request.stream, source)
        except asyncio.CancelledError:
            eof = Eof(1, "cancelled", "the request was cancelled while the payload of its last reply was read")
            self._desk.reply(request.id, None, b"", last=False, eof=eof)
            raise
        except BaseException as error:  # the work's own file or iterator may raise anything
            if must_propagate(error):
                raise
            log_exception(log, "the payload of a reply of %s could not be read", request.directive, error=error)
            eof = Eof(1, RemoteError.code, describe(error))
        finally:
            self.spool_quota.end(request.id)
        self._desk.reply(request.id, None, b"", last=False, eof=eof)

    async def close(self) -> None:
        """Cancel all work and wait for its end; requests whose payload was still arriving are dropped."""
        for request in self._requests:
            if not request.started or request.answer is not None:
                self.abort(request.id, "cancelled")
        await self.runner.close()

    def close_now(self) -> None:
        """Cancel all work without waiting for its end."""
        for request in self._requests:
            if not request.started or request.answer is not None:
                with suppress(RuntimeError):  # the loop is closed, and nothing that waits in it goes on
                    self.abort(request.id, "cancelled")
        self.runner.close_now()


def _check_inline(directive: str, size_bytes: int) -> None:
    if size_bytes > MAX_INLINE_BYTES:
        raise NodeOverloaded(f"{directive} takes a payload of {MAX_INLINE_BYTES} bytes at most, not of {size_bytes}")
