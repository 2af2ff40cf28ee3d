"""An event of a node, and how the reports of its engine and of its parts become events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zmesh.core.effects import Report
from zmesh.core.message import LinkId
from zmesh.operate.json_form import JsonForm

MAX_TEXT = 500
"""Characters of the text of an event, most of which may be another node's."""


@dataclass(frozen=True, slots=True)
class NodeEvent(JsonForm):
    """An event of a node.

    `number` rises by one with each, over restarts too where the node has a folder of state. `time` is the node's clock,
    in seconds since 1970. `kind` is a stable word, `node` the other node, or the one itself, `where` its address; both
    may be empty. `text` is a line for people.
    """

    number: int
    time: float
    kind: str
    node: str
    where: str
    text: str


def text_of(report: Report, where: str, dialled: bool) -> str | None:
    """The line for people about a report; None for one that is no event. `where` is the other end of its link."""
    node, end = report.node or "", f"{'at' if dialled else 'from'} {where}" if where else ""
    match report.event:
        case "link_up":
            return f"linked with {node} {end}".rstrip()
        case "link_lost":
            return f"lost the link with {node}{' ' + end if end else ''}: {report.detail}"
        case "link_refused":
            return f"refused {node or 'a connection'} {end}: {report.detail}"
        case "dial_failed":
            return f"can't reach {where}: {report.detail.partition(': ')[2]}"
        case "stranger_refused":
            return f"refused a connection {report.detail.partition(': ')[2] or report.detail}"
        case "node_joined":
            return f"{node} joined the mesh"
        case "node_left":
            return f"{node} left the mesh"
        case "configuration_changed":
            later = f"; at the next start: {report.text}" if report.text else ""
            return f"settings changed: {report.detail or 'none yet'}{later}"
        case "route_changed":
            return f"messages to {node} take another path"
        case "node_started" | "node_stopped" | "call_refused" | "job_changed" | "duplicate_id" | "id_taken":
            return report.detail
        case "certificate_expiring" | "certificate_renewed" | "trust_changed" | "clock_set" | "loop_blocked":
            return report.detail
    return None


def event_of(
    report: Report, number: int, now: float, ends: Callable[[LinkId], tuple[str, bool]], more: int = 0
) -> NodeEvent | None:
    """The event of a report, None for a detail; `ends` gives the address of a link's other end, and who dialled.

    `more`: how many events of that kind have been left out before it.
    """
    where, dialled = ends(report.link) if report.link is not None else ("", False)
    if report.event == "dial_failed":
        where = report.detail.partition(": ")[0]
    where = where.partition("?")[0]
    text = text_of(report, where, dialled)
    if text is None:
        return None
    if more:
        text = f"{text}, after {more} more that are left out"
    return NodeEvent(number, round(now, 3), report.event, report.node or "", where, text[:MAX_TEXT])
