"""Six node processes in a ring, each pinging the one across every 50 ms: how long its pings miss when something fails.

    python -m benchmarks.outages [--fault death|hang|silence] [--json] [--check]

`death` kills a node, `hang` stops one (SIGSTOP), `silence` has a link pass nothing and stay open; each of the six in
turn. A gap is the longest time between two answers at any of the nodes whose pings may have gone that way, in heartbeat
intervals (1 s). With `--check` the exit status is 1 if a gap is longer than its limit: half an interval for a death,
which neighbours see at once, and three for what only silence shows (links are suspect after two).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import signal
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypedDict

from benchmarks import program
from zmesh.testing.process import Process
from zmesh.testing.proxy import Proxy

MODULE = "benchmarks.outages"
SCHEMA = "zmesh.bench.outages/1"
NODES = 6
HEARTBEAT = 1.0
LIMITS = {"death": 0.5, "hang": 3.0, "silence": 3.0}
FLOWING = 0.25
WATCHED = 1.0
LONG = 3.5
START_WITHIN = 120.0
PINGS = """
class Pings:
    def __init__(self):
        self.answers, self.lost, self.task = [], [], None

    async def start(self, mesh, target):
        await mesh.wait_for(target, timeout=120.0)
        self.task = asyncio.create_task(self.ping_on(mesh, target))

    async def ping_on(self, mesh, target):
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self.ping(mesh, target))
                await asyncio.sleep(0.05)

    async def ping(self, mesh, target):
        try:
            await mesh.ping_once(target, timeout=60.0)
        except zmesh.MeshError as error:
            self.lost.append(str(error))
        else:
            self.answers.append(time.monotonic())

    async def take(self):
        taken, self.answers, self.lost = (self.answers, self.lost), [], []
        return taken

async def state(mesh):
    return len(mesh.node.router.get_nodes()), [link.node for link in mesh.node.engine.links()]

async def expired(mesh):
    return mesh.node.telemetry.counts["expired"]

import time
pings = Pings()
"""


class Ring:
    """Node `n1` dials `n0`, and so on round to `n0`, which dials `n5`; with `proxied`, through a proxy each."""

    def __init__(self, *, proxied: bool = False) -> None:
        self.proxied = proxied
        self.nodes: list[Process] = []
        self.proxies: list[Proxy] = []
        self.urls: list[str] = []
        self.expired = 0
        self.lost: list[str] = []

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Start all nodes; returns when all pings are answered."""
        for number in range(NODES):
            self.nodes.append(await Process.begin(f"n{number}", more=PINGS, heartbeat=HEARTBEAT))
        if self.proxied:
            for node in self.nodes:
                self.proxies.append(await stack.enter_async_context(Proxy(node.listening[0])))
        self.urls = [(self.proxies[i].url if self.proxied else self.nodes[i].listening[0]) for i in range(NODES)]
        await asyncio.gather(*(self._link(number) for number in range(NODES)))
        await self.whole()
        await asyncio.gather(*(self._ping(number) for number in range(NODES)))
        await self.flows(range(NODES), time.monotonic())

    def close(self) -> None:
        """End all processes."""
        for node in self.nodes:
            node.process.send_signal(signal.SIGCONT)
            node.close()

    async def _link(self, number: int) -> None:
        await self.nodes[number].ask(f"asyncio.sleep(0, mesh.add_peer({self.urls[number - 1]!r}))")

    async def _ping(self, number: int) -> None:
        await self.nodes[number].ask(f"pings.start(mesh, 'n{(number + NODES // 2) % NODES}')")

    async def whole(self) -> None:
        """Wait until every link is up and every node has a route to every other."""
        for number, node in enumerate(self.nodes):
            beside = sorted(f"n{(number + step) % NODES}" for step in (-1, 1))
            async with asyncio.timeout(START_WITHIN):
                while True:
                    count, links = await node.ask("state(mesh)")
                    if count == NODES and sorted(links) == beside:
                        break
                    await asyncio.sleep(0.01)

    async def restart(self, number: int) -> None:
        """Start a node that was killed again, at its old address."""
        old = self.nodes[number]
        old.close()
        self.nodes[number] = await Process.begin(f"n{number}", more=PINGS, heartbeat=HEARTBEAT, listen=old.listening)
        await self._link(number)
        await self._ping(number)

    async def take(self, numbers: Iterable[int]) -> dict[int, list[float]]:
        """When these nodes received the answers to their pings since the last call."""
        taken = {}
        for number in numbers:
            taken[number], lost = await self.nodes[number].ask("pings.take()")
            self.lost += lost
        return taken

    async def flows(self, numbers: Iterable[int], since: float, at_least: float = 0.0) -> dict[int, list[float]]:
        """Wait until all these nodes' pings are answered, and have been for `at_least` seconds since `since`."""
        heard: dict[int, list[float]] = {number: [since] for number in numbers}
        async with asyncio.timeout(START_WITHIN):
            while True:
                before = {number: len(answers) for number, answers in heard.items()}
                for number, answers in (await self.take(heard)).items():
                    heard[number] += answers
                now = time.monotonic()
                fresh = all(
                    now - heard[number][-1] < FLOWING or len(heard[number]) > count > 1
                    for number, count in before.items()
                )
                if now >= since + at_least and fresh:
                    return heard
                await asyncio.sleep(0.02)

    async def count_expired(self, numbers: Iterable[int]) -> None:
        """Add up the frames that have used up their ttl at these nodes."""
        for number in numbers:
            self.expired += await self.nodes[number].ask("expired(mesh)")

    async def mend(self) -> None:
        """Wait until all is as it was before a fault."""
        await self.whole()
        await self.flows(range(NODES), time.monotonic())

    # -- faults, each with the gaps that it makes --------------------------------------------------------------------

    async def death(self, number: int) -> dict[int, float]:
        """Kill a node, and start it again."""
        await self.count_expired([number])
        await self.take(range(NODES))
        killed = time.monotonic()
        self.nodes[number].kill()
        felt = gaps(await self.flows(others(number), killed, WATCHED))
        await self.restart(number)
        await self.mend()
        return felt

    async def hang(self, number: int) -> dict[int, float]:
        """Stop a node, and let it go on; node 0 for so long that all have given it up."""
        await self.take(range(NODES))
        stopped = time.monotonic()
        self.nodes[number].process.send_signal(signal.SIGSTOP)
        try:
            felt = gaps(await self.flows(others(number), stopped, LONG if number == 0 else WATCHED))
        finally:
            self.nodes[number].process.send_signal(signal.SIGCONT)
        await self.mend()
        return felt

    async def silence(self, number: int) -> dict[int, float]:
        """Let nothing pass one link, which stays open, and mend it."""
        await self.take(range(NODES))
        cut = time.monotonic()
        self.proxies[number].swallow()
        felt = gaps(await self.flows(range(NODES), cut, WATCHED))
        self.proxies[number].heal()
        await self.mend()
        return felt


@contextlib.asynccontextmanager
async def ring(*, proxied: bool = False) -> AsyncIterator[Ring]:
    """A ring whose pings flow; all processes end with it."""
    async with contextlib.AsyncExitStack() as stack:
        started = Ring(proxied=proxied)
        stack.callback(started.close)
        await started.start(stack)
        yield started
        await started.count_expired(range(NODES))


def others(number: int) -> list[int]:
    """The nodes whose pings do not begin or end there."""
    return [i for i in range(NODES) if i % (NODES // 2) != number % (NODES // 2)]


def gaps(heard: dict[int, list[float]]) -> dict[int, float]:
    """The longest time without an answer in seconds, for each node that pings."""
    return {number: max(b - a for a, b in itertools.pairwise(answers)) for number, answers in heard.items()}


class Result(TypedDict):
    """What `--json` prints; `gaps` has the longest one of each repetition, in heartbeat intervals."""

    schema: str
    gaps: dict[str, list[float]]
    lost: int
    expired: int


async def measure(faults: Iterable[str]) -> Result:
    """Inject each fault at each of the six nodes or links in turn."""
    found: Result = {"schema": SCHEMA, "gaps": {}, "lost": 0, "expired": 0}
    for fault in faults:
        async with ring(proxied=fault == "silence") as mesh:
            felt = [await getattr(mesh, fault)(number) for number in range(NODES)]
        found["gaps"][fault] = [round(max(each.values()) / HEARTBEAT, 3) for each in felt]
        found["lost"] += len(mesh.lost)
        found["expired"] += mesh.expired
    return found


def main() -> int:
    """Measure, print, and with `--check` compare with the limits; the exit status."""
    parser = argparse.ArgumentParser(
        f"python -m {MODULE}", description="how long pings miss when a node or a link of a ring fails"
    )
    parser.add_argument("--json", action="store_true", help=f"print one object of schema {SCHEMA}")
    parser.add_argument("--fault", choices=LIMITS, action="append", help="only this one; may be repeated (all)")
    parser.add_argument("--check", action="store_true", help="exit 1 if a gap is longer than its limit")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.fault or LIMITS))
    if arguments.json:
        print(json.dumps(found))
    else:
        for fault, each in found["gaps"].items():
            print(f"{fault:8} longest gap in heartbeat intervals: {max(each):.2f} of at most {LIMITS[fault]}  {each}")
        print(f"{found['lost']} pings lost, {found['expired']} frames out of hops")
    too_long = any(max(each) > LIMITS[fault] for fault, each in found["gaps"].items())
    return int(arguments.check and (too_long or found["expired"] > 0))


if __name__ == "__main__":
    program.run(main)
