"""Output of commands at another node while its link is cut: every byte, and then the exit code.

    python -m benchmarks.remote_cuts [--json] [--check] [--bytes 1000000000] [--times 1000] [--every 20000000]

Two nodes in one process, with a proxy on the link between them, which cuts all connections whenever so many bytes have
passed, every other time by a reset. First one command puts out `bytes` and exits with 7, then one that puts out a
megabyte and exits with 7 is run `times`, four at a time. `wrong` counts outputs that are not what was put out, byte by
byte, and exit codes other than 7.

With `--check` the exit status is 1 if anything is wrong, or if no link was cut.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypedDict

import zmesh
from benchmarks.chains import Machine, at_least, machine, machine_line
from zmesh.testing.proxy import Proxy

SCHEMA = "zmesh.bench.remote_cuts/1"
MEGABYTE = 1_000_000
AT_A_TIME = 4
CODE = 7
LINE = b"x" * 79 + b"\n"
POLL = 0.005


class Result(TypedDict):
    """What was put out, how often the link was cut meanwhile, and how long it took."""

    schema: str
    bytes: int
    seconds: float
    times: int
    times_seconds: float
    cuts: int
    wrong: int
    machine: Machine


def node(name: str, *peers: str) -> zmesh.Controller:
    """A node that runs commands for all."""
    return zmesh.Controller(
        node_id=name, listen=["tcp://127.0.0.1:*"], peers=list(peers), heartbeat=0.5, allow={"exec:run": ["*"]}
    )


async def is_whole(desk: zmesh.Controller, size: int) -> bool:
    """Whether a command that puts out so many bytes at the other node does so here, and exits as it does there."""
    at = 0
    script = f"yes '{LINE[:-1].decode()}' | head -c {size}; exit {CODE}"
    async with desk.run("edge", ["sh", "-c", script]) as process:
        async for _, data in process.output():
            begin = at % len(LINE)
            if data != (LINE * (len(data) // len(LINE) + 2))[begin : begin + len(data)]:
                return False
            at += len(data)
        return at == size and process.returncode == CODE


async def cutting(proxy: Proxy, every: int, work: Awaitable[int]) -> tuple[int, int]:
    """Cut the link again and again until the work is done: what it has come to, and the cuts."""
    task = asyncio.ensure_future(work)
    cuts, passed = 0, proxy.back.passed
    while not task.done():
        if proxy.back.passed > passed + every:
            proxy.cut(reset=cuts % 2 == 0)
            cuts, passed = cuts + 1, proxy.back.passed
        await asyncio.wait((task,), timeout=POLL)
    return task.result(), cuts


async def measure(size: int, times: int, every: int) -> Result:
    """All of it."""
    where = machine(os.getloadavg()[0])
    async with node("edge") as edge, Proxy(edge.listening[0]) as proxy, node("desk", proxy.url) as desk:
        await desk.wait_for("edge")

        async def once() -> int:
            return int(not await is_whole(desk, size))

        async def many() -> int:
            left = iter(range(times))

            async def one_after_the_other() -> int:
                return sum([int(not await is_whole(desk, MEGABYTE)) for _ in left])

            return sum(await asyncio.gather(*(one_after_the_other() for _ in range(AT_A_TIME))))

        wrong = cuts = 0
        took = []
        parts: tuple[Callable[[], Awaitable[int]], ...] = (once, many)
        for part in parts:
            began = time.perf_counter()
            more_wrong, more_cuts = await cutting(proxy, every, part())
            took.append(round(time.perf_counter() - began, 1))
            wrong, cuts = wrong + more_wrong, cuts + more_cuts
    return {
        "schema": SCHEMA,
        "bytes": size,
        "seconds": took[0],
        "times": times,
        "times_seconds": took[1],
        "cuts": cuts,
        "wrong": wrong,
        "machine": where,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remote_cuts", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--check", action="store_true", help="status 1 if anything is wrong")
    parser.add_argument("--bytes", type=at_least(1), default=1_000_000_000, help="of the first command (%(default)s)")
    parser.add_argument("--times", type=at_least(1), default=1000, help="commands of a megabyte (%(default)s)")
    parser.add_argument("--every", type=at_least(1), default=20_000_000, help="bytes from cut to cut (%(default)s)")
    options = parser.parse_args()
    found = asyncio.run(measure(options.bytes, options.times, options.every))
    if options.json:
        print(json.dumps(found))
    else:
        print(machine_line(found["machine"]))
        print(f"{found['bytes']:,} bytes in {found['seconds']} s, then a megabyte {found['times']} times in", end=" ")
        print(f"{found['times_seconds']} s; {found['cuts']} cuts, {found['wrong']} wrong")
    return 1 if options.check and (found["wrong"] or not found["cuts"]) else 0


if __name__ == "__main__":
    sys.exit(main())
