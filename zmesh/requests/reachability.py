"""Waiting until a node can be reached: for a route to it, or at an ephemeral node for its answer to a ping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from zmesh.core.message import Address
from zmesh.errors import TimedOut, Unreachable
from zmesh.requests.reply_stream import ReplyStream
from zmesh.requests.requests import Requests
from zmesh.runtime import new_message_id

if TYPE_CHECKING:
    from zmesh.observe import Events


async def route_to(requests: Requests, events: Callable[[], Events], node: str, timeout: float | None) -> None:
    """Wait until there is a route to a node. Raises Unreachable after `timeout` seconds, and Closed."""
    engine = requests.driver.engine
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout), events() as observed:
            while node not in engine.nodes():
                if await anext(observed, None) is None:
                    raise requests.admission.closed()
            return
    hint = engine.hint(Address(node), time.monotonic())
    raise Unreachable(f"no route to {node!r} after {timeout} s{hint}", node=node)


async def answer_of(requests: Requests, node: str, ping: str, timeout: float | None) -> None:
    """Wait until a node answers the directive `ping`. Raises Unreachable after `timeout` seconds, and Closed."""

    def start(request: ReplyStream) -> None:
        requests.send(request, ping, b"", timeout)

    request = ReplyStream(requests, new_message_id(), node, start)
    request.send()
    try:
        await request.only_payload()
    except TimedOut as error:
        raise Unreachable(str(error), node=node, message_id=error.message_id) from None
