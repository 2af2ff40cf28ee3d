"""What a node knows of the mesh, for programs to read."""

from __future__ import annotations

from dataclasses import dataclass

from zmesh.core.engine import Engine
from zmesh.core.message import Address, NodeId


@dataclass(frozen=True, slots=True)
class Route:
    """The way to one destination: the neighbour it starts with, its cost in all, and how many links it takes."""

    destination: str
    next_hop: str
    metric: int
    hops: int


class Router:
    """A read-only view of a node's tables; every call tells the state of that moment."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.node_id: str = engine.node

    def get_nodes(self) -> list[str]:
        """The ids of all nodes that can be reached, this one's among them, sorted."""
        return sorted(self._engine.nodes())

    def get_edges(self) -> list[tuple[str, str, int]]:
        """The links of the mesh as (node, node, cost), each once; the cost is the higher one of its two ends."""
        edges: dict[tuple[str, str], int] = {}
        records = self._engine.records.known()
        for node, record in records.items():
            for neighbour, cost in record.neighbours:
                if neighbour in records:
                    edge = (node, neighbour) if node < neighbour else (neighbour, node)
                    edges[edge] = max(cost, edges.get(edge, 0))
        return [(a, b, cost) for (a, b), cost in sorted(edges.items())]

    def node_capabilities(self) -> dict[str, list[str]]:
        """For each node that can be reached, the directives that it offers; `name:!Error` is a plugin that failed."""
        return {node: list(record.capabilities) for node, record in sorted(self._engine.records.known().items())}

    def next_hop(self, node: str) -> str | None:
        """The neighbour that messages to `node` go to first; None if there is no route, or it is this node."""
        selected = self._engine.routes.get(NodeId(Address(node)))
        link = self._engine.links.get(selected.link) if selected is not None else None
        return link.node if link is not None else None

    def routes(self) -> list[Route]:
        """The routes in use, sorted by destination."""
        routes = []
        for destination, selected in sorted(self._engine.routes.table().items()):
            link = self._engine.links.get(selected.link)
            if link is not None:
                routes.append(Route(destination, link.node, selected.metric, selected.hops))
        return routes
