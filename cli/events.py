"""`zmesh events`: what has happened to a node, and what happens."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from zmesh import NodeEvent
from zmesh_cli.exit_codes import DONE, USAGE, Failure
from zmesh_cli.local_sockets import Place
from zmesh_cli.session import Session
from zmesh_cli.status import unless_too_old
from zmesh_cli.terminal import Output, printable, record

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds_of(text: str | None) -> float | None:
    """A span such as `90`, `15m`, `1h` or `2d` in seconds. Raises Failure."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text)
    if match is None:
        raise Failure(f"--since takes a span such as 90, 15m, 1h or 2d, not {text!r}", USAGE)
    return float(match[1]) * UNITS[match[2] or "s"]


async def events(
    place: Place, node: str | None, *, follow: bool, since: float | None, last: int | None, as_json: bool
) -> int:
    """Print the events of a node, or (None) of the one where the command joins, until there are no more."""
    output = Output()
    async with Session(place, node) as session:
        found = session.controller.events_of(session.target, since=since, last=last, follow=follow)
        await session.unless_not_found(unless_too_old(session.target, _print(found, output, as_json=as_json)))
    return DONE


async def _print(found: AsyncGenerator[NodeEvent, None], output: Output, *, as_json: bool) -> None:
    async with aclosing(found) as events:
        async for event in events:
            await output.text(record("zmesh.event/1", **event.to_json()) if as_json else _line(event))


def _line(event: NodeEvent) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(event.time))
    return f"{when}.{round(event.time % 1 * 1000) % 1000:03d}Z {event.kind:<13} {printable(event.text)}\n"
