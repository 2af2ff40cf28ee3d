"""The shapes of mesh that the benchmarks build, as pairs of node numbers."""

from __future__ import annotations

import itertools
import math
import random

SHAPES = ("chain", "ring", "star", "tree", "grid", "random", "flat")

Edges = list[tuple[int, int]]


def edges_of(shape: str, nodes: int, rng: random.Random) -> Edges:
    """The links of a mesh of `nodes` nodes, numbered from 0.

    `tree` is binary; `grid` is as square as `nodes` allows, with its last row cut short; `random` is connected and has
    two links for each node, which is a mean degree of 4; `flat` links everybody with everybody.
    """
    every = range(nodes)
    match shape:
        case "chain":
            return list(itertools.pairwise(every))
        case "ring":
            return [*itertools.pairwise(every), (nodes - 1, 0)]
        case "star":
            return [(0, i) for i in every[1:]]
        case "tree":
            return [((i - 1) // 2, i) for i in every[1:]]
        case "grid":
            width = math.isqrt(nodes)
            across = [(i, i + 1) for i in every if (i + 1) % width and i + 1 < nodes]
            return across + [(i, i + width) for i in every if i + width < nodes]
        case "random":
            return _random(nodes, rng)
        case _:
            return list(itertools.combinations(every, 2))


def _random(nodes: int, rng: random.Random) -> Edges:
    """A random tree, which makes it connected, and random pairs until there are two links for each node."""
    order = rng.sample(range(nodes), nodes)
    edges = {_pair(order[i], order[rng.randrange(i)]) for i in range(1, nodes)}
    while len(edges) < min(2 * nodes, nodes * (nodes - 1) // 2):
        a, b = rng.sample(range(nodes), 2)
        edges.add(_pair(a, b))
    return sorted(edges)


def _pair(a: int, b: int) -> tuple[int, int]:
    return (min(a, b), max(a, b))


def is_connected(nodes: set[int], edges: Edges) -> bool:
    """True if every node can be reached from every other over these links."""
    return not nodes or len(around(min(nodes), nodes, edges)) == len(nodes)


def around(start: int, nodes: set[int], edges: Edges) -> list[int]:
    """The nodes that can be reached from `start`, the nearest first."""
    beside: dict[int, list[int]] = {node: [] for node in nodes}
    for a, b in edges:
        if a in nodes and b in nodes:
            beside[a].append(b)
            beside[b].append(a)
    found = {start: None}
    for node in (queue := [start]):
        for other in beside[node]:
            if other not in found:
                found[other] = None
                queue.append(other)
    return list(found)
