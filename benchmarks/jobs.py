"""Jobs: how many can be submitted in a second, and how long a list of many takes beyond the round trip.

    python -m benchmarks.jobs [--json] [--check] [--jobs 10000] [--folder DIR]

A node in a process of its own keeps jobs in a folder (of the disk that `--folder` is on), and another one submits
`echo:echo` with a small payload, TOGETHER at a time, none of which starts meanwhile, so that what is measured is
storing alone; each is durable (fsync) when its submission returns. Beside it, as many requests of `echo:echo` go to
that node in the same way, which is what the mesh takes. Then all are listed: `ls_ms` is the median of
`mesh.jobs(node)`, and `beyond_ms` what of it is not a round trip of as many bytes by `echo:echo`.

With `--check` the exit status is 1 if fewer than PER_SECOND are submitted in a second, or the list takes longer than
LIST_WITHIN milliseconds beyond its round trip.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import TypedDict

import zmesh
from benchmarks import program
from benchmarks.chains import Machine, at_least, machine, machine_line
from zmesh.testing.process import Process

SCHEMA = "zmesh.bench.jobs/1"
PER_SECOND = 1000.0
LIST_WITHIN = 100.0
TOGETHER = 200
LISTS = 5
PAYLOAD = b"x" * 100
ALLOW = {"job:*": ["*"]}


class Result(TypedDict):
    """One measurement: numbers a second, and milliseconds."""

    schema: str
    jobs: int
    submitted_per_s: float
    requests_per_s: float
    ls_ms: float
    round_trip_ms: float
    beyond_ms: float
    machine: Machine


async def rate(count: int, once: Callable[[int], Awaitable[object]]) -> float:
    """How often in a second it is done, TOGETHER at a time."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await once(number)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(TOGETHER)))
    return count / (time.perf_counter() - began)


async def median_ms(do: Callable[[], Awaitable[object]]) -> float:
    """The median of LISTS times, in milliseconds."""
    times = []
    for _ in range(LISTS):
        began = time.perf_counter()
        await do()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


async def measure(jobs: int, folder: str) -> Result:
    """Submit and list."""
    where = machine(os.getloadavg()[0])
    table = {"folder": folder, "max_running": 1, "max_queued": jobs + 10, "max_queued_per_owner": jobs + 10}
    node = await Process.begin("edge", allow=ALLOW, plugins={"job": table})
    try:
        async with zmesh.Controller(node_id="desk", peers=node.listening) as desk:
            await desk.wait_for("edge", 30)
            await desk.submit("edge", "sleep:execute", 3600)  # the one that runs
            requests = await rate(jobs, lambda _: desk.request("edge", "echo:echo", PAYLOAD))
            submitted = await rate(jobs, lambda _: desk.submit("edge", "echo:echo", PAYLOAD))
            listed = await desk.jobs("edge")
            assert len(listed) == jobs + 1, len(listed)
            content = json.dumps(listed).encode()
            ls = await median_ms(lambda: desk.jobs("edge"))
            trip = await median_ms(lambda: desk.request("edge", "echo:echo", content))
    finally:
        node.close()
    return {
        "schema": SCHEMA,
        "jobs": jobs,
        "submitted_per_s": round(submitted),
        "requests_per_s": round(requests),
        "ls_ms": round(ls, 1),
        "round_trip_ms": round(trip, 1),
        "beyond_ms": round(ls - trip, 1),
        "machine": where,
    }


def main() -> int:
    """Measure and print."""
    goals = f"less than {PER_SECOND:g} a second, or more than {LIST_WITHIN:g} ms"
    parser = program.parser("benchmarks.jobs", "jobs submitted and listed", SCHEMA, goals)
    parser.add_argument("--jobs", type=at_least(1), default=10_000, help="how many (%(default)s)")
    parser.add_argument("--folder", default=None, help="where the node keeps them; by default a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = asyncio.run(measure(options.jobs, folder))
    rates = f"{found['submitted_per_s']:g} submitted a second, {found['requests_per_s']:g} requests"
    lists = f"list of all: {found['ls_ms']} ms, a round trip of it {found['round_trip_ms']} ms"
    text = "\n".join((machine_line(found["machine"]), f"{found['jobs']} jobs: {rates}", lists))
    missed = []
    if found["submitted_per_s"] < PER_SECOND:
        missed.append(f"{found['submitted_per_s']:g} submitted a second, at least {PER_SECOND:g}")
    if found["beyond_ms"] > LIST_WITHIN:
        missed.append(f"a list takes {found['beyond_ms']} ms beyond its round trip, limit {LIST_WITHIN:g}")
    return program.conclude(found, options, text, missed)


if __name__ == "__main__":
    program.run(main)
