"""A great many requests over forwarders, of which so many are under way at a time, and what the nodes keep of them.

    python -m benchmarks.requests [--json] [--count 100000] [--outstanding 1000] [--hops 2]

All nodes are in this process, so that all their tables can be looked at, and are linked over TCP loopback. Every answer
is compared with its request. Afterwards, once nodes have forgotten each other (PEER_IDLE_TIMEOUT seconds after the last
exchange), every table of every engine must be empty: `left` names what is not. The exit status is 1 if an answer is
missing or wrong, or if anything is left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from typing import TypedDict

import zmesh
from benchmarks.chains import Machine, at_least, machine, machine_line
from zmesh.core.delivery import PEER_IDLE_TIMEOUT, PROBE_INTERVAL
from zmesh.testing import Mesh, eventually

MODULE = "benchmarks.requests"
SCHEMA = "zmesh.bench.requests/1"
SLACK = 5.0


class Result(TypedDict):
    """What `--json` prints; `left` has for each node the tables that are not empty."""

    schema: str
    count: int
    outstanding: int
    hops: int
    answered: int
    seconds: float
    per_second: float
    left: dict[str, dict[str, int]]
    machine: Machine


def tables(node: zmesh.Controller) -> dict[str, int]:
    """What a node's tables hold of requests. AssertionError if they contradict each other."""
    engine = node.node.engine
    engine.check()
    queued = engine.forwarding.queued_bytes
    held = {**engine.stats(), "queued_bytes": queued, "work": len(node.node.serving)}
    return {name: number for name, number in held.items() if number}


async def send(mesh: Mesh, far: str, count: int, outstanding: int) -> int:
    """Send that many requests, so many at a time; how many were answered as they must be."""
    numbers = iter(range(count))
    answered = 0

    async def one_after_the_other() -> None:
        nonlocal answered
        for number in numbers:
            payload = f"number {number}"
            answer = await mesh["caller"].request(far, "echo:echo", payload)
            answered += answer is not None and answer.text() == payload

    await asyncio.gather(*(one_after_the_other() for _ in range(outstanding)))
    return answered


async def measure(count: int, outstanding: int, hops: int) -> Result:
    """All of it, as one object."""
    load_before = os.getloadavg()[0]
    names = ["caller", *(f"forwarder-{index}" for index in range(hops)), "callee"]
    async with Mesh.chain(*names, tcp=True) as mesh:
        started = time.perf_counter()
        answered = await send(mesh, "callee", count, outstanding)
        seconds = time.perf_counter() - started
        left = {name: tables(mesh[name]) for name in names}
        try:
            await eventually(
                lambda: not any(tables(mesh[name]) for name in names), PEER_IDLE_TIMEOUT + 2 * PROBE_INTERVAL + SLACK
            )
        except AssertionError:
            left = {name: held for name in names if (held := tables(mesh[name]))}
        else:
            left = {}
    return {
        "schema": SCHEMA,
        "count": count,
        "outstanding": outstanding,
        "hops": hops,
        "answered": answered,
        "seconds": round(seconds, 2),
        "per_second": round(count / seconds, 1),
        "left": left,
        "machine": machine(load_before),
    }


def table(found: Result) -> str:
    """The result for people."""
    left = "; ".join(f"{name}: {held}" for name, held in found["left"].items()) or "nothing"
    answered = f"{found['answered']} of {found['count']} requests, {found['outstanding']} at a time"
    return "\n".join(
        [
            f"{answered}, were answered over {found['hops']} forwarders",
            f"{found['seconds']} s, {found['per_second']} a second, all nodes in one process",
            f"left in the tables of the nodes: {left}",
            machine_line(found["machine"]),
        ]
    )


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(
        f"python -m {MODULE}", description="a great many requests, and what is kept of them"
    )
    parser.add_argument("--json", action="store_true", help=f"print one object of schema {SCHEMA}")
    parser.add_argument("--count", type=at_least(1), default=100_000, help="how many requests (100000)")
    parser.add_argument("--outstanding", type=at_least(1), default=1_000, help="how many at a time (1000)")
    parser.add_argument("--hops", type=at_least(0), default=2, help="forwarding nodes (2)")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.count, arguments.outstanding, arguments.hops))
    print(json.dumps(found) if arguments.json else table(found))
    return 1 if found["left"] or found["answered"] != found["count"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
