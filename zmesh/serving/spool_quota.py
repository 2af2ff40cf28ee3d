"""The payloads of requests that lie in temporary files: how many at a time, and how large.

They are counted three times: for each sender, for the neighbour that the sender's first frame came from (a member can
forge a sender, but not its link), and for the node.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from zmesh.core.limits import Limits
from zmesh.core.message import MessageId, NodeId
from zmesh.errors import Overloaded


class _Spooled(NamedTuple):
    sender: str
    neighbour: NodeId | None
    size_bytes: int


class SpoolQuota:
    """The quotas of one node."""

    __slots__ = ("_bytes_via", "_node_id", "_of", "_spooled", "_via", "limits", "size_bytes")

    def __init__(self, node_id: str, limits: Limits) -> None:
        self._node_id = node_id
        self.limits = limits
        self._spooled: dict[MessageId, _Spooled] = {}
        self._of: Counter[str] = Counter()
        self._via: Counter[NodeId] = Counter()
        self._bytes_via: Counter[NodeId] = Counter()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._spooled)

    def grow(self, id: MessageId, sender: str, size_bytes: int, neighbour: NodeId | None) -> None:
        """Record the bytes that this request has spooled to disk. Raises Overloaded past a limit.

        `neighbour`: the one that the sender's first frame came from; None: the sender is this node, which only the
        other limits apply to. It stays that of the first call.
        """
        known = self._spooled.get(id)
        if known is None:
            self._admit(sender, neighbour)
            more = size_bytes
        else:
            sender, neighbour, before = known
            more = size_bytes - before
        limits = self.limits
        if neighbour is not None:
            self._check(
                "spooled_bytes_per_neighbour", self._bytes_via[neighbour] + more, limits.spooled_bytes_per_neighbour
            )
        self._check("spooled_bytes", self.size_bytes + more, limits.spooled_bytes)
        self.size_bytes += more
        if known is None:
            self._of[sender] += 1
        if neighbour is not None:
            self._via[neighbour] += known is None
            self._bytes_via[neighbour] += more
        self._spooled[id] = _Spooled(sender, neighbour, size_bytes)

    def end(self, id: MessageId) -> None:
        """The request is over, and its file with it. Harmless if it had none."""
        known = self._spooled.pop(id, None)
        if known is None:
            return
        sender, neighbour, size_bytes = known
        self.size_bytes -= size_bytes
        self._of[sender] -= 1
        if not self._of[sender]:
            del self._of[sender]
        if neighbour is not None:
            self._via[neighbour] -= 1
            self._bytes_via[neighbour] -= size_bytes
            if not self._via[neighbour]:
                del self._via[neighbour], self._bytes_via[neighbour]

    def _admit(self, sender: str, neighbour: NodeId | None) -> None:
        limits = self.limits
        self._check("spooled_payloads", len(self._spooled) + 1, limits.spooled_payloads)
        if neighbour is not None:
            via = self._via[neighbour] + 1
            self._check("spooled_payloads_per_neighbour", via, limits.spooled_payloads_per_neighbour)
        self._check("spooled_payloads_per_peer", self._of[sender] + 1, limits.spooled_payloads_per_peer)

    def _check(self, limit: str, used: int, most: int) -> None:
        if used > most:
            raise Overloaded(
                f"node {self._node_id!r} keeps no more payloads in temporary files ({limit} is {most}); "
                "wait for replies before sending more",
                node=self._node_id,
                limit=limit,
            )
