"""Six node processes in a ring, each pinging the one across every 50 ms, and what the pings feel of each fault."""

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Iterable

import pytest

from zmesh.core.links import DOUBT
from zmesh.testing.proxy import Proxy

NODES = 6
DEATH, SILENCE = 0.5, 3.0
LONG = 3.5
FLOWING = 0.25
WATCHED = 1.0
PINGS = """
class Pings:
    def __init__(self):
        self.answers, self.lost, self.task = [], [], None

    async def start(self, mesh, target):
        await mesh.node.reachable(target, timeout=20.0)
        self.task = asyncio.create_task(self.ping_on(mesh, target))

    async def ping_on(self, mesh, target):
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self.ping(mesh, target))
                await asyncio.sleep(0.05)

    async def ping(self, mesh, target):
        try:
            await mesh.ping_once(target, timeout=10.0)
        except zmesh.MeshError as error:
            self.lost.append(str(error))
        else:
            self.answers.append(time.monotonic())

    async def take(self):
        taken, self.answers, self.lost = (self.answers, self.lost), [], []
        return taken

async def state(mesh):
    return len(mesh.node.router.get_nodes()), [link.node for link in mesh.node.engine.links.up()]

async def expired(mesh):
    return mesh.node.telemetry.counts["expired"]

import time
pings = Pings()
"""


class Ring:
    """Node `n1` dials `n0`, and so on round to `n0`, which dials `n5`; with `proxied`, through a proxy each."""

    def __init__(self, process, *, proxied: bool) -> None:
        self.process = process
        self.proxied = proxied
        self.nodes = []
        self.proxies: list[Proxy] = []
        self.expired = 0
        self.lost: list[str] = []

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        for number in range(NODES):
            self.nodes.append(await self.process(f"n{number}", more=PINGS))
        if self.proxied:
            for node in self.nodes:
                self.proxies.append(await stack.enter_async_context(Proxy(node.listening[0])))
        self.urls = [(self.proxies[i].url if self.proxied else self.nodes[i].listening[0]) for i in range(NODES)]
        await asyncio.gather(*(self.link(number) for number in range(NODES)))
        await self.whole()
        await asyncio.gather(*(self.ping(number) for number in range(NODES)))
        await self.flows(range(NODES), time.monotonic())

    async def link(self, number: int) -> None:
        await self.nodes[number].ask(f"asyncio.sleep(0, mesh.add_peer({self.urls[number - 1]!r}))")

    async def ping(self, number: int) -> None:
        await self.nodes[number].ask(f"pings.start(mesh, 'n{(number + NODES // 2) % NODES}')")

    async def whole(self) -> None:
        """Wait until every link is up and everybody knows everybody."""
        for number, node in enumerate(self.nodes):
            beside = sorted(f"n{(number + step) % NODES}" for step in (-1, 1))
            async with asyncio.timeout(20.0):
                while True:
                    count, links = await node.ask("state(mesh)")
                    if count == NODES and sorted(links) == beside:
                        break
                    await asyncio.sleep(0.01)

    async def restart(self, number: int) -> None:
        old = self.nodes[number]
        self.nodes[number] = await self.process(f"n{number}", more=PINGS, listen=old.listening)
        await self.link(number)
        await self.ping(number)

    async def take(self, numbers: Iterable[int]) -> dict[int, list[float]]:
        """When these nodes heard the answers to their pings since they were asked last."""
        taken = {}
        for number in numbers:
            taken[number], lost = await self.nodes[number].ask("pings.take()")
            self.lost += lost
        return taken

    async def flows(self, numbers: Iterable[int], since: float, at_least: float = 0.0) -> dict[int, list[float]]:
        """Wait until all these nodes' pings are answered, and have been for `at_least` seconds since then."""
        heard: dict[int, list[float]] = {number: [since] for number in numbers}
        async with asyncio.timeout(20.0):
            while True:
                for number, answers in (await self.take(heard)).items():
                    heard[number] += answers
                now = time.monotonic()
                if now >= since + at_least and all(now - answers[-1] < FLOWING for answers in heard.values()):
                    return heard
                await asyncio.sleep(0.02)

    async def count_expired(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.expired += await self.nodes[number].ask("expired(mesh)")


def others(number: int) -> list[int]:
    """The nodes whose pings do not begin or end there."""
    return [i for i in range(NODES) if i % (NODES // 2) != number % (NODES // 2)]


def gaps(heard: dict[int, list[float]]) -> dict[int, float]:
    """The longest time without an answer, for each node that pings."""
    return {number: max(b - a for a, b in itertools.pairwise(answers)) for number, answers in heard.items()}


@pytest.fixture
async def ring(process) -> AsyncIterator:
    """`await ring(proxied=...)` starts one; at the end no frame may have used up its ttl."""
    async with contextlib.AsyncExitStack() as stack:
        started: list[Ring] = []

        async def start(*, proxied: bool) -> Ring:
            started.append(Ring(process, proxied=proxied))
            await started[0].start(stack)
            return started[0]

        yield start
        await started[0].count_expired(range(NODES))
        assert started[0].expired == 0


@pytest.mark.timeout(90)
async def test_when_a_node_dies_the_pings_that_went_through_it_miss_half_a_second_at_most(ring):
    mesh = await ring(proxied=False)
    felt = []
    for number in range(NODES):
        watched = others(number)
        await mesh.count_expired([number])
        await mesh.take(range(NODES))
        killed = time.monotonic()
        mesh.nodes[number].kill()
        felt.append(gaps(await mesh.flows(watched, killed, WATCHED)))
        await mesh.restart(number)
        await mesh.whole()
        await mesh.flows(range(NODES), time.monotonic())
    assert max(max(each.values()) for each in felt) <= DEATH


@pytest.mark.timeout(90)
async def test_when_a_node_hangs_the_pings_that_went_through_it_miss_three_seconds_at_most(ring):
    mesh = await ring(proxied=False)
    felt = []
    for number in range(NODES):
        watched = others(number)
        await mesh.take(range(NODES))
        stopped = time.monotonic()
        mesh.nodes[number].process.send_signal(signal.SIGSTOP)
        try:
            felt.append(gaps(await mesh.flows(watched, stopped, LONG if number == 0 else WATCHED)))
        finally:
            mesh.nodes[number].process.send_signal(signal.SIGCONT)
        await mesh.whole()
        await mesh.flows(range(NODES), time.monotonic())
    longest = [max(each.values()) for each in felt]
    assert max(longest) <= SILENCE, felt
    assert max(longest) > DOUBT / 2  # or no ping ever went that way


@pytest.mark.timeout(90)
async def test_when_a_link_falls_silent_the_pings_that_went_over_it_miss_three_seconds_at_most(ring):
    mesh = await ring(proxied=True)
    felt = []
    for proxy in mesh.proxies:
        await mesh.take(range(NODES))
        cut = time.monotonic()
        proxy.swallow()
        felt.append(gaps(await mesh.flows(range(NODES), cut, WATCHED)))
        proxy.heal()
        await mesh.whole()
        await mesh.flows(range(NODES), time.monotonic())
    longest = [max(each.values()) for each in felt]
    assert max(longest) <= SILENCE, felt
    assert max(longest) > DOUBT / 2  # or no ping ever went that way
