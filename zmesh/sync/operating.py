"""The mesh as an operator sees it, for programs without asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.operate import TIMEOUT
from zmesh.sync.blocking_node import BlockingNode

if TYPE_CHECKING:
    from zmesh.operate import NodeStatus


class Operating(BlockingNode):
    """The part of a Controller that shows the state of nodes and of the mesh; as that of `zmesh.Controller`."""

    def status(
        self, node: str | None = None, *, timeout: float | None = TIMEOUT, route_timeout: float | None = None
    ) -> NodeStatus:
        """The state of a node: identity, links, work, resources, and what needs attention."""
        return self._do(lambda: self._mesh.status(node, timeout=timeout, route_timeout=route_timeout))
