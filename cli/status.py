"""`zmesh status`: the state of a node, with what needs attention first."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from zmesh import LinkReport, NodeStatus
from zmesh.errors import UnknownDirective
from zmesh_cli.exit_codes import DONE, FAILED, Failure
from zmesh_cli.local_sockets import Place
from zmesh_cli.quantities import age, milliseconds, size
from zmesh_cli.session import Session
from zmesh_cli.tables import INDENT, table, width_of_stdout, wrapped
from zmesh_cli.terminal import Output, printable, record

T = TypeVar("T")

DEFAULT_TIMEOUT = 10.0
"""Seconds to wait for the reply, unless --timeout is given."""
SKEWED = 1.0
"""Seconds between two clocks that are worth a word."""


async def status(place: Place, node: str | None, *, timeout: float | None, as_json: bool) -> int:
    """Print the state of a node, or (None) of the node where the command joins; the exit code."""
    output = Output()
    async with Session(place, node, timeout, join_timeout=timeout) as session:
        asked = session.controller.status(session.target, timeout=timeout or DEFAULT_TIMEOUT)
        shown = await session.unless_not_found(unless_too_old(session.target, asked))
    lines = _render(shown, width_of_stdout())
    await output.text(record("zmesh.status/1", **shown.to_json()) if as_json else "".join(f"{one}\n" for one in lines))
    return DONE


async def unless_too_old(node: str, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Raises Failure for a node of a version that does not show what it is asked for."""
    try:
        return await work
    except UnknownDirective:
        text = f"node {node!r} runs an older zmesh, which does not show this; upgrade it, or use 'zmesh routes'"
        raise Failure(text, FAILED) from None


def _render(status: NodeStatus, width: int) -> Iterator[str]:
    """The lines for people, of at most `width` columns each."""
    count = len(status.warnings)
    yield f"{printable(status.node)}: " + (f"{count} warning{'s' * (count > 1)}" if count else "all is well")
    for warning in status.warnings:
        yield from wrapped(["!", *printable(warning.text).split()], width, first=INDENT, rest=2 * INDENT)
    yield ""
    for line in _about(status):
        yield from wrapped(printable(line).split(), width, first="", rest=INDENT)
    yield ""
    if status.links:
        yield "Links"
        yield from _links(status.links, width)
    else:
        yield "No links"


def _about(status: NodeStatus) -> Iterator[str]:
    """The lines about the node itself."""
    identity, process, work, loop = status.identity, status.process, status.work, status.loop
    mesh = f" of the mesh {identity.mesh}" if identity is not None else ", without identity"
    yield f"{status.node}{mesh}: zmesh {status.version}, up {age(status.uptime)}"
    yield f"incarnation {status.incarnation}, process {process.pid} at {process.host}, Python {process.python}"
    if identity is not None:
        until = time.strftime("%Y-%m-%d %H:%M", time.gmtime(identity.not_after))
        valid = f"in {age(identity.expires)}" if identity.expires > 0 else f"expired {age(-identity.expires)} ago"
        yield f"certificate until {until} UTC ({valid}), key {identity.key}"
    tags = [*(identity.tags if identity is not None else ()), *(f"{tag} (its own)" for tag in status.own_tags)]
    if tags:
        yield f"tags {', '.join(tags)}"
    yield f"listens on {', '.join(status.listening) or 'no address'}"
    if status.skew is not None and abs(status.skew) >= SKEWED:
        yield f"its clock is {age(abs(status.skew))} {'ahead of' if status.skew > 0 else 'behind'} the one here"
    what = ", ".join(f"{count} {name}" for name, count in work.directives.items())
    yield f"nodes: {status.nodes} reachable, {status.leaves} ephemeral attached"
    yield (
        f"work: {work.running} of {work.max_running} requests run{f' ({what})' if what else ''}, {work.served} served; "
        f"{work.requested} of its own open, {size(work.waiting_bytes)}B waiting"
    )
    if work.jobs_running or work.jobs_waiting:
        yield f"jobs: {work.jobs_running} run, {work.jobs_waiting} wait"
    memory_limit = f" of {size(process.memory_limit_bytes)}B" if process.memory_limit_bytes is not None else ""
    files_limit = f" of {process.descriptor_limit}" if process.descriptor_limit is not None else ""
    yield (
        f"memory {size(process.memory_bytes)}B{memory_limit}, {process.descriptors}{files_limit} file descriptors, "
        f"{process.threads} threads, {process.cpu:.1f} s of CPU"
    )
    blocked = f", blocked {loop.blocked} times" if loop.blocked else ""
    yield f"event loop: {milliseconds(loop.lag)} late, at worst {milliseconds(loop.worst_lag)}{blocked}"


def _links(links: tuple[LinkReport, ...], width: int) -> Iterator[str]:
    head = ("NODE", "HERE", "STATE", "COST", "RTT", "IN", "OUT")
    rows = [
        (
            link.node or "?",
            "dials" if link.dialled else "listens",
            f"{link.state} {age(link.since)}",
            "-" if link.cost is None else str(link.cost),
            milliseconds(link.rtt),
            size(link.bytes_in),
            size(link.bytes_out),
        )
        for link in links
    ]
    first, *rest = table(head, rows, width, names=1)
    yield first
    for line, link in zip(rest, links, strict=True):
        yield line
        for note in _notes(link):
            yield from wrapped(printable(note).split(), width, first=2 * INDENT, rest=3 * INDENT)


def _notes(link: LinkReport) -> Iterator[str]:
    """The lines about a link below its row."""
    parts = [f"{'at' if link.dialled else 'from'} {link.where}"]
    if link.queued_bytes:
        parts.append(f"{size(link.queued_bytes)}B queued")
    if link.skew is not None and abs(link.skew) >= SKEWED:
        parts.append(f"its clock {age(abs(link.skew))} {'ahead' if link.skew > 0 else 'behind'}")
    if link.state == "suspect" and link.heard is not None:
        parts.append(f"silent for {age(link.heard)}")
    if link.tries:
        parts.append(f"dialling has failed {link.tries} times")
    yield ", ".join(parts)
    if link.reason:
        yield link.reason
    for fall in link.falls[1 if link.falls and link.falls[0].reason == link.reason else 0 :]:
        yield f"fell {age(fall.age)} ago: {fall.reason}"
