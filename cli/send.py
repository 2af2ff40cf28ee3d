"""`zmesh send`: send a request to a node, and write its replies to stdout or a file as they come."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypedDict

from zmesh import Payload, Reply, ReplyStream
from zmesh.errors import ExchangeError
from zmesh_cli.exit_codes import DONE, FAILED, INTERRUPTED, REASONS, USAGE, Failure
from zmesh_cli.input import FROM_FILE, FROM_STDIN, NO_PAYLOAD, Input, mention_unread
from zmesh_cli.local_sockets import Place
from zmesh_cli.output_file import OutputFile
from zmesh_cli.session import Session
from zmesh_cli.terminal import STDERR, Output, is_terminal, print_error, record

log = logging.getLogger(__name__)

CANCEL_WITHIN = 1.0
"""Seconds to wait after Ctrl-C for the other node to confirm that the work has ended."""

ARRIVED_AFTER_BYTES = 4 * 1024 * 1024
"""Bytes of payload that are read only when some have arrived: more than the first window and all queues before it."""


class Described(TypedDict):
    """The header of the request's payload."""

    content_type: str | None
    metadata: dict[str, str]


async def send(
    place: Place,
    node: str,
    directive: str,
    payload: bytes | Input | None,
    described: Described,
    *,
    timeout: float | None,
    route_timeout: float | None,
    as_json: bool,
    into: str | None = None,
) -> int:
    """Send one request and write its replies to stdout, or to the file `into`; the exit code.

    Without a payload an empty one is sent. Unread data on stdin is mentioned then, be it there before or afterwards.
    """
    output_file = None
    with mention_unread(NO_PAYLOAD if payload is None else None):
        try:
            output_file = OutputFile(into) if into is not None else None
            async with Session(place, node, timeout, join_timeout=timeout, route_timeout=route_timeout) as session:
                request = _Request(session, described, Output(), output_file, as_json)
                try:
                    return await request.run(directive, b"" if payload is None else payload, timeout)
                finally:
                    if isinstance(payload, Input):
                        payload.stop()
        finally:
            if isinstance(payload, Input):
                payload.close()
            if output_file is not None:
                output_file.close()


class _Request:
    """The one request of this command."""

    def __init__(
        self, session: Session, described: Described, output: Output, output_file: OutputFile | None, as_json: bool
    ) -> None:
        self._session = session
        self._described = described
        self._output = output
        self._output_file = output_file
        self._as_json = as_json
        self._hide_progress: Callable[[], None] = lambda: None

    async def run(self, directive: str, payload: bytes | Input, timeout: float | None) -> int:
        """Send the request and write its replies until the last one; the exit code."""
        session, output_file = self._session, self._output_file
        source = payload if isinstance(payload, Input) else None
        session.has_arrived = lambda: (
            (source is not None and source.size_read > ARRIVED_AFTER_BYTES)
            or not session.controller.stats().is_handing_over
        )
        self._show_progress(source)
        buffered = output_file is None and self._as_json
        request = session.controller.stream(
            session.target, directive, payload, timeout=timeout, buffered=buffered, **self._described
        ).send()
        log.info("the message id is %s", request.message_id)
        try:
            header = await session.unless_not_found(self._take(request))
        except asyncio.CancelledError:
            request.cancel()
            if source is not None:
                source.stop()
            await asyncio.wait((asyncio.ensure_future(request.finished()),), timeout=CANCEL_WITHIN)
            return INTERRUPTED
        except Failure as failure:
            await self._print_failure(request, failure)
            raise
        finally:
            self._hide_progress()
            await self._output.end_payload()
        if source is not None and source.error is not None:
            header = {**header, "error": f"the payload could not be read: {source.error}"}
        if output_file is not None and not header["code"]:
            output_file.keep()
        await self._print_end(header)
        if not header["code"]:
            return DONE
        print_error(f"{session.target}: {header.get('error', '')}")
        if source is not None and source.error is not None:
            return USAGE
        return REASONS.get(str(header.get("reason")), FAILED)

    def _show_progress(self, source: Input | None) -> None:
        output_file = self._output_file
        if is_terminal(STDERR) and (output_file is not None or (source is not None and source.size)):
            from zmesh_cli.progress import Progress

            received = (lambda: output_file.size) if output_file is not None else (lambda: 0)
            self._hide_progress = Progress(source, received).hide

    async def _take(self, request: ReplyStream) -> Mapping[str, Any]:
        """Write the replies, one after the other, as fast as the output takes them; the header of the last one.

        Raises BrokenPipeError, and Failure for an output that can't be written.
        """
        try:
            async for reply in request:
                await self._print(reply)
        except ExchangeError:
            pass  # the last reply says the same
        finally:
            request.cancel()  # does nothing to one that has ended
        assert request.final is not None
        return request.final.header

    async def _print(self, reply: Reply) -> None:
        output_file = self._output_file
        if output_file is not None:
            before = output_file.size
            async for chunk in reply.payload:
                await output_file.write(chunk)
            if self._as_json:
                await self._output.text(_line(reply.header, None, reply.payload, size=output_file.size - before))
            return
        self._hide_progress()
        if self._as_json:
            await self._output.text(_line(reply.header, reply.payload.readall(), reply.payload))
            return
        async for chunk in reply.payload:
            await self._output.payload(chunk)

    async def _print_end(self, header: Mapping[str, Any]) -> None:
        if self._as_json:
            await self._output.text(_line(header, None, size=None if self._output_file is None else 0))

    async def _print_failure(self, request: ReplyStream, failure: Failure) -> None:
        """Print the last line of JSON where there is no last reply."""
        await self._print_end(
            {
                "message_id": f"{(int(request.message_id, 16) + 1) % (1 << 128):032x}",
                "in_response_to": request.message_id,
                "sender": self._session.target,
                "serial": 1,
                "code": 1,
                "eof": True,
                "error": str(failure),
            }
        )


def _line(
    header: Mapping[str, Any], content: bytes | None, payload: Payload | None = None, size: int | None = None
) -> str:
    """One reply as a line of JSON; `size` is that of a payload which is written to a file instead."""
    content = content or b""
    try:
        encoding, text = "utf-8", content.decode()
    except UnicodeDecodeError:
        encoding, text = "base64", base64.b64encode(content).decode()
    return record(
        "zmesh.reply/1",
        message_id=header["message_id"],
        in_response_to=header["in_response_to"],
        sender=header["sender"],
        serial=header["serial"],
        code=header["code"],
        eof=header["eof"],
        error=header.get("error"),
        encoding=encoding,
        payload=text,
        content_type=None if payload is None else payload.content_type,
        metadata={} if payload is None else dict(payload.metadata),
        **({} if payload is None or size is not None else _json_value(payload)),
        **({} if size is None else {"size": size}),
    )


def _json_value(payload: Payload) -> dict[str, Any]:
    """The value of a payload that is JSON as a field `value`, if it is JSON and has no infinite numbers."""
    if payload.content_type.lower().partition(";")[0].strip() != "application/json":
        return {}
    try:
        value = payload.value()
        json.dumps(value, allow_nan=False)
    except ValueError:
        return {}
    return {"value": value}


def described_by(payload: str | None, content_type: str | None, metadata: list[str]) -> Described:
    """Content type and metadata of the request, from the options. Raises Failure for metadata that is no KEY=VALUE."""
    found: dict[str, str] = {}
    for each in metadata:
        key, equals, value = each.partition("=")
        if not key or not equals:
            raise Failure(f"{each!r} is no metadata; it must look like KEY=VALUE", USAGE)
        if key in found:
            raise Failure(f"the metadata {key!r} is given twice; a key has one value", USAGE)
        found[key] = value
    if content_type is None and payload is not None and payload != FROM_STDIN and not payload.startswith(FROM_FILE):
        with suppress(UnicodeEncodeError):  # an argument that is no UTF-8 is sent as its bytes
            payload.encode()
            content_type = "text/plain"
    return {"content_type": content_type, "metadata": found}
