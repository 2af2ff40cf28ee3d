"""Commands at other nodes: one beside a ping, one at many nodes, and beside `ssh` where there is a server to reach.
Copies of files, beside a digest, scp and rsync (`copies.py`).

    python -m benchmarks.remote [--json] [--check] [--nodes 100] [--rounds 10] [--mib 512] [--ssh HOST]

Each node is a process of `zmesh node` on loopback, linked to the hub. `ping` is `zmesh ping NODE -c 1`, `run` is
`zmesh run NODE -- true`, and both take turns, so that the load of the machine meets both alike; medians by the clock
are given, of the whole process of the command. `all` is `zmesh run --all -- true`, from the start of its process to
its end: a command at every node, the hub among them. With `--ssh` HOST, `ssh HOST true` takes turns with them, over a
master connection if the configuration of ssh keeps one.

With `--check` the exit status is 1 if `run` takes more than LIMIT times as long as `ping`, or `all` longer than
ALL_WITHIN seconds, or if a copy to the hub or from it has less than `copies.LIMIT` of the rate of `digest:sha256`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

from benchmarks import copies
from benchmarks.chains import Machine, at_least, machine, machine_line

SCHEMA = "zmesh.bench.remote/1"
LIMIT = 2.0
ALL_WITHIN = 3.0
COMMAND = (sys.executable, "-P", "-m", "zmesh_cli")
START_TOGETHER = 8
SETTLE_WITHIN = 120.0
ALLOW = '{"exec:run": ["*"], "file:*": ["*"]}'


class Result(TypedDict):
    """One measurement, in milliseconds and seconds; `ssh_ms` is None without a host."""

    schema: str
    nodes: int
    ping_ms: float
    run_ms: float
    ratio: float
    all_s: float
    ssh_ms: float | None
    copies: copies.Copies
    machine: Machine


def start(*words: str) -> subprocess.Popen[bytes]:
    """Start a node process."""
    return subprocess.Popen(
        [*COMMAND, "node", "--json", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "ZMESH_ALLOW": ALLOW},
    )


def url_of(process: subprocess.Popen[bytes]) -> str:
    """Wait until a node is ready; where it listens, "" if it does not."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a node ended with status {process.wait()}")
    return str(next(iter(json.loads(line)["listening"]), ""))


@contextmanager
def star(nodes: int) -> Iterator[dict[str, str]]:
    """A hub and `nodes` - 1 others around it, each in a process; the environment for commands."""
    processes = [start("--id", "hub", "--listen", "tcp://127.0.0.1:*")]
    try:
        url = url_of(processes[0])
        for first in range(1, nodes, START_TOGETHER):
            batch = [start("--id", f"n{n}", "--peer", url) for n in range(first, min(nodes, first + START_TOGETHER))]
            processes += batch
            for process in batch:
                url_of(process)
        environment = {**os.environ, "ZMESH_PEER": url}
        wait_for(nodes, environment)
        yield environment
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.communicate()


def wait_for(nodes: int, environment: dict[str, str]) -> None:
    """Wait until the hub knows so many nodes."""
    until = time.monotonic() + SETTLE_WITHIN
    while time.monotonic() < until:
        listed = subprocess.run([*COMMAND, "nodes", "--json"], env=environment, stdout=subprocess.PIPE, check=True)
        if listed.stdout.count(b"\n") == nodes:
            return
    raise RuntimeError(f"the hub does not know {nodes} nodes after {SETTLE_WITHIN:g} s")


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Seconds from the start of a command to its end."""
    began = time.perf_counter()
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    return time.perf_counter() - began


def measure(nodes: int, rounds: int, mib: int, host: str | None) -> Result:
    """Medians of all."""
    where = machine(os.getloadavg()[0])
    one = "n1" if nodes > 1 else "hub"
    programs = {
        "ping": [*COMMAND, "ping", one, "-c", "1"],
        "run": [*COMMAND, "run", one, "--", "true"],
        "all": [*COMMAND, "run", "--all", "--", "true"],
        **({"ssh": ["ssh", host, "true"]} if host else {}),
    }
    times: dict[str, list[float]] = defaultdict(list)
    with star(nodes) as environment:
        for turn in range(rounds + 1):
            for name, program in programs.items():
                took = timed(program, environment)
                if turn:  # the first command at a node starts the process that supervises commands there
                    times[name].append(took)
        copied = copies.measure("hub", environment, mib, min(rounds, 5), host)
    medians = {name: statistics.median(found) for name, found in times.items()}
    return {
        "schema": SCHEMA,
        "nodes": nodes,
        "ping_ms": round(1000 * medians["ping"], 1),
        "run_ms": round(1000 * medians["run"], 1),
        "ratio": round(medians["run"] / medians["ping"], 2),
        "all_s": round(medians["all"], 2),
        "ssh_ms": round(1000 * medians["ssh"], 1) if host else None,
        "copies": copied,
        "machine": where,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remote", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--check", action="store_true", help="status 1 if a limit is passed")
    parser.add_argument("--nodes", type=at_least(1), default=100, help="node processes (%(default)s)")
    parser.add_argument("--rounds", type=at_least(1), default=10, help="how often each is run (%(default)s)")
    parser.add_argument("--mib", type=at_least(1), default=512, help="MiB of the file that is copied (%(default)s)")
    parser.add_argument("--ssh", metavar="HOST", help="a host to which ssh leads, to be measured beside them")
    options = parser.parse_args()
    found = measure(options.nodes, options.rounds, options.mib, options.ssh)
    if options.json:
        print(json.dumps(found))
    else:
        print(machine_line(found["machine"]))
        print(f"ping {found['ping_ms']:.1f} ms, run {found['run_ms']:.1f} ms: {found['ratio']:.2f} times as long")
        print(f"run at all of {found['nodes']} nodes: {found['all_s']:.2f} s")
        if found["ssh_ms"] is not None:
            print(f"ssh {found['ssh_ms']:.1f} ms")
        print("\n".join(copies.lines(found["copies"])))
    slowest = min(found["copies"]["to_share"], found["copies"]["from_share"])
    fails = found["ratio"] > LIMIT or found["all_s"] > ALL_WITHIN or slowest < copies.LIMIT
    return 1 if options.check and fails else 0


if __name__ == "__main__":
    sys.exit(main())
