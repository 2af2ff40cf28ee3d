"""How much of this node others take up, and whether that is within the limits.

It is counted three times: for each peer by the source that its frames name, for each neighbour by the link that they
came on, and for the node. A member can forge any source, so that the limit of a peer alone would bound nothing, but it
can't choose the link. The limit of a neighbour is below that of the node, which leaves room for what comes over other
links.
"""

from __future__ import annotations

from zmesh.core.limits import Limits
from zmesh.core.message import NodeId


class Usage:
    """What one of them takes up: `peers` in the table, `services` that are open, `kept_bytes` of payload."""

    __slots__ = ("kept_bytes", "peers", "services")

    def __init__(self) -> None:
        self.peers = 0
        self.services = 0
        self.kept_bytes = 0


class Shares:
    """The usage of the node, of each neighbour, and (in its Share) of each peer."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.node = Usage()
        self._neighbours: dict[NodeId, Usage] = {}

    def claim(self, neighbour: NodeId | None) -> Share:
        """The share of one more peer, which frames on the links of that neighbour have named; None: the node's own."""
        via = Usage()
        if neighbour is not None:
            via = self._neighbours.setdefault(neighbour, via)
        for usage in (via, self.node):
            usage.peers += 1
        return Share(self, neighbour, via)

    def crowded(self, neighbour: NodeId | None) -> str:
        """The limit that one more peer of that neighbour would break, or nothing."""
        limits = self.limits
        if neighbour is None:
            return ""
        via = self._neighbours.get(neighbour)
        if via is not None and via.peers >= limits.peers_per_neighbour:
            return "peers_per_neighbour"
        return "peers" if self.node.peers >= limits.peers else ""

    def release(self, share: Share) -> None:
        """A peer is forgotten."""
        for usage in (share.via, self.node):
            usage.peers -= 1
        if share.neighbour is not None and not share.via.peers:
            del self._neighbours[share.neighbour]

    def check(self, shares: list[Share]) -> None:
        """Raise AssertionError if the counts are not those of all shares."""
        for name in ("services", "kept_bytes"):
            if sum(getattr(share.usage, name) for share in shares) != getattr(self.node, name):
                raise AssertionError(f"the node's {name} are not those of its peers")
        for neighbour, via in self._neighbours.items():
            of = [share.usage for share in shares if share.neighbour == neighbour]
            counts = len(of), sum(usage.services for usage in of), sum(usage.kept_bytes for usage in of)
            if counts != (via.peers, via.services, via.kept_bytes):
                raise AssertionError(f"what came from {neighbour!r} is not counted rightly")


class Share:
    """What one peer takes up; `via` is what its neighbour does, with all other peers that came from there."""

    __slots__ = ("_shares", "neighbour", "usage", "via")

    def __init__(self, shares: Shares, neighbour: NodeId | None, via: Usage) -> None:
        self._shares = shares
        self.neighbour = neighbour
        self.usage = Usage()
        self.via = via

    def serve(self, count: int) -> None:
        """So many more services are open; or fewer, if negative."""
        self.usage.services += count
        self.via.services += count
        self._shares.node.services += count

    def keep(self, size_bytes: int) -> None:
        """So many more bytes are kept; or fewer, if negative."""
        self.usage.kept_bytes += size_bytes
        self.via.kept_bytes += size_bytes
        self._shares.node.kept_bytes += size_bytes

    def full(self) -> str:
        """The limit that one more service would break, or nothing."""
        limits = self._shares.limits
        if self.usage.services >= limits.services_per_peer:
            return "services_per_peer"
        if self.via.services >= limits.services_per_neighbour and self.neighbour is not None:
            return "services_per_neighbour"
        return "services" if self._shares.node.services >= limits.services else ""

    def lavish(self) -> bool:
        """True if more than three quarters of what may be kept is."""
        limits, node = self._shares.limits, self._shares.node
        return (
            4 * self.usage.kept_bytes > 3 * limits.kept_bytes_per_peer
            or (4 * self.via.kept_bytes > 3 * limits.kept_bytes_per_neighbour and self.neighbour is not None)
            or 4 * node.kept_bytes > 3 * limits.kept_bytes
        )

    def heavy(self, size_bytes: int) -> str:
        """The limit that so many more bytes would break, or nothing."""
        limits = self._shares.limits
        if self.usage.kept_bytes + size_bytes > limits.kept_bytes_per_peer:
            return "kept_bytes_per_peer"
        if self.via.kept_bytes + size_bytes > limits.kept_bytes_per_neighbour and self.neighbour is not None:
            return "kept_bytes_per_neighbour"
        return "kept_bytes" if self._shares.node.kept_bytes + size_bytes > limits.kept_bytes else ""
