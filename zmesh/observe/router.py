"""The routing tables of a node, for programs to read."""

from __future__ import annotations

import time
from dataclasses import dataclass

from zmesh.core.message import Address, NodeId
from zmesh.core.view import ActiveRoute, View
from zmesh.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Route:
    """The route to one destination.

    `next_hop` is the neighbour it starts with, `metric` its total cost, `hops` the number of its links. `rtt` is the
    smoothed round-trip time to the next hop, `age` how long this next hop has been in use, both in seconds. `why` says
    in words why it was selected.
    """

    destination: str
    next_hop: str
    metric: int
    hops: int
    rtt: float | None
    age: float
    why: str


@dataclass(frozen=True, slots=True)
class Tags:
    """The tags of a node: `certified` by its certificate, and `own`, which it gives itself by its configuration.

    Permissions look at certified ones only.
    """

    certified: tuple[str, ...] = ()
    own: tuple[str, ...] = ()

    def __contains__(self, tag: object) -> bool:
        return tag in self.certified or tag in self.own


class Router:
    """A read-only view of a node's tables, at the moment of each call.

    An ephemeral node keeps no routes: there each call raises ConfigError, which names the node to ask.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self.node_id: str = view.node

    @property
    def _tables(self) -> View:
        view = self._view
        if view.leaf:
            raise ConfigError(
                f"node {self.node_id!r} is ephemeral and keeps no tables of the mesh; ask the one it is linked to, "
                f"by request({view.uplink or '...'!r}, 'zmesh:routes')",
                node=self.node_id,
            )
        return view

    def get_nodes(self) -> list[str]:
        """The ids of all nodes that can be reached, this one's among them, sorted.

        Raises ConfigError at an ephemeral node, which knows its own neighbours only.
        """
        return sorted(self._tables.nodes())

    def get_edges(self) -> list[tuple[str, str, int]]:
        """The links of the mesh as (node, node, cost), each once; the cost is the higher one of its two ends."""
        edges: dict[tuple[str, str], int] = {}
        records = self._tables.records()
        for node, record in records.items():
            for neighbour, cost in record.neighbours:
                if neighbour in records:
                    edge = (node, neighbour) if node < neighbour else (neighbour, node)
                    edges[edge] = max(cost, edges.get(edge, 0))
        return [(a, b, cost) for (a, b), cost in sorted(edges.items())]

    def node_capabilities(self) -> dict[str, list[str]]:
        """For each node that can be reached, the directives that it offers; `name:!Error` is a plugin that failed."""
        return {node: list(record.capabilities) for node, record in sorted(self._tables.records().items())}

    def tags(self) -> dict[str, Tags]:
        """The tags of each node that can be reached, this one's among them, sorted by node."""
        return {node: Tags(*tags) for node, tags in sorted(self._tables.tags().items())}

    def next_hop(self, node: str) -> str | None:
        """The neighbour that messages to `node` go to first; None if there is no route, or it is this node."""
        route = self._tables.route(NodeId(Address(node)))
        return route.next_hop if route is not None else None

    def route(self, node: str) -> Route | None:
        """The route in use to one node; None if there is none, or it is this node."""
        route = self._tables.route(NodeId(Address(node)))
        return _shown(route, time.monotonic()) if route is not None else None

    def routes(self) -> list[Route]:
        """The routes in use, sorted by destination."""
        now = time.monotonic()
        return [_shown(route, now) for route in self._tables.routes()]

    def duplicates(self) -> list[str]:
        """The ids that two live nodes have given themselves, sorted, also if one of them was refused."""
        return sorted(self._tables.duplicates())


def _shown(route: ActiveRoute, now: float) -> Route:
    metric, hops, age = route.metric, route.hops, now - route.since
    return Route(route.destination, route.next_hop, metric, hops, route.rtt, age, _why(route))


def _why(route: ActiveRoute) -> str:
    if not route.alternates:
        return "the only one offered"
    name, metric, feasible = route.alternates[0]
    if metric < route.metric:
        reason = "too many hops" if feasible else f"that could be a loop until {route.destination} has confirmed it"
        return f"over {name} it would be {metric}, but {reason}"
    usable = next((other for other in route.alternates if other.feasible), None)
    if usable is None:
        return "the cheapest"
    if usable.metric == route.metric:
        return f"as cheap as over {usable.next_hop}, and chosen first"
    return f"the cheapest; over {usable.next_hop} it would be {usable.metric}"
