"""`zmesh send`: have a node do something, and print what it replies as it comes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from zmesh.core.message import Message
from zmesh.payload import CHUNK
from zmesh_cli.exits import DONE, FAILED, INTERRUPTED, REASONS, USAGE, Failure
from zmesh_cli.guest import Guest
from zmesh_cli.intake import Input
from zmesh_cli.terminal import STDERR, Output, complain, is_terminal, record

CANCEL_WITHIN = 1.0
"""Seconds to wait for the other node to confirm that it has stopped, after Ctrl-C."""

SURE_OF_ARRIVAL = 4 * 1024 * 1024
"""Bytes of payload that are taken only when some have arrived: more than the first window and the queues before it."""


async def send(
    url: str, node: str, directive: str, payload: bytes | Input, *, timeout: float | None, as_json: bool
) -> int:
    """Send one request and print its replies; the exit code."""
    output = Output()
    try:
        async with Guest(url, node, timeout, join_within=timeout) as guest:
            request = _Request(guest, output, as_json)
            try:
                return await request.run(directive, payload, timeout)
            finally:
                if isinstance(payload, Input):
                    payload.stop()
    finally:
        if isinstance(payload, Input):
            payload.close()


class _Request:
    """The one request of this command."""

    def __init__(self, guest: Guest, output: Output, as_json: bool) -> None:
        self._guest = guest
        self._output = output
        self._as_json = as_json
        self._hide_progress: Callable[[], None] = lambda: None
        self._message_id = ""
        self._final: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()

    async def run(self, directive: str, payload: bytes | Input, timeout: float | None) -> int:
        """Send it, and see to its replies until the last one."""
        guest = self._guest
        source = payload if isinstance(payload, Input) else None
        exchanges = guest.controller.node.engine.exchanges
        guest.reached = lambda: not exchanges.handing_over or (source is not None and source.taken > SURE_OF_ARRIVAL)
        if source is not None and source.size and is_terminal(STDERR):
            from zmesh_cli.progress import Progress

            self._hide_progress = Progress(source).hide
        sent = guest.controller.send(payload, guest.target, directive, self._on_reply, timeout=timeout)
        self._message_id = sent.message_id
        try:
            header = await guest.unless_unknown(self._end())
        except asyncio.CancelledError:
            guest.controller.cancel(self._message_id)
            if source is not None:
                source.stop()
            await asyncio.wait((self._final,), timeout=CANCEL_WITHIN)
            return INTERRUPTED
        except Failure as failure:
            await self._print_end({"code": 1, "error": str(failure)})
            raise
        finally:
            self._hide_progress()
        if source is not None and source.error is not None:
            header = {**header, "error": f"the payload could not be read: {source.error}"}
        await self._print_end(header)
        if not header["code"]:
            return DONE
        complain(f"{guest.target}: {header.get('error', '')}")
        if source is not None and source.error is not None:
            return USAGE
        return REASONS.get(str(header.get("reason")), FAILED)

    async def _end(self) -> Mapping[str, Any]:
        return await asyncio.shield(self._final)

    def _on_reply(self, message: Message) -> Awaitable[None] | None:
        return None if self._final.done() else self._take(message)

    async def _take(self, message: Message) -> None:
        """Print one reply; the next one is taken when this is done, which is what slows the other node down."""
        header = message.header
        self._hide_progress()
        try:
            if header["eof"]:
                self._final.set_result(header)
            elif self._as_json:
                await self._output.text(_line(header, message.payload.readall()))
            else:
                while chunk := message.payload.read(CHUNK):
                    await self._output.payload(chunk)
        except (OSError, Failure) as error:  # nobody reads, the disk is full
            self._guest.controller.cancel(self._message_id)
            self._final.set_exception(error)

    async def _print_end(self, header: Mapping[str, Any]) -> None:
        if self._as_json:
            made_here = {
                "message_id": f"{(int(self._message_id, 16) + 1) % (1 << 128):032x}",
                "in_response_to": self._message_id,
                "sender": self._guest.target,
                "serial": 1,
                "eof": True,
            }
            await self._output.text(_line({**made_here, **header}, b""))


def _line(header: Mapping[str, Any], payload: bytes) -> str:
    try:
        encoding, text = "utf-8", payload.decode()
    except UnicodeDecodeError:
        encoding, text = "base64", base64.b64encode(payload).decode()
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
    )
