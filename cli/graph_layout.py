"""Layout of the nodes of a mesh: on rings around one of them, by hops; a pure function of the graph.

The tree of shortest paths is laid out radially: each node has the sector that its share of the outermost nodes takes,
and a ring is as wide as the names on it need. That takes time in proportion to the nodes and links.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

from zmesh import MeshGraph

RING = 90.0
"""The distance of two rings, at least."""
SPACE = 70.0
"""The length of ring that a name takes."""

Point = tuple[float, float]


def layout(found: MeshGraph) -> dict[str, Point]:
    """The position of each node, that of the node that has shown the graph at (0, 0)."""
    beside: dict[str, list[str]] = defaultdict(list)
    for link in found.links:
        beside[link.a].append(link.b)
        beside[link.b].append(link.a)
    rings, children = _tree(found, beside)
    ends = _ends(rings, children)
    sectors: dict[str, tuple[float, float]] = {found.node: (0.0, 2 * math.pi)}
    places: dict[str, Point] = {found.node: (0.0, 0.0)}
    radius = 0.0
    for ring, following in itertools.pairwise(rings):
        radius = max(radius + RING, len(following) * SPACE / (2 * math.pi))
        for parent in ring:
            at, end = sectors[parent]
            whole = sum(ends[child] for child in children[parent])
            for child in children[parent]:
                share = (end - sectors[parent][0]) * ends[child] / whole
                sectors[child] = (at, at + share)
                places[child] = (radius * math.cos(at + share / 2), radius * math.sin(at + share / 2))
                at += share
    return places


def _tree(found: MeshGraph, beside: dict[str, list[str]]) -> tuple[list[list[str]], dict[str, list[str]]]:
    """The nodes by hops, and the children of each; one that no link leads to is a child of the node in the middle."""
    children: dict[str, list[str]] = defaultdict(list)
    seen = {found.node}
    rings = [[found.node]]
    while rings[-1]:
        ring: list[str] = []
        for parent in rings[-1]:
            for child in sorted(beside[parent]):
                if child not in seen:
                    seen.add(child)
                    children[parent].append(child)
                    ring.append(child)
        rings.append(ring)
    rings.pop()
    alone = [node.node for node in found.nodes if node.node not in seen]
    if alone:
        children[found.node] += alone
        rings[1:2] = [[*(rings[1] if len(rings) > 1 else []), *alone]]
    return rings, children


def _ends(rings: list[list[str]], children: dict[str, list[str]]) -> dict[str, int]:
    """The number of outermost nodes below each."""
    ends: dict[str, int] = {}
    for ring in reversed(rings):
        for node in ring:
            ends[node] = sum(ends[child] for child in children[node]) or 1
    return ends
