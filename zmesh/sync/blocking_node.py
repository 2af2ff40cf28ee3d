"""A node whose event loop runs in a thread of its own, and calls that wait for that thread."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from zmesh import controller
from zmesh.config import Config
from zmesh.errors import Closed
from zmesh.runtime import NodeThread, refuse_in_loop_of_node
from zmesh.sync.iteration import Iteration, in_the_loop

if TYPE_CHECKING:
    from typing import Unpack

    from zmesh.config import Settings

T = TypeVar("T")
SomeIteration = TypeVar("SomeIteration", bound="Iteration[Any]")


class BlockingNode:
    """The part of a Controller that opens and closes its node, and runs what it is given in the node's thread."""

    def __init__(self, config: Config | None = None, **settings: Unpack[Settings]) -> None:
        self._mesh = controller.Controller(config, **settings)
        self._node_thread: NodeThread | None = None
        self._iterations: weakref.WeakSet[Iteration[Any]] = weakref.WeakSet()

    def open(self) -> None:
        """Open the node; returns once it listens. Raises AddressError, and Closed if it was open before."""
        refuse_in_loop_of_node()
        if self._node_thread is not None:
            node = self._mesh.node_id
            raise Closed(f"node {node!r} is open, or was; a Controller is opened once: make another", node=node)
        self._node_thread = NodeThread(self._mesh, self._mesh.node_id)
        weakref.finalize(self, self._node_thread.stop).atexit = False
        self._node_thread.start()

    def close(self) -> None:
        """Close the node; its thread and sockets have ended when this returns. Harmless when it is closed."""
        if self._node_thread is not None:
            self._node_thread.end()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if error is None:
                for iteration in list(self._iterations):
                    iteration.close()
                with suppress(Closed):
                    self._opened().do(self._mesh.node.drain)
        finally:
            self.close()

    @property
    def node_id(self) -> str:
        """This node's id."""
        return self._mesh.node_id

    # -- for the parts of a Controller ---------------------------------------------------------------------------

    def _opened(self) -> NodeThread:
        if self._node_thread is None:
            node = self.node_id
            raise Closed(f"node {node!r} is not open yet; call inside of `with Controller(...)`", node=node)
        return self._node_thread

    def _do(self, work: Callable[[], Awaitable[T]]) -> T:
        return self._opened().do(work)

    def _set_up(self, change: Callable[[], None]) -> None:
        if self._node_thread is None:
            change()
        else:
            self._do(in_the_loop(change))

    def _iterating(self, iteration: SomeIteration) -> SomeIteration:
        self._iterations.add(iteration)
        return iteration
