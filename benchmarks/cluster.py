"""Node processes in a mesh whose links are proxies, and what may befall them, from a seed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from zmesh.testing.proxy import Proxy

START_WITHIN = 60.0
STOP_WITHIN = 10.0
FAULT_EVERY = 0.4
LONGEST = 3.0
FLIP_WITHIN = 50_000
ROOT = Path(__file__).resolve().parent.parent
NODE_FAULTS = ("kill", "kill", "stop", "leave")
LINK_FAULTS = ("cut", "down", "silent", "half_open", "frozen", "slow", "flip")

Edge = tuple[str, str]
"""Who dials, and who listens."""


class Fault(NamedTuple):
    """What befalls whom, `at` so many seconds after the beginning and for `seconds`."""

    at: float
    kind: str
    target: str | Edge
    seconds: float
    extent: float


def plan(seed: int, seconds: float, nodes: Sequence[str], edges: Sequence[Edge]) -> list[Fault]:
    """What happens within so many seconds; the same for the same seed."""
    rng = random.Random(seed)
    faults: list[Fault] = []
    at = 0.0
    while (at := at + rng.expovariate(1 / FAULT_EVERY)) < seconds:
        on_node = rng.random() < 0.35
        kind = rng.choice(NODE_FAULTS if on_node else LINK_FAULTS)
        target = rng.choice(nodes) if on_node else rng.choice(edges)
        faults.append(Fault(at, kind, target, rng.uniform(0.05, LONGEST), rng.random()))
    return faults


class Process:
    """One node: its process, while there is one, and how it is started."""

    def __init__(self, name: str, command: list[str], aim: Callable[[str], None]) -> None:
        self.name = name
        self.starts = 0
        self._command = command
        self._aim = aim
        self._process: asyncio.subprocess.Process | None = None
        self._busy = asyncio.Lock()

    async def start(self) -> None:
        """Start it, if it does not run; returns when it listens, and its proxies lead there."""
        async with self._busy:
            if self._process is not None:
                return
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(*self._command, cwd=ROOT, stdin=pipe, stdout=pipe)
            self._process = process
            self.starts += 1
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), START_WITHIN)
            if not line:
                raise RuntimeError(f"the process of {self.name} ended with status {await process.wait()}")
            self._aim(json.loads(line)["url"])

    async def end(self, *, politely: bool) -> None:
        """Kill it, if it runs, or have it leave as a node does on SIGTERM."""
        async with self._busy:
            process, self._process = self._process, None
            if process is None:
                return
            self._signal(process, signal.SIGCONT)
            if politely and process.stdin is not None:
                process.stdin.close()
            else:
                self._signal(process, signal.SIGKILL)
            try:
                await asyncio.wait_for(process.wait(), STOP_WITHIN)
            except TimeoutError:
                self._signal(process, signal.SIGKILL)
                await process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None:
            self._signal(self._process, number)

    def _signal(self, process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)


class Cluster:
    """Processes by name and a proxy for each link; `async with` starts and ends all of them.

    `command` gives the words that start a node of that name with those peers. A program outside of the cluster that
    dials one of `edges` finds the URL of its proxy in `proxies`.
    """

    def __init__(
        self, nodes: Sequence[str], edges: Sequence[Edge], command: Callable[[str, list[str]], list[str]]
    ) -> None:
        self.edges = list(edges)
        self.proxies = {edge: Proxy("tcp://127.0.0.1:1") for edge in edges}
        self.injected: Counter[str] = Counter()
        self.leavers: set[str] = set()
        """The nodes that have left, and cancelled what they were working on."""
        self._names = list(nodes)
        self._command = command
        self.processes: dict[str, Process] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self.close)
            for proxy in self.proxies.values():
                await proxy.open()
            for name in self._names:
                peers = [proxy.url for (dialler, _), proxy in self.proxies.items() if dialler == name]
                self.processes[name] = Process(name, self._command(name, peers), self._aims(name))
            await asyncio.gather(*(process.start() for process in self.processes.values()))
            undo.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all processes and proxies."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await asyncio.gather(*(process.end(politely=False) for process in self.processes.values()))
        for proxy in self.proxies.values():
            await proxy.close()

    async def suffer(self, faults: Sequence[Fault]) -> None:
        """Let all of it happen, each at its time; what is under way then goes on."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for fault in faults:
            await asyncio.sleep(max(0.0, began + fault.at - loop.time()))
            self.injected[fault.kind] += 1
            one_node = isinstance(fault.target, str)
            task = loop.create_task(self._befall_node(fault) if one_node else self._befall_link(fault))
            self._under_way.add(task)
            task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)

    async def mend(self) -> None:
        """Put all right again: everybody runs, and every link is as good as new. Raises what went wrong meanwhile."""
        await asyncio.gather(*self._under_way)
        if self._failures:
            raise self._failures[0]
        for proxy in self.proxies.values():
            proxy.heal()
        for process in self.processes.values():
            process.send(signal.SIGCONT)
            await process.start()

    def _aims(self, name: str) -> Callable[[str], None]:
        def aim(url: str) -> None:
            for (_, listener), proxy in self.proxies.items():
                if listener == name:
                    proxy.aim(url)

        return aim

    async def _befall_node(self, fault: Fault) -> None:
        process = self.processes[str(fault.target)]
        if fault.kind == "stop":
            process.send(signal.SIGSTOP)
            await asyncio.sleep(fault.seconds)
            process.send(signal.SIGCONT)
        else:
            if fault.kind == "leave":
                self.leavers.add(process.name)
            await process.end(politely=fault.kind == "leave")
            await asyncio.sleep(fault.seconds)
            await process.start()

    async def _befall_link(self, fault: Fault) -> None:
        assert not isinstance(fault.target, str)
        proxy = self.proxies[fault.target]
        lane = proxy.lanes[fault.extent < 0.5]
        match fault.kind:
            case "cut":
                proxy.cut(reset=fault.extent < 0.5)
                return
            case "flip":
                lane.flip(int(FLIP_WITHIN * math.modf(2 * fault.extent)[0]))
                return
            case "down":
                proxy.refusing = True
                proxy.cut()
            case "silent":
                proxy.swallow()
            case "half_open":
                lane.dead = True
            case "frozen":
                proxy.freeze()
            case "slow":
                proxy.slow(delay=0.1 * fault.extent, rate=200_000 + 2_000_000 * fault.extent)
        await asyncio.sleep(fault.seconds)
        proxy.heal()
