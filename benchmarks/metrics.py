"""What metrics cost: scrapes of a mesh of processes, and the requests of nodes that have none.

    python -m benchmarks.metrics [--nodes 100] [--seconds 60] [--before COMMIT] [--json] [--check]

A mesh of `--nodes` processes on this machine, all with `metrics`. It is left alone for `--seconds`, then each node is
scraped every 15 s, then every second, each for `--seconds`. Shown is the processor time that this costs a node, as a
share of a core: at the median node, and at the one that it costs most.

Then, with `--before`, the instructions of a request in a chain of three nodes without metrics, counted by valgrind as
`benchmarks.instructions` does: of this tree, and of that commit, which is one without observers of requests. With
`--check` the exit status is 1 if scrapes cost a node more than LIMIT of a core, or metrics that are off a request.
"""

from __future__ import annotations

import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

from benchmarks.chains import Machine, at_least, machine, machine_line
from benchmarks.operate import IDLE_SECONDS, Processes, processes
from benchmarks.program import conclude, parser, run

SCHEMA = "zmesh.bench.metrics/1"
LIMIT = 0.01
EVERY = (15.0, 1.0)
ROOT = Path(__file__).resolve().parent.parent


class Scraped(TypedDict):
    """Scrapes every so many seconds: how many there were, and their share of a core, at the median and at most."""

    every_s: float
    scrapes: int
    share: float
    worst_share: float


class Result(TypedDict):
    """One run; `instructions` a request before and now, if they were counted."""

    schema: str
    nodes: int
    scraped: list[Scraped]
    instructions: dict[str, int]
    disabled_share: float | None
    limit: float
    machine: Machine


class Ports:
    """Free ports for metrics, one for each node."""

    def __init__(self) -> None:
        self.urls: list[str] = []

    def settings(self) -> dict[str, Any]:
        """The settings of the next node."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.urls.append(f"http://127.0.0.1:{port}/metrics")
        return {"metrics": f"127.0.0.1:{port}"}


def fetch(url: str) -> None:
    """Scrape one node, as Prometheus does."""
    headers = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        answer.read()


def spent(mesh: Processes, urls: list[str], every: float, seconds: float) -> tuple[int, list[float]]:
    """How many scrapes there were of each node in so many seconds, and the share of a core that each has spent."""
    rounds = 0
    began, before = time.monotonic(), mesh.cpu()
    with ThreadPoolExecutor(8) as pool:
        while (due := began + rounds * every) < began + seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            if every < seconds:
                list(pool.map(fetch, urls))
            rounds += 1
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    took = time.monotonic() - began
    return rounds, [(after - start) / took for start, after in zip(before, mesh.cpu(), strict=True)]


def measure(nodes: int, seconds: float) -> list[Scraped]:
    """Scrape a mesh."""
    ports = Ports()
    with processes(nodes, ports.settings) as mesh:
        time.sleep(2 * IDLE_SECONDS)
        _, idle = spent(mesh, ports.urls, seconds, seconds)
        found = []
        for every in EVERY:
            rounds, shares = spent(mesh, ports.urls, every, seconds)
            more = [max(0.0, share - alone) for share, alone in zip(shares, idle, strict=True)]
            found.append(
                Scraped(
                    every_s=every,
                    scrapes=rounds,
                    share=round(statistics.median(more), 5),
                    worst_share=round(max(more), 5),
                )
            )
    return found


def instructions_of(tree: Path) -> int:
    """The instructions of a request, by the benchmark of that tree, which runs its own zmesh."""
    command = [sys.executable, "-m", "benchmarks.instructions", "--kind", "zmesh"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True)
    found = re.search(r"([\d.]+) million instructions a request", done.stdout)
    assert found is not None, done.stdout
    return round(float(found[1]) * 1e6)


def before_and_now(commit: str) -> dict[str, int]:
    """The instructions of a request before, and now."""
    with tempfile.TemporaryDirectory(prefix="zmesh-bench-") as folder:
        tree = Path(folder) / "before"
        subprocess.run(
            ["git", "worktree", "add", "--detach", str(tree), commit], cwd=ROOT, check=True, capture_output=True
        )
        try:
            return {"before": instructions_of(tree), "now": instructions_of(ROOT)}
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def text_of(result: Result) -> str:
    """The result for people."""
    lines = [
        f"{result['nodes']} nodes, a scrape each {each['every_s']:g} s: {100 * each['share']:.2f} % of a core at the "
        f"median node, {100 * each['worst_share']:.2f} % at most"
        for each in result["scraped"]
    ]
    if result["disabled_share"] is not None:
        counts = result["instructions"]
        lines.append(
            f"metrics that are off: {counts['before']:,} instructions a request before, {counts['now']:,} now "
            f"({100 * result['disabled_share']:+.2f} %)"
        )
    return "\n".join([*lines, machine_line(result["machine"])])


def main() -> int:
    """Measure, print and check."""
    parsing = parser("benchmarks.metrics", "what metrics cost", SCHEMA, f"anything costs more than {LIMIT:.0%}")
    parsing.add_argument("--nodes", type=at_least(0), default=100, help="processes; 0 for none (%(default)s)")
    parsing.add_argument("--seconds", type=float, default=60.0, help="for each measurement (%(default)s)")
    parsing.add_argument("--before", metavar="COMMIT", help="a commit without observers, for instruction counts")
    options = parsing.parse_args()
    load = os.getloadavg()[0]
    scraped = measure(options.nodes, options.seconds) if options.nodes else []
    counts = before_and_now(options.before) if options.before else {}
    disabled = counts["now"] / counts["before"] - 1 if counts else None
    result = Result(
        schema=SCHEMA,
        nodes=options.nodes,
        scraped=scraped,
        instructions=counts,
        disabled_share=None if disabled is None else round(disabled, 5),
        limit=LIMIT,
        machine=machine(load),
    )
    missed = [f"a scrape each {each['every_s']:g} s" for each in scraped if each["worst_share"] > LIMIT]
    missed += ["metrics that are off"] if disabled is not None and disabled > LIMIT else []
    return conclude(result, options, text_of(result), missed)


if __name__ == "__main__":
    run(main)
