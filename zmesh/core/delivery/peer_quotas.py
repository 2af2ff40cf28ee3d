"""Quotas on what other nodes make this one keep: entries in the table of peers, open requests, and buffered payload.

Usage is counted three times: for each peer by the source that its frames name, for each neighbour by the link that they
came on, and for the node. A member can forge any source, so a limit for each peer alone would bound nothing, but it
can't choose the link. The limit of a neighbour is below that of the node, which leaves room for other links.

A check returns the name of the limit in `Limits` that would be exceeded, or an empty text.
"""

from __future__ import annotations

from zmesh.core.limits import Limits, TokenBucket
from zmesh.core.message import NodeId


class Usage:
    """Counts of one peer, of one neighbour or of the node: `peers` in the table, open `requests`, `kept_bytes`."""

    __slots__ = ("kept_bytes", "peers", "requests")

    def __init__(self) -> None:
        self.peers = 0
        self.requests = 0
        self.kept_bytes = 0


class _NeighbourUsage(Usage):
    """The counts of one neighbour, and the rate of its new peers."""

    __slots__ = ("arrivals",)

    def __init__(self, arrivals: TokenBucket) -> None:
        super().__init__()
        self.arrivals = arrivals


class PeerQuotas:
    """The usage of the node, of each neighbour, and (in its PeerQuota) of each peer."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.node = Usage()
        self._neighbours: dict[NodeId, _NeighbourUsage] = {}

    def admit(self, neighbour: NodeId | None, now: float) -> PeerQuota:
        """Count one more peer, first named by a frame from that neighbour; None: by this node itself."""
        via = Usage()
        if neighbour is not None:
            known = self._neighbours.get(neighbour)
            if known is None:
                known = self._neighbours[neighbour] = _NeighbourUsage(TokenBucket(self.limits.new_peers, now))
            known.arrivals.spend(1)
            via = known
        for usage in (via, self.node):
            usage.peers += 1
        return PeerQuota(self, neighbour, via)

    def peer_limit(self, neighbour: NodeId | None, now: float) -> str:
        """The limit that one more peer of that neighbour would exceed, or an empty text; this node itself has none."""
        limits = self.limits
        if neighbour is None:
            return ""
        via = self._neighbours.get(neighbour)
        if via is not None and via.peers >= limits.peers_per_neighbour:
            return "peers_per_neighbour"
        if via is not None and not via.arrivals.has(now):
            return "new_peers"
        return "peers" if self.node.peers >= limits.peers else ""

    def release(self, quota: PeerQuota) -> None:
        """A peer has been removed from the table."""
        for usage in (quota.via, self.node):
            usage.peers -= 1
        if quota.neighbour is not None and not quota.via.peers:
            del self._neighbours[quota.neighbour]

    def check(self, quotas: list[PeerQuota]) -> None:
        """Raise AssertionError if the counts are not the sums over all peers."""
        for name in ("requests", "kept_bytes"):
            if sum(getattr(quota.usage, name) for quota in quotas) != getattr(self.node, name):
                raise AssertionError(f"the node's {name} are not those of its peers")
        for neighbour, via in self._neighbours.items():
            of = [quota.usage for quota in quotas if quota.neighbour == neighbour]
            counts = len(of), sum(usage.requests for usage in of), sum(usage.kept_bytes for usage in of)
            if counts != (via.peers, via.requests, via.kept_bytes):
                raise AssertionError(f"the usage of neighbour {neighbour!r} is not the sum of its peers'")


class PeerQuota:
    """The usage of one peer; `via` is that of the neighbour that its first frame came from."""

    __slots__ = ("_quotas", "neighbour", "usage", "via")

    def __init__(self, quotas: PeerQuotas, neighbour: NodeId | None, via: Usage) -> None:
        self._quotas = quotas
        self.neighbour = neighbour
        self.usage = Usage()
        self.via = via

    def add_requests(self, count: int) -> None:
        """Count so many more open requests, or fewer if negative."""
        self.usage.requests += count
        self.via.requests += count
        self._quotas.node.requests += count

    def add_bytes(self, size_bytes: int) -> None:
        """Count so many more buffered bytes, or fewer if negative."""
        self.usage.kept_bytes += size_bytes
        self.via.kept_bytes += size_bytes
        self._quotas.node.kept_bytes += size_bytes

    def request_limit(self) -> str:
        """The limit that one more open request would exceed, or an empty text."""
        limits = self._quotas.limits
        if self.usage.requests >= limits.services_per_peer:
            return "services_per_peer"
        if self.via.requests >= limits.services_per_neighbour and self.neighbour is not None:
            return "services_per_neighbour"
        return "services" if self._quotas.node.requests >= limits.services else ""

    def byte_limit(self, size_bytes: int) -> str:
        """The limit that so many more buffered bytes would exceed, or an empty text."""
        limits = self._quotas.limits
        if self.usage.kept_bytes + size_bytes > limits.kept_bytes_per_peer:
            return "kept_bytes_per_peer"
        if self.via.kept_bytes + size_bytes > limits.kept_bytes_per_neighbour and self.neighbour is not None:
            return "kept_bytes_per_neighbour"
        return "kept_bytes" if self._quotas.node.kept_bytes + size_bytes > limits.kept_bytes else ""

    def is_nearly_full(self) -> bool:
        """Whether more than three quarters of a limit on buffered bytes are used."""
        limits, node = self._quotas.limits, self._quotas.node
        return (
            4 * self.usage.kept_bytes > 3 * limits.kept_bytes_per_peer
            or (4 * self.via.kept_bytes > 3 * limits.kept_bytes_per_neighbour and self.neighbour is not None)
            or 4 * node.kept_bytes > 3 * limits.kept_bytes
        )
