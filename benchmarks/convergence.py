"""How long a mesh takes to find its routes, and what that costs: production engines in the simulator.

    python -m benchmarks.convergence [--nodes N] [--shape SHAPE] [--event EVENT] [--seed S] [--sample COUNT]
                                     [--json] [--check]

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

With `--sample COUNT` the event happens that many times, each time elsewhere and each time to the same settled mesh (a
fork of the process, so not on Windows): one line for each, or one object each with `--json`.

Printed are what `failed`, `updates` (entries of UPDATEs) and `update_bytes` (of UPDATEs and SEQNO_REQUESTs),
`records` (sent, not kept), `changed` (the routes whose next hop or metric differs in the end), `entries_per_change`
(`updates` for each of these and for each neighbour of a node, on average), `bytes_per_link` (a second of probing and
routing on a link of the settled mesh, both ways together, with ZeroMQ's framing), the event's wall time and the peak
memory of the process. With `--check` the exit status is 1 as well if one of the bounds below is passed; they are meant
for the shapes `random` and `grid` of up to about 1,000 nodes. (In a chain of 1,000 news take 10 s from end to end,
whatever the protocol.)
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from typing import NamedTuple, TypedDict

from benchmarks.shapes import SHAPES, around, edges_of, is_connected
from zmesh.core import wire
from zmesh.core.message import Address, NodeId
from zmesh.core.neighbours.links import State
from zmesh.core.wire import Frames, Kind
from zmesh.testing.simulator import Simulator
from zmesh.testing.simwire import Wire

SCHEMA = "zmesh.bench.convergence/1"
EVENTS = ("cold", "link", "node", "partition", "merge")
DELAY = (0.001, 0.020)
QUIET = 2.0
QUIET_RUN = 10.0
PATIENCE = 120.0
FRAMING_BYTES = 6

COLD_S = 2.0
FAILURE_S = 1.0
WALL_S = 120.0
RSS_MB = 2048.0
BYTES_PER_LINK = 200.0
ENTRIES_PER_CHANGE = 3.0
"""How many entries a failure may cost for each route that it changed, times the mean degree of the mesh."""

PROCESSES = 2
"""How many failures of a sample are measured at a time."""

Victims = list[tuple[int, int]] | int
"""The links that are lost, or the node."""

Counted = tuple[int, int, int]
Tables = dict[str, dict[NodeId, tuple[int, int]]]
"""The next hop and metric of every route of every node."""


class Result(TypedDict):
    """One measurement; times in seconds."""

    schema: str
    shape: str
    event: str
    seed: int
    failed: str
    nodes: int
    links: int
    converged_s: float
    updates: int
    update_bytes: int
    records: int
    changed: int
    entries_per_change: float
    bytes_per_link: float
    wall_s: float
    peak_rss_mb: float
    wrong: int


class Traffic:
    """Counts what goes over the wires."""

    def __init__(self) -> None:
        self.entries = self.records = self.update_bytes = self.all_bytes = 0
        self._last: tuple[Frames | None, int, int] = (None, 0, 0)

    @property
    def counted(self) -> Counted:
        """The entries, the bytes of UPDATEs and SEQNO_REQUESTs, and the records so far."""
        return (self.entries, self.update_bytes, self.records)

    def __call__(self, frames: Frames) -> None:
        """Count one frame."""
        size = sum(map(len, frames)) + FRAMING_BYTES
        self.all_bytes += size
        if frames is not self._last[0]:
            route, count = wire.read_packet(frames), 0
            kind = route.kind
            if kind == Kind.UPDATE:
                count = len(wire.decode_update(route.head).entries)
            elif kind == Kind.RECORD:
                count = len(wire.decode_records(route.head)[0])
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
    return max(node.engine.routing.moved_at for node in sim.all())


def settle(sim: Simulator, since: float) -> float:
    """Run until nothing has changed for QUIET seconds; returns the time of the last change, at least `since`."""
    while sim.now < since + PATIENCE:
        sim.run(QUIET / 4)
        last = max(since, changed_at(sim))
        if sim.now - last > QUIET:
            return last
    raise SystemExit(f"not settled within {PATIENCE:g} s: {sim!r}")


def victims(mesh: Mesh, event: str, rng: random.Random) -> Iterator[Victims]:
    """What may fail, each once, in any order; at first that without which the mesh is still whole."""
    every, edges = sorted(int(id[1:]) for id in mesh.sim.nodes), list(mesh.wires)
    if event in ("link", "node"):
        some: list[Victims] = [[edge] for edge in edges] if event == "link" else [*every]
        vital = []
        for one in rng.sample(some, len(some)):
            nodes, links = ([], one) if isinstance(one, list) else ([one], [])
            if is_connected({*every}.difference(nodes), [edge for edge in edges if edge not in links]):
                yield one
            else:
                vital.append(one)
        yield from vital
    else:
        for node in [rng.choice(every), *rng.sample(every, len(every))]:
            half = set(around(node, {*every}, edges)[: len(every) // 2])
            yield [edge for edge in edges if (edge[0] in half) != (edge[1] in half)]


def strike(mesh: Mesh, event: str, victims: Victims) -> float:
    """Let the event happen; returns when it was detected."""
    sim = mesh.sim
    if isinstance(victims, int):
        sim.nodes[f"n{victims}"].kill()
        return sim.now
    cut = [mesh.wires[edge] for edge in victims]
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
        known = node.engine.neighbours.get(id) if id is not None else None
        if known is None or known.state is not State.UP:
            return False
    return True


def tables(sim: Simulator) -> Tables:
    """The next hop and metric of every route."""
    return {
        node.id: {to: (route.link, route.metric) for to, route in node.engine.routing.routes().items()}
        for node in sim.all()
    }


def differences(before: Tables, after: Tables) -> int:
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
        for link in node.engine.links():
            costs[node.id][link.node] = min(link.cost, costs[node.id].get(link.node, link.cost))
    count = 0
    for node in sim.all():
        table = node.engine.routing.routes()
        shortest = shortest_paths(costs, node.id)
        del shortest[node.id]
        count += sum(to not in table or table[NodeId(Address(to))].metric != cost for to, cost in shortest.items())
        count += len(table.keys() - shortest.keys())
        known = node.engine.records()
        count += sum(
            known.get(id) is not sim.nodes[id].engine.routing.record(id)
            and known.get(id) != sim.nodes[id].engine.routing.record(id)
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


class Trial:
    """A mesh that has settled, to which something may happen; `cold` is what it took to get there."""

    def __init__(self, nodes: int, shape: str, seed: int) -> None:
        gc.disable()
        started = time.perf_counter()
        self.mesh = build(nodes, shape, seed)
        self.shape, self.seed, self.nodes = shape, seed, nodes
        self.bytes_per_link = 0.0
        self.cold = self._result("cold", "", settle(self.mesh.sim, 0.0), (0, 0, 0), {}, started)
        quiet = self.mesh.traffic.all_bytes
        self.mesh.sim.run(QUIET_RUN)
        quiet = self.mesh.traffic.all_bytes - quiet
        self.bytes_per_link = round(quiet / QUIET_RUN / max(1, len(self.mesh.wires)), 1)
        self.cold["bytes_per_link"] = self.bytes_per_link

    def fail(self, event: str, victims: Victims) -> Result:
        """Let the event happen, once: the mesh is another one after that."""
        started = time.perf_counter()
        sim = self.mesh.sim
        before, counted = tables(sim), self.mesh.traffic.counted
        since = strike(self.mesh, event, victims)
        took = settle(sim, since) - since
        return self._result(event, _name(victims), took, counted, before, started)

    def _result(self, event: str, failed: str, took: float, counted: Counted, before: Tables, started: float) -> Result:
        wall = time.perf_counter() - started
        sim, traffic = self.mesh.sim, self.mesh.traffic
        entries, update_bytes, records = (now - then for now, then in zip(traffic.counted, counted, strict=True))
        changed = differences(before, tables(sim))
        degree = 2 * len(self.mesh.wires) / self.nodes
        return Result(
            schema=SCHEMA,
            shape=self.shape,
            event=event,
            seed=self.seed,
            failed=failed,
            nodes=self.nodes,
            links=len(self.mesh.wires),
            converged_s=round(took, 4),
            updates=entries,
            update_bytes=update_bytes,
            records=records,
            changed=changed,
            entries_per_change=round(entries / max(1, changed) / max(1.0, degree), 2),
            bytes_per_link=self.bytes_per_link,
            wall_s=round(wall, 2),
            peak_rss_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            wrong=wrong(sim),
        )


def sample(trial: Trial, event: str, count: int) -> Iterator[Result]:
    """Let the event happen so many times, each time elsewhere and to the same mesh."""
    some = itertools.islice(victims(trial.mesh, event, random.Random(trial.seed)), count)
    if count == 1:
        yield trial.fail(event, next(some))
        return
    _forked.append(trial)
    with get_context("fork").Pool(PROCESSES, maxtasksperchild=1) as pool:
        yield from pool.imap(_fail_forked, [(event, one) for one in some], chunksize=1)


_forked: list[Trial] = []


def _fail_forked(what: tuple[str, Victims]) -> Result:
    return _forked[0].fail(*what)


def _name(victims: Victims) -> str:
    """One link, one node, or how many links."""
    if isinstance(victims, int):
        return f"n{victims}"
    return "-".join(f"n{end}" for end in victims[0]) if len(victims) == 1 else f"{len(victims)} links"


def passed(result: Result) -> list[str]:
    """The bounds that a measurement is past, in words."""
    cold, failed = result["event"] == "cold", result["event"] in ("link", "node")
    bounds = [
        ("wrong", result["wrong"], 0),
        ("bytes_per_link", result["bytes_per_link"], BYTES_PER_LINK),
        ("peak_rss_mb", result["peak_rss_mb"], RSS_MB),
    ]
    if cold or failed:
        bounds.append(("wall_s", result["wall_s"], WALL_S))
        bounds.append(("converged_s", result["converged_s"], COLD_S if cold else FAILURE_S))
    if failed:
        bounds.append(("entries_per_change", result["entries_per_change"], ENTRIES_PER_CHANGE))
    where = f" ({result['failed']})" if result["failed"] else ""
    return [f"{name} is {value:g}, and may be {most:g}{where}" for name, value, most in bounds if value > most]


def main() -> int:
    """Measure once and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convergence", description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=100, help="nodes of the mesh (%(default)s)")
    parser.add_argument("--shape", choices=SHAPES, default="random", help="of the mesh (%(default)s)")
    parser.add_argument("--event", choices=EVENTS, default="cold", help="what happens to it (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the mesh and of the event (%(default)s)")
    parser.add_argument("--sample", type=int, default=1, metavar="COUNT", help="so many failures, each by itself")
    parser.add_argument("--json", action="store_true", help="one object each instead of a table")
    parser.add_argument("--check", action="store_true", help="fail if a bound is passed")
    options = parser.parse_args()
    trial = Trial(options.nodes, options.shape, options.seed)
    results: list[Result] = []
    for result in [trial.cold] if options.event == "cold" else sample(trial, options.event, options.sample):
        results.append(result)
        if options.json:
            print(json.dumps(result), flush=True)
        elif options.sample == 1:
            print("\n".join(f"{name:<18} {value}" for name, value in result.items() if name != "schema"))
        else:
            print(_line(result), flush=True)
    if options.sample > 1 and not options.json:
        print(_line(_extreme(results, statistics.median), "median"), _line(_extreme(results, max), "worst"), sep="\n")
    too_much = [text for result in results for text in passed(result)] if options.check else []
    for text in too_much:
        print(text, file=sys.stderr)
    return 1 if too_much or any(result["wrong"] for result in results) else 0


def _line(result: Result, name: str = "") -> str:
    return (
        f"{name or result['failed']:<12} {result['converged_s']:6.3f} s {result['changed']:8.0f} routes changed "
        f"{result['entries_per_change']:6.2f} entries each and neighbour {result['wrong']:4.0f} wrong"
    )


def _extreme(results: list[Result], of: Callable[[list[float]], float]) -> Result:
    """A result with the median, or the worst, of each number."""
    extreme = results[0].copy()
    for key in ("converged_s", "changed", "entries_per_change", "wrong"):
        extreme[key] = of([result[key] for result in results])
    return extreme


if __name__ == "__main__":
    sys.exit(main())
