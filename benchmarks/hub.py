"""How much of a core an idle hub takes: one node with many neighbours over TCP on loopback, at the default heartbeat.

    python -m benchmarks.hub [--json] [--check] [--neighbours 500] [--seconds 20] [--processes 2]

This process is the hub. The neighbours are real nodes, shared out over other processes, and each knows all the others
by way of the hub. Once no route has come or gone for a while, nothing is sent but probes and their answers (four frames
a second for each link) and what links cost now, should their round trips change; and the processor time of the hub's process, ZeroMQ's thread included, is taken over `--seconds`.

With `--check` the exit status is 1 if that is more than LIMIT of a core, or if a link was lost meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import socket
import sys
import time
from typing import TypedDict

import zmesh

SCHEMA = "zmesh.bench.hub/1"
LIMIT = 0.10
SETTLED = 5.0
START_TIMEOUT = 300.0
POLL = 0.05


class Result(TypedDict):
    """One measurement. `share` of a core, in the hub's process; `lost` counts links."""

    schema: str
    neighbours: int
    seconds: float
    cpu_s: float
    share: float
    lost: int
    settle_s: float
    peak_rss_mb: float


async def serve(url: str, first: int, count: int) -> None:
    """Be `count` neighbours of the hub until stdin ends."""
    nodes = [zmesh.Controller(zmesh.Config(node_id=f"n{first + i}", peers=[url])) for i in range(count)]
    try:
        await asyncio.gather(*(node.open() for node in nodes))
        print("dialling", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await asyncio.gather(*(node.close() for node in nodes))


async def measure(neighbours: int, seconds: float, processes: int) -> Result:
    """Start all, wait until no route of the hub has come or gone for a while, and watch it do nothing.

    The neighbours dial before the hub listens, so that they come all at once, and its record is not told for each.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    children = []
    try:
        for number in range(processes):
            first, end = number * neighbours // processes, (number + 1) * neighbours // processes
            words = ("-m", "benchmarks.hub", "--serve", url, str(first), str(end - first))
            pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
            children.append(await asyncio.create_subprocess_exec(sys.executable, *words, **pipes))
        for child in children:
            await asyncio.wait_for(child.stdout.readline(), START_TIMEOUT)
        async with zmesh.Controller(zmesh.Config(node_id="hub", listen=[url])) as hub:
            began = time.monotonic()
            async with asyncio.timeout(START_TIMEOUT):
                await _settle(hub, neighbours)
            settled = time.monotonic() - began
            lost = hub.node.telemetry.counts["link_lost"]
            cpu, start = time.process_time(), time.monotonic()
            await asyncio.sleep(seconds)
            cpu, took = time.process_time() - cpu, time.monotonic() - start
            lost = hub.node.telemetry.counts["link_lost"] - lost
    finally:
        for child in children:
            child.stdin.close()
        await asyncio.gather(*(child.wait() for child in children))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Result(
        schema=SCHEMA,
        neighbours=neighbours,
        seconds=round(took, 2),
        cpu_s=round(cpu, 3),
        share=round(cpu / took, 4),
        lost=lost,
        settle_s=round(settled, 1),
        peak_rss_mb=round(peak, 1),
    )


async def _settle(hub: zmesh.Controller, neighbours: int) -> None:
    engine = hub.node.engine
    while True:
        await asyncio.sleep(POLL)
        if engine.settled(time.monotonic()) > SETTLED and len(engine.records.known()) == neighbours + 1:
            return


def main() -> int:
    """Measure once and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hub", description=__doc__.partition("\n")[0])
    parser.add_argument("--neighbours", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long it is watched (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="that the neighbours share (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one object instead of a line of text")
    parser.add_argument("--check", action="store_true", help=f"fail above {LIMIT:.0%} of a core")
    parser.add_argument("--serve", nargs=3, metavar=("URL", "FIRST", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve[0], int(options.serve[1]), int(options.serve[2])))
        return 0
    result = asyncio.run(measure(options.neighbours, options.seconds, options.processes))
    if options.json:
        print(json.dumps(result))
    else:
        print(
            f"{result['share']:.1%} of a core for {result['neighbours']} idle neighbours "
            f"({result['cpu_s']} s in {result['seconds']} s), {result['lost']} links lost"
        )
    return 1 if options.check and (result["share"] > LIMIT or result["lost"]) else 0


if __name__ == "__main__":
    sys.exit(main())
