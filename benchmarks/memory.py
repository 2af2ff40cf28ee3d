"""The memory of an idle `zmesh node`, beside an interpreter that has only imported asyncio and ZeroMQ.

    python -m benchmarks.memory [--json] [--check] [--rounds R]

Each round starts both. The node listens on TCP loopback and is measured (VmRSS) when it has answered a ping and its
client has left; the other program when it has imported what it imports. Medians are given, in bytes, and their ratio.
`node-busy` is the same node after it has echoed REQUESTS requests of 64 KiB, which shows what it keeps of them.

With `--check` the exit status is 1 if the ratio of the idle node is above LIMIT. Linux only.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

import zmesh
from benchmarks import program
from benchmarks.chains import Machine, at_least, machine, machine_line, memory

SCHEMA = "zmesh.bench.memory/1"
LIMIT = 2.0
NODE = "here"
REQUESTS = 500
BARE, IDLE, BUSY = "bare", "node", "node-busy"
IMPORTS = "import asyncio, sys, zmq; print('listens on nothing', flush=True); sys.stdin.read()"
COMMANDS = {
    BARE: (sys.executable, "-P", "-c", IMPORTS),
    IDLE: (sys.executable, "-P", "-m", "zmesh_cli", "node", "--id", NODE, "--listen", "tcp://127.0.0.1:*"),
}


class Result(TypedDict):
    """What `--json` prints; `ratio` is that of the idle node to `bare`."""

    schema: str
    rounds: int
    limit: float
    bytes: dict[str, int]
    ratio: float
    machine: Machine


@contextmanager
def started(program: str) -> Iterator[tuple[int, str]]:
    """Run a program until the block ends: its process id, and the URL in the line that says that it listens."""
    process = subprocess.Popen(
        COMMANDS[program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if "listens on" in line), None)
        if line is None:
            raise RuntimeError(f"{program} has ended with {process.wait()} before it listened")
        yield process.pid, line.split("listens on ")[1].split(";")[0].strip()
    finally:
        process.kill()
        process.communicate()


async def use(url: str, requests: int) -> None:
    """Ping the node, and send it requests."""
    async with zmesh.Controller(node_id="client", peers=[url]) as mesh:
        await mesh.ping_once(NODE)
        for _ in range(requests):
            await mesh.request(NODE, "echo:echo", bytes(65_536))


def measure(rounds: int) -> Result:
    """All of it, as one object."""
    began = os.getloadavg()[0]
    found: dict[str, list[int]] = defaultdict(list)
    for _ in range(rounds):
        with started(BARE) as (pid, _):
            found[BARE].append(memory(pid, "VmRSS"))
        with started(IDLE) as (pid, url):
            asyncio.run(use(url, 0))
            found[IDLE].append(memory(pid, "VmRSS"))
            asyncio.run(use(url, REQUESTS))
            found[BUSY].append(memory(pid, "VmRSS"))
    medians = {program: round(statistics.median(sizes)) for program, sizes in found.items()}
    return {
        "schema": SCHEMA,
        "rounds": rounds,
        "limit": LIMIT,
        "bytes": medians,
        "ratio": round(medians[IDLE] / medians[BARE], 3),
        "machine": machine(began),
    }


def table(result: Result) -> str:
    """The result for people."""
    lines = [f"resident memory of a process, medians of {result['rounds']}", ""]
    lines += [f"{program:<10} {size / 1e6:>7.1f} MB" for program, size in result["bytes"].items()]
    lines += ["", f"an idle node: {result['ratio']:.2f} of the bare program", machine_line(result["machine"])]
    return "\n".join(lines)


def main() -> int:
    """Measure and print; the exit status."""
    parser = program.parser("benchmarks.memory", "the memory of a node", SCHEMA, f"the ratio exceeds {LIMIT}")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="processes of each kind (5)")
    arguments = parser.parse_args()
    result = measure(arguments.rounds)
    ratio = result["ratio"]
    missed = [f"{ratio:.2f} of the memory of the bare program, limit {LIMIT}"] if ratio > LIMIT else []
    return program.conclude(result, arguments, table(result), missed)


if __name__ == "__main__":
    program.run(main)
