"""The path from one node to another, hop by hop, and the path back where that differs.

Each node on the path is asked for its next hop, as its FIB has it: nothing is inferred from the tables of another
node. A next hop that was there before is a loop, and ends the trace, so it ends after as many steps as there are nodes;
MAX_STEPS bounds it besides. The answer of a node comes by that node's own path back, which may be another one. So where
none comes, the last node that answered says whether it hears that neighbour.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from zmesh.core.durations import span
from zmesh.errors import MeshError, TimedOut, UnknownDirective, Unreachable
from zmesh.operate.json_form import Seconds
from zmesh.operate.paths import Hop, TraceStep

MAX_STEPS = 256
"""Hops after which a trace ends, in each direction: more than a packet may take."""

Ask = Callable[[str, str, str], Awaitable[Hop]]
"""Asks a node for its hop to a destination, and to the origin of the trace. Raises MeshError."""


async def trace(ask: Ask, origin: str, destination: str) -> AsyncIterator[TraceStep]:
    """The steps of a trace as they come; the last one has `arrived` or an `error`, then come those of the path back."""
    path: list[TraceStep] = []
    node = origin
    while True:
        step = await _step(ask, node, destination, origin, path)
        path.append(step)
        yield step
        if step.arrived:
            break
        if step.error or step.hop is None or step.hop.next_hop is None:
            return
        node = step.hop.next_hop
    async for step in _way_back(ask, origin, destination, path):
        yield step


async def _step(ask: Ask, node: str, destination: str, origin: str, path: list[TraceStep]) -> TraceStep:
    """The next step; `path` are those before it."""
    number, began = len(path) + 1, time.perf_counter()
    try:
        hop = await ask(node, destination, origin)
    except MeshError as error:
        before = await _again(ask, path[-1].node, destination, origin) if path and _is_lost(error) else None
        return TraceStep(number, node, error=_no_answer(node, error, before))
    step = TraceStep(number, node, Seconds(time.perf_counter() - began), hop, arrived=node == destination)
    if step.arrived:
        return step
    if hop.next_hop is None:
        return replace(step, error=_no_route(node, destination, hop))
    if hop.next_hop == node or any(each.node == hop.next_hop for each in path):
        return replace(step, error=f"{node!r} sends it back to {hop.next_hop!r}: routes are changing, so try again")
    if number >= MAX_STEPS:
        return replace(step, error=f"{MAX_STEPS} hops and no end")
    return step


async def _way_back(ask: Ask, origin: str, destination: str, path: list[TraceStep]) -> AsyncIterator[TraceStep]:
    """The steps of the path back, if it is not the same one."""
    names = [step.node for step in path]
    backs = [step.hop.back if step.hop is not None else None for step in path]
    if backs[1:] == names[:-1]:
        return
    steps: list[TraceStep] = []
    node = destination
    while True:
        step = replace(await _step(ask, node, origin, destination, steps), back=True)
        steps.append(step)
        yield step
        if step.arrived or step.error or step.hop is None or step.hop.next_hop is None:
            return
        node = step.hop.next_hop


def _is_lost(error: MeshError) -> bool:
    """Whether no answer has come, and none that says why."""
    return isinstance(error, (TimedOut, Unreachable))


async def _again(ask: Ask, node: str, destination: str, origin: str) -> Hop | None:
    """Ask the previous hop again, after one that has not answered; None if that has no answer either."""
    try:
        return await ask(node, destination, origin)
    except MeshError:
        return None


def _no_answer(node: str, error: MeshError, before: Hop | None) -> str:
    """How the trace ends at a node that has not answered; `before` is what the hop before it says now."""
    if isinstance(error, UnknownDirective):
        return f"{node!r} runs an older zmesh, which does not say where it sends"
    if before is None:
        return str(error)
    if before.next_hop is None:
        return f"{node!r} has no answer, and {_no_route(before.node, before.destination, before)}"
    if before.next_hop != node:
        return f"{node!r} has no answer, and {before.node!r} sends to {before.next_hop!r} by now: try again"
    heard = f"{before.node!r} heard it {span(before.heard or 0.0)} ago"
    if before.suspect:
        return f"{node!r} has no answer: {heard}, and its link is silent"
    queue = f", and {before.queued_bytes} bytes wait for the link" if before.queued_bytes else ""
    return f"{node!r} has no answer, though {heard}{queue}: it is overloaded, or its path back is broken"


def _no_route(node: str, destination: str, hop: Hop) -> str:
    """How the trace ends at a node without a route."""
    lost = hop.lost
    if lost is None:
        return f"{node!r} has no route to {destination!r}, and never had one"
    by = f", last heard by {lost.heard_by!r}" if lost.heard_by is not None else ""
    why = f": {lost.reason}" if lost.reason else ""
    return f"{node!r} has no route to {destination!r}: it left {span(lost.age)} ago{by}{why}"
