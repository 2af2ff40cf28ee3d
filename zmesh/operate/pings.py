"""Pings to many nodes: the answer of each, or the reason of its absence and the last node on the path that answered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from zmesh.errors import MeshError
from zmesh.operate.json_form import Seconds
from zmesh.operate.members import Member, PingResult

if TYPE_CHECKING:
    from zmesh.operate.operating import Operating

LEFT = "they left: "
"""How the reason of a lost link begins where its other end has said goodbye."""


async def ping(mesh: Operating, node: str, member: Member | None, at: str | None, timeout: float | None) -> PingResult:
    """Ping one node, within `timeout` seconds; `member` is what is known of it. Never raises a MeshError."""
    if member is not None and member.left is not None:
        return await _departed(mesh, node, member, at, timeout)
    began, sent = time.perf_counter(), time.time()
    try:
        pong = await mesh.ping_once(node, timeout, route_timeout=timeout)
    except MeshError as error:
        return PingResult(node, error=str(error), last_hop=await _last_hop(mesh, node, at, timeout))
    rtt = time.perf_counter() - began
    skew = Seconds(pong.time - sent - rtt / 2) if pong.time is not None else None
    return PingResult(node, Seconds(rtt), pong.hops, skew)


async def _departed(mesh: Operating, node: str, member: Member, at: str | None, timeout: float | None) -> PingResult:
    """The result for a node that has left, with the reason."""
    try:
        lost = (await mesh.why(node, at, timeout=timeout)).lost
    except MeshError:
        lost = None
    reason = lost.reason if lost is not None else ""
    by = lost.heard_by if lost is not None else next(iter(member.heard_by), None)
    ago = lost.age if lost is not None else member.left or 0.0
    return PingResult(node, error=_left(float(ago), by, reason), last_hop=by, left=reason.startswith(LEFT))


def _left(ago: float, by: str | None, reason: str) -> str:
    from zmesh.core.durations import span

    witness = f", last heard by {by!r}" if by is not None else ""
    return f"left {span(ago)} ago{witness}{f': {reason}' if reason else ''}"


async def _last_hop(mesh: Operating, node: str, at: str | None, timeout: float | None) -> str | None:
    """The last node on the path that answers."""
    last = None
    try:
        async for step in mesh.trace(node, at, timeout=timeout):
            if step.back or step.error:
                return step.node if step.hop is not None else last
            last = step.node
    except MeshError:
        pass
    return last
