"""Instructions that a request costs, counted by valgrind: the steadiest measure of a busy machine.

    python -m benchmarks.instructions [--json] [--check] [--size 64]

A chain of three (client, forwarder, server) runs in one process over inproc://, once for each kind: of zmesh nodes, of
`zmq.asyncio` loops that await `recv_multipart` and `send_multipart` on three parts (`bare`), and of the loops of
`benchmarks.floor`, with one part and with three. Each runs twice under `valgrind --tool=callgrind`, with FEW and with
MANY requests, one in flight. The difference, divided by that of the counts, is what a request costs, without the start;
it counts Python, pyzmq and libzmq with its I/O threads. Processor time of the kernel is not in it.

Under valgrind a request takes 50 to 200 times as long as otherwise, by the load of the machine, and what goes by the
clock (probes, acks that are delayed by 20 ms) would come so much more often for each. So the clock of the loop and of
the nodes runs SLOWDOWN times slower.

With `--check` the exit status is 1 if zmesh takes more than LIMIT of what `bare` does. Needs valgrind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypedDict

import zmq
import zmq.asyncio

import zmesh
from benchmarks.chains import HEAD_BYTES, ROUTE_BYTES, Machine, at_least, machine, machine_line
from benchmarks.floor import Forwarder, Socket

SCHEMA = "zmesh.bench.instructions/1"
LIMIT = 0.55
"""What zmesh holds; it is meant to reach 0.45."""

FEW, MANY = 100, 600
WARM_UP = 20
SLOWDOWN = 100
ECHO = "bench:echo"


class Result(TypedDict):
    """Instructions a request by kind, and zmesh's share of the bare chain's."""

    schema: str
    size_bytes: int
    instructions: dict[str, int]
    ratio: float
    limit: float
    machine: Machine


# -- the chains: each makes its requests in a process of its own ------------------------------------------------------


async def run_mesh(count: int, size: int) -> None:
    """A chain of three zmesh nodes."""

    async def echo(work: zmesh.Work) -> bytes:
        return work.payload.readall()

    payload = os.urandom(size)
    far = zmesh.Controller(zmesh.Config(node_id="far", listen=["inproc://far"]))
    far.register(ECHO, echo)
    middle = zmesh.Controller(zmesh.Config(node_id="middle", listen=["inproc://middle"], peers=["inproc://far"]))
    async with far, middle, zmesh.Controller(zmesh.Config(node_id="near", peers=["inproc://middle"])) as near:
        await near.node.reachable("far", timeout=60)
        for _ in range(WARM_UP + count):
            await near.request("far", ECHO, payload)


async def run_bare(count: int, size: int) -> None:
    """Loops of zmq.asyncio, on as many parts as a message of three has."""

    async def pump(source: zmq.asyncio.Socket, target: zmq.asyncio.Socket) -> None:
        while True:
            await target.send_multipart(await source.recv_multipart())

    frames = [os.urandom(ROUTE_BYTES), os.urandom(HEAD_BYTES), os.urandom(size)]
    with zmq.asyncio.Context() as context:
        near, front, back, far = (context.socket(zmq.DEALER) for _ in range(4))
        front.bind("inproc://middle")
        near.connect("inproc://middle")
        far.bind("inproc://far")
        back.connect("inproc://far")
        pumps = [asyncio.create_task(pump(*ends)) for ends in ((front, back), (back, front), (far, far))]
        for _ in range(WARM_UP + count):
            await near.send_multipart(frames)
            await near.recv_multipart()
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for sock in (near, front, back, far):
            sock.close(0)


async def run_floor(count: int, size: int, parts: int) -> None:
    """The loops of `benchmarks.floor`."""
    whole = os.urandom(ROUTE_BYTES + HEAD_BYTES + size)
    frames = [whole] if parts == 1 else [whole[:ROUTE_BYTES], whole[ROUTE_BYTES:-size], whole[-size:]]
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[None]

    def on_message(_: list[bytes]) -> None:
        answered.set_result(None)

    with zmq.Context() as context:
        far = Socket(context, lambda message: far.send(message))
        far.socket.bind("inproc://far")
        middle = Forwarder(context, "inproc://middle", "inproc://far")
        near = Socket(context, on_message)
        near.socket.connect("inproc://middle")
        for sock in (far, near):
            sock.start()
        for _ in range(WARM_UP + count):
            answered = loop.create_future()
            near.send(frames)
            await answered
        for each in (near, middle, far):
            each.close()


KINDS: dict[str, Callable[[int, int], Awaitable[None]]] = {
    "zmesh": run_mesh,
    "bare": run_bare,
    "floor": lambda count, size: run_floor(count, size, 1),
    "floor, three parts": lambda count, size: run_floor(count, size, 3),
}


# -- counting ---------------------------------------------------------------------------------------------------------


def slow_down_clock() -> None:
    """Have the loop's and the nodes' clock run SLOWDOWN times slower."""
    monotonic = time.monotonic
    began = monotonic()
    time.monotonic = lambda: began + (monotonic() - began) / SLOWDOWN


def count_instructions(kind: str, requests: int, size: int) -> int:
    """The instructions of a whole run."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-m", __spec__.name]
    words = ["--serve", kind, "--requests", str(requests), "--size", str(size)]
    settings = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False, env=settings, cwd=root)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"{kind} under valgrind ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return int(found[1])


def measure(kinds: list[str], size: int) -> Result:
    """Count each kind."""
    began = os.getloadavg()[0]
    found: dict[str, int] = {}
    for kind in kinds:
        print(f"{kind} ...", file=sys.stderr)
        few, many = (count_instructions(kind, requests, size) for requests in (FEW, MANY))
        found[kind] = round((many - few) / (MANY - FEW))
    ratio = round(found["zmesh"] / found["bare"], 3) if {"zmesh", "bare"} <= found.keys() else 0.0
    return {
        "schema": SCHEMA,
        "size_bytes": size,
        "instructions": found,
        "ratio": ratio,
        "limit": LIMIT,
        "machine": machine(began),
    }


def main() -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description="instructions a request")
    parser.add_argument("--json", action="store_true", help=f"print one object of schema {SCHEMA}")
    parser.add_argument("--check", action="store_true", help=f"status 1 if zmesh takes more than {LIMIT} of bare")
    parser.add_argument("--size", type=at_least(1), default=64, help="bytes of payload (%(default)s)")
    parser.add_argument("--kind", choices=sorted(KINDS), action="append", help="this one only; may be repeated")
    parser.add_argument("--serve", choices=sorted(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=at_least(1), default=FEW, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        slow_down_clock()
        asyncio.run(KINDS[options.serve](options.requests, options.size))  # type: ignore[arg-type]
        return 0
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed (Debian: apt install valgrind)")
    result = measure(options.kind or list(KINDS), options.size)
    if options.json:
        print(json.dumps(result))
    else:
        bare = result["instructions"].get("bare")
        for kind, count in result["instructions"].items():
            share = f"  {count / bare:.2f} of bare" if bare else ""
            print(f"{kind:<20} {count / 1e6:>6.3f} million instructions a request{share}")
        print(machine_line(result["machine"]))
    return 1 if options.check and result["ratio"] > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
