"""The links of the mesh: costs from the records of nodes; times, bytes and reasons from the states of nodes; pure."""

from __future__ import annotations

from dataclasses import dataclass

from zmesh.dashboard.rows import Row, Rows, Versions
from zmesh.operate import LinkReport, MeshGraph, NodeStatus

DOWN_KEPT = 3600.0
"""Seconds for which a link is shown that fell between two nodes that are up."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The link with a node that another one has lost, and the reason."""

    node: str
    reason: str


class LinkRows:
    """A row for each pair of linked nodes."""

    def __init__(self, versions: Versions, limit: int) -> None:
        self.rows = Rows(versions, limit)
        self._keys: dict[str, set[str]] = {}
        """The keys of the links of each node."""

    def take_graph(self, found: MeshGraph, down: set[str], now: float) -> None:
        """The links that the records of nodes list; those that are listed no more are down."""
        listed = set()
        for link in found.links:
            key = key_of(link.a, link.b)
            if link.a in down or link.b in down:
                continue  # its record is not withdrawn yet
            listed.add(key)
            known = self.rows.get(key)
            if known is None:
                self._put(key, {**new_row(link.a, link.b), "cost": link.cost, "cost_back": link.cost_back})
                continue
            back = {} if known["state"] != "down" else {"state": "up", "since": round(now, 3), "reason": ""}
            self.rows.merge(key, cost=link.cost, cost_back=link.cost_back, **back)
        for row in list(self.rows):
            key = key_of(row["a"], row["b"])
            if row["state"] != "down" and key not in listed:
                self._fall(row, now, "")
            elif row["state"] == "down" and now - row["since"] > DOWN_KEPT and not {row["a"], row["b"]} & down:
                self._remove(key)

    def take_status(self, status: NodeStatus, before: NodeStatus | None, now: float) -> list[Lost]:
        """Merge the links of a node's status; returns the neighbours that it has lost, with the reasons."""
        earlier = totals(before) if before is not None and before.incarnation == status.incarnation else {}
        seconds = status.uptime - before.uptime if before is not None and earlier else status.uptime
        lost = []
        for (neighbour, links), moved in zip(by_neighbour(status).items(), totals(status).values(), strict=True):
            key = key_of(status.node, neighbour)
            known = self.rows.get(key)
            best = min(links, key=lambda link: (STATES.index(link.state), link.rtt or 0.0))
            if best.state == "down":
                lost.append(Lost(neighbour, best.reason))
                if known is not None and known["state"] == "down" and not known["reason"]:
                    self.rows.merge(key, reason=best.reason)
                continue
            if known is None or known["state"] == "down":
                continue  # the next graph has it
            rate = max(0, moved - earlier.get(neighbour, moved if earlier else 0)) / max(1e-3, seconds)
            rtt = float(f"{best.rtt:.2g}") if best.rtt is not None else known["rtt"]
            since = known["since"] if known["since"] is not None else round(now - best.since, 3)
            queued = sum(link.queued_bytes for link in links)
            self.rows.merge(key, state=best.state, rtt=rtt, rate=round(rate), queued=queued, since=since)
        return lost

    def node_left(self, node: str, since: float) -> None:
        """All links of a node are down."""
        for key in self._keys.get(node, ()):
            row = self.rows.get(key)
            if row is not None and row["state"] != "down":
                self._fall(row, since, "")

    def forget_node(self, node: str) -> None:
        """Remove the links of a node."""
        for key in list(self._keys.get(node, ())):
            self._remove(key)

    def _fall(self, row: Row, since: float, reason: str) -> None:
        self.rows.merge(
            key_of(row["a"], row["b"]), state="down", since=round(since, 3), reason=reason, rate=0, queued=0
        )

    def _put(self, key: str, row: Row) -> None:
        if self.rows.put(key, row):
            for end in (row["a"], row["b"]):
                self._keys.setdefault(end, set()).add(key)

    def _remove(self, key: str) -> None:
        row = self.rows.get(key)
        if row is None:
            return
        self.rows.remove(key)
        for end in (row["a"], row["b"]):
            self._keys[end].discard(key)
            if not self._keys[end]:
                del self._keys[end]


STATES = ("up", "suspect", "down")


def key_of(a: str, b: str) -> str:
    """The key of the link between two nodes; no id has a bar in it."""
    return f"{a}|{b}" if a < b else f"{b}|{a}"


def new_row(a: str, b: str) -> Row:
    """The row of a link of which nothing is known yet."""
    first, second = min(a, b), max(a, b)
    return {
        "id": key_of(a, b), "a": first, "b": second, "cost": None, "cost_back": None, "rtt": None, "rate": None,
        "queued": 0, "state": "up", "since": None, "reason": "",
    }  # fmt: skip


def by_neighbour(status: NodeStatus) -> dict[str, list[LinkReport]]:
    """The links of a node by the neighbour at the other end, where that is known."""
    found: dict[str, list[LinkReport]] = {}
    for link in status.links:
        if link.node and link.node != status.node:
            found.setdefault(link.node, []).append(link)
    return found


def totals(status: NodeStatus) -> dict[str, int]:
    """The bytes both ways with each neighbour."""
    return {node: sum(link.bytes_in + link.bytes_out for link in links) for node, links in by_neighbour(status).items()}
