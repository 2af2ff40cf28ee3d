"""The round trip of a small request through zmesh.sync, beside the same through the controller for asyncio.

    python -m benchmarks.blocking [--json] [--check] [--requests N] [--rounds R]

Both ask the same node, which runs in a loop of its own in another thread, over TCP on loopback. Short rounds of the two
take turns. What zmesh.sync adds is the way into the thread of its loop and back.

With `--check` the exit status is 1 if the median of zmesh.sync is more than LIMIT times the other one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time

import zmesh
import zmesh.sync
from benchmarks.chains import at_least, machine, machine_line

SCHEMA = "zmesh.bench.blocking/1"
LIMIT = 3.0
NODE = "here"
ECHO = "echo:echo"


def blocking(mesh: zmesh.sync.Controller, requests: int) -> list[float]:
    """The times of so many requests, one after the other, in microseconds."""
    times = []
    for _ in range(requests):
        began = time.perf_counter()
        mesh.request(NODE, ECHO, b"x")
        times.append(1e6 * (time.perf_counter() - began))
    return times


async def awaiting(mesh: zmesh.Controller, requests: int) -> list[float]:
    """The same for the controller for asyncio."""
    times = []
    for _ in range(requests):
        began = time.perf_counter()
        await mesh.request(NODE, ECHO, b"x")
        times.append(1e6 * (time.perf_counter() - began))
    return times


def measure(requests: int, rounds: int) -> tuple[float, float]:
    """The medians of both, in microseconds: zmesh.sync, and asyncio."""
    ours: list[float] = []
    theirs: list[float] = []
    with zmesh.sync.Controller(zmesh.Config(node_id=NODE, listen=["tcp://127.0.0.1:*"])) as node:
        url = node.listening[0]
        with zmesh.sync.Controller(zmesh.Config(peers=[url])) as mesh, asyncio.Runner() as runner:
            other = zmesh.Controller(zmesh.Config(peers=[url]))
            runner.run(other.open())
            for turn in range(rounds + 1):
                found = blocking(mesh, requests), runner.run(awaiting(other, requests))
                if turn:  # the first one only warms up
                    ours += found[0]
                    theirs += found[1]
            runner.run(other.close())
    return statistics.median(ours), statistics.median(theirs)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blocking", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--check", action="store_true", help=f"fail above {LIMIT} times")
    parser.add_argument("--requests", type=at_least(1), default=200, help="in each round (%(default)s)")
    parser.add_argument("--rounds", type=at_least(1), default=10, help="of each (%(default)s)")
    options = parser.parse_args()
    where = machine(os.getloadavg()[0])
    ours, theirs = measure(options.requests, options.rounds)
    ratio = ours / theirs
    if options.json:
        row = {"sync_us": round(ours, 1), "asyncio_us": round(theirs, 1), "ratio": round(ratio, 2)}
        print(json.dumps({"schema": SCHEMA, **row, "limit": LIMIT, "machine": where}))
    else:
        print(machine_line(where))
        print(f"zmesh.sync {ours:.0f} us, asyncio {theirs:.0f} us, {ratio:.2f} x")
    return 1 if options.check and ratio > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
