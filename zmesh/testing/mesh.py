"""Real nodes in one process, for tests: sockets and all, over `inproc://` or loopback TCP."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from zmesh.config import Config
from zmesh.controller import Controller
from zmesh.core.limits import Limits

_numbers = itertools.count(1)


async def eventually(predicate: Callable[[], Any], timeout: float = 60.0) -> Any:
    """Wait until the predicate, which may be a coroutine function, holds, and return its value.

    Raises AssertionError if it does not within `timeout` seconds.
    """
    value = None
    try:
        async with asyncio.timeout(timeout):
            while True:
                value = predicate()
                if inspect.isawaitable(value):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"not within {timeout:g} s: {predicate} gave {value!r} at last") from None


class Mesh:
    """A set of nodes that belong together; `async with` opens them, waits until all know all, and closes them.

    `edges` are (dialler, listener) pairs of node ids; `settings` go into the Config of each node; `tcp` True uses
    loopback TCP instead of `inproc://`; `limits` are the resource limits of each node.
    """

    def __init__(
        self,
        *nodes: str,
        edges: tuple[tuple[str, str], ...] = (),
        tcp: bool = False,
        limits: Limits | None = None,
        **settings: Any,
    ) -> None:
        self._wanted = nodes
        self._edges = edges
        self._tcp = tcp
        self._limits = limits
        self._settings = settings
        self.controllers: dict[str, Controller] = {}

    @classmethod
    def chain(cls, *nodes: str, tcp: bool = False, **settings: Any) -> Self:
        """Nodes in a line, each dialling the one before it."""
        edges = tuple((right, left) for left, right in itertools.pairwise(nodes))
        return cls(*nodes, edges=edges, tcp=tcp, **settings)

    @classmethod
    def ring(cls, *nodes: str, tcp: bool = False, **settings: Any) -> Self:
        """Nodes in a circle."""
        edges = tuple((right, left) for left, right in itertools.pairwise((*nodes, nodes[0])))
        return cls(*nodes, edges=edges, tcp=tcp, **settings)

    @classmethod
    def star(cls, hub: str, *nodes: str, tcp: bool = False, **settings: Any) -> Self:
        """Nodes that all dial one."""
        return cls(hub, *nodes, edges=tuple((node, hub) for node in nodes), tcp=tcp, **settings)

    def __getitem__(self, node: str) -> Controller:
        return self.controllers[node]

    async def add(self, node: str, *peers: str, **settings: Any) -> Controller:
        """Start one more node that dials the given ones."""
        listen = "tcp://127.0.0.1:*" if self._tcp else f"inproc://zmesh-test-{next(_numbers)}"
        config = Config(node_id=node, listen=(listen,), **{**self._settings, **settings})
        controller = Controller(config, limits=self._limits)
        await controller.open()
        self.controllers[node] = controller
        for peer in peers:
            controller.add_peer(self.controllers[peer].listening[0])
        return controller

    async def connect(self, dialler: str, listener: str) -> None:
        """Let one node dial another."""
        self.controllers[dialler].add_peer(self.controllers[listener].listening[0])

    async def remove(self, node: str) -> None:
        """Close one node."""
        await self.controllers.pop(node).close()

    async def settle(self, timeout: float = 60.0) -> None:
        """Wait until every node knows every other and its directives. Raises AssertionError after `timeout` seconds."""
        await eventually(self.settled, timeout)

    def settled(self) -> bool:
        """Whether every node knows every other and its capabilities."""
        ids = sorted(self.controllers)
        return all(
            controller.node.router.get_nodes() == ids and sorted(controller.node.router.node_capabilities()) == ids
            for controller in self.controllers.values()
        )

    async def close(self) -> None:
        """Close all nodes."""
        await asyncio.gather(*(controller.close() for controller in self.controllers.values()))
        self.controllers.clear()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as unless_settled:
            unless_settled.push_async_callback(self.close)
            for node in self._wanted:
                await self.add(node)
            for dialler, listener in self._edges:
                await self.connect(dialler, listener)
            if self._edges:
                await self.settle()
            unless_settled.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()
