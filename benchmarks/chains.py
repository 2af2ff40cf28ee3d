"""Chains of node processes, bare and of zmesh, that the benchmarks start and measure side by side."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import zmq
import zmq.asyncio

LOCAL = "tcp://127.0.0.1:*"
STOP_TIMEOUT = 10.0
ROUTE_BYTES, HEAD_BYTES = 40, 80
MEGABYTE = 1_000_000

Kind = Literal["bare", "zmesh"]
BARE: Literal["bare"] = "bare"
MESH: Literal["zmesh"] = "zmesh"


class Machine(TypedDict):
    """Where it was measured; `load_before` is the load average of a minute when the run began."""

    cores: int | None
    system: str
    python: str
    pyzmq: str
    libzmq: str
    load_before: float


class Chain(NamedTuple):
    """A running chain: the name of the far end, the URL of the near one, and the process ids, the far end first."""

    far: str
    url: str
    pids: list[int]


async def serve(node: AbstractAsyncContextManager[str], name: str) -> None:
    """Run one node until standard input ends, which it does when the parent ends, however that comes about."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    async with node as url:
        print(json.dumps({"node": name, "url": url}), flush=True)
        await over.wait()


Answer = Callable[[zmq.asyncio.Socket], Coroutine[object, object, None]]


@asynccontextmanager
async def bare_node(peer: str | None, answer: Answer) -> AsyncIterator[str]:
    """A socket that `answer` talks on, or with `peer` two that pass all on, both ways; gives its URL."""

    async def pump(source: zmq.asyncio.Socket, target: zmq.asyncio.Socket) -> None:
        while True:
            await target.send_multipart(await source.recv_multipart())

    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as front:
        front.bind(LOCAL)
        with context.socket(zmq.DEALER) as back:
            if peer is None:
                pumps = [asyncio.create_task(answer(front))]
            else:
                back.connect(peer)
                pumps = [asyncio.create_task(pump(front, back)), asyncio.create_task(pump(back, front))]
            yield front.get_string(zmq.LAST_ENDPOINT)
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            front.linger = back.linger = 0


@contextmanager
def chain(module: str, kind: str, hops: int) -> Iterator[Chain]:
    """Start the far end and `hops` forwarders before it, each with `python -m MODULE --serve KIND`."""
    processes: list[subprocess.Popen[str]] = []
    names = [f"{kind}-{index}" for index in range(hops + 1)]
    peer: str | None = None
    try:
        for name in names:
            command = [sys.executable, "-m", module, "--serve", kind, "--name", name]
            process = subprocess.Popen(
                command + (["--peer", peer] if peer else []),
                cwd=Path(__file__).resolve().parent.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the process of {name} ended with status {process.wait()} before it was ready")
            peer = json.loads(line)["url"]
        assert peer is not None
        yield Chain(names[0], peer, [process.pid for process in processes])
    finally:
        for process in processes:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        for process in processes:
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def memory(pid: int, which: Literal["VmRSS", "VmHWM"]) -> int:
    """The bytes that a process has in memory now (VmRSS), or the most since `forget_peak` (VmHWM). Linux only."""
    found = re.search(rf"{which}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise RuntimeError(f"this system does not report the {which} of a process")
    return 1024 * int(found[1])


def forget_peak(pid: int) -> None:
    """Let the peak of a process's memory (VmHWM) begin anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def order(turn: int) -> tuple[Kind, Kind]:
    """Who goes first in this turn."""
    return (MESH, BARE) if turn % 2 else (BARE, MESH)


def machine(load_before: float) -> Machine:
    """The machine and the software, as results name them."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "pyzmq": zmq.__version__,
        "libzmq": zmq.zmq_version(),
        "load_before": round(load_before, 2),
    }


def machine_line(machine: Machine) -> str:
    """The machine in one line, for people."""
    software = ", ".join((machine["python"], f"pyzmq {machine['pyzmq']}", f"libzmq {machine['libzmq']}"))
    return f"{machine['cores']} cores, {machine['system']}, {software}, load before {machine['load_before']}"


def at_least(lowest: int) -> Callable[[str], int]:
    """Read a whole number that is not below `lowest`."""

    def number(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"must be {lowest} or more")
        return value

    return number


def add_serving(parser: argparse.ArgumentParser) -> None:
    """The options with which `chain` starts this program again, as a node."""
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--name", default="node", help=argparse.SUPPRESS)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
