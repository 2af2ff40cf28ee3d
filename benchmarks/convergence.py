"""How long a mesh takes to find its routes, and what that costs: production engines in the simulator.

    python -m benchmarks.convergence [--nodes N] [--shape SHAPE] [--event EVENT] [--seed S] [--json] [--check]

Every link has a delay of 1 to 20 ms each way, drawn from the seed. What is measured is virtual time, from the event's
detection (for `cold` from the start of all nodes at once, for `merge` from the first link that is up again) to the last
change of any route or record anywhere, while nothing but the engines decides when something is sent. At the end every
metric is compared with the shortest path over the links' costs, and every record with that of its node; the exit status
is 1 if one is wrong.

| event | what happens to a settled mesh |
| --- | --- |
| cold | nothing; the mesh is started |
| link | a link is lost, one without which the mesh is still whole (if there is one) |
| node | a node dies, likewise |
| partition | all links between one half of the nodes and the other are lost |
| merge | they come back |

Printed are `updates` (the entries told in UPDATEs) and `update_bytes` (of UPDATEs and SEQNO_REQUESTs), `records` (sent,
not kept), `changed` (the routes whose next hop or metric differs in the end), `bytes_per_link` (a second of probing and
routing on a settled link, both ways together, with ZeroMQ's framing), wall time and peak memory of this process. With
`--check` the exit status is 1 as well if one of the bounds below is passed; they are meant for the shapes `random` and
`grid` of up to about 1,000 nodes. (In a chain of 1,000 news take 10 s from end to end, whatever the protocol.)
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import sys
import time
from typing import NamedTuple, TypedDict

from benchmarks.shapes import SHAPES, around, edges_of, is_connected
from zmesh.core import wire
from zmesh.core.links import State
from zmesh.core.message import Address, NodeId
from zmesh.core.wire import Frames, Kind
from zmesh.testing.simulator import Simulator
from zmesh.testing.simwire import Wire

SCHEMA = "zmesh.bench.convergence/1"
EVENTS = ("cold", "link", "node", "partition", "merge")
DELAY = (0.001, 0.020)
QUIET = 2.0
PATIENCE = 120.0
FRAMING_BYTES = 6

COLD_S = 2.0
FAILURE_S = 1.0
WALL_S = 120.0
RSS_MB = 2048.0
BYTES_PER_LINK = 200.0
ENTRIES_PER_CHANGE = 3.0
"""How many entries a failure may cost for each route that it changed, times the mean degree of the mesh."""


class Result(TypedDict):
    """One measurement; times in seconds."""

    schema: str
    shape: str
    event: str
    seed: int
    nodes: int
    links: int
    converged_s: float
    updates: int
    update_bytes: int
    records: int
    changed: int
    bytes_per_link: float
    wall_s: float
    peak_rss_mb: float
    wrong: int


class Traffic:
    """Counts what goes over the wires."""

    def __init__(self) -> None:
        self.entries = self.records = self.update_bytes = self.all_bytes = 0
        self._last: tuple[Frames | None, int, int] = (None, 0, 0)

    def __call__(self, frames: Frames) -> None:
        """Count one frame."""
        size = len(frames[0]) + len(frames[1]) + len(frames[2]) + FRAMING_BYTES
        self.all_bytes += size
        if frames is not self._last[0]:
            route, count = wire.decode_route(frames[0]), 0
            kind = route.kind
            if kind == Kind.UPDATE:
                count = len(wire.decode_update(wire.unseal(route, *frames[1:])).entries)
            elif kind == Kind.RECORD:
                count = len(wire.decode_records(wire.unseal(route, *frames[1:])))
            self._last = (frames, kind, count)
        _, kind, count = self._last
        if kind == Kind.UPDATE:
            self.entries += count
        elif kind == Kind.RECORD:
            self.records += count
        if kind in (Kind.UPDATE, Kind.SEQNO_REQUEST):
            self.update_bytes += size


class Mesh(NamedTuple):
    """A mesh in the simulator; `wires` by the numbers of their ends."""

    sim: Simulator
    wires: dict[tuple[int, int], Wire]
    traffic: Traffic


def build(nodes: int, shape: str, seed: int) -> Mesh:
    """Start all nodes at once."""
    rng = random.Random(seed)
    sim = Simulator(seed, checked=False)
    traffic = Traffic()
    sim.tap = traffic
    sim.add(*(f"n{i}" for i in range(nodes)))
    wires = {}
    for a, b in edges_of(shape, nodes, rng):
        wires[a, b] = sim.connect(f"n{a}", f"n{b}", delay=rng.uniform(*DELAY))
    return Mesh(sim, wires, traffic)


def changed_at(sim: Simulator) -> float:
    """When a route or a record changed last."""
    return max(max(node.engine.routes.moved_at, node.engine.records.changed_at) for node in sim.all())


def settle(sim: Simulator, since: float) -> float:
    """Run until nothing has changed for QUIET seconds; returns the time of the last change, at least `since`."""
    while sim.now < since + PATIENCE:
        sim.run(QUIET / 4)
        last = max(since, changed_at(sim))
        if sim.now - last > QUIET:
            return last
    raise SystemExit(f"not settled within {PATIENCE:g} s: {sim!r}")


def strike(mesh: Mesh, event: str, rng: random.Random) -> float:
    """Let the event happen; returns when it was detected."""
    sim, wires = mesh.sim, mesh.wires
    every, edges = {int(id[1:]) for id in sim.nodes}, list(wires)
    if event == "link":
        order = rng.sample(edges, len(edges))
        whole = (edge for edge in order if is_connected(every, [other for other in edges if other != edge]))
        wires[next(whole, order[0])].take_down()
    elif event == "node":
        ids = rng.sample(sorted(every), len(every))
        fine = (i for i in ids if is_connected(every - {i}, edges))
        sim.nodes[f"n{next(fine, ids[0])}"].kill()
    else:
        half = set(around(rng.choice(sorted(every)), every, edges)[: len(every) // 2])
        cut = [wires[edge] for edge in edges if (edge[0] in half) != (edge[1] in half)]
        for one in cut:
            one.take_down()
        if event == "merge":
            settle(sim, sim.now)
            for one in cut:
                one.bring_up()
            sim.run_until(lambda: any(is_up(one) for one in cut))
    return sim.now


def is_up(link: Wire) -> bool:
    """True if both ends have greeted each other."""
    for node, id in zip(link.ends, link.ids, strict=True):
        known = node.engine.links.get(id) if id is not None else None
        if known is None or known.state is not State.UP:
            return False
    return True


def tables(sim: Simulator) -> dict[str, dict[NodeId, tuple[int, int]]]:
    """The next hop and metric of every route."""
    return {
        node.id: {to: (route.link, route.metric) for to, route in node.engine.routes.table().items()}
        for node in sim.all()
    }


def differences(
    before: dict[str, dict[NodeId, tuple[int, int]]], after: dict[str, dict[NodeId, tuple[int, int]]]
) -> int:
    """How many routes have another next hop or metric, or are new or gone."""
    return sum(
        before.get(id, {}).get(to) != route.get(to)
        for id, route in after.items()
        for to in {*route, *before.get(id, {})}
    )


def wrong(sim: Simulator) -> int:
    """How many metrics are not that of the shortest path, and how many records are missing or old."""
    costs: dict[str, dict[str, int]] = {node.id: {} for node in sim.all()}
    for node in sim.all():
        for link in node.engine.links.up():
            costs[node.id][link.node] = min(link.cost, costs[node.id].get(link.node, link.cost))
    count = 0
    for node in sim.all():
        table = node.engine.routes.table()
        shortest = shortest_paths(costs, node.id)
        del shortest[node.id]
        count += sum(to not in table or table[NodeId(Address(to))].metric != cost for to, cost in shortest.items())
        count += len(table.keys() - shortest.keys())
        known = node.engine.records.known()
        count += sum(
            known.get(id) is not sim.nodes[id].engine.records.get(id)
            and known.get(id) != sim.nodes[id].engine.records.get(id)
            for id in {node.id, *table}
        )
    return count


def shortest_paths(costs: dict[str, dict[str, int]], start: str) -> dict[str, int]:
    """Dijkstra's algorithm: what each node that can be reached from `start` costs."""
    import heapq

    done: dict[str, int] = {}
    border = [(0, start)]
    while border:
        cost, node = heapq.heappop(border)
        if node in done:
            continue
        done[node] = cost
        for other, step in costs[node].items():
            if other not in done:
                heapq.heappush(border, (cost + step, other))
    return done


def measure(nodes: int, shape: str, event: str, seed: int) -> Result:
    """Build a mesh, let the event happen to it, and count."""
    gc.disable()
    started = time.perf_counter()
    mesh = build(nodes, shape, seed)
    sim, traffic = mesh.sim, mesh.traffic
    last, since = settle(sim, 0.0), 0.0
    before: dict[str, dict[NodeId, tuple[int, int]]] = {}
    counted = (0, 0, 0)
    if event != "cold":
        before = tables(sim)
        counted = (traffic.entries, traffic.update_bytes, traffic.records)
        since = strike(mesh, event, random.Random(seed))
        last = settle(sim, since)
    wall = time.perf_counter() - started
    entries, update_bytes, records = traffic.entries, traffic.update_bytes, traffic.records
    quiet = traffic.all_bytes
    sim.run(10.0)
    links = sum(is_up(link) for link in mesh.wires.values())
    return Result(
        schema=SCHEMA,
        shape=shape,
        event=event,
        seed=seed,
        nodes=nodes,
        links=len(mesh.wires),
        converged_s=round(last - since, 4),
        updates=entries - counted[0],
        update_bytes=update_bytes - counted[1],
        records=records - counted[2],
        changed=differences(before, tables(sim)),
        bytes_per_link=round((traffic.all_bytes - quiet) / 10.0 / max(1, links), 1),
        wall_s=round(wall, 2),
        peak_rss_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        wrong=wrong(sim),
    )


def passed(result: Result) -> list[str]:
    """The bounds that a measurement is past, in words."""
    cold, failed = result["event"] == "cold", result["event"] in ("link", "node")
    degree = 2 * result["links"] / result["nodes"]
    bounds = [
        ("wrong", result["wrong"], 0),
        ("bytes_per_link", result["bytes_per_link"], BYTES_PER_LINK),
        ("peak_rss_mb", result["peak_rss_mb"], RSS_MB),
    ]
    if cold or failed:
        bounds.append(("wall_s", result["wall_s"], WALL_S))
        bounds.append(("converged_s", result["converged_s"], COLD_S if cold else FAILURE_S))
    if failed:
        bounds.append(("updates", result["updates"], ENTRIES_PER_CHANGE * result["changed"] * degree))
    return [f"{name} is {value:g}, and may be {most:g}" for name, value, most in bounds if value > most]


def main() -> int:
    """Measure once and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convergence", description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--shape", choices=SHAPES, default="random")
    parser.add_argument("--event", choices=EVENTS, default="cold")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    parser.add_argument("--check", action="store_true", help="fail if a bound is passed")
    options = parser.parse_args()
    result = measure(options.nodes, options.shape, options.event, options.seed)
    if options.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:<15} {value}" for name, value in result.items() if name != "schema"))
    too_much = passed(result) if options.check else []
    for text in too_much:
        print(text, file=sys.stderr)
    return 1 if too_much or result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
