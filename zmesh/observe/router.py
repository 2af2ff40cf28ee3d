"""What a node knows of the mesh, for programs to read."""

from __future__ import annotations

import time
from dataclasses import dataclass

from zmesh.core.engine import Engine
from zmesh.core.message import Address, NodeId
from zmesh.core.neighbours.links import Link
from zmesh.core.routing import SelectedRoute
from zmesh.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Route:
    """The way to one destination.

    `next_hop` is the neighbour it starts with, `metric` its cost in all, `hops` how many links it takes. `rtt` is the
    smoothed round trip to the next hop, `age` how long this path has been in use, both in seconds. `why` says in words
    why it was chosen.
    """

    destination: str
    next_hop: str
    metric: int
    hops: int
    rtt: float | None
    age: float
    why: str


class Router:
    """A read-only view of a node's tables; every call tells the state of that moment.

    An ephemeral node keeps no tables of the mesh: there each call raises ConfigError, which says whom to ask.
    """

    def __init__(self, engine: Engine) -> None:
        self._tables = engine
        self.node_id: str = engine.node

    @property
    def _engine(self) -> Engine:
        engine = self._tables
        if engine.leaf:
            uplink = engine.forwarding.uplink
            raise ConfigError(
                f"node {self.node_id!r} is ephemeral and keeps no tables of the mesh; ask the one it is linked to, "
                f"by request({uplink.node if uplink is not None else '...'!r}, 'zmesh:routes')",
                node=self.node_id,
            )
        return engine

    def get_nodes(self) -> list[str]:
        """The ids of all nodes that can be reached, this one's among them, sorted.

        Raises ConfigError at an ephemeral node, which knows its own neighbours only.
        """
        return sorted(self._engine.nodes())

    def get_edges(self) -> list[tuple[str, str, int]]:
        """The links of the mesh as (node, node, cost), each once; the cost is the higher one of its two ends."""
        edges: dict[tuple[str, str], int] = {}
        records = self._engine.routing.records()
        for node, record in records.items():
            for neighbour, cost in record.neighbours:
                if neighbour in records:
                    edge = (node, neighbour) if node < neighbour else (neighbour, node)
                    edges[edge] = max(cost, edges.get(edge, 0))
        return [(a, b, cost) for (a, b), cost in sorted(edges.items())]

    def node_capabilities(self) -> dict[str, list[str]]:
        """For each node that can be reached, the directives that it offers; `name:!Error` is a plugin that failed."""
        return {node: list(record.capabilities) for node, record in sorted(self._engine.routing.records().items())}

    def next_hop(self, node: str) -> str | None:
        """The neighbour that messages to `node` go to first; None if there is no route, or it is this node."""
        selected = self._engine.routing.route(NodeId(Address(node)))
        link = self._engine.links.get(selected.link) if selected is not None else None
        return link.node if link is not None else None

    def route(self, node: str) -> Route | None:
        """The route in use to one node; None if there is none, or it is this node."""
        destination = NodeId(Address(node))
        selected = self._engine.routing.route(destination)
        link = self._engine.links.get(selected.link) if selected is not None else None
        return self._route(destination, selected, link) if selected is not None and link is not None else None

    def routes(self) -> list[Route]:
        """The routes in use, sorted by destination."""
        return [
            route for node in sorted(self._engine.routing.destinations()) if (route := self.route(node)) is not None
        ]

    def duplicates(self) -> list[str]:
        """The ids that two live nodes have given themselves, sorted, also if one of them was refused."""
        return sorted(self._engine.routing.duplicates())

    def _route(self, node: NodeId, selected: SelectedRoute, link: Link) -> Route:
        age = time.monotonic() - selected.since
        return Route(node, link.node, selected.metric, selected.hops, link.rtt, age, self._why(node, selected))

    def _why(self, node: NodeId, selected: SelectedRoute) -> str:
        others = [
            (known.node, metric, feasible)
            for link, metric, feasible in self._engine.routing.others(node)
            if (known := self._engine.links.get(link)) is not None
        ]
        if not others:
            return "the only one offered"
        name, metric, feasible = others[0]
        if metric < selected.metric:
            reason = "too many hops" if feasible else f"that could be a loop until {node} has confirmed it"
            return f"over {name} it would be {metric}, but {reason}"
        usable = next((other for other in others if other[2]), None)
        if usable is None:
            return "the cheapest"
        name, metric, _ = usable
        if metric == selected.metric:
            return f"as cheap as over {name}, and chosen first"
        return f"the cheapest; over {name} it would be {metric}"
