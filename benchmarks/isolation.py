"""What a call of an isolated directive costs, beside the same call in a thread and beside a bare new interpreter.

    python -m benchmarks.isolation [--json] [--calls N]

The first call starts the fork server and is reported separately; of the others the median counts. The calls alternate,
so that whatever else the machine does meets all alike. The node asks itself, so no network is in it. `spawn` starts an
interpreter that imports zmesh, which is the least that a process without a fork server would have to do, and `fork`
forks one that has, from the standard library's forkserver.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import zmesh
from benchmarks.chains import machine, machine_line

SCHEMA = "zmesh.bench.isolation/1"


def nothing(work: zmesh.Work) -> None:
    """The directive that is called."""


def empty() -> None:
    """What the forkserver runs."""


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds that one call takes."""
    started = time.perf_counter()
    await call()
    return 1000 * (time.perf_counter() - started)


def spawn() -> None:
    """A new interpreter with zmesh, from its start to its end."""
    subprocess.run([sys.executable, "-c", "import zmesh"], check=True)


def fork() -> None:
    """A process of the standard library's forkserver, from its start to its end."""
    process = multiprocessing.get_context("forkserver").Process(target=empty)
    process.start()
    process.join()


async def measure(calls: int) -> dict[str, float]:
    """Milliseconds for each way, as medians, and for the first isolated call."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["zmesh"])
    node = zmesh.Controller(zmesh.Config(node_id="here"))
    node.register("bench:isolated", nothing, isolate=True)
    node.register("bench:thread", nothing)
    async with node:

        async def isolated() -> None:
            await node.request("here", "bench:isolated")

        async def threaded() -> None:
            await node.request("here", "bench:thread")

        times: dict[str, list[float]] = {"thread": [], "isolated": [], "fork": [], "spawn": []}
        first = await timed(isolated)
        fork()
        for _ in range(calls):
            times["thread"].append(await timed(threaded))
            times["isolated"].append(await timed(isolated))
            times["fork"].append(await timed(lambda: asyncio.to_thread(fork)))
            times["spawn"].append(await timed(lambda: asyncio.to_thread(spawn)))
    return {"first": first, **{name: statistics.median(found) for name, found in times.items()}}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.isolation", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--calls", type=int, default=100, help="calls of each kind (100)")
    options = parser.parse_args()
    where = machine(os.getloadavg()[0])
    found = asyncio.run(measure(options.calls))
    if options.json:
        rounded = {f"{name}_ms": round(value, 2) for name, value in found.items()}
        print(json.dumps({"schema": SCHEMA, **rounded, "calls": options.calls, "machine": where}))
        return 0
    print(machine_line(where))
    for name, label in (
        ("thread", "a call in a thread"),
        ("isolated", "an isolated call"),
        ("first", "the first isolated call"),
        ("fork", "a process of the forkserver"),
        ("spawn", "an interpreter with zmesh"),
    ):
        print(f"{label:28} {found[name]:8.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
