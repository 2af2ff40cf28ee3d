"""Hints for errors about an unreachable node: when it left, the known and the similar node ids, and the failing dials.

Similar ids are found by edit distance, which costs milliseconds, so the results are cached until the routes change, and
a token bucket limits how many ids that other nodes ask for are compared.
"""

from __future__ import annotations

import heapq
import itertools
from operator import eq

from zmesh.core import wire
from zmesh.core.forwarding.dials import Dials
from zmesh.core.limits import DEFAULT_LIMITS, Limits, TokenBucket
from zmesh.core.message import Address, NodeId
from zmesh.core.routing import Routing

MAX_NAMES_COMPARED = 512
MAX_NAMES_MATCHED = 16
MAX_NEAR_CACHED = 256
MAX_NAMES_SHOWN = 8


class Hints:
    """The hints of one node, from its routing tables and its dials."""

    def __init__(self, node: NodeId, routing: Routing, limits: Limits = DEFAULT_LIMITS) -> None:
        self.dials = Dials()
        self._node = node
        self._routing = routing
        self._suggestions = TokenBucket(limits.suggestions, 0.0)
        self._near: dict[str, tuple[NodeId, ...]] = {}
        self._near_at = 0.0

    def hint(self, destination: Address, now: float) -> str:
        """The end of an error's text about a node without a route: when it left, or which nodes are known, and which
        dials fail.
        """
        host, dials = wire.host_of(destination), self.dials.describe(now)
        departure = self.describe_departure(host, now)
        if self._routing.has_left(host):
            return departure + dials
        nodes = heapq.nsmallest(MAX_NAMES_SHOWN + 1, self._routing.destinations())
        shown = ", ".join(nodes[:MAX_NAMES_SHOWN]) + (", ..." if len(nodes) > MAX_NAMES_SHOWN else "")
        near = self._compare(host)
        likely = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{departure}; known nodes: {shown or 'none'}{likely}{dials}"

    def describe_departure(self, host: NodeId, now: float) -> str:
        """When that node left, or that it was never known; empty if there is a route to it."""
        if host == self._node or self._routing.route(host) is not None:
            return ""
        return f"; {self._routing.describe_departure(host, now)}"

    def near(self, name: str, now: float) -> tuple[NodeId, ...]:
        """Up to three known node ids that resemble a name that another node has asked for, the closest first; none if
        the name itself is known, or the rate `limits.suggestions` is used up.
        """
        if self._near_at != self._routing.changed_at or len(self._near) >= MAX_NEAR_CACHED:
            self._near, self._near_at = {}, self._routing.changed_at
        if name not in self._near:
            if not self._suggestions.has(now):
                return ()
            self._suggestions.spend(1)
            self._near[name] = self._compare(name)
        return self._near[name]

    def _compare(self, name: str) -> tuple[NodeId, ...]:
        if self._routing.record(NodeId(Address(name))) is not None:
            return ()
        names = itertools.islice(self._routing.destinations(), MAX_NAMES_COMPARED)
        likely = heapq.nlargest(MAX_NAMES_MATCHED, (self._node, *names), key=lambda other: _ends_alike(name, other))
        import difflib  # here: only an unknown destination needs it

        return tuple(NodeId(Address(match)) for match in difflib.get_close_matches(name, likely, n=3, cutoff=0.6))


def _ends_alike(name: str, other: str) -> float:
    """The share of characters that two names have in common, counted from either end: far cheaper than an edit
    distance, and a typing error shifts the rest of a name in one direction at most.
    """
    same = sum(map(eq, name, other)) + sum(map(eq, reversed(name), reversed(other)))
    return float(same) / max(len(name), len(other))
