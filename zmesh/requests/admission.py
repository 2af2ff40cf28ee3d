"""Admission control for calls: refuses when the node is not open, in another loop, or has too many bytes queued."""

from __future__ import annotations

import asyncio
import threading

from zmesh.core.engine import Engine
from zmesh.errors import Closed, Overloaded
from zmesh.runtime import ProcessOrigin

OVERHEAD = 3072
"""Bytes that a queued message counts for in addition to its payload."""


class Admission:
    """Admission control of one node. Messages posted by other threads count as queued before the loop takes them."""

    def __init__(self, node_id: str, engine: Engine, max_waiting_bytes: int) -> None:
        self._node_id = node_id
        self._engine = engine
        self.max_waiting_bytes = max_waiting_bytes
        self._origin = ProcessOrigin()
        self._lock = threading.Lock()
        self._reserved_bytes = 0
        self.shut = False
        """Set when the node closes, or is about to."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop that the node runs in, or will as soon as that loop runs."""
        self.thread = 0
        """The thread of that loop; 0 until the node runs."""

    @property
    def is_foreign(self) -> bool:
        """Whether this process is a fork of the node's own."""
        return not self._origin.is_here

    def check_process(self) -> None:
        """Raises Closed in a fork of the node's process."""
        if not self._origin.is_here:
            raise Closed(
                f"node {self._node_id!r} belongs to the process {self._origin.pid}, of which this one is a fork; "
                "make a Controller after forking",
                node=self._node_id,
            )

    def check_begun(self) -> None:
        """Raises Closed if the node is not open yet, or not in this process."""
        if self.loop is None or not self._origin.is_here:
            self.check_process()
            raise self.unopened()

    def check_open(self) -> None:
        """Raises Closed if the node is not open yet, not any more, or not in this process."""
        self.check_begun()
        if self.shut:
            raise self.closed()

    def check_loop(self) -> None:
        """Raises RuntimeError in another loop than the node's, where nothing that is waited for would come."""
        running = asyncio._get_running_loop()
        if running is not None and running is not self.loop:
            raise RuntimeError(f"node {self._node_id!r} runs in another event loop than the one that runs here")

    def check(self) -> None:
        """Raises Closed, and Overloaded if `max_waiting_bytes` are queued or unacknowledged already."""
        if self.shut or not self._origin.is_here:
            self.check_process()
            raise self.closed()
        engine = self._engine
        waiting = engine.waiting_bytes + OVERHEAD * engine.waiting_streams + self._reserved_bytes
        if waiting >= self.max_waiting_bytes:
            raise Overloaded(
                f"{waiting} bytes wait at node {self._node_id!r} to be sent or acknowledged, and max_waiting_bytes is "
                f"{self.max_waiting_bytes}; wait for replies before sending more, or set it higher",
                node=self._node_id,
            )

    def reserve(self, payload_bytes: int) -> int:
        """Count a message from another thread as queued; returns the bytes to `release` later.

        Raises Closed and Overloaded, as `check` does.
        """
        size = OVERHEAD + payload_bytes
        self.check_process()  # before the lock, which another thread of the parent may have held
        with self._lock:
            self.check()
            self._reserved_bytes += size
        return size

    def release(self, size: int) -> None:
        """Stop counting a posted message: the loop has taken it."""
        with self._lock:
            self._reserved_bytes -= size

    def unopened(self) -> Closed:
        """The error for calls before the node is open."""
        return Closed(
            f"node {self._node_id!r} is not open yet; call inside of `async with Controller(...)`, or in the function "
            "that is given to `run`",
            node=self._node_id,
        )

    def closed(self) -> Closed:
        """The error for calls after the node has closed."""
        return Closed(f"node {self._node_id!r} is closed; open another Controller to send", node=self._node_id)
