"""The mesh as an operator sees it, for a program: what a Controller inherits."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from zmesh.operate.status import NodeStatus
    from zmesh.payloads import PayloadLike
    from zmesh.requests import ReplyStream

T = TypeVar("T")

TIMEOUT = 10.0
"""Seconds to wait for the answer of a node, unless a time-out is given."""


class Operating(ABC):
    """The part of a Controller that shows the state of nodes and of the mesh.

    Each method takes the id of the node that is to answer; None is this one or, at an ephemeral node, the one that it
    is attached to. A time-out is in seconds. All raise NotAllowed, Unreachable, TimedOut, UnknownDirective of a node
    that is too old, RemoteError for an answer that makes no sense, and as `Controller.request` does.
    """

    @abstractmethod
    def stream(
        self,
        node: str,
        directive: str,
        payload: PayloadLike = None,
        *,
        timeout: float | None = None,
        route_timeout: float | None = None,
        buffered: bool = True,
    ) -> ReplyStream:
        """As `Controller.stream`."""

    @abstractmethod
    def _node_with_tables(self) -> str:
        """The id of this node or, if it is ephemeral, of the one that it is attached to."""

    async def status(
        self, node: str | None = None, *, timeout: float | None = TIMEOUT, route_timeout: float | None = None
    ) -> NodeStatus:
        """The state of a node: identity, links, work, resources, and what needs attention."""
        from dataclasses import replace

        from zmesh.operate.json_form import Seconds
        from zmesh.operate.status import STATUS, NodeStatus

        began = time.time()
        status = await self._shown(NodeStatus, STATUS, node, None, timeout, route_timeout)
        return replace(status, skew=Seconds(status.time - (began + time.time()) / 2))

    async def _shown(
        self,
        kind: type[T],
        directive: str,
        node: str | None,
        payload: Any,
        timeout: float | None,
        route_timeout: float | None = None,
    ) -> T:
        """The answer of a node to a directive that shows something. Nothing is sent before this is awaited."""
        from zmesh.operate.json_form import read_answer

        where = node if node is not None else self._node_with_tables()
        request = self.stream(where, directive, payload, timeout=timeout, route_timeout=route_timeout)
        request.send()
        return read_answer(kind, await request.only_payload(), where, directive)
