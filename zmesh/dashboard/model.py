"""The mesh as the dashboard shows it: answers of nodes are merged into rows, and clients get what has changed; pure.

Times come in as `now`, seconds since 1970. A node that leaves keeps its row, with the time since when it is down, and
so do its links. Whatever a mesh consists of, there are MAX_NODES nodes, MAX_LINKS links and MAX_EVENTS events at most.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from typing import Any

from zmesh.dashboard.link_rows import LinkRows
from zmesh.dashboard.rates import Lines, requested, sample
from zmesh.dashboard.rows import Row, Rows, Versions
from zmesh.operate import Member, MemberList, MeshGraph, NodeEvent, NodeStatus

MAX_NODES = 5_000
MAX_LINKS = 20_000
MAX_EVENTS = 500
MAX_DOWN = 1_000
"""Nodes that are down and shown; of more the ones that left first are not."""
MAX_WARNINGS = 8
MAX_ROWS = 1_000
"""Rows in one update; the others are in the next one."""
SAME_TIME = 3.0
"""Seconds by which two answers may differ about when a node left."""
_NODE: Row = {
    "up": True, "since": None, "tags": [], "own_tags": [], "version": "", "next_hop": None, "hops": None, "cost": None,
    "rtt": None, "heard_by": [], "duplicate": False, "reason": "", "sampled": None, "started": None, "warnings": [],
    "problem": None, "requests": None, "bytes_in": None, "bytes_out": None, "errors": None, "lag": None, "cpu": None,
    "memory": None, "running": None, "queued": None, "requested": [],
}  # fmt: skip


class MeshModel:
    """Nodes, links, events and time lines of a mesh."""

    def __init__(self) -> None:
        self.versions = Versions()
        self.nodes = Rows(self.versions, MAX_NODES)
        self.links = LinkRows(self.versions, MAX_LINKS)
        self.lines = Lines()
        self.host = ""
        """The node whose view of the mesh is shown."""
        self.contact: Row = {"ok": False, "since": None, "text": "joining"}
        """Whether the host answers, since when, and why not."""
        self.events: deque[Row] = deque(maxlen=MAX_EVENTS)
        self.event_count = 0
        self._statuses: dict[str, NodeStatus] = {}
        self._last_numbers: dict[str, int] = {}

    # -- answers of the host -------------------------------------------------------------------------------------

    def take_members(self, found: MemberList, now: float) -> None:
        """The members, as the host knows them."""
        self.host = found.node
        self._contact(True, now, "")
        here = set()
        for member in found.members:
            here.add(member.node)
            if member.reachable:
                self._present(member)
            else:
                self._left(member.node, now - (member.left or 0.0), member.heard_by)
        for row in list(self.nodes):
            if row["id"] not in here and row["up"]:
                self._left(row["id"], now, ())
        self._forget()

    def take_graph(self, found: MeshGraph, now: float) -> None:
        """The links, as the host knows them."""
        self.links.take_graph(found, {row["id"] for row in self.nodes if not row["up"]}, now)

    def take_event(self, source: str, event: NodeEvent, now: float) -> None:
        """Merge an event of the node `source`; those of the host about other nodes show at once."""
        last = self._last_numbers.get(source, 0)
        if event.number and event.number <= last and event.kind != "node_started":
            return
        self._last_numbers[source] = event.number
        if source == self.host and event.kind == "node_left" and now - event.time < 60.0:
            self._left(event.node, event.time, ())
        self._event(source, event.kind, event.node, event.text, event.time)

    def lost_contact(self, text: str, now: float) -> None:
        """The host does not answer."""
        self._contact(False, now, text)

    def _contact(self, ok: bool, now: float, text: str) -> None:
        if self.contact["ok"] != ok or self.contact["since"] is None:
            self.contact = {"ok": ok, "since": now, "text": text}
            self.versions.following()

    def _present(self, member: Member) -> None:
        known = self.nodes.get(member.node)
        back = known is not None and not known["up"]
        row = {**_NODE, **(known or {}), "id": member.node, "up": True, "reason": ""}
        row |= {
            "since": None if back else row["since"],
            "tags": list(member.tags), "own_tags": list(member.own_tags), "version": member.version,
            "next_hop": member.next_hop, "hops": member.hops, "cost": member.cost, "rtt": _rounded(member.rtt),
            "heard_by": list(member.heard_by), "duplicate": member.duplicate,
        }  # fmt: skip
        self.nodes.put(member.node, row)

    def _left(self, node: str, since: float, heard_by: tuple[str, ...]) -> None:
        known = self.nodes.get(node) or {**_NODE, "id": node, "up": False}
        before = known["since"]
        if not known["up"] and before is not None and abs(before - since) < SAME_TIME:
            since = before
        heard = list(heard_by) or known["heard_by"]
        idle = dict.fromkeys(("requests", "bytes_in", "bytes_out", "errors", "cpu", "lag", "running", "queued"))
        row = {**known, "up": False, "since": round(since, 3), "heard_by": heard, "problem": None, "warnings": []}
        self.nodes.put(node, {**row, **idle, "rtt": None, "next_hop": None, "hops": None, "cost": None})
        self.lines.stop(node)
        self._statuses.pop(node, None)
        self.links.node_left(node, since)

    def _forget(self) -> None:
        """Drop those that are down the longest, if they are too many."""
        down = [row for row in self.nodes if not row["up"]]
        for row in sorted(down, key=lambda row: row["since"] or 0.0)[: max(0, len(down) - MAX_DOWN)]:
            self.nodes.remove(row["id"])
            self.lines.forget(row["id"])
            self.links.forget_node(row["id"])
            self._last_numbers.pop(row["id"], None)

    # -- answers of the other nodes ------------------------------------------------------------------------------

    def take_status(self, status: NodeStatus, now: float) -> None:
        """The state of one node."""
        row = self.nodes.get(status.node)
        if row is None or not row["up"]:
            return
        before = self._statuses.get(status.node)
        one = sample(before, status, now)
        self._statuses[status.node] = status
        self.lines.add(status.node, one)
        self.nodes.merge(
            status.node, sampled=round(now, 1), started=round(now - status.uptime), problem=None,
            warnings=[[each.code, each.text] for each in status.warnings[:MAX_WARNINGS]], requests=one.requests,
            bytes_in=one.bytes_in, bytes_out=one.bytes_out, errors=one.errors, lag=one.lag, cpu=one.cpu,
            memory=status.process.memory_bytes, running=status.work.running,
            queued=sum(link.queued_bytes for link in status.links), requested=requested(status, before),
        )  # fmt: skip
        for end in self.links.take_status(status, before, now):
            self.nodes.merge(end.node, reason=end.reason)

    def take_failure(self, node: str, code: str, text: str, now: float) -> None:
        """A node did not answer, or may not be asked."""
        self.lines.stop(node)
        self._statuses.pop(node, None)
        self.nodes.merge(node, problem={"code": code, "text": text})

    def status_of(self, node: str) -> NodeStatus | None:
        """The last status of a node that is up."""
        return self._statuses.get(node)

    # -- what is shown -------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """A second has passed."""
        self.lines.tick(now)
        self.versions.following()

    def _event(self, source: str, kind: str, node: str, text: str, time: float) -> None:
        self.event_count += 1
        event = {"n": self.event_count, "at": source, "kind": kind, "node": node, "text": text, "time": time}
        self.events.append(event)
        self.versions.following()

    def updates(self, version: int, events: int, lines: float) -> Iterator[Row]:
        """The rows that have changed since a version, MAX_ROWS in an update, whose `version` is that of the last one.

        For version 0, or one that is too long ago, all rows in as many updates as that takes; `full` is true in the
        first of them. `events` is the number of the last event that the client has, `lines` the time of its last
        sample of the mesh.
        """
        full = version == 0 or not (self.nodes.can_tell_since(version) and self.links.rows.can_tell_since(version))
        if not full:
            yield self._update(version, events, lines)
            return
        first = self._update(0, 0, 0.0)
        yield first | {"full": True}
        version = first["version"]
        while version < self.versions.current:
            following = self._update(version, self.event_count, time_of_last(self.lines))
            yield following
            version = following["version"]

    def _update(self, version: int, events: int, lines: float) -> Row:
        changed = [*self.nodes.versions_since(version), *self.links.rows.versions_since(version)]
        more = len(changed) > MAX_ROWS
        until = heapq.nsmallest(MAX_ROWS, changed)[-1] if more else self.versions.current
        nodes, no_nodes = self.nodes.since(version, until)
        links, no_links = self.links.rows.since(version, until)
        found: dict[str, Any] = {
            "version": until,
            "full": False,
            "host": self.host,
            "contact": self.contact,
            "nodes": nodes,
            "links": links,
            "removed": {"nodes": no_nodes, "links": no_links},
            "omitted": {"nodes": self.nodes.omitted, "links": self.links.rows.omitted},
            "events": [event for event in self.events if event["n"] > events],
            "event_count": self.event_count,
            "lines": [list(one) for one in self.lines.mesh if one.time > lines],
        }
        return found

    def check(self) -> None:
        """Verify what always holds, for tests. Raises AssertionError."""
        assert len(self.nodes) <= MAX_NODES
        assert len(self.links.rows) <= MAX_LINKS
        assert all(row["up"] or row["since"] is not None for row in self.nodes)
        assert set(self._statuses) <= {row["id"] for row in self.nodes if row["up"]}


def time_of_last(lines: Lines) -> float:
    """The time of the last sample of the mesh, 0.0 if there is none."""
    return lines.mesh[-1].time if lines.mesh else 0.0


def _rounded(rtt: float | None) -> float | None:
    """A round-trip time to two digits, so that a row does not change with each probe."""
    return float(f"{rtt:.2g}") if rtt is not None else None
