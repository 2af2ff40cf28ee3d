"""Work of all sorts in a mesh of node processes that are killed, stopped, cut off and restarted all the time.

    python -m benchmarks.chaos [--seconds 60] [--seed 0] [--json]

Seven nodes in a ring with chords, each a process of its own; each link is a proxy. Three clients, one of them
ephemeral, send echoes, transfers of up to 2 MB there and back, streams of replies, commands, work that fails, that
crashes, that never ends and that no node knows, to nodes that may be up or down or do not exist, with and without a
timeout, and cancel some of it. They copy files to nodes and back, and no file that is not whole may have its name. It
runs on the loop, in threads and in processes of its own. Meanwhile nodes die, hang, leave and come back, and links are
cut, closed, silent, silent one way, frozen, slow, or turn a bit over. In the end all is put right, and what is under
way must come to its end.

One of the clients also opens connections through the mesh (`chaos_tunnels`): what comes back over one is the beginning
of what was sent, and all of it if it has ended as it should. They count among `lost`, `wrong` and `unended`.

What befalls whom and when, and what each client sends in which order, follows from the seed; how the two meet depends
on the machine.

One of the clients leaves jobs as well, some of which may run again. It submits each until it is accepted, cancels some,
and asks for their states meanwhile. `lied` counts states that differ from what the machine did, as its nodes have
written it down: jobs that are said to be done and are not, that ran twice though they may not, that are said to run for
ever, or are not known any more.

Each send must end once. `lost` counts replies that are missing or not what the node gave, `duplicated` work that ran
twice (each node writes down what it runs before it runs it), replies that came twice and second endings,
`out_of_order` replies that changed places, `unended` what has not ended SETTLE_WITHIN seconds after the last fault,
`wrong` endings that nothing accounts for, and `left_behind` what the tables of clients and nodes still hold then. The
exit status is 1 if any of these is not 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

import zmesh
from benchmarks import program
from benchmarks.chains import LOCAL, Machine, at_least, machine, machine_line, serve
from benchmarks.chaos_jobs import Submitter, serve_jobs
from benchmarks.chaos_tunnels import ALLOW as TUNNELS
from benchmarks.chaos_tunnels import Connector, serve_tunnels
from benchmarks.cluster import Cluster, Edge, plan
from benchmarks.workload import Client, Verdict, judge, runs, serve_work
from zmesh.testing import eventually

MODULE = "benchmarks.chaos"
SCHEMA = "zmesh.bench.chaos/1"
NODES = [f"n{index}" for index in range(7)]
RING: list[Edge] = [(NODES[index], NODES[(index + 1) % 7]) for index in range(7)]
CHORDS: list[Edge] = [("n0", "n3"), ("n5", "n1"), ("n2", "n6")]
CLIENTS: dict[str, tuple[str, ...]] = {"client-0": ("n0", "n3"), "client-1": ("n2", "n5"), "client-2": ("n4", "n6")}
EPHEMERAL = "client-2"
HEARTBEAT = 0.4
ROUTE_TIMEOUT = 6.0
SETTLE_WITHIN = 40.0
NUMBERS = 1_000_000
POLL = 0.1
ENDINGS = ("eof", "error", "cancelled", "timed_out")
FAILURES = ("lost", "duplicated", "out_of_order", "unended", "wrong", "left_behind", "lied")


class Result(TypedDict):
    """What `--json` prints."""

    schema: str
    seconds: float
    seed: int
    sent: int
    eof: int
    error: int
    cancelled: int
    timed_out: int
    lost: int
    duplicated: int
    out_of_order: int
    unended: int
    wrong: int
    left_behind: int
    jobs: int
    lied: int
    ran: int
    reasons: dict[str, int]
    faults: dict[str, int]
    starts: int
    latest_s: float
    complaints: list[str]
    machine: Machine


def config(name: str, allow: Mapping[str, Sequence[str]] = MappingProxyType({}), **more: Any) -> zmesh.Config:
    """The settings of all nodes."""
    return zmesh.Config(
        node_id=name, heartbeat=HEARTBEAT, route_timeout=ROUTE_TIMEOUT, allow={**TUNNELS, **allow}, **more
    )


@asynccontextmanager
async def node(name: str, peers: list[str], folder: Path) -> AsyncIterator[str]:
    """One node of the mesh; gives its URL."""
    allow = {"file:*": ["*"], "exec:run": ["*"], "job:*": ["*"]}
    plugins = {"exec": {"directory": str(folder)}, "job": {"folder": str(folder / f"{name}.jobs")}}
    mesh = zmesh.Controller(config(name, listen=(LOCAL,), peers=peers, allow=allow, plugins=plugins))
    serve_work(mesh, folder / f"{name}.runs")
    serve_jobs(mesh, folder / f"{name}.did")
    async with mesh, serve_tunnels(mesh):
        yield mesh.listening[0]


def command(folder: Path, name: str, peers: list[str]) -> list[str]:
    """The words that start a node."""
    words = [sys.executable, "-m", MODULE, "--serve", name, "--folder", str(folder)]
    return words + [word for peer in peers for word in ("--peer", peer)]


async def run(seconds: float, seed: int) -> Result:
    """All of it, as one object."""
    load_before = os.getloadavg()[0]
    edges = [*RING, *CHORDS, *((name, host) for name, hosts in CLIENTS.items() for host in hosts)]
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zmesh-chaos-")))
        cluster = Cluster(NODES, edges, lambda name, peers: command(folder, name, peers))
        await stack.enter_async_context(cluster)
        clients = []
        for index, (name, hosts) in enumerate(CLIENTS.items()):
            peers = [cluster.proxies[name, host].url for host in hosts]
            mesh = zmesh.Controller(config(name, peers=peers, ephemeral=name == EPHEMERAL))
            await stack.enter_async_context(mesh)
            clients.append(Client(mesh, seed * 100 + index, NODES, (index + 1) * NUMBERS, folder))
        note("waiting until all know all ...")
        await asyncio.gather(*(met(client.mesh) for client in clients))
        note(f"{seconds:g} s of chaos ...")
        connector = Connector(clients[1].mesh, seed, NODES)
        submitter = Submitter(clients[0].mesh, seed, NODES)
        work = [asyncio.create_task(client.work(seconds)) for client in (*clients, connector, submitter)]
        await cluster.suffer(plan(seed, seconds, NODES, edges))
        await asyncio.gather(*work)
        note("putting all right ...")
        await cluster.mend()
        for client in clients:
            client.stop_waiting()
        with contextlib.suppress(AssertionError):
            await eventually(lambda: not any(client.under_way() for client in clients), SETTLE_WITHIN)
        await connector.settle(SETTLE_WITHIN)
        lies = await submitter.lies(folder, SETTLE_WITHIN)
        left = await left_behind(clients)
        everything = [sent for client in clients for sent in client.sent]
        counted = runs(folder)
        verdict = judge(everything, counted, cluster.leavers)
        connector.judge(verdict)
        starts = sum(process.starts for process in cluster.processes.values())
        faults = dict(sorted(cluster.injected.items()))
    note(f"{len(connector.tunnels)} connections, {connector.whole} of them whole")
    verdict.complaints.extend(lies)
    found = result(seconds, seed, len(everything), verdict, left, counted.total(), faults, starts, machine(load_before))
    return {**found, "jobs": len(submitter.jobs), "lied": len(lies)}


async def met(mesh: zmesh.Controller) -> None:
    """Return when every node answers."""
    for name in NODES:
        await mesh.ping_once(name, timeout=SETTLE_WITHIN)


async def left_behind(clients: list[Client]) -> int:
    """How many exchanges the clients and the nodes still hold, when they have had the time to forget them."""
    mesh = clients[0].mesh

    async def held() -> int:
        await asyncio.sleep(POLL)
        count = sum(client.mesh.node.engine.stats()["requests_made"] for client in clients)
        for name in NODES:
            try:
                answer = await mesh.request(name, "chaos:left", timeout=SETTLE_WITHIN)
            except zmesh.ExchangeError as error:
                note(f"{name} does not say what is left: {error}")
                count += 1
            else:
                count += int(answer.json()) if answer is not None else 0
        return count

    until = time.monotonic() + SETTLE_WITHIN
    while (count := await held()) and time.monotonic() < until:
        pass
    return count


def result(
    seconds: float,
    seed: int,
    sent: int,
    verdict: Verdict,
    left: int,
    ran: int,
    faults: dict[str, int],
    starts: int,
    where: Machine,
) -> Result:
    """One object of all that was counted."""
    return {
        "schema": SCHEMA,
        "seconds": seconds,
        "seed": seed,
        "sent": sent,
        "eof": verdict.eof,
        "error": verdict.error,
        "cancelled": verdict.cancelled,
        "timed_out": verdict.timed_out,
        "lost": verdict.lost,
        "duplicated": verdict.duplicated,
        "out_of_order": verdict.out_of_order,
        "unended": verdict.unended,
        "wrong": verdict.wrong,
        "left_behind": left,
        "jobs": 0,
        "lied": 0,
        "ran": ran,
        "reasons": dict(sorted(verdict.reasons.items())),
        "faults": faults,
        "starts": starts,
        "latest_s": verdict.latest_s,
        "complaints": verdict.complaints,
        "machine": where,
    }


def note(text: str) -> None:
    """Say what goes on."""
    print(text, file=sys.stderr)


def table(found: Result) -> str:
    """The result for people."""
    lines = [f"{found['sent']} sends in {found['seconds']:g} s of chaos, seed {found['seed']}; {found['ran']} ran"]
    lines[0] += f"; {found['jobs']} jobs"
    counts = dict(found.items())
    for names in (ENDINGS, FAILURES):
        lines.append(", ".join(f"{name} {counts[name]}" for name in names))
    lines.append("ended as: " + ", ".join(f"{name} {count}" for name, count in found["reasons"].items()))
    lines.append("befell them: " + ", ".join(f"{name} {count}" for name, count in found["faults"].items()))
    lines.append(f"{found['starts']} starts of nodes; latest ending {found['latest_s']} s past its timeout")
    return "\n".join([*lines, *found["complaints"], machine_line(found["machine"])])


def main() -> int:
    """Run and print; the exit status."""
    parser = argparse.ArgumentParser(f"python -m {MODULE}", description="work in a mesh that falls apart all the time")
    parser.add_argument("--json", action="store_true", help=f"print one object of schema {SCHEMA}")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it goes on (60)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="what befalls whom and when follows from it (0)")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--peer", action="append", default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        logging.disable(logging.WARNING)  # work that fails, as it was requested to
        asyncio.run(serve(node(arguments.serve, arguments.peer, arguments.folder), arguments.serve))
        return 0
    found = asyncio.run(run(arguments.seconds, arguments.seed))
    print(json.dumps(found) if arguments.json else table(found))
    counts = dict(found.items())
    return 1 if any(counts[name] for name in FAILURES) else 0


if __name__ == "__main__":
    program.run(main)
