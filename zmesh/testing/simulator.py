"""Engines by the dozen on a virtual clock: the code that runs in production, without a socket or a second of waiting.

A simulation is decided by its seed. Links are FIFO, as ZeroMQ's are; they can lose frames, fall silent, be slow, be cut
and come back, have little room, each direction by itself, and are dialled anew as the transport would. Each node has a
clock of its own. Every effect is obeyed as the node obeys it, every engine is checked after each event, and so is that
no packet could run in a circle.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable

from zmesh.core.effects import Report
from zmesh.core.limits import DEFAULT_COST
from zmesh.core.message import LinkId, NodeId
from zmesh.core.wire import Frames
from zmesh.testing.simnode import SimNode
from zmesh.testing.simwire import Wire


class Simulator:
    """A mesh on a virtual clock. For large ones, `checked` False leaves out the checks after each event, and forgets
    what the engines report.

    `audit`: paths are looked at after every event, the tables of an engine after every `audit`-th one.
    """

    def __init__(self, seed: int = 0, *, checked: bool = True, audit: int = 1) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 0.0
        self.checked = checked
        self.audit = audit
        self.nodes: dict[str, SimNode] = {}
        self.wires: list[Wire] = []
        self.events = 0
        self.frames = 0
        self.tap: Callable[[Frames], object] | None = None
        """Called with every frame that a node puts on a wire."""
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self._moved: set[NodeId] = set()
        self._changes = 0

    def __repr__(self) -> str:
        return f"Simulator(seed={self.seed}, now={self.now:.3f}, nodes={len(self.nodes)})"

    def add(self, *ids: str, **options: object) -> list[SimNode]:
        """Start nodes; options: heartbeat, route_timeout, serial, leaf, limits, and those of their `Clock`."""
        for id in ids:
            self.nodes[id] = SimNode(self, id, options)
        return [self.nodes[id] for id in ids]

    def connect(
        self,
        dialler: str,
        listener: str,
        *,
        delay: float | tuple[float, float] = 0.002,
        jitter: float = 0.0,
        cost: int | tuple[int, int] = DEFAULT_COST,
        room: int = 1 << 30,
    ) -> Wire:
        """Let one node dial another; two delays, or costs, are the dialler's and the listener's."""
        wire = Wire(self, self.nodes[dialler], self.nodes[listener], delay, jitter, cost, room)
        self.wires.append(wire)
        self.after(0.0, wire.dial)
        return wire

    def remove(self, id: str) -> None:
        """Let a node die, and take it and its wires out of the mesh; nothing if it is not there."""
        node = self.nodes.pop(id, None)
        if node is None:
            return
        if node.alive:
            node.kill()
        for wire in [wire for wire in self.wires if node in wire.ends]:
            wire.remove()
            self.wires.remove(wire)

    def chain(self, *ids: str, **options: object) -> list[SimNode]:
        """Start nodes, each dialling the one before it."""
        nodes = self.add(*ids, **options)
        for left, right in itertools.pairwise(ids):
            self.connect(right, left)
        return nodes

    def at(self, when: float, what: Callable[[], object]) -> None:
        """Call `what` at a time of the simulator, in seconds."""
        self._count += 1
        heapq.heappush(self._queue, (max(when, self.now), self._count, what))

    def after(self, seconds: float, what: Callable[[], object]) -> None:
        """Call `what` after `seconds`."""
        self.at(self.now + seconds, what)

    def run(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.run_until(lambda: False, seconds)

    def run_until(self, predicate: Callable[[], bool], limit: float = 60.0) -> bool:
        """Let time pass until the predicate holds; False if it does not within `limit` seconds."""
        end = self.now + limit
        if predicate():
            return True
        while self._queue and self._queue[0][0] <= end:
            self.now, _, what = heapq.heappop(self._queue)
            self.events += 1
            try:
                what()
            except Exception as error:
                error.add_note(f"in {self!r}; replay with this seed")
                raise
            if predicate():
                return True
        self.now = end
        return False

    def settle(self, limit: float = 30.0) -> bool:
        """Let time pass until every node that is up has a route to every other in its partition, and its record."""
        return self.run_until(self.settled, limit)

    def settled(self) -> bool:
        """True if every usable wire is connected, and every node knows its partition's nodes and records."""
        for wire in self.wires:
            usable = not (wire.down or wire.removed) and all(node.alive and not node.stopped for node in wire.ends)
            if usable and None in wire.ids:
                return False
        for part in self.partitions():
            records = {id: self.nodes[id].own_record() for id in part}
            for id in part:
                node = self.nodes[id]
                if node.engine.nodes() != part or node.records() != records:
                    return False
        return True

    def partitions(self) -> list[set[str]]:
        """The sets of nodes that can reach each other over links that are up."""
        beside: dict[str, set[str]] = {id: set() for id, node in self.nodes.items() if node.alive and not node.stopped}
        for wire in self.wires:
            a, b = wire.ends
            if wire.ids[0] is not None and wire.ids[1] is not None and a.id in beside and b.id in beside:
                if not (a.engine.leaf or b.engine.leaf):
                    beside[a.id].add(b.id)
                    beside[b.id].add(a.id)
        parts: list[set[str]] = []
        left = {id for id in beside if not self.nodes[id].engine.leaf}
        while left:
            part, border = set(), [left.pop()]
            while border:
                id = border.pop()
                part.add(id)
                new = beside[id] - part
                border.extend(new)
                part |= new
            left -= part
            parts.append(part)
        return parts

    def note(self, node: SimNode, report: Report) -> None:
        """Remember which routes have moved, to look for loops."""
        if report.event == "route_changed" and report.node is not None:
            self._moved.add(report.node)

    def reconnected(self) -> None:
        """A connection has another end again: any path may go on there."""
        self._moved.update(node.id for node in self.nodes.values())

    def after_event(self, node: SimNode) -> None:
        """Check the engine that has just worked, and all paths to where a route has moved."""
        if not self.checked:
            return
        self._changes += 1
        if self._changes % self.audit == 0:
            node.engine.check()
        if self._moved:
            moved, self._moved = self._moved, set()
            for destination in moved:
                self.check_paths(destination)

    def check_paths(self, destination: NodeId) -> None:
        """Raise AssertionError if a packet to `destination` would come by a node twice, wherever it starts.

        A path is followed as far as the first liar, whose forwarding is undefined.
        """
        safe: set[SimNode] = set()
        for start in self.nodes.values():
            seen: dict[SimNode, None] = {}
            here: SimNode | None = start
            while here is not None and here.id != destination and here not in safe and not here.lies:
                if here in seen:
                    path = " > ".join(node.id for node in [*seen, here])
                    raise AssertionError(f"a loop to {destination}: {path} (seed {self.seed})")
                seen[here] = None
                selected = here.engine.routing.route(destination)
                here = self._other_end(here, selected.link) if selected is not None else None
            safe.update(seen)

    def _other_end(self, node: SimNode, link: LinkId) -> SimNode | None:
        port = node.wires.get(link)
        if port is None or port.session.ids[1 - port.end] is None:
            return None
        return port.wire.ends[1 - port.end]

    def all(self, ids: Iterable[str] | None = None) -> list[SimNode]:
        """The nodes that are up."""
        return [node for id, node in self.nodes.items() if node.alive and (ids is None or id in ids)]
