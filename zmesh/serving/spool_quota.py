"""The payloads of requests that lie in temporary files: how many at a time, of one sender and of all, and how large."""

from __future__ import annotations

from collections import Counter

from zmesh.core.limits import Limits
from zmesh.core.message import MessageId
from zmesh.errors import Overloaded


class SpoolQuota:
    """The quotas of one node."""

    __slots__ = ("_node_id", "_of", "_sizes", "limits", "size_bytes")

    def __init__(self, node_id: str, limits: Limits) -> None:
        self._node_id = node_id
        self.limits = limits
        self._sizes: dict[MessageId, tuple[str, int]] = {}
        self._of: Counter[str] = Counter()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def grow(self, id: MessageId, sender: str, size_bytes: int) -> None:
        """Record the bytes that this request has spooled to disk. Raises Overloaded past a limit."""
        limits = self.limits
        known = self._sizes.get(id)
        before = 0 if known is None else known[1]
        if known is None and len(self._sizes) >= limits.spooled_payloads:
            raise self._full("spooled_payloads", limits.spooled_payloads)
        if known is None and self._of[sender] >= limits.spooled_payloads_per_peer:
            raise self._full("spooled_payloads_per_peer", limits.spooled_payloads_per_peer)
        if self.size_bytes + size_bytes - before > limits.spooled_bytes:
            raise self._full("spooled_bytes", limits.spooled_bytes)
        if known is None:
            self._of[sender] += 1
        self.size_bytes += size_bytes - before
        self._sizes[id] = (sender, size_bytes)

    def end(self, id: MessageId) -> None:
        """The request is over, and its file with it. Harmless if it had none."""
        known = self._sizes.pop(id, None)
        if known is None:
            return
        sender, size_bytes = known
        self.size_bytes -= size_bytes
        self._of[sender] -= 1
        if not self._of[sender]:
            del self._of[sender]

    def _full(self, limit: str, value: int) -> Overloaded:
        return Overloaded(
            f"node {self._node_id!r} keeps no more payloads in temporary files ({limit} is {value}); "
            "wait for replies before sending more",
            node=self._node_id,
        )
