"""Read-only view of the control plane of one node: routes, records, nodes that have left."""

from __future__ import annotations

from collections.abc import Callable, Collection

from zmesh.core.message import LinkId, NodeId
from zmesh.core.routing.departed import Departed
from zmesh.core.routing.duplicates import Duplicates
from zmesh.core.routing.explanation import Explanation, Loss, explain, loss_of
from zmesh.core.routing.records import Records
from zmesh.core.routing.routes import Routes
from zmesh.core.routing.selected_route import SelectedRoute
from zmesh.core.wire import GRANTS, Record


class RoutingView:
    """The read-only surface of a Routing; nothing here changes anything."""

    node: NodeId
    _departed: Departed
    _duplicates: Duplicates
    _links: dict[LinkId, NodeId]
    """The neighbours at all links that are up."""
    _records: Records
    _routes: Routes
    route: Callable[[NodeId], SelectedRoute | None]
    """The selected route to a node, or None; looked up for every chunk."""
    record: Callable[[NodeId], Record | None]
    """The record of a node, also of one that was reachable until lately; looked up for every sealed packet."""

    def routes(self) -> dict[NodeId, SelectedRoute]:
        """All selected routes."""
        return self._routes.table()

    def destinations(self) -> Collection[NodeId]:
        """The nodes that there is a route to."""
        return self._routes.names()

    def others(self, destination: NodeId) -> list[tuple[LinkId, int, bool]]:
        """The routes that are not selected: link, metric, and whether it is feasible; the cheapest first."""
        return self._routes.others(destination)

    def explain(self, destination: NodeId) -> Explanation:
        """Why the route to a node is the one that it is, or why there is none."""
        return explain(destination, self._routes, self._departed, self._links)

    def distance(self, destination: NodeId) -> tuple[int, int] | None:
        """The feasibility distance to a node, as (seqno, metric)."""
        return self._routes.distance(destination)

    @property
    def seqno(self) -> int:
        """This node's own seqno."""
        return self._routes.seqno

    def sent(self, link: LinkId) -> int:
        """How many UPDATEs were sent on a link."""
        return self._routes.sent(link)

    def received(self, link: LinkId) -> int:
        """How many UPDATEs the neighbour had sent on a link when its last one arrived, if none was lost."""
        return self._routes.received(link)

    @property
    def changed_at(self) -> float:
        """When a next hop was last selected or lost."""
        return self._routes.changed_at

    def settled(self, now: float) -> float:
        """For how many seconds all next hops have been the same."""
        return max(0.0, now - self._routes.changed_at)

    @property
    def moved_at(self) -> float:
        """When anything in the routes and records last changed, be it a metric alone: the end of convergence."""
        return max(self._routes.moved_at, self._records.changed_at)

    def neighbour(self, link: LinkId) -> NodeId | None:
        """The node at the other end of a link that routes may use."""
        return self._links.get(link)

    def takes_grants(self, node: NodeId) -> bool:
        """Whether a node takes the key exchanges of leaves with grants, as its record says; True if none is known."""
        record = self._records.get(node)
        return record is None or GRANTS in record.extensions

    def records(self) -> dict[NodeId, Record]:
        """The records of all nodes that can be reached, and of this one."""
        return self._records.known()

    @property
    def digest(self) -> int:
        """The sum of the digests of these records; the same at all nodes once they agree."""
        return self._records.digest

    def duplicates(self) -> set[NodeId]:
        """The node ids that are used by two live nodes, or were refused for that."""
        refused = {one.node for record in self._records.known().values() for one in record.refused}
        return refused.union(self._duplicates.names())

    @property
    def is_contested(self) -> bool:
        """True while another live node is known to use this node's id."""
        return self.node in self._duplicates

    def has_left(self, node: NodeId) -> bool:
        """True if there was a route to that node, and is none any more."""
        return node in self._departed

    def last_heard_by(self, node: NodeId) -> NodeId | None:
        """The reachable node, or this one, that was the last neighbour of a node that has left; None if unknown."""
        return self._departed.heard_by(node)

    def losses(self) -> dict[NodeId, Loss]:
        """How the last route to each node was lost that had one and has none any more; the latest last."""
        return {node: loss for node in self._departed if (loss := loss_of(node, self._departed)) is not None}

    def describe_departure(self, node: NodeId, now: float) -> str:
        """When a node without a route left, for the text of an error."""
        return self._departed.describe(node, now)

    def counts(self) -> dict[str, int]:
        """How many entries the tables have: `routes`, `distances`, `records` (also of nodes that have just left),
        `contested_ids` and `departed` nodes.
        """
        return {
            "routes": len(self._routes.names()),
            "distances": len(self._routes),
            "records": len(self._records),
            "contested_ids": len(self._duplicates),
            "departed": len(self._departed),
        }
