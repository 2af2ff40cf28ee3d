"""What the dashboard costs the nodes that it shows, and how soon it shows that one is gone.

    python -m benchmarks.dashboard [--nodes 100] [--seconds 60] [--pages 4] [--json] [--check]
    python -m benchmarks.dashboard --simulated 1000 [--seconds 60] [--json] [--check]

A mesh of `--nodes` processes on this machine is left alone for `--seconds`, then watched for as long by `zmesh
dashboard` with `--pages` streams open. Shown is the processor time that this costs a node, as a share of a core: at the
median node, at the one that it costs most, and at the one where the dashboard has joined. Then a node is killed, and
the time until the streams show it as down is measured. With `--check` the exit status is 1 if watching costs a
node more than LIMIT of a core, or if the killed node is not shown as down within SHOWN_WITHIN seconds.

With `--simulated` the page of a mesh of so many nodes that exist as answers alone is opened in Chromium instead
(`benchmarks.dashboard_page`), beside one of ten nodes in the same run: the frames that it draws in each view while
nodes leave and come back, the share of the time for which long tasks block it, the updates and their size, the elements
of the page, and what the server spends.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

from benchmarks.chains import Machine, at_least, machine, machine_line
from benchmarks.dashboard_page import measure_page, missed_by_page, text_of_page
from benchmarks.operate import COMMAND, IDLE_SECONDS, Processes, cpu_of, processes
from benchmarks.program import conclude, parser, run

SCHEMA = "zmesh.bench.dashboard/1"
LIMIT = 0.01
SHOWN_WITHIN = 2.0
FORMED_WITHIN = 60.0


class Result(TypedDict):
    """One run: shares of a core at the median node, at most, and where it has joined; `own` is the dashboard's."""

    schema: str
    nodes: int
    pages: int
    share: float
    worst_share: float
    host_share: float
    own_share: float
    shown_s: float
    limit: float
    machine: Machine


class Page(threading.Thread):
    """A page: a stream of updates, and which nodes are up by them."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.up: dict[str, bool] = {}
        self.updates = 0
        self.changed = threading.Condition()
        self._stream = urllib.request.urlopen(url, timeout=FORMED_WITHIN)

    def run(self) -> None:
        """Read until the stream ends."""
        for line in self._stream:
            if line.startswith(b"data: "):
                update: dict[str, Any] = json.loads(line[6:])
                with self.changed:
                    self.updates += 1
                    self.up |= {row["id"]: row["up"] for row in update["nodes"]}
                    self.changed.notify_all()


@contextmanager
def dashboard(mesh: Processes) -> Iterator[tuple[int, str]]:
    """`zmesh dashboard` at the first node: its process id, and the URL of its streams."""
    command = [*COMMAND, "dashboard", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=mesh.environment) as process:
        try:
            assert process.stdout is not None
            page, _, token = json.loads(process.stdout.readline())["url"].partition("?")
            yield process.pid, f"{page}api/stream?{token}"
        finally:
            process.terminate()


def shares(mesh: Processes, seconds: float) -> list[float]:
    """The share of a core that each node spends."""
    began, before = time.monotonic(), mesh.cpu()
    time.sleep(seconds)
    took = time.monotonic() - began
    return [(after - start) / took for start, after in zip(before, mesh.cpu(), strict=True)]


def measure(nodes: int, seconds: float, pages: int) -> Result:
    """Watch a mesh."""
    load = os.getloadavg()[0]
    with processes(nodes) as mesh:
        time.sleep(2 * IDLE_SECONDS)
        idle = shares(mesh, seconds)
        with dashboard(mesh) as (process, url):
            watching = [Page(url) for _ in range(pages)]
            for page in watching:
                page.start()
            for page in watching:
                with page.changed:
                    assert page.changed.wait_for(lambda page=page: len(page.up) >= nodes, FORMED_WITHIN)
            own = cpu_of(process)
            busy = shares(mesh, seconds)
            own = (cpu_of(process) - own) / seconds
            assert all(page.updates for page in watching)
            began, last = time.monotonic(), f"n{nodes - 1:03}"
            mesh.kill(nodes - 1)
            for page in watching:
                with page.changed:
                    assert page.changed.wait_for(lambda page=page: not page.up[last], FORMED_WITHIN)
            shown = time.monotonic() - began
    more = [max(0.0, share - alone) for share, alone in zip(busy, idle, strict=True)]
    return Result(
        schema=SCHEMA,
        nodes=nodes,
        pages=pages,
        share=round(statistics.median(more), 5),
        worst_share=round(max(more[1:]), 5),
        host_share=round(more[0], 5),
        own_share=round(own, 5),
        shown_s=round(shown, 3),
        limit=LIMIT,
        machine=machine(load),
    )


def text_of(result: Result) -> str:
    """The result for people."""
    shares = " and ".join(
        f"{100 * share:.2f} % {where}"
        for share, where in (
            (result["share"], "at the median node"),
            (result["worst_share"], "at most"),
            (result["host_share"], "where it has joined"),
            (result["own_share"], "in the dashboard itself"),
        )
    )
    lines = [
        f"{result['nodes']} nodes, {result['pages']} pages: of a core {shares}",
        f"a node that is killed is down on all pages after {result['shown_s']:.2f} s",
        machine_line(result["machine"]),
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, print and check."""
    what = f"watching costs a node more than {LIMIT:.0%}, or a killed one shows after {SHOWN_WITHIN:g} s"
    parsing = parser("benchmarks.dashboard", "what the dashboard costs the nodes that it shows", SCHEMA, what)
    parsing.add_argument("--nodes", type=at_least(2), default=100, help="processes (%(default)s)")
    parsing.add_argument("--seconds", type=float, default=60.0, help="for each measurement (%(default)s)")
    parsing.add_argument("--pages", type=at_least(1), default=4, help="streams that are open (%(default)s)")
    parsing.add_argument(
        "--simulated",
        type=at_least(0),
        default=0,
        help="the page in Chromium, with so many nodes, instead (%(default)s)",
    )
    options = parsing.parse_args()
    if options.simulated:
        found = measure_page(options.simulated, options.seconds)
        return conclude(found, options, text_of_page(found), missed_by_page(found))
    result = measure(options.nodes, options.seconds, options.pages)
    missed = [
        name
        for name, found, limit in (
            ("share of a core", result["worst_share"], LIMIT),
            ("share of a core where it has joined", result["host_share"], LIMIT),
            ("seconds until a killed node shows", result["shown_s"], SHOWN_WITHIN),
        )
        if found > limit
    ]
    return conclude(result, options, text_of(result), missed)


if __name__ == "__main__":
    run(main)
