"""The making of a bundle: nodes are asked part by part, some at a time; a report says what its node has not shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any

from zmesh.core.durations import span
from zmesh.errors import ConfigError, MeshError, NodeOverloaded, TimedOut, Unreachable
from zmesh.operate.bounded import Bounded
from zmesh.operate.bundle import MAX_EVENTS, MAX_NODES, BundleSummary, NodeReport, RouteTable
from zmesh.operate.bundle_file import BundleWriter
from zmesh.operate.directives import SETTINGS
from zmesh.operate.node_settings import NodeSettings, versions
from zmesh.runtime import ThreadPool

if TYPE_CHECKING:
    import os

    from zmesh.operate.diagnosing import Diagnosing
    from zmesh.operate.members import MemberList
    from zmesh.operate.node_event import NodeEvent

AT_ONCE = 8
"""Nodes that are asked at a time."""
ROUTE_WITHIN = 5.0
"""Seconds that a node may be without a route."""
SHOWN = 3
"""Nodes of which an error says why they have not answered."""
TRIES = 5
PAUSE = 1.0
"""Seconds before a node that has reached its limit of shown rows is asked again."""
ROUTES = "zmesh:routes"


async def bundle(
    mesh: Diagnosing,
    path: str | os.PathLike[str],
    target: str,
    at: str | None,
    timeout: float | None,
    *,
    examine: bool,
) -> BundleSummary:
    """As `Diagnosing.bundle`."""
    began, threads = round(time.time(), 3), ThreadPool(1, "zmesh-bundle")
    async with AsyncExitStack() as stack:
        stack.callback(threads.close)
        writer = stack.enter_context(closing(BundleWriter(path, began)))
        known = await mesh.members(at, timeout=timeout)
        asked, missing = _chosen(mesh, target, known)
        reports = Bounded(asked, AT_ONCE, lambda node: collect(mesh, node, timeout, examine=examine))
        await stack.enter_async_context(reports)
        incomplete: dict[str, Mapping[str, str]] = {}
        written = []
        async for report in reports:
            if report.status is None:
                reason = report.errors.get("status", "")
            else:
                reason = await threads.call(partial(writer.add, report))
            if reason:
                missing[report.node] = reason
                continue
            written.append(report.node)
            if report.errors:
                incomplete[report.node] = report.errors
        if not written:
            reasons = "; ".join(f"{node}: {text}" for node, text in list(missing.items())[:SHOWN])
            raise Unreachable(f"no node of {target!r} has answered{f': {reasons}' if reasons else ''}")
        summary = BundleSummary(began, known.node, tuple(sorted(written)), missing, incomplete, versions())
        await threads.call(lambda: writer.finish(summary))
    return summary


def _chosen(mesh: Diagnosing, target: str, known: MemberList) -> tuple[list[str], dict[str, str]]:
    """The nodes of a target that can be asked, and of each other one why it can't be. Raises ConfigError."""
    members = {member.node: member for member in known.members}
    nodes = mesh._nodes_of(target, {name: (*each.tags, *each.own_tags) for name, each in members.items()})
    if len(nodes) > MAX_NODES:
        many = f"{target!r} stands for {len(nodes)} nodes, where a bundle takes {MAX_NODES}"
        raise ConfigError(f"{many}: name those of the report, such as {nodes[0]},{nodes[1]} or tag:gpu")
    left = {name: member.left for name, member in members.items() if member.left is not None}
    missing = {node: f"it left {span(left[node])} ago" for node in nodes if node in left}
    return [node for node in nodes if node not in missing], missing


async def collect(mesh: Diagnosing, node: str, timeout: float | None, *, examine: bool) -> NodeReport:
    """The report of a node; `timeout` in seconds is for each part. Never raises a MeshError."""
    errors: dict[str, str] = {}

    async def ask(part: str, one: Callable[[], Awaitable[Any]]) -> Any:
        for left in reversed(range(TRIES)):
            try:
                return await one()
            except NodeOverloaded as error:
                if not left:
                    errors[part] = str(error)
                    break
                await asyncio.sleep(PAUSE)
            except MeshError as error:
                errors[part] = str(error)
                if part == "status" and isinstance(error, (TimedOut, Unreachable)):
                    raise
                break
            except TimeoutError:
                errors[part] = f"node {node!r} has not answered within {timeout:g} s"
                break
        return None

    async def events() -> tuple[NodeEvent, ...]:
        async with asyncio.timeout(timeout):
            return tuple([event async for event in mesh.events_of(node, last=MAX_EVENTS)])

    def shown(kind: type[Any], directive: str) -> Awaitable[Any]:
        return mesh._shown(kind, directive, node, None, timeout, ROUTE_WITHIN)

    try:
        status = await ask("status", lambda: mesh.status(node, timeout=timeout, route_timeout=ROUTE_WITHIN))
    except (TimedOut, Unreachable):
        return NodeReport(node, errors=errors)
    return NodeReport(
        node=node,
        status=status,
        members=await ask("members", lambda: mesh.members(node, timeout=timeout)),
        graph=await ask("graph", lambda: mesh.graph(node, timeout=timeout)),
        routes=await ask("routes", lambda: shown(RouteTable, ROUTES)),
        diagnosis=await ask("diagnosis", lambda: mesh.doctor(node, timeout=timeout)) if examine else None,
        events=await ask("events", events) or (),
        settings=await ask("settings", lambda: shown(NodeSettings, SETTINGS)),
        errors=errors,
    )
