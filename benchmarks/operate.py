"""What operating a mesh costs: how long commands take, and how busy they keep the nodes.

    python -m benchmarks.operate [--nodes 100] [--runs 5] [--simulated 1000] [--json] [--check]

A mesh of `--nodes` processes on this machine, each with two links or more. `status`, `nodes`, `ping --all` and `graph`
are run as commands, `--runs` times each: the median of the wall time is shown, beside that of `ping NODE -c 1` in the
same run, which has the same start and the same way into the mesh; and the CPU time that a run costs the busiest of all
nodes, less what it spends anyway, as a share of the time that LIMIT_SECONDS is. `top` runs for TOP_SAMPLES samples; its
cost is the share of a core at the busiest node.

Then a simulated mesh of `--simulated` nodes: the tables of one of them, how long each of the answers takes to be made
there, sent as JSON, read and shown, and how long its node is busy with it.

With `--check` the exit status is 1 if a command takes more than LIMIT_SECONDS or keeps a node busy by more than
LIMIT_SHARE of them, or if `top` costs a node more than LIMIT_TOP.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from benchmarks.chains import at_least
from benchmarks.program import parser, run
from benchmarks.shapes import edges_of
from zmesh import MemberList, MeshGraph, NodeStatus, Target
from zmesh.testing.simulator import Simulator

SCHEMA = "zmesh.bench.operate/1"
LIMIT_SECONDS = 2.0
LIMIT_SHARE = 0.05
LIMIT_TOP = 0.01
TOP_SAMPLES = 3
IDLE_SECONDS = 5.0
START_WITHIN = 300.0
COMMANDS = (("status",), ("nodes",), ("ping", "--all"), ("graph",))
COMMAND = [sys.executable, "-P", "-m", "zmesh_cli"]
NODE = """
import asyncio, json, sys, zmesh
async def main():
    settings = json.loads(sys.argv[1])
    async with zmesh.Controller(**settings) as mesh:
        print(mesh.listening[0], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())
"""


class Result(TypedDict):
    """One measurement: `wall_s` and `baseline_s` are medians, `busiest_s` is CPU time of the busiest node."""

    schema: str
    what: str
    nodes: int
    wall_s: float
    baseline_s: float | None
    busiest_s: float
    share: float
    limit_share: float


# -- a real mesh -----------------------------------------------------------------------------------------------------


class Processes:
    """Nodes as processes; each dials two of those before it. `more` are further settings of each."""

    def __init__(self, count: int, folder: str, more: Callable[[], dict[str, Any]] = dict) -> None:
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("ZMESH_")}
        self.environment |= {"XDG_RUNTIME_DIR": folder, "XDG_CONFIG_HOME": f"{folder}/config"}
        self._processes: list[subprocess.Popen[str]] = []
        rng, urls = random.Random(1), list[str]()
        for number in range(count):
            peers = {urls[(number - 1) // 4], rng.choice(urls)} if urls else set()
            settings = {"node_id": f"n{number:03}", "listen": ["tcp://127.0.0.1:*"], "peers": sorted(peers), **more()}
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", NODE, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self.environment,
            )
            self._processes.append(process)
            assert process.stdout is not None
            urls.append(process.stdout.readline().strip())
        self.environment |= {"ZMESH_PEER": urls[0]}

    def run(self, *words: str) -> tuple[float, str]:
        """Run a command; the seconds that it took, and what it has printed."""
        began = time.perf_counter()
        done = subprocess.run([*COMMAND, *words], env=self.environment, capture_output=True, text=True, check=True)
        return time.perf_counter() - began, done.stdout

    def cpu(self) -> list[float]:
        """The CPU time of each node so far."""
        return [cpu_of(process.pid) for process in self._processes]

    def kill(self, number: int) -> None:
        """Kill one of them."""
        self._processes[number].kill()

    def close(self) -> None:
        """End all of them."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait(60)


def cpu_of(process: int) -> float:
    """The CPU time of a process so far (proc(5), stat)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def processes(count: int, more: Callable[[], dict[str, Any]] = dict) -> Iterator[Processes]:
    """A mesh of so many processes, in which each knows all."""
    with tempfile.TemporaryDirectory(prefix="zmesh-bench-") as folder:
        mesh = Processes(count, folder, more)
        try:
            until = time.monotonic() + START_WITHIN
            while mesh.run("nodes", "--json")[1].count("\n") < count:
                assert time.monotonic() < until, "the mesh has not formed"
            yield mesh
        finally:
            mesh.close()


def real(count: int, runs: int) -> Iterator[Result]:
    """The commands in a real mesh."""
    with processes(count) as mesh:
        time.sleep(2 * IDLE_SECONDS)  # until routes, records and the links' costs are settled
        before = mesh.cpu()
        time.sleep(IDLE_SECONDS)
        idle = [(after - start) / IDLE_SECONDS for start, after in zip(before, mesh.cpu(), strict=True)]
        baseline = statistics.median(mesh.run("ping", "n000", "-c", "1")[0] for _ in range(runs))
        for words in COMMANDS:
            began, before, walls = time.perf_counter(), mesh.cpu(), []
            for _ in range(runs):
                seconds, text = mesh.run(*words)
                walls.append(seconds)
                assert words[0] == "status" or text.count("n0") >= min(count, 90), text[:300]
            busiest = _busiest(mesh, before, idle, time.perf_counter() - began) / runs
            yield _result(" ".join(words), count, statistics.median(walls), baseline, busiest, LIMIT_SECONDS)
        began, before = time.perf_counter(), mesh.cpu()
        mesh.run("top", "-n", str(TOP_SAMPLES))
        took = time.perf_counter() - began
        yield _result("top", count, took, None, _busiest(mesh, before, idle, took), took, LIMIT_TOP)


def _busiest(mesh: Processes, before: list[float], idle: list[float], took: float) -> float:
    """The CPU time of the busiest node, less what it spends when nothing is asked."""
    rows = zip(before, mesh.cpu(), idle, strict=True)
    return max(0.0, *(after - start - rate * took for start, after, rate in rows))


def _result(
    what: str, nodes: int, wall: float, baseline: float | None, busiest: float, per: float, limit: float = LIMIT_SHARE
) -> Result:
    return {
        "schema": SCHEMA,
        "what": what,
        "nodes": nodes,
        "wall_s": round(wall, 3),
        "baseline_s": None if baseline is None else round(baseline, 3),
        "busiest_s": round(busiest, 4),
        "share": round(busiest / per, 4),
        "limit_share": limit,
    }


# -- a simulated one ---------------------------------------------------------------------------------------------------


def simulated(count: int) -> Iterator[Result]:
    """The answers of one node of a simulated mesh, and what a command makes of them."""
    import zmesh_cli.graph as drawing
    import zmesh_cli.nodes as listing
    import zmesh_cli.status as state
    from zmesh.observe import LinkHistory
    from zmesh.operate.json_form import from_json
    from zmesh.operate.mesh_reader import MeshReader
    from zmesh.operate.node_reader import NodeReader
    from zmesh.testing import Mesh

    sim = Simulator(1, checked=False)
    ids = [f"n{number:04}" for number in range(count)]
    sim.add(*ids)
    for a, b in edges_of("random", count, random.Random(1)):
        sim.connect(ids[a], ids[b], delay=0.002)
    engine = sim.nodes[ids[0]].engine
    while len(engine.nodes()) < count or len(engine.records()) < count:
        sim.run(0.1)

    async def host_of() -> Any:
        async with Mesh("n0000") as mesh:
            node = mesh["n0000"].node
            node.engine = engine
            own = NodeReader(node, LinkHistory())
            return own, MeshReader(node, own)

    own, reader = asyncio.run(host_of())
    shown: tuple[tuple[str, Callable[[], Any], type[Any], Callable[[Any], object]], ...] = (
        ("status", own.status, NodeStatus, lambda found: list(state._render(found, 60))),
        ("nodes", reader.members, MemberList, lambda found: listing._render(listing.chosen(found, Target.of("*")), 60)),
        ("graph", reader.graph, MeshGraph, lambda found: [*drawing.svg(found), *drawing.dot(found)]),
        ("why", lambda: reader.why(ids[-1]), None, lambda found: None),  # type: ignore[arg-type]
    )
    for what, answer, kind, show in shown:
        began = time.process_time()
        text = json.dumps(answer().to_json())
        made = time.process_time() - began
        if kind is not None:
            show(from_json(kind, json.loads(text)))
        wall = time.process_time() - began
        yield _result(f"{what} (simulated)", count, wall, None, made, LIMIT_SECONDS)


def main() -> int:
    """Measure, print, and check."""
    fails = f"a command takes over {LIMIT_SECONDS:g} s, or costs a node more than {LIMIT_SHARE:.0%} of a core"
    parsing = parser("benchmarks.operate", "what operating a mesh costs", SCHEMA, f"{fails} ('top': {LIMIT_TOP:.0%})")
    parsing.add_argument("--nodes", type=at_least(0), default=100, help="processes; 0 for none (%(default)s)")
    parsing.add_argument("--runs", type=at_least(1), default=5, help="runs of each command (%(default)s)")
    parsing.add_argument(
        "--simulated", type=at_least(0), default=1000, help="simulated nodes; 0 for none (%(default)s)"
    )
    options = parsing.parse_args()
    passed = True
    parts = [simulated(options.simulated)] if options.simulated else []
    parts += [real(options.nodes, options.runs)] if options.nodes else []
    for part in parts:
        for result in part:
            fits = result["share"] <= result["limit_share"]
            fits = fits and (result["what"] == "top" or result["wall_s"] <= LIMIT_SECONDS)
            passed = passed and fits
            if options.json:
                print(json.dumps(result), flush=True)
                continue
            beside = f", ping {result['baseline_s']:.2f} s" if result["baseline_s"] is not None else ""
            print(
                f"{result['what']:18} {result['nodes']:5} nodes  {result['wall_s']:6.2f} s{beside}; busiest node "
                f"{1000 * result['busiest_s']:.1f} ms of CPU, {100 * result['share']:.2f} % of a core "
                f"(at most {100 * result['limit_share']:.0f} %){'' if fits else '  TOO MUCH'}",
                flush=True,
            )
    return 0 if passed or not options.check else 1


if __name__ == "__main__":
    run(main)
