"""Read-only view of the routing table, and of the routes that were received on each link."""

from __future__ import annotations

from collections.abc import Collection

from zmesh.core.message import LinkId, NodeId
from zmesh.core.routing.advertisements import Advertiser
from zmesh.core.routing.destinations import Destination
from zmesh.core.routing.selected_route import SelectedRoute
from zmesh.core.wire import INFINITY, Row


class ReceivedRoutes:
    """The rows that were received on one link. `node` is the owner of what they take up in the quota."""

    __slots__ = ("cost", "node", "received", "rows", "stale")

    def __init__(self, node: NodeId | LinkId, cost: int) -> None:
        self.node = node
        self.cost = cost
        self.rows: dict[NodeId, Row] = {}
        self.received = 0
        self.stale: set[NodeId] | None = None
        """The destinations that the full update which has begun has not confirmed yet."""


def is_feasible(row: Row, distance: tuple[int, int] | None) -> bool:
    """True if the feasibility distance of the neighbour that advertised this is below that one, or there is none."""
    if distance is None or row[2] > distance[0]:
        return True
    return row[2] == distance[0] and row[3] - row[5] < distance[1]


class RoutesView:
    """The read-only surface of Routes; nothing here changes anything."""

    advertiser: Advertiser
    _own: SelectedRoute
    _neighbours: dict[LinkId, ReceivedRoutes]
    _table: dict[NodeId, Destination]
    """The destinations with a feasibility distance."""
    _selected: dict[NodeId, Destination]
    """Those that there is a route to."""
    _no_room: dict[NodeId, float]
    """The destinations that were advertised and found no room, and when each may be tried again."""

    def get(self, name: NodeId) -> SelectedRoute | None:
        """The selected route to a destination, or None."""
        destination = self._selected.get(name)
        return destination.selected if destination is not None else None

    def table(self) -> dict[NodeId, SelectedRoute]:
        """All selected routes."""
        return {name: one.selected for name, one in self._selected.items() if one.selected is not None}

    def names(self) -> Collection[NodeId]:
        """The destinations of all selected routes."""
        return self._selected.keys()

    def distance(self, name: NodeId) -> tuple[int, int] | None:
        """The feasibility distance to a destination, as (seqno, metric)."""
        destination = self._table.get(name)
        return destination.distance if destination is not None else None

    def destination(self, name: NodeId) -> Destination | None:
        """The state of a destination with a feasibility distance, or None."""
        return self._table.get(name)

    def candidate(self, name: NodeId, link: LinkId) -> tuple[Row, int, bool] | None:
        """The route that was received on a link, the cost of the link, and whether the route is feasible."""
        neighbour = self._neighbours.get(link)
        row = neighbour.rows.get(name) if neighbour is not None else None
        return (
            None if neighbour is None or row is None else (row, neighbour.cost, is_feasible(row, self.distance(name)))
        )

    def is_refused(self, name: NodeId) -> bool:
        """Whether a destination was advertised and found no room."""
        return name in self._no_room

    def others(self, name: NodeId) -> list[tuple[LinkId, int, bool]]:
        """The routes that are not selected: link, metric, and whether it is feasible; the cheapest first."""
        selected, distance = self.get(name), self.distance(name)
        found = [
            (link, row[3] + neighbour.cost, is_feasible(row, distance))
            for link, neighbour in self._neighbours.items()
            if (selected is None or link != selected.link) and (row := neighbour.rows.get(name)) is not None
        ]
        return sorted((other for other in found if other[1] < INFINITY), key=lambda other: other[1])

    def sent(self, link: LinkId) -> int:
        """How many UPDATEs were sent on that link."""
        return self.advertiser.sent(link)

    def received(self, link: LinkId) -> int:
        """How many UPDATEs the neighbour had sent on the link when its last one arrived, if none was lost."""
        neighbour = self._neighbours.get(link)
        return neighbour.received if neighbour else 0

    @property
    def seqno(self) -> int:
        """This node's own seqno."""
        return self._own.seqno

    def __len__(self) -> int:
        return len(self._table)
