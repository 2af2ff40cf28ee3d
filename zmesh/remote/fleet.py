"""One command at many nodes: bounded concurrency, canaries first, and an end after a number of failures.

A node that fails, can't be reached or takes too long delays none of the others. Each node has an Outcome, also one
where the command was not started.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeAlias

from zmesh.arguments import check_timeout, shown
from zmesh.errors import CommandFailed, ConfigError, MeshError, Overloaded, TimedOut, Unreachable
from zmesh.remote.remote_process import Starting, check_stdin, failed
from zmesh.runtime import described_timeout

MAX_OUTPUT = 16 * 1024 * 1024
"""Bytes of output of one node that an Outcome holds; one with more is stopped."""

LOOK_AGAIN = 0.1
"""Seconds between checks whether a route leads to the nodes at which it is to be started."""
LINE = 400
"""Bytes of output, from its end, in which the last line is looked for."""

OnOutput: TypeAlias = "Callable[[str, int, bytes], Awaitable[None]]"
Start: TypeAlias = Callable[[str], Starting]


class State(StrEnum):
    """The state of the command at one node."""

    DONE = "done"
    """It has exited with 0."""
    FAILED = "failed"
    """It has exited with another code, could not be executed, or was refused by the node."""
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed out"
    STOPPED = "stopped"
    """It ran when all was stopped."""
    NOT_STARTED = "not started"


WRONG = frozenset((State.FAILED, State.UNREACHABLE, State.TIMED_OUT))
"""The states that count for `stop_after`, and of which a canary may have none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of the command at one node.

    `returncode` is its exit code, or minus the signal that killed it; None if there is none. `stdout` and `stderr` are
    its output, empty if `on_output` was given. `error` is the error that ended it, and `seconds` how long it took.
    """

    node: str
    state: State
    returncode: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    error: MeshError | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a fleet command, as FleetOptions has them. Raises ConfigError for a malformed number.

    A node that can't be reached waits for its route beside the `max_parallel` others; with canaries and `stop_after`
    it is one of them, because it decides whether the next may be started.
    """

    max_parallel: int = 50
    canary: int = 0
    stop_after: int | str | None = None
    per_node_timeout: float | None = None

    def __post_init__(self) -> None:
        if not _is_whole(self.max_parallel, 1):
            raise ConfigError(f"max_parallel must be a whole number, 1 or more, not {shown(self.max_parallel)}")
        if not _is_whole(self.canary, 0):
            raise ConfigError(f"canary must be a whole number, 0 or more, not {shown(self.canary)}")
        seconds = self.per_node_timeout
        check_timeout(seconds, "per_node_timeout")
        if seconds is not None and not seconds:
            raise ConfigError(f"per_node_timeout must be a number of seconds above 0, not {seconds!r}")
        self.limit(1)

    def limit(self, count: int) -> float:
        """How many of `count` nodes may go wrong before no more are started. Raises ConfigError."""
        given = self.stop_after
        if given is None:
            return math.inf
        if _is_whole(given, 1):
            return float(min(given, 1 << 53))
        found = re.fullmatch(r"(\d{1,9})(%?)", given) if isinstance(given, str) else None
        if found is None or int(found[1]) < 1 or (found[2] and int(found[1]) > 100):
            raise ConfigError(f"stop_after must be a number of nodes or a share such as 5%, not {shown(given)}")
        return max(1, math.ceil(count * int(found[1]) / 100)) if found[2] else int(found[1])


RULES = tuple(field.name for field in fields(Rules))


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


class Outcomes(ABC):
    """The result of `run_many` and `copy_many`: an async iterator of the Outcome of each node, in order of arrival.

    Nothing is started before the first one is asked for. Leaving an `async with` block, and cancelling the task that
    waits, stops what runs; the block ends when all has ended.
    """

    def __init__(self, nodes: Iterable[str], rules: Rules) -> None:
        self._waiting = deque(dict.fromkeys(nodes))
        self._rules = rules
        self._limit = rules.limit(len(self._waiting))
        self._canaries = rules.canary
        self._running: dict[asyncio.Task[Outcome], str] = {}
        self._given_up: dict[str, Unreachable] = {}
        self._streams: dict[str, dict[int, bytearray]] = {}
        """The output that has come so far of the nodes at which it runs, by stream."""
        self._wrong = 0
        self._starts_none = False

    @property
    def running(self) -> list[str]:
        """The nodes at which it runs now."""
        return list(self._running.values())

    def last_line(self, node: str) -> str:
        """The last line of output so far of a node at which it runs; "" if there is none, or `on_output` takes it."""
        for stream in self._streams.get(node, {}).values():
            if text := bytes(stream[-LINE:]).decode(errors="replace").rstrip():
                return text.rpartition("\n")[2]
        return ""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        self._fill()
        if not self._running:
            if not self._waiting:
                raise StopAsyncIteration
            return Outcome(self._waiting.popleft(), State.NOT_STARTED)
        try:
            while not (await self._wait())[0]:
                self._fill()
        except asyncio.CancelledError:
            self.stop()
            raise
        task = next(task for task in self._running if task.done())
        node = self._running.pop(task)
        if task.cancelled():  # before its first step
            return Outcome(node, State.NOT_STARTED)
        outcome = task.result()
        self._canaries -= 1
        if outcome.state in WRONG:
            self._wrong += 1
            if self._canaries >= 0 or self._wrong >= self._limit:
                self._starts_none = True
        return outcome

    def stop(self) -> None:
        """Start no more, and stop those that run; their outcomes come when they have ended."""
        self._starts_none = True
        for task in self._running:
            task.cancel()

    def give_up(self, node: str, why: str) -> None:
        """End the wait for a route to a node as Unreachable; nothing if the command was started there."""
        for task, running in self._running.items():
            if running == node and node not in self._given_up and self._waits_for_route(node):
                self._given_up[node] = Unreachable(why, node=node)
                task.cancel()

    async def aclose(self) -> None:
        """Stop those that run, and wait until they have ended."""
        self.stop()
        self._waiting.clear()
        if self._running:
            await asyncio.wait(self._running)
        for task in self._running:
            task.cancelled() or task.exception()
        self._running.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    def _fill(self) -> None:
        """Start it at as many more nodes as the rules allow."""
        most = self._rules.max_parallel
        if self._canaries > 0:
            most = min(most, self._canaries)
        elif self._rules.stop_after is None:
            most += sum(map(self._waits_for_route, self._running.values()))
        while self._waiting and not self._starts_none and len(self._running) < most:
            node = self._waiting.popleft()
            self._running[asyncio.get_running_loop().create_task(self._run(node))] = node

    async def _wait(self) -> tuple[set[asyncio.Task[Outcome]], set[asyncio.Task[Outcome]]]:
        """Wait until it has ended somewhere, or until there may be room for more."""
        timeout = LOOK_AGAIN if self._waiting and not self._starts_none else None
        return await asyncio.wait(self._running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    async def _run(self, node: str) -> Outcome:
        begun = time.monotonic()
        streams = self._streams[node] = {1: bytearray(), 2: bytearray()}
        code: int | None = None
        error: MeshError | None = None
        state = State.FAILED
        seconds = self._rules.per_node_timeout
        try:
            async with described_timeout(seconds, lambda: self._progress_at(node)):
                code, error = await self._run_to_its_end(node, streams)
                state = State.FAILED if code else State.DONE
        except TimedOut as failure:
            state, error = State.TIMED_OUT, failure
        except TimeoutError as over:
            text = "; ".join(filter(None, [f"node {node!r}: not done within {seconds:g} s", str(over)]))
            state, error = State.TIMED_OUT, TimedOut(text, node=node)
        except Unreachable as failure:
            state, error = State.UNREACHABLE, failure
        except CommandFailed as failure:
            code, error = failure.returncode, failure
        except MeshError as failure:
            error = failure
        except asyncio.CancelledError:
            error = self._given_up.get(node)
            state = State.STOPPED if error is None else State.UNREACHABLE
        del self._streams[node]
        out, err = (bytes(streams[number]) for number in (1, 2))
        return Outcome(node, state, code, out, err, error, time.monotonic() - begun)

    def _waits_for_route(self, node: str) -> bool:
        """Whether it has not been started at a node yet because there is no route."""
        return False

    def _progress_at(self, node: str) -> str:
        """How far it is at a node, and what holds it back, for the text of an error."""
        return ""

    @abstractmethod
    async def _run_to_its_end(self, node: str, streams: Mapping[int, bytearray]) -> tuple[int, MeshError | None]:
        """Do it at a node: its exit code, and for one that is not 0 the error. Raises MeshError.

        What is put out is appended to `streams`.
        """


class CommandOutcomes(Outcomes):
    """The outcomes of a command, each of which `start` starts at a node."""

    def __init__(self, nodes: Iterable[str], start: Start, rules: Rules, on_output: OnOutput | None) -> None:
        super().__init__(nodes, rules)
        self._start = start
        self._on_output = on_output
        self._starting: dict[str, Starting] = {}

    def _waits_for_route(self, node: str) -> bool:
        starting = self._starting.get(node)
        return starting is not None and starting.waits_for_route

    def _progress_at(self, node: str) -> str:
        starting = self._starting.get(node)
        return "" if starting is None else starting.progress

    async def _run_to_its_end(self, node: str, streams: Mapping[int, bytearray]) -> tuple[int, MeshError | None]:
        """Run it at a node: its exit code, and for one that is not 0 the error. Raises MeshError."""
        starting = self._starting[node] = self._start(node)
        try:
            process = await starting
            async for stream, data in process.output():
                if self._on_output is not None:
                    await self._on_output(node, stream, data)
                    continue
                streams[stream] += data
                if len(streams[1]) + len(streams[2]) > MAX_OUTPUT:
                    raise Overloaded(
                        f"node {node!r}: the command has put out more than {MAX_OUTPUT} bytes, and was stopped; give "
                        "on_output, which takes it as it comes",
                        node=node,
                    )
        finally:
            await starting.__aexit__(None, None, None)
            del self._starting[node]
        code = process.returncode or 0
        return code, failed(process, b"", bytes(streams[2])) if code else None


def rules_in(options: dict[str, Any]) -> tuple[Rules, OnOutput | None]:
    """Take the rules and `on_output` out of the options of `run_many`.

    Raises ConfigError, and ValueError for stdin that is a pipe.
    """
    stdin = options.get("stdin")
    check_stdin(stdin)
    if isinstance(stdin, int) and stdin == asyncio.subprocess.PIPE:
        raise ValueError("many nodes can't share stdin=PIPE; give stdin as bytes or as a path")
    given = {name: options.pop(name) for name in RULES if name in options}
    return Rules(**given), options.pop("on_output", None)
