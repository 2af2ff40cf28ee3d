"""The time that commands take from the start of their process to its end, beside programs that only import libraries.

    python -m benchmarks.startup [--json] [--check] [--rounds R]

`bare` imports ZeroMQ, asyncio and Typer, which every command needs, and ends. `ping`, `send` and `routes` send requests
to a node on loopback. `typer` imports Typer alone, which `version` (`zmesh --version`) needs. `controller` imports
zmesh and loads the class Controller, `zmq` imports ZeroMQ; `created` makes a Controller, with the whole node in it, and
`libraries` imports what it stands on: asyncio, MessagePack and ZeroMQ. These are compared less `python`, an idle
interpreter.
All take turns, so that the load of the machine meets all alike, and with their modules compiled.

Medians are given of the time by the clock, of which the round trips of a command are a part, and of processor time. The
ratio of a program to the one that it is compared with is that of the latter, which depends least on the load.

With `--check` the exit status is 1 if a ratio is above its limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict

import zmesh
from benchmarks.chains import at_least, machine, machine_line

SCHEMA = "zmesh.bench.startup/1"
NODE = "here"
BARE, TYPER, PYTHON, ZMQ, LIBRARIES = "bare", "typer", "python", "zmq", "libraries"
PROGRAMS = {
    BARE: (sys.executable, "-P", "-c", "import asyncio, typer, zmq"),
    "ping": (sys.executable, "-P", "-m", "zmesh_cli", "ping", NODE, "-c", "1"),
    "send": (sys.executable, "-P", "-m", "zmesh_cli", "send", NODE, "echo:echo", "x"),
    "routes": (sys.executable, "-P", "-m", "zmesh_cli", "routes", NODE),
    TYPER: (sys.executable, "-P", "-c", "import typer"),
    "version": (sys.executable, "-P", "-m", "zmesh_cli", "--version"),
    PYTHON: (sys.executable, "-P", "-c", "pass"),
    ZMQ: (sys.executable, "-P", "-c", "import zmq"),
    "controller": (sys.executable, "-P", "-c", "import zmesh; zmesh.Controller"),
    LIBRARIES: (sys.executable, "-P", "-c", "import asyncio, msgpack, zmq"),
    "created": (sys.executable, "-P", "-c", "import zmesh; zmesh.Controller(node_id='x', identity=None)"),
}
LIMITS = {
    "ping": (BARE, 3.0),
    "send": (BARE, 3.0),
    "routes": (BARE, 3.0),
    "version": (TYPER, 1.5),
    "controller": (ZMQ, 2.5),
    "created": (LIBRARIES, 3.0),
}
"""For a program, the one that it is compared with, and the highest ratio that `--check` lets pass."""
BEYOND = {"controller", "created"}
"""Programs that are compared less the time of `python`."""


def run(program: tuple[str, ...], environment: dict[str, str]) -> tuple[float, float]:
    """Run a program to its end: milliseconds by the clock, and of processor time."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL, env=environment)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * took, 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


async def measure(rounds: int) -> dict[str, dict[str, float]]:
    """For each program, the medians of both in milliseconds, and its ratio to the one that it is compared with."""
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        async with zmesh.Controller(node_id=NODE, listen=["tcp://127.0.0.1:*"]) as node:
            environment["ZMESH_PEER"] = node.listening[0]
            for turn in range(rounds + 1):
                for name, program in PROGRAMS.items():
                    took = await asyncio.to_thread(run, program, environment)
                    if turn:  # the first one compiles what has not been imported before
                        times[name].append(took)
    medians = {
        name: [statistics.median(column) for column in zip(*found, strict=True)] for name, found in times.items()
    }
    return {
        name: {
            "clock_ms": round(clock, 1),
            "cpu_ms": round(cpu, 1),
            "ratio": round(ratio(name, {name: cpu for name, (_, cpu) in medians.items()}), 2),
        }
        for name, (clock, cpu) in medians.items()
    }


def ratio(name: str, cpu: dict[str, float]) -> float:
    """The processor time of a program, by that of the one that it is compared with."""
    base = cpu[PYTHON] if name in BEYOND else 0.0
    return (cpu[name] - base) / (cpu[LIMITS[name][0] if name in LIMITS else name] - base)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--check", action="store_true", help="fail if a ratio is above its limit")
    parser.add_argument("--rounds", type=at_least(1), default=20, help="how often each is run (%(default)s)")
    options = parser.parse_args()
    where = machine(os.getloadavg()[0])
    found = asyncio.run(measure(options.rounds))
    if options.json:
        limits = {name: limit for name, (_, limit) in LIMITS.items()}
        print(json.dumps({"schema": SCHEMA, "programs": found, "limits": limits, "machine": where}))
    else:
        print(machine_line(where))
        for name, row in found.items():
            of = f", {row['ratio']:.2f} x {LIMITS[name][0]}" if name in LIMITS else ""
            print(f"{name:10} {row['clock_ms']:7.1f} ms, {row['cpu_ms']:7.1f} ms of processor time{of}")
    return 1 if options.check and any(found[name]["ratio"] > limit for name, (_, limit) in LIMITS.items()) else 0


if __name__ == "__main__":
    sys.exit(main())
