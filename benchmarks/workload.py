"""All sorts of work that clients send to the nodes of a mesh, and what must have become of each piece of it.

What each directive answers is known beforehand, so every byte that comes is looked at. A node writes the message id of
each request that it runs into a file of its own, before it does anything else, so a run is counted whatever becomes of
the node; files outlive restarts.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import zmesh
from zmesh.payloads import PayloadLike

KINDS = (
    *("echo",) * 6,
    *("series",) * 3,
    *("thread",) * 2,
    *("take",) * 2,
    *("give",) * 2,
    *("fail",) * 2,
    *("never",) * 2,
    *("copy",) * 2,
    "isolated",
    "crash",
    "nothing",
    "leave",
    "awaited",
    *("command",) * 2,
)
SMALL = (0, 10, 100, 3000, 70_000)
LARGE = (100_000, 500_000, 2_000_000)
TIMEOUTS = (None, None, 0.2, 1.0, 4.0, 15.0)
CANCEL_AFTER = (0.0, 0.02, 0.2, 1.0)
PIECE = 50_000
STEP = 0.02
CODE = 7  # of commands
REPLIES = 12
OVERTIME = 2.0
UNDER_WAY = 25
PAUSES = (0.0, 0.0, 0.01, 0.1)
NOBODY = "nobody"
SHOWN = 20
TRANSIENT = ("unreachable", "node_restarted", "timed_out", "cancelled")
"""Reasons for which any request may end that was not done before."""


def content(number: int, size: int) -> bytes:
    """The bytes that belong to a request of that number."""
    return random.Random(number).randbytes(size)


async def pieces(number: int, size: int) -> AsyncIterator[bytes]:
    """The same, a piece at a time."""
    whole = content(number, size)
    for start in range(0, size, PIECE):
        yield whole[start : start + PIECE]


# -- the nodes --------------------------------------------------------------------------------------------------------


def serve_work(controller: zmesh.Controller, log: Path) -> None:
    """Register the directives at a node; `log` is the file that gets the message ids."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def begun(work: zmesh.Work) -> None:
        os.write(descriptor, f"{work.message_id}\n".encode())

    async def echo(work: zmesh.Work) -> object:
        begun(work)
        return work.payload

    async def take(work: zmesh.Work) -> object:
        begun(work)
        size = total = 0
        async for piece in work.payload:
            size, total = size + len(piece), zlib.crc32(piece, total)
        return f"{size} {total}"

    async def give(work: zmesh.Work) -> object:
        begun(work)
        number, size = work.payload.json()
        return pieces(number, size)

    async def series(work: zmesh.Work) -> AsyncIterator[str]:
        begun(work)
        number, count = work.payload.json()
        for index in range(count):
            yield f"{number} {index}"
            await asyncio.sleep(STEP)

    def thread(work: zmesh.Work) -> Iterator[str]:
        begun(work)
        number, count = work.payload.json()
        for index in range(count):
            yield f"{number} {index}"
            time.sleep(STEP)

    async def fail(work: zmesh.Work) -> AsyncIterator[bytes]:
        begun(work)
        yield b"partly"
        raise ValueError("as it was requested to")

    async def never(work: zmesh.Work) -> None:
        begun(work)
        await asyncio.Event().wait()

    path = str(log)

    def isolated(work: zmesh.Work) -> Iterator[str]:
        with open(path, "a", encoding="ascii") as file:
            file.write(f"{work.message_id}\n")
        number, count = work.payload.json()
        for index in range(count):
            yield f"{number} {index}"

    def crash(work: zmesh.Work) -> None:
        with open(path, "a", encoding="ascii") as file:
            file.write(f"{work.message_id}\n")
        os._exit(3)

    def left(work: zmesh.Work) -> object:
        return controller.node.engine.stats()["requests_received"] - 1

    for function in (echo, give, series, thread, fail, never, left):
        controller.register(f"chaos:{function.__name__}", function)
    controller.register("chaos:take", take, stream=True)
    for alone in (isolated, crash):
        controller.register(f"chaos:{alone.__name__}", alone, isolate=True)


# -- what is sent -----------------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """One request before it is sent; `size` is that of its payload, or how many replies it is to get."""

    number: int
    kind: str
    recipient: str
    size: int
    timeout: float | None
    cancel_after: float | None


def choose(rng: random.Random, number: int, nodes: Sequence[str]) -> Plan:
    """What the seed has as the next request."""
    kind = rng.choice(KINDS)
    size = rng.choice(
        SMALL if kind == "echo" else LARGE if kind in ("take", "give", "copy") else (0, 1, REPLIES, REPLIES)
    )
    cancel_after = rng.choice(CANCEL_AFTER) if rng.random() < 0.15 else None
    timeout = rng.choice(TIMEOUTS)
    if kind == "command":
        timeout = None  # which for a command begins when it is started
    if kind == "never" and timeout is None and cancel_after is None:
        cancel_after = rng.choice(CANCEL_AFTER)
    recipient = NOBODY if rng.random() < 0.03 else rng.choice(nodes)
    return Plan(number, kind, recipient, size, timeout, cancel_after)


def answers(plan: Plan) -> list[bytes]:
    """The replies to a request that comes to its end."""
    match plan.kind:
        case "echo" | "give" | "awaited" | "copy":
            return [content(plan.number, plan.size)]
        case "take":
            return [f"{plan.size} {zlib.crc32(content(plan.number, plan.size))}".encode()]
        case "series" | "thread" | "isolated" | "leave":
            return [f"{plan.number} {index}".encode() for index in range(plan.size)]
        case "fail":
            return [b"partly"]
        case "command":
            return [b"".join(b"%d %d\n" % (plan.number, index) for index in range(plan.size))]
        case _:
            return []


def request_of(plan: Plan) -> tuple[str, PayloadLike]:
    """The directive and the payload."""
    match plan.kind:
        case "echo" | "awaited":
            return "chaos:echo", content(plan.number, plan.size)
        case "take":
            return "chaos:take", pieces(plan.number, plan.size)
        case "leave":
            return "chaos:series", [plan.number, plan.size]
        case _:
            return f"chaos:{plan.kind}", [plan.number, plan.size]


@dataclass
class Sent:
    """One request that was sent, and all that came of it."""

    plan: Plan
    message_id: str = ""
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    cancelled: bool = False
    endings: list[str] = field(default_factory=list)
    """The reason of each final reply; `eof` for success."""
    replies: list[tuple[int, bytes]] = field(default_factory=list)
    copy: Path | None = None
    """Where a file was copied to."""

    def end(self, reason: str) -> None:
        """Note one ending."""
        self.endings.append(reason)
        self.ended = time.monotonic()


class Client:
    """A node that sends work of all sorts until it is stopped."""

    def __init__(self, mesh: zmesh.Controller, seed: int, nodes: Sequence[str], first: int, folder: Path) -> None:
        self.mesh = mesh
        self._folder = folder
        self.sent: list[Sent] = []
        self._random = random.Random(seed)
        self._nodes = list(nodes)
        self._first = first
        self._tasks: set[asyncio.Task[None]] = set()

    async def work(self, seconds: float) -> None:
        """Send for so many seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if len(self.under_way()) < UNDER_WAY:
                self.send(choose(self._random, self._first + len(self.sent), self._nodes))
            await asyncio.sleep(self._random.choice(PAUSES))

    def under_way(self) -> list[Sent]:
        """What has not ended."""
        return [sent for sent in self.sent if not sent.endings]

    def stop_waiting(self) -> None:
        """Cancel what would never end by itself."""
        for sent in self.under_way():
            if sent.plan.kind == "never":
                sent.cancelled = True
                self.mesh.cancel(sent.message_id)

    def send(self, plan: Plan) -> None:
        """Send one request."""
        sent = Sent(plan)
        self.sent.append(sent)
        if plan.kind in ("leave", "awaited", "command"):
            self._spawn(self._run(sent) if plan.kind == "command" else self._ask(sent))
            return
        if plan.kind == "copy":
            sent.message_id = f"copy-{plan.number}"
            self._spawn(self._copy(sent))
            return
        directive, payload = request_of(plan)
        handler = self._slow_handler(sent) if plan.number % 5 == 0 else self._handler(sent)
        on_its_way = self.mesh.send(payload, plan.recipient, directive, handler, timeout=plan.timeout)
        sent.message_id = on_its_way.message_id
        if plan.cancel_after is not None:
            self._spawn(self._cancel(sent, plan.cancel_after))

    async def close(self) -> None:
        """Wait for what this client does besides."""
        await asyncio.gather(*self._tasks)

    def _handler(self, sent: Sent) -> Callable[[zmesh.Message], None]:
        def take(message: zmesh.Message) -> None:
            if message.header["eof"]:
                sent.end(str(message.header.get("reason", "eof")))
            else:
                sent.replies.append((int(str(message.header["serial"])), message.payload.readall()))

        return take

    def _slow_handler(self, sent: Sent) -> Callable[[zmesh.Message], object]:
        take = self._handler(sent)

        async def take_slowly(message: zmesh.Message) -> None:
            take(message)
            await asyncio.sleep(STEP / 2)

        return take_slowly

    async def _cancel(self, sent: Sent, after: float) -> None:
        await asyncio.sleep(after)
        sent.cancelled = not sent.endings
        self.mesh.cancel(sent.message_id)

    async def _ask(self, sent: Sent) -> None:
        """Send as programs do that wait for the answer, or lose patience."""
        plan = sent.plan
        directive, payload = request_of(plan)
        request = self.mesh.stream(plan.recipient, directive, payload, timeout=plan.timeout)
        sent.message_id = request.message_id
        try:
            if plan.kind == "leave":
                async with request:
                    async for reply in request:
                        sent.replies.append((int(str(reply.header["serial"])), reply.payload.readall()))
                        if len(sent.replies) == REPLIES // 2:
                            sent.cancelled = True
                            sent.end("cancelled")
                            return
            else:
                request.send()
                async with asyncio.timeout(plan.cancel_after):
                    answer = await request.only_payload()
                sent.replies.append((1, answer.readall() if answer is not None else b""))
            sent.end("eof")
        except zmesh.MeshError as error:
            sent.end(error.code)
        except TimeoutError:
            sent.cancelled = True
            sent.end("cancelled")

    async def _copy(self, sent: Sent) -> None:
        """Copy a file to the recipient and back; what comes back counts as the reply."""
        plan, source = sent.plan, self._folder / f"{sent.plan.number}.source"
        sent.copy = self._folder / f"{plan.number}.{plan.recipient}"
        back = self._folder / f"{plan.number}.back"
        await asyncio.to_thread(source.write_bytes, content(plan.number, plan.size))
        try:
            async with asyncio.timeout(plan.timeout), asyncio.timeout(plan.cancel_after) as patience:
                await self.mesh.copy(source, zmesh.NodePath(plan.recipient, sent.copy))
                await self.mesh.copy(zmesh.NodePath(plan.recipient, sent.copy), back)
            sent.replies.append((1, await asyncio.to_thread(back.read_bytes)))
            sent.end("eof")
        except zmesh.MeshError as error:
            sent.end(error.code)
        except TimeoutError:
            sent.cancelled = patience.expired()
            sent.end("cancelled" if sent.cancelled else "timed_out")

    async def _run(self, sent: Sent) -> None:
        """Run a command that notes its run in the directory of commands, writes lines, and exits with CODE."""
        plan = sent.plan
        sent.message_id = f"command-{plan.number}"
        lines = f"for n in $(seq 0 {plan.size - 1}); do echo {plan.number} $n; sleep {STEP}; done"
        words = ["sh", "-c", f"echo {sent.message_id} >>commands.runs; {lines}; exit {CODE}"]
        try:
            async with asyncio.timeout(plan.cancel_after), self.mesh.run(plan.recipient, words) as process:
                output, _ = await process.communicate()
            sent.replies.append((1, output))
            sent.end("eof" if process.returncode == CODE else f"exit code {process.returncode}")
        except zmesh.MeshError as error:
            sent.end(error.code)
        except TimeoutError:
            sent.cancelled = True
            sent.end("cancelled")

    def _spawn(self, coroutine: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


# -- what became of it ------------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """How the requests ended, and what is wrong with that; `wrong` counts endings that nothing accounts for."""

    eof: int = 0
    error: int = 0
    cancelled: int = 0
    timed_out: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    unended: int = 0
    wrong: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    latest_s: float = 0.0

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.duplicated or self.out_of_order or self.unended or self.wrong)


def runs(folder: Path) -> Counter[str]:
    """How often each message id was run, by all nodes in all their incarnations."""
    counted: Counter[str] = Counter()
    for log in folder.glob("*.runs"):
        counted.update(log.read_text().split())
    return counted


def judge(everything: Sequence[Sent], ran: Counter[str], leavers: Collection[str] = ()) -> Verdict:
    """Look at every request; `leavers` are the nodes that have cancelled their work because they left."""
    verdict = Verdict()
    known = {sent.message_id for sent in everything}
    verdict.duplicated += sum(1 for message_id in ran if message_id not in known)
    for sent in everything:
        _tally(verdict, sent)
        for counter, text in _complaints(sent, ran[sent.message_id], leavers):
            setattr(verdict, counter, getattr(verdict, counter) + 1)
            if len(verdict.complaints) < SHOWN:
                plan = sent.plan
                verdict.complaints.append(
                    f"{counter}: {sent.message_id} (number {plan.number}, {plan.kind} of {plan.size} to "
                    f"{plan.recipient}, timeout {plan.timeout}, cancel after {plan.cancel_after}): {text}"
                )
    return verdict


def _tally(verdict: Verdict, sent: Sent) -> None:
    reason = sent.endings[0] if sent.endings else "unended"
    verdict.reasons[reason] += 1
    if reason in ("eof", "cancelled", "timed_out"):
        setattr(verdict, reason, getattr(verdict, reason) + 1)
    elif reason != "unended":
        verdict.error += 1
    if sent.endings and sent.plan.timeout is not None:
        verdict.latest_s = round(max(verdict.latest_s, sent.ended - sent.began - sent.plan.timeout), 3)


def _complaints(sent: Sent, ran: int, leavers: Collection[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with one request: the counter, and words for people."""
    plan = sent.plan
    if ran > 1:
        yield "duplicated", f"it ran {ran} times"
    if not sent.endings:
        yield "unended", "it has not ended"
        return
    if len(sent.endings) > 1:
        yield "duplicated", f"it ended as {sent.endings}"
    yield from _about_replies(sent)
    if sent.copy is not None and sent.copy.exists() and sent.copy.read_bytes() != content(plan.number, plan.size):
        yield "wrong", "the file that has the name is not whole"
    reason = sent.endings[0]
    if reason == "eof":
        if plan.kind in ("fail", "crash", "never", "nothing") or plan.recipient == NOBODY:
            yield "wrong", "it is said to have succeeded"
        elif ran == 0 and plan.kind != "copy":
            yield "wrong", "it is said to have run, and has not"
    elif reason == "timed_out":
        if plan.timeout is None or sent.ended - sent.began < plan.timeout - 0.01:
            yield "wrong", f"it timed out after {sent.ended - sent.began:.3f} s"
    elif reason == "cancelled":
        if not sent.cancelled and plan.recipient not in leavers:
            yield "wrong", "it was cancelled by nobody"
    elif reason not in (
        *TRANSIENT,
        {"fail": "remote", "crash": "remote", "nothing": "unknown_directive"}.get(plan.kind),
    ):
        yield "wrong", f"it ended as {reason}"
    if plan.kind == "copy":
        return  # one that is given up ends when its other end has, or can't be reached
    if plan.timeout is not None and sent.ended - sent.began > plan.timeout + OVERTIME:
        yield "wrong", f"it ended {sent.ended - sent.began - plan.timeout:.3f} s past its time"


def _about_replies(sent: Sent) -> Iterator[tuple[str, str]]:
    expected = answers(sent.plan)
    serials = [serial for serial, _ in sent.replies]
    if len(set(serials)) < len(serials):
        yield "duplicated", f"the replies are numbered {serials}"
    elif serials != sorted(serials):
        yield "out_of_order", f"the replies are numbered {serials}"
    elif serials != list(range(1, len(serials) + 1)):
        yield "lost", f"the replies are numbered {serials}"
    elif [reply for _, reply in sent.replies] != expected[: len(serials)]:
        yield "lost", "the replies are others than were given"
    elif sent.endings[0] == "eof" and len(serials) != len(expected):
        yield "lost", f"{len(serials)} of {len(expected)} replies came before the end"
