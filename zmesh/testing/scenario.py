"""Faults and events of a mesh, one method each, drawn from a seed or called by a test.

A scenario is a mesh on the simulator's clock. Links go up and down, get dearer and cheaper, lose frames, copy them and
hold them up, in one direction or in both; nodes leave, die, hang, lose power, restart and forget; machines are
suspended and their clocks are set; the mesh falls apart and grows together; a second node takes the name of another;
leaves come and go, and so do members that lie. Faults come alone, or in bursts that strike all that is near one node.
`mend` repairs everything, and from then on the mesh must converge: `wrong` names the first thing that has not yet, with
networkx as the oracle for shortest paths. It needs networkx (the extra `test`).

Each seed draws for itself what may happen (`swarm`): which faults at all, and whether clocks differ, delays differ by
direction, and faults come in bursts. Where everything may happen at any time much can't: links that break every second
carry no long transfer, and nothing that needs a calm minute is ever reached. Meshes with few kinds of faults get there,
and together they reach more than as many meshes with all of them (swarm testing, Groce et al., ISSTA 2012).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from functools import partial
from typing import TypeVar

import networkx

from zmesh.core.limits import Limits
from zmesh.core.message import Address, NodeId
from zmesh.core.neighbours import State
from zmesh.core.routing import KEEP_DISTANCE
from zmesh.testing.authority import TestAuthority
from zmesh.testing.faults import COSTS, DRIFTS, FAULTS, some
from zmesh.testing.simliar import LIES, SEALED_LIES, Liar
from zmesh.testing.simnode import Plugin, SimNode, echo
from zmesh.testing.simulator import Simulator
from zmesh.testing.simversions import any_kind
from zmesh.testing.simwire import UNLIMITED, Direction, Wire

SHAPES = ("chain", "ring", "star", "tree", "grid", "random")
DELAYS = (0.0005, 0.002, 0.01, 0.02, 0.05)
EPOCH = 1.6e9
SETTLE_LIMIT = 30.0
SETTLE_AFTER_LIES = 30.0 + KEEP_DISTANCE
"""Seconds until all is right after a liar has left: feasibility distances it caused expire KEEP_DISTANCE later."""
EVER = 50_000
"""Days of validity of a certificate that no clock of a scenario leaves."""

POLL = 0.1
RARELY = 0.001
TRAITS = ("clocks", "lopsided", "bursts", "tight")
"""Traits of a whole scenario: clocks that differ, delays by direction, several faults at a time, nodes with tight
limits.
"""
TIGHT = Limits(
    services=3,
    services_per_neighbour=3,
    services_per_peer=2,
    peers=3,
    peers_per_neighbour=3,
    kept_bytes=400_000,
    kept_bytes_per_neighbour=300_000,
    kept_bytes_per_peer=200_000,
)
BURST = (1, 1, 2, 5)


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


T = TypeVar("T")


class Scenario:
    """A mesh of `count` nodes in a `shape`, both drawn from the seed unless given.

    `audit`: every how many events an engine's tables are checked; paths are checked after every single one. `guests`
    are leaves that stay; `twins` may come. `options` are those of the simulator's nodes. `swarm` True: the seed draws
    which `faults` may happen and which `traits` the mesh has; otherwise all of the former, without liars, and none of
    the latter. `liars`: whether those may come. `trust`: nodes have certificates, and seal what they send. `mixed`:
    about half of the nodes speak another range of versions (`simversions`).
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
        liars: bool = False,
        swarm: bool = False,
        trust: bool = False,
        mixed: bool = False,
        **options: object,
    ) -> None:
        self.seed = seed
        self.authority = TestAuthority(seed) if trust else None
        self.random = random.Random(seed)
        self.sim = Simulator(seed, audit=audit)
        self.twins: bool = twins
        self.faults: list[str] = [name for name in FAULTS if liars or name != "liar"]
        self.traits: Collection[str] = ()
        if swarm:
            self.faults = some(self.faults, self.random)
            self.traits = [trait for trait in TRAITS if self.random.random() < 0.5]
        self.hung: set[SimNode] = set()
        """The nodes that were stopped for a while, or whose clock was set, so that they may be late with everything."""
        self.plugin: Plugin = echo
        """The program of visitors."""
        self.visitors: list[SimNode] = []
        self.liars: list[Liar] = []
        self.mended = False
        shape = shape or self.random.choice(SHAPES)
        ids = [f"n{i}" for i in range(count or self.random.randint(3, 12))]
        members = options | self._identity()
        self.nodes: list[SimNode] = []
        for id in ids:
            kind = any_kind(self.random) if mixed else SimNode
            node = self.sim.nodes[id] = kind(self.sim, id, {**members, **self._clock(), **self._limits()})
            self.nodes.append(node)
        for dialler, listener in edges(shape, len(ids), self.random):
            self.link(ids[dialler], ids[listener], self._delay(), self.random.choice(COSTS))
        names = [f"guest{i}" for i in range(guests)]
        self.guests = [self.sim.add(name, leaf=True, **options, **self._clock())[0] for name in names]
        for guest in self.guests:
            for host in self.random.sample(ids, self.random.choice((1, 1, 2))):
                self.link(str(guest.id), host, self._delay(), self.random.choice(COSTS)).local = trust
        self.everybody: list[SimNode] = [*self.nodes, *self.guests]
        self.wires = list(self.sim.wires)

    def link(self, dialler: str, listener: str, delay: float | tuple[float, float], cost: int) -> Wire:
        """Let one node dial another."""
        return self.sim.connect(dialler, listener, delay=delay, cost=cost, room=self.random.choice((4, 1 << 30)))

    def _delay(self) -> float | tuple[float, float]:
        delay = self.random.choice(DELAYS)
        return (delay, self.random.choice(DELAYS)) if "lopsided" in self.traits else delay

    def _limits(self) -> dict[str, object]:
        return {"limits": TIGHT} if "tight" in self.traits and self.random.random() < 0.5 else {}

    def _clock(self) -> dict[str, object]:
        if "clocks" not in self.traits:
            return {"epoch": EPOCH} if self.authority is not None else {}
        rng = self.random
        return {"offset": rng.uniform(0, 1e6), "drift": rng.choice(DRIFTS), "epoch": EPOCH + rng.uniform(0, 1e8)}

    @property
    def lies(self) -> Collection[str]:
        """The lies that a liar may tell in this mesh."""
        return LIES if self.authority is None else SEALED_LIES

    def _identity(self) -> dict[str, object]:
        """The credentials of a member: a certificate for all times that its clock may show."""
        authority = self.authority
        return {} if authority is None else {"credentials": partial(authority.installed, days=EVER)}

    # -- links ---------------------------------------------------------------------------------------------------

    def cut(self, wire: Wire, lags: tuple[float, float] = (0.0, 0.0)) -> None:
        """Break a connection, which its ends notice after these seconds; it is dialled anew."""
        wire.cut(lags=lags)

    def reconnect(self, wire: Wire, lag: float) -> None:
        """Break a connection that libzmq makes anew before the dialler hears of it."""
        wire.reconnect(lag)

    def swallow(self, wire: Wire, seconds: float) -> None:
        """Break a connection, and drop what is sent on the next one for `seconds`."""
        wire.cut()
        self.silent(wire, seconds)

    def down(self, wire: Wire, seconds: float) -> None:
        """Break a connection, and keep it broken for `seconds`."""
        wire.take_down()
        self.sim.after(seconds, wire.bring_up)

    def flap(self, wire: Wire, times: int, seconds: float) -> None:
        """Break a connection `times` times, `seconds` apart."""
        if times and not self.mended:
            wire.cut()
            self.sim.after(seconds, lambda: self.flap(wire, times - 1, seconds))

    def lossy(self, wire: Wire, seconds: float, share: float = 0.3, direction: int | None = None) -> None:
        """Lose a share of the frames for `seconds`; `direction` 0: from the dialler only, 1: from the listener only."""
        self._spoil(wire, direction, seconds, lambda path: setattr(path, "loss", share), "loss", 0.0)

    def silent(self, wire: Wire, seconds: float, direction: int | None = None) -> None:
        """Lose all frames without a notice to either end."""
        self._spoil(wire, direction, seconds, lambda path: setattr(path, "silent", True), "silent", False)

    def late(self, wire: Wire, seconds: float, jitter: float = 0.4, direction: int | None = None) -> None:
        """Delay frames by up to `jitter` seconds each, in order, for `seconds`."""
        self._spoil(wire, direction, seconds, lambda path: setattr(path, "jitter", jitter), "jitter", 0.0)

    def narrow(self, wire: Wire, seconds: float, bandwidth: float = 50_000.0, direction: int | None = None) -> None:
        """Carry no more than that many bytes a second."""
        self._spoil(
            wire, direction, seconds, lambda path: setattr(path, "bandwidth", bandwidth), "bandwidth", UNLIMITED
        )

    def copied(self, wire: Wire, seconds: float, share: float = 0.3) -> None:
        """Have some of what arrives arrive twice, as far as a connection may do that (see `simwire`)."""
        self._spoil(wire, None, seconds, lambda path: setattr(path, "copies", share), "copies", 0.0)

    def _spoil(
        self,
        wire: Wire,
        direction: int | None,
        seconds: float,
        spoil: Callable[[Direction], object],
        name: str,
        healthy: object,
    ) -> None:
        for path in wire.directions if direction is None else (wire.directions[direction],):
            spoil(path)
            self.sim.after(seconds, lambda path=path: setattr(path, name, healthy))  # type: ignore[misc]

    def slower(self, wire: Wire, delay: float | tuple[float, float]) -> None:
        """Give a connection another delay (seconds) from now on, which changes its cost."""
        wire.delay = delay

    def reprice(self, wire: Wire, cost: int) -> None:
        """Dial a connection anew with another configured cost."""
        wire.cost = cost
        wire.cut()

    def part(self, apart: set[str], seconds: float) -> None:
        """Partition the mesh in two, and merge it after `seconds`."""
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

    def kill(self, node: SimNode, seconds: float, *, forgetful: bool = False, power: bool = True) -> None:
        """Let a node die, and come back after `seconds`; without `power` its connections are not closed."""
        if node.alive:
            (node.kill if power else node.lose_power)()
            self._back(node, seconds, forgetful=forgetful)

    def _back(self, node: SimNode, seconds: float, *, forgetful: bool = False) -> None:
        self.sim.after(seconds, lambda: None if node.alive else self.begin(node, forgetful=forgetful))

    def leave(self, node: SimNode, seconds: float) -> None:
        """Let a node send GOODBYE and end, and come back after `seconds`."""
        if node.alive and not node.stopped:
            node.leave()
            self._back(node, seconds)

    def hang(self, node: SimNode, seconds: float) -> None:
        """Stop a node for `seconds`; frames that arrive for it meanwhile are lost."""
        self.hung.add(node)
        if not node.stopped:
            node.stopped = True
            self.sim.after(seconds, node.resume)

    def freeze(self, node: SimNode, seconds: float, *, suspend: bool = False, first: bool = False) -> None:
        """Stop a node for `seconds`; frames that arrive for it wait. `suspend`: its clock stands still meanwhile;
        `first`: due timers are processed before these frames are read.
        """
        self.hung.add(node)
        if node.alive and not node.stopped:
            node.freeze(clock=suspend)
            self.sim.after(seconds, lambda: node.resume(first=first))

    def set_forward(self, node: SimNode, seconds: float) -> None:
        """Set a node's monotonic clock forward, as where a virtual machine is moved."""
        self.hung.add(node)
        node.clock.jump(seconds)

    def set_wall(self, node: SimNode, seconds: float) -> None:
        """Set a node's wall clock, not to before 1970; its next incarnation takes its serial from there."""
        node.clock.epoch = max(-node.now, node.clock.epoch + seconds)

    def drift(self, node: SimNode, share: float) -> None:
        """Let a node's clock run fast by that share from now on."""
        node.clock.drift(share)

    def twin(self, node: SimNode, at: SimNode, seconds: float) -> None:
        """Start a second node of the same name somewhere else, for a while."""
        if node is not at:
            self._visit(f"{node.id}-twin", node.id, [at], seconds, SimNode(self.sim, node.id, self._identity()))

    def leaf(self, at: SimNode, seconds: float) -> SimNode:
        """Attach a leaf to `at` for a while."""
        id = f"leaf-{len(self.visitors)}"
        return self._visit("leaf", id, [at], seconds, SimNode(self.sim, id, {"leaf": True, **self._clock()}))

    def liar(self, at: Collection[SimNode], seconds: float, lies: Collection[str] = LIES) -> SimNode:
        """Let a member that lies be linked to these for a while."""
        id = f"liar-{len(self.visitors)}"
        options = self._clock() | self._identity()
        liar = Liar(self.sim, id, options, frozenset(lies), self.random.getrandbits(32))
        self.liars.append(liar)
        return self._visit("liar", id, at, seconds, liar)

    def _visit(self, label: str, id: str, at: Collection[SimNode], seconds: float, visitor: SimNode) -> SimNode:
        key = id if label == "liar" else f"{label}-{len(self.visitors)}"
        self.sim.nodes[key] = visitor
        visitor.plugin = self.plugin
        self.visitors.append(visitor)
        for host in at:
            wire = self.sim.connect(key, str(host.id), delay=self._delay())
            wire.local = self.authority is not None and visitor.engine.leaf
        self.sim.after(seconds, lambda: self.sim.remove(key))
        return visitor

    # -- what is near each other ---------------------------------------------------------------------------------

    def site(self, node: SimNode) -> list[SimNode]:
        """A node and its neighbours."""
        beside = {id(end) for wire in self.wires if node in wire.ends for end in wire.ends}
        return [each for each in self.everybody if each is node or id(each) in beside]

    def blackout(self, node: SimNode, seconds: float) -> None:
        """A node and its neighbours lose power, and come back after about that while, one after the other."""
        for each in self.site(node):
            self.kill(each, seconds * (0.5 + self.random.random()), power=False)

    def storm(self, node: SimNode, seconds: float) -> None:
        """Let all links of a node and of its neighbours fail with the same fault, each for about `seconds`."""
        fault = self.random.choice((self.down, self.lossy, self.silent, self.late, self.narrow))
        site = self.site(node)
        for wire in self.wires:
            if wire.ends[0] in site or wire.ends[1] in site:
                fault(wire, seconds * (0.5 + self.random.random()))

    # -- from the seed -------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Let something happen, as the seed has it: one fault, or several at a time."""
        for _ in range(self.random.choice(BURST) if "bursts" in self.traits else 1):
            FAULTS[self.random.choice(self.faults)](self, self.random)

    def mend(self) -> None:
        """Put right all that was done to the mesh, and take the visitors out of it."""
        self.mended = True
        for key in [key for key, node in self.sim.nodes.items() if node not in self.everybody]:
            self.sim.remove(key)
        for wire in self.wires:
            wire.heal()
        for node in self.everybody:
            node.resume()
            if not node.alive:
                node.restart()

    # -- what must hold ------------------------------------------------------------------------------------------

    def settle(self, limit: float | None = None) -> float:
        """Let time pass until nothing is wrong; returns the seconds that took. AssertionError past the limit."""
        began = self.sim.now
        if limit is None:
            limit = SETTLE_AFTER_LIES if self.liars else SETTLE_LIMIT
        while wrong := self.wrong():
            if self.sim.now - began >= limit:
                raise AssertionError(f"seed {self.seed}, {limit:g} s after the last event: {wrong}")
            self.sim.run(POLL)
        return self.sim.now - began

    def wrong(self) -> str:
        """The first deviation from a settled mesh, as a text; empty if there is none."""
        unconnected = [wire for wire in self.wires if None in wire.ids]
        if unconnected:
            return f"{len(unconnected)} links are not connected"
        if not self.sim.settled():
            return f"not every node knows all of {[sorted(part) for part in self.sim.partitions()]}"
        graph = self.graph()
        incarnations = {node.id: node.engine.incarnation for node in self.nodes}
        for node in self.nodes:
            lengths = networkx.single_source_dijkstra_path_length(graph, node.id)
            for destination, route in node.engine.routing.routes().items():
                if route.metric != lengths.get(destination):
                    return f"{node.id} > {destination}: {route.metric} instead of {lengths.get(destination)}"
                if route.incarnation != incarnations[destination]:
                    return f"{node.id} > {destination}: the route is for an earlier incarnation"
        return ""

    def traces(self) -> str:
        """A trace of the lies of members that are gone; empty if there is none. Wait KEEP_DISTANCE after `settle`."""
        made_up = [ghost for liar in self.liars for ghost in (liar.id, *liar.ghosts)]
        for node in self.nodes:
            engine = node.engine
            for name in made_up:
                if engine.routing.record(name) or engine.routing.route(name) or engine.routing.distance(name):
                    return f"{node.id} still knows {name}"
        return ""

    def graph(self) -> networkx.DiGraph:
        """The graph of the mesh: its current links and their costs, per direction."""
        graph = networkx.DiGraph()
        graph.add_nodes_from(node.id for node in self.nodes)
        for wire in self.wires:
            if any(node.engine.leaf for node in wire.ends):
                continue
            for end, node in enumerate(wire.ends):
                number = wire.ids[end]
                link = node.engine.neighbours.get(number) if number is not None else None
                if link is None or link.state is not State.UP:
                    continue
                there = NodeId(Address(wire.ends[1 - end].id))
                known = graph.get_edge_data(node.id, there, {"weight": link.cost})["weight"]
                graph.add_edge(node.id, there, weight=min(known, link.cost))
        return graph


def run_routes(seed: int, *, audit: int = 8) -> float:
    """One seed of the sentence on routes: no loop at any instant, and all right once it has settled.

    Returns the virtual seconds from the end of the events until all was right.
    """
    scenario = Scenario(seed, audit=audit, swarm=True)
    rng = scenario.random
    for _ in range(rng.randint(4, 25)):
        scenario.sim.run(rng.choice((0.0, 0.005, 0.05, 0.3, 1.5)))
        scenario.step()
        if rng.random() < RARELY:
            scenario.sim.run(1.1 * KEEP_DISTANCE)
    scenario.sim.run(rng.choice((0.0, 0.1, 2.0)))
    scenario.mend()
    return scenario.settle()
