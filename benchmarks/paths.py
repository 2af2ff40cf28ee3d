"""Transfers over a path of 200 Mbit/s and a long round trip, and pings beside them.

    python -m benchmarks.paths [--rounds 3] [--json] [--check]

Two nodes with a proxy between them that delays and throttles. `filled` is the part of the path's rate that a payload of
63 MB takes up from its first byte to its answer, at a delay of 25 and of 50 ms each way, `replies` the same for
replies, and `beside` the longest ping during a transfer, in those of an idle path. With `--check` the exit status is 1
if the median of the rounds is outside its limit: 0.8 and 0.7 of the rate at least, and 5 idle pings at most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

import zmesh
from benchmarks import program
from benchmarks.chains import Machine, at_least, machine, machine_line
from zmesh.testing import Mesh
from zmesh.testing.proxy import Proxy

MODULE = "benchmarks.paths"
SCHEMA = "zmesh.bench.paths/1"
RATE = 25e6
"""200 Mbit/s, in bytes a second."""
PIECE = 256 * 1024
COUNT = 240
AT_LEAST = {"filled_25_ms": 0.8, "filled_50_ms": 0.8, "replies": 0.7}
AT_MOST = {"beside": 5.0}


class Result(TypedDict):
    """What `--json` prints; `found` has each figure's rounds."""

    schema: str
    machine: Machine
    found: dict[str, list[float]]


async def _pieces(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes((number % 251,)) * PIECE


async def _take(work: zmesh.Work) -> str:
    size = 0
    async for chunk in work.payload:
        size += len(chunk)
    return str(size)


async def _give(work: zmesh.Work) -> AsyncIterator[bytes]:
    async for piece in _pieces(COUNT // 2):
        yield piece


@asynccontextmanager
async def _path(delay: float) -> AsyncIterator[zmesh.Controller]:
    """Node `a`, linked to `b` over such a path."""
    async with Mesh("a", "b", tcp=True) as mesh, Proxy(mesh["b"].listening[0]) as proxy:
        mesh["b"].register("test:take", _take, stream=True)
        mesh["b"].register("test:give", _give)
        mesh["a"].add_peer(proxy.url)
        await mesh.settle()
        proxy.slow(delay=delay, rate=RATE)
        yield mesh["a"]


async def _filled(delay: float) -> float:
    async with _path(delay) as a:
        began = time.perf_counter()
        await a.request("b", "test:take", _pieces(COUNT))
        return COUNT * PIECE / (time.perf_counter() - began) / RATE


async def _replies() -> float:
    async with _path(0.025) as a:
        began = time.perf_counter()
        size = 0
        async for reply in a.stream("b", "test:give").send():
            size += len(reply.payload)
        return size / (time.perf_counter() - began) / RATE


async def _beside() -> float:
    async with _path(0.025) as a:
        idle = [(await a.ping_once("b")).rtt for _ in range(10)]
        transfer = asyncio.ensure_future(_transfer(a))
        beside = []
        while not transfer.done():
            beside.append((await a.ping_once("b")).rtt)
        await transfer
        return max(beside) / max(idle)


async def _transfer(a: zmesh.Controller) -> None:
    await a.request("b", "test:take", _pieces(COUNT))


async def measure(rounds: int) -> Result:
    """All figures, one after the other, so many times."""
    load_before = os.getloadavg()[0]
    found: dict[str, list[float]] = {name: [] for name in (*AT_LEAST, *AT_MOST)}
    for _ in range(rounds):
        found["filled_25_ms"].append(await _filled(0.025))
        found["filled_50_ms"].append(await _filled(0.05))
        found["replies"].append(await _replies())
        found["beside"].append(await _beside())
    return {
        "schema": SCHEMA,
        "machine": machine(load_before),
        "found": {name: [round(value, 3) for value in values] for name, values in found.items()},
    }


def main() -> int:
    """Measure, print, and with `--check` compare with the limits; the exit status."""
    parser = argparse.ArgumentParser(f"python -m {MODULE}", description="transfers over a long and narrow path")
    parser.add_argument("--json", action="store_true", help=f"print one object of schema {SCHEMA}")
    parser.add_argument("--rounds", type=at_least(1), default=3, help="how often each figure is measured (3)")
    parser.add_argument("--check", action="store_true", help="exit 1 if a median is outside its limit")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.rounds))
    medians = {name: statistics.median(values) for name, values in found["found"].items()}
    if arguments.json:
        print(json.dumps(found))
    else:
        print(machine_line(found["machine"]))
        for name, median in medians.items():
            limit = f"at least {AT_LEAST[name]}" if name in AT_LEAST else f"at most {AT_MOST[name]}"
            print(f"{name:14} {median:5.2f} ({limit})  {found['found'][name]}")
    good = all(medians[name] >= limit for name, limit in AT_LEAST.items()) and all(
        medians[name] <= limit for name, limit in AT_MOST.items()
    )
    return int(arguments.check and not good)


if __name__ == "__main__":
    program.run(main)
