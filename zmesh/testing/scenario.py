"""What may happen to a mesh, one method each, drawn from a seed or by whoever drives it.

A scenario is a mesh on the simulator's clock. Links go up and down, get dearer and cheaper, lose frames and hold them
up; nodes leave, die, hang, restart and forget; the mesh falls apart and grows together; a second node takes the name of
another; leaves come and go. `mend` puts all of it right, and from then on the mesh must find itself: `wrong` tells what
is not yet as it must be, with networkx as the judge of what is shortest. It needs networkx (the extra `test`).
"""

from __future__ import annotations

import random
from collections.abc import Callable

import networkx

from zmesh.core.links import State
from zmesh.core.message import Address, NodeId
from zmesh.core.routes import KEEP_DISTANCE
from zmesh.testing.simnode import Plugin, SimNode, echo
from zmesh.testing.simulator import Simulator
from zmesh.testing.simwire import Wire

SHAPES = ("chain", "ring", "star", "tree", "grid", "random")
COSTS = (1, 50, 100, 100, 300)
DELAYS = (0.0005, 0.002, 0.01, 0.02, 0.05)
SETTLE_LIMIT = 30.0
POLL = 0.1
RARELY = 0.001


def edges(shape: str, count: int, rng: random.Random) -> list[tuple[int, int]]:
    """The links of a mesh of that shape over the nodes 0 to `count` - 1, each as (dialler, listener)."""
    if shape == "star":
        return [(i, 0) for i in range(1, count)]
    if shape == "grid":
        width = max(2, round(count**0.5))
        beside = [(i, i - 1) for i in range(count) if i % width]
        return beside + [(i, i - width) for i in range(width, count)]
    if shape in ("tree", "random"):
        tree = [(i, rng.randrange(i)) for i in range(1, count)]
        extra = count // 2 + 1 if shape == "random" else 0
        return tree + [(a, b) for a, b in (rng.sample(range(count), 2) for _ in range(extra))]
    chain = [(i, i - 1) for i in range(1, count)]
    return [*chain, (0, count - 1)] if shape == "ring" and count > 2 else chain


class Scenario:
    """A mesh of `count` nodes in a `shape`, both drawn from the seed unless given.

    `audit`: every how many events an engine's tables are checked; paths are checked after every single one. `guests`
    are leaves that stay; `twins` may come. `options` are those of the simulator's nodes.
    """

    def __init__(
        self,
        seed: int,
        *,
        count: int | None = None,
        shape: str | None = None,
        guests: int = 0,
        audit: int = 1,
        twins: bool = True,
        **options: object,
    ) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.sim = Simulator(seed, audit=audit)
        self.twins = twins
        self.hung: set[SimNode] = set()
        """The nodes that did nothing for a while, and may be late with all they do."""
        self.plugin: Plugin = echo
        """What visitors answer requests with."""
        self.visitors: list[SimNode] = []
        shape = shape or self.random.choice(SHAPES)
        ids = [f"n{i}" for i in range(count or self.random.randint(3, 12))]
        self.nodes = self.sim.add(*ids, **options)
        for dialler, listener in edges(shape, len(ids), self.random):
            self.link(ids[dialler], ids[listener], self.random.choice(DELAYS), self.random.choice(COSTS))
        self.guests = self.sim.add(*(f"guest{i}" for i in range(guests)), leaf=True, **options)
        for guest in self.guests:
            for host in self.random.sample(ids, self.random.choice((1, 1, 2))):
                self.link(str(guest.id), host, self.random.choice(DELAYS), self.random.choice(COSTS))
        self.everybody = [*self.nodes, *self.guests]
        self.wires = list(self.sim.wires)

    def link(self, dialler: str, listener: str, delay: float, cost: int) -> Wire:
        """Let one node dial another."""
        return self.sim.connect(dialler, listener, delay=delay, cost=cost, room=self.random.choice((4, 1 << 30)))

    # -- links ---------------------------------------------------------------------------------------------------

    def cut(self, wire: Wire) -> None:
        """Break a connection; it is dialled anew."""
        wire.cut()

    def down(self, wire: Wire, seconds: float) -> None:
        """Break a connection, and keep it broken for a while."""
        wire.take_down()
        self.sim.after(seconds, wire.bring_up)

    def lossy(self, wire: Wire, seconds: float, share: float = 0.3) -> None:
        """Lose a share of the frames."""
        wire.loss = share
        self.sim.after(seconds, lambda: setattr(wire, "loss", 0.0))

    def silent(self, wire: Wire, seconds: float) -> None:
        """Lose all frames, and tell nobody."""
        wire.silent = True
        self.sim.after(seconds, lambda: setattr(wire, "silent", False))

    def late(self, wire: Wire, seconds: float, jitter: float = 0.4) -> None:
        """Hold frames up, each for a time of its own, in order."""
        wire.jitter = jitter
        self.sim.after(seconds, lambda: setattr(wire, "jitter", 0.0))

    def slower(self, wire: Wire, delay: float) -> None:
        """Let a connection take another time from now on, which makes it dearer or cheaper."""
        wire.delay = delay

    def reprice(self, wire: Wire, cost: int) -> None:
        """Dial a connection anew with another configured cost."""
        wire.cost = cost
        wire.cut()

    def part(self, apart: set[str], seconds: float) -> None:
        """Cut the mesh in two, and let it grow together again after a while."""
        for wire in self.wires:
            if (wire.ends[0].id in apart) != (wire.ends[1].id in apart):
                self.down(wire, seconds)

    # -- nodes ---------------------------------------------------------------------------------------------------

    def restart(self, node: SimNode, *, forgetful: bool = False) -> None:
        """Let a node die and come back at once; a `forgetful` one starts to count where it began long ago."""
        self.begin(node, forgetful=forgetful)

    def begin(self, node: SimNode, *, forgetful: bool = False) -> None:
        """Start a node anew, whatever it is doing."""
        if forgetful:
            node.options["serial"] = 1
        node.restart()
        node.options.pop("serial", None)

    def kill(self, node: SimNode, seconds: float, *, forgetful: bool = False) -> None:
        """Let a node die, and come back after a while."""
        if node.alive:
            node.kill()
            self.sim.after(seconds, lambda: None if node.alive else self.begin(node, forgetful=forgetful))

    def leave(self, node: SimNode, seconds: float) -> None:
        """Let a node say goodbye and end, and come back after a while."""
        if node.alive and not node.stopped:
            node.do(node.engine.close(self.sim.now))
            self.kill(node, seconds)

    def hang(self, node: SimNode, seconds: float) -> None:
        """Let a node do nothing for a while; what comes for it meanwhile is lost."""
        node.stopped = True
        self.hung.add(node)
        self.sim.after(seconds, lambda: setattr(node, "stopped", False))

    def twin(self, node: SimNode, at: SimNode, seconds: float) -> None:
        """Start a second node of the same name somewhere else, for a while."""
        if node is not at:
            self._visit(f"{node.id}-twin", node.id, at, seconds, leaf=False)

    def leaf(self, at: SimNode, seconds: float) -> SimNode:
        """Let an ephemeral node hang on `at` for a while."""
        return self._visit("leaf", f"leaf-{len(self.visitors)}", at, seconds, leaf=True)

    def _visit(self, label: str, id: str, at: SimNode, seconds: float, *, leaf: bool) -> SimNode:
        key = f"{label}-{len(self.visitors)}"
        visitor = self.sim.nodes[key] = SimNode(self.sim, id, {"leaf": leaf})
        visitor.plugin = self.plugin
        self.visitors.append(visitor)
        self.sim.connect(key, str(at.id), delay=self.random.choice(DELAYS))
        self.sim.after(seconds, lambda: self.sim.remove(key))
        return visitor

    # -- from the seed -------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Let one thing happen, as the seed has it."""
        rng = self.random
        wire, node, member = rng.choice(self.wires), rng.choice(self.everybody), rng.choice(self.nodes)
        seconds = rng.choice((0.02, 0.2, 1.0, 2.5, 6.0))
        steps: list[Callable[[], object]] = [
            lambda: self.cut(wire),
            lambda: self.down(wire, seconds),
            lambda: self.lossy(wire, seconds),
            lambda: self.silent(wire, seconds),
            lambda: self.late(wire, seconds),
            lambda: self.slower(wire, rng.choice(DELAYS)),
            lambda: self.reprice(wire, rng.choice(COSTS)),
            lambda: self.part({str(each.id) for each in self.nodes if rng.random() < 0.5}, seconds),
            lambda: self.restart(node, forgetful=rng.random() < 0.5),
            lambda: self.kill(node, seconds, forgetful=rng.random() < 0.5),
            lambda: self.leave(node, seconds),
            lambda: self.hang(node, seconds),
            lambda: self.leaf(member, seconds),
            lambda: self.twin(member, rng.choice(self.nodes), seconds) if self.twins else None,
        ]
        rng.choice(steps)()

    def mend(self) -> None:
        """Put right all that was done to the mesh, and take the visitors out of it."""
        for key in [key for key, node in self.sim.nodes.items() if node not in self.everybody]:
            self.sim.remove(key)
        for wire in self.wires:
            wire.bring_up()
            wire.loss, wire.silent, wire.jitter = 0.0, False, 0.0
        for node in self.everybody:
            node.stopped = False
            if not node.alive:
                node.restart()

    # -- what must hold ------------------------------------------------------------------------------------------

    def settle(self, limit: float = SETTLE_LIMIT) -> float:
        """Let time pass until nothing is wrong; returns the seconds that took. AssertionError past the limit."""
        began = self.sim.now
        while wrong := self.wrong():
            if self.sim.now - began >= limit:
                raise AssertionError(f"seed {self.seed}, {limit:g} s after the last event: {wrong}")
            self.sim.run(POLL)
        return self.sim.now - began

    def wrong(self) -> str:
        """What is not yet as it must be in a mesh that has settled; empty if nothing."""
        unconnected = [wire for wire in self.wires if None in wire.ids]
        if unconnected:
            return f"{len(unconnected)} links are not connected"
        if not self.sim.settled():
            return f"not every node knows all of {[sorted(part) for part in self.sim.partitions()]}"
        graph = self.graph()
        lives = {node.id: node.engine.incarnation for node in self.nodes}
        for node in self.nodes:
            lengths = networkx.single_source_dijkstra_path_length(graph, node.id)
            for destination, route in node.engine.routes.table().items():
                if route.metric != lengths.get(destination):
                    return f"{node.id} > {destination}: {route.metric} instead of {lengths.get(destination)}"
                if route.incarnation != lives[destination]:
                    return f"{node.id} > {destination}: the route is that of a former life"
        return ""

    def graph(self) -> networkx.DiGraph:
        """The mesh as its links are and cost at this moment, each way for itself."""
        graph = networkx.DiGraph()
        graph.add_nodes_from(node.id for node in self.nodes)
        for wire in self.wires:
            if any(node.engine.leaf for node in wire.ends):
                continue
            for end, node in enumerate(wire.ends):
                number = wire.ids[end]
                link = node.engine.links.get(number) if number is not None else None
                if link is None or link.state is not State.UP:
                    continue
                there = NodeId(Address(wire.ends[1 - end].id))
                known = graph.get_edge_data(node.id, there, {"weight": link.cost})["weight"]
                graph.add_edge(node.id, there, weight=min(known, link.cost))
        return graph


def run_routes(seed: int, *, audit: int = 8) -> float:
    """One seed of the sentence on routes: no circle at any instant, and all right once it has settled.

    Returns the virtual seconds from the end of the events until all was right.
    """
    scenario = Scenario(seed, audit=audit)
    rng = scenario.random
    for _ in range(rng.randint(4, 25)):
        scenario.sim.run(rng.choice((0.0, 0.005, 0.05, 0.3, 1.5)))
        scenario.step()
        if rng.random() < RARELY:
            scenario.sim.run(1.1 * KEEP_DISTANCE)
    scenario.sim.run(rng.choice((0.0, 0.1, 2.0)))
    scenario.mend()
    return scenario.settle()
