"""The mesh as a program sees it: routes, links, tags, counts and events, which a Controller inherits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from zmesh.observe.events import Event, Events
    from zmesh.observe.observation import Observation
    from zmesh.observe.router import Route, Router, Tags
    from zmesh.observe.stats import LinkStatus, Stats


class Observed(Protocol):
    """A node that is observed."""

    router: Router

    observation: Observation

    def stats(self) -> Stats:
        """The counters and gauges of this moment."""

    def events(self) -> Events:
        """The events from now on."""

    async def reachable(self, node: str, timeout: float | None = None) -> None:
        """As `MeshView.wait_for`."""


class MeshView(ABC):
    """The part of a Controller that reads the state of its node and of the mesh."""

    @property
    @abstractmethod
    def node(self) -> Observed:
        """The node itself."""

    def routes(self) -> list[Route]:
        """The routes in use, sorted by destination."""
        return self.node.router.routes()

    def edges(self) -> list[tuple[str, str, int]]:
        """The links of the mesh as (node, node, cost), each once; the cost is the higher one of its two ends."""
        return self.node.router.get_edges()

    def capabilities(self) -> dict[str, list[str]]:
        """For each node that can be reached, the directives that it offers; `name:!Error` is a plugin that failed."""
        return self.node.router.node_capabilities()

    def tags(self) -> dict[str, Tags]:
        """For each node that can be reached, its tags."""
        return self.node.router.tags()

    def duplicates(self) -> list[str]:
        """The ids that two live nodes use, sorted, also if one of them was refused."""
        return self.node.router.duplicates()

    def links(self) -> list[LinkStatus]:
        """The links of this node that are up, sorted by neighbour."""
        return self.node.observation.links()

    def stats(self) -> Stats:
        """The counters and gauges of this moment: open requests, queued bytes, and counts of events."""
        return self.node.stats()

    def events(self) -> Events:
        """The events of this node's links and of the nodes that it can reach, from now on, until it closes.

        Waiting for the first one raises Closed while the node is not open yet.
        """
        return self.node.events()

    def watch(self, observer: Callable[[Event], None]) -> None:
        """Call `observer` with each event, on the node's loop and as it happens, before anything else is done."""
        self.node.observation.watch_events(observer)

    async def wait_for(self, node: str, timeout: float | None = None) -> None:
        """Wait until there is a route to `node`; at an ephemeral node, until `node` answers a ping.

        Raises Unreachable after `timeout` seconds (None: no limit), with the nodes that can be reached, and Closed when
        this node is not open, or is closed meanwhile.
        """
        await self.node.reachable(node, timeout)
