"""Nodes that were reachable and are not any more: when the last route was lost, and which node was linked to them last.

The last node to be linked to one that has left was a neighbour of it. The record of the node lists its neighbours;
those that still list it in theirs when the last route is lost have not lost their link before, as the others have. If
none of them is reachable either, they have left with it, and the last nodes linked to *them* are looked up: so behind a
broken link all nodes are known by its near end. The table is bounded, and drops what left first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from zmesh.core.durations import span
from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import NodeId
from zmesh.core.routing.records import Records
from zmesh.core.routing.routes import Routes
from zmesh.core.routing.selected_route import SelectedRoute

MAX_WITNESSES = 4
MAX_VISITED = 64


class Departure(NamedTuple):
    """A node was lost `at` this time; the `witnesses` are neighbours of it, or the node that keeps this. The last route
    to it had this `next_hop` (None: that is not known any more), `metric` and `hops`."""

    at: float
    witnesses: tuple[NodeId, ...]
    next_hop: NodeId | None
    metric: int
    hops: int


class Departed:
    """The nodes that have left."""

    def __init__(self, node: NodeId, routes: Routes, records: Records, limits: Limits = DEFAULT_LIMITS) -> None:
        self._node = node
        self._routes = routes
        self._records = records
        self._limits = limits
        self._departures: dict[NodeId, Departure] = {}
        self._dropped = False

    def __len__(self) -> int:
        return len(self._departures)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._departures

    def __iter__(self) -> Iterator[NodeId]:
        return iter(self._departures)

    def get(self, node: NodeId) -> Departure | None:
        """How a node has left; None if it has not, or that is forgotten."""
        return self._departures.get(node)

    def join(self, node: NodeId) -> None:
        """There is a route to that node."""
        self._departures.pop(node, None)

    def leave(self, node: NodeId, route: SelectedRoute, next_hop: NodeId | None, now: float) -> None:
        """The last route to that node, over that neighbour, is lost."""
        witnesses = (self._node,) if route.hops == 1 else self._neighbours_of(node)
        self._departures.pop(node, None)
        self._departures[node] = Departure(now, witnesses, next_hop, route.metric, route.hops)
        if len(self._departures) > self._limits.departed_nodes:
            del self._departures[next(iter(self._departures))]
            self._dropped = True

    def heard_by(self, node: NodeId) -> NodeId | None:
        """The reachable node, or this one, that was linked last to one that has left; None if that is unknown."""
        waiting, seen = [node], {node}
        while waiting and len(seen) <= MAX_VISITED:
            departure = self._departures.get(waiting.pop(0))
            for witness in departure.witnesses if departure is not None else ():
                if witness == self._node or self._routes.get(witness) is not None:
                    return witness
                if witness not in seen:
                    seen.add(witness)
                    waiting.append(witness)
        return None

    def describe(self, node: NodeId, now: float) -> str:
        """When a node without a route left, and which node heard it last, for the text of an error."""
        departure = self._departures.get(node)
        if departure is None:
            return f"{node!r} {'is not' if self._dropped else 'was never'} known to {self._node!r}"
        witness = self.heard_by(node)
        by = f", last heard by {witness!r}" if witness is not None else ""
        return f"{node!r} left {span(now - departure.at)} ago{by}"

    def _neighbours_of(self, node: NodeId) -> tuple[NodeId, ...]:
        record = self._records.get(node)
        names = [name for name, _ in record.neighbours if name != self._node] if record is not None else []
        near = [name for name in names if self._routes.get(name) is not None][:MAX_WITNESSES]
        if len(near) > 1:
            near = [name for name in near if self._lists(name, node)] or near
        return tuple(near or names[:MAX_WITNESSES])

    def _lists(self, witness: NodeId, node: NodeId) -> bool:
        record = self._records.get(witness)
        return record is not None and any(name == node for name, _ in record.neighbours)

    def check(self) -> None:
        """Raise AssertionError if a node in the table is reachable, or the table is past its limit."""
        if any(self._routes.get(node) is not None for node in self._departures):
            raise AssertionError("a node that has left and can be reached")
        if len(self._departures) > self._limits.departed_nodes:
            raise AssertionError("more departures than may be remembered")
