"""Warnings about the state of a node: one line each, with the remedy."""

from __future__ import annotations

from collections.abc import Iterator

from zmesh.core.durations import span
from zmesh.operate.status import LinkReport, NodeStatus, StatusWarning

SLOW_RTT = 0.120
"""Seconds of round-trip time from which on the penalty of a link's cost is at its maximum (`links.RTT_CEILING`)."""
QUEUED_BYTES = 1024 * 1024
"""Bytes queued for a full link from which on there is a warning."""
SKEW = 5.0
"""Seconds between two clocks from which on there is a warning: certificates tolerate more, logs hardly compare."""
LAG = 2.0
"""Seconds that an event loop may be late: less happens on any busy machine."""
NEARLY = 0.8
"""The share of a limit from which on it is nearly used up."""
RECENT = 600.0
"""Seconds for which there is a warning about a link that fell and came back."""
FLAPS = 3
"""Falls within RECENT that make a link flap."""
REFUSED = 4


def warnings_of(status: NodeStatus) -> tuple[StatusWarning, ...]:
    """The warnings about a node, the gravest first."""
    return tuple(
        StatusWarning(code, text)
        for part in (_identity(status), _duplicates(status), _links(status), _resources(status))
        for code, text in part
    )


def _identity(status: NodeStatus) -> Iterator[tuple[str, str]]:
    identity = status.identity
    if identity is None:
        return
    if identity.expires <= 0:
        text = f"the certificate expired {span(-identity.expires)} ago"
        yield "certificate_expired", f"{text}: reach a node that signs, or 'zmesh join' with a new ticket"
    elif identity.renews < -3600:
        left = f"the certificate expires in {span(identity.expires)} and was not renewed"
        yield "certificate_expiring", f"{left}: no node with the authority's key answers; its log says why"


def _duplicates(status: NodeStatus) -> Iterator[tuple[str, str]]:
    for node in status.duplicates:
        where = next((f", one at {each.where}" for each in status.refused if each.node == node), "")
        yield "duplicate_id", f"two live nodes are called {node}{where}: give one of them another id"


def _links(status: NodeStatus) -> Iterator[tuple[str, str]]:
    for link in status.links:
        with_whom = link.node or link.where
        if link.state == "down":
            end = f" at {link.where}" if link.node and link.dialled else ""
            yield "link_down", f"no link with {with_whom}{end} for {span(link.since)}: {link.reason}"
        elif link.state == "suspect":
            yield "link_suspect", f"{with_whom} has been silent for {span(link.heard or 0.0)}"
        else:
            yield from _quality(link, with_whom)
    new = [each for each in status.refused if each.age < RECENT and each.node not in status.duplicates]
    for refused in new[:REFUSED]:
        who = refused.node or "a connection"
        at = f" at {refused.where}" if refused.where and refused.where not in refused.reason else ""
        yield "link_refused", f"{who}{at} refused {span(refused.age)} ago: {refused.reason}"


def _quality(link: LinkReport, with_whom: str) -> Iterator[tuple[str, str]]:
    if link.rtt is not None and link.rtt >= SLOW_RTT:
        yield "link_slow", f"the link with {with_whom} takes {1000 * link.rtt:.0f} ms there and back"
    if link.queued_bytes >= QUEUED_BYTES:
        waiting = f"{link.queued_bytes / QUEUED_BYTES:.0f} MiB wait for the link with {with_whom}"
        yield "link_full", f"{waiting}, which takes less than is sent"
    if link.skew is not None and abs(link.skew) >= SKEW:
        way = "ahead of" if link.skew > 0 else "behind"
        yield "clock_skew", f"the clock of {with_whom} is {span(abs(link.skew))} {way} this node's: set one of them"
    falls = [fall for fall in link.falls if fall.age < RECENT]
    if len(falls) >= FLAPS:
        yield "link_flaps", f"the link with {with_whom} fell {len(falls)} times in 10 min: {falls[0].reason}"


def _resources(status: NodeStatus) -> Iterator[tuple[str, str]]:
    process, loop, work = status.process, status.loop, status.work
    if process.descriptor_limit is not None and process.descriptors >= NEARLY * process.descriptor_limit:
        text = f"{process.descriptors} of {process.descriptor_limit} file descriptors are open"
        yield "descriptors", f"{text}: raise LimitNOFILE, or ulimit -n"
    if process.memory_limit_bytes is not None and process.memory_bytes >= NEARLY * process.memory_limit_bytes:
        used, limit = (size // (1024 * 1024) for size in (process.memory_bytes, process.memory_limit_bytes))
        yield "memory", f"{used} of {limit} MiB of memory are used: raise the limit, or lower max_work"
    if work.running >= NEARLY * work.max_running:
        yield "work", f"{work.running} of {work.max_running} requests run: raise max_work, or send fewer"
    if loop.worst_lag >= LAG:
        text = f"the event loop was {loop.worst_lag:.1f} s late within two minutes"
        yield "loop_lag", f"{text}: a directive blocks it, which the log names, or the machine is overloaded"
