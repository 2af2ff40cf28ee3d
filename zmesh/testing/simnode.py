"""The simulator's nodes: an engine whose effects are obeyed as a real node obeys them, and a program that uses it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zmesh.core.effects import Abort, Deliver, Effect, HangUp, Pull, Report, Transmit
from zmesh.core.engine import Engine
from zmesh.core.message import Address, Eof, LinkId, MessageId, NodeId, ReplyHeader, RequestHeader, Stream

if TYPE_CHECKING:
    from zmesh.testing.simulator import Simulator
    from zmesh.testing.simwire import Wire


@dataclass
class Outcome:
    """What became of one request, as its sender saw it."""

    message_id: MessageId
    recipient: str
    replies: list[bytes] = field(default_factory=list)
    serials: list[int] = field(default_factory=list)
    eofs: list[Eof] = field(default_factory=list)
    partial: bytearray = field(default_factory=bytearray)
    hops: int = 0
    ended_at: float = 0.0

    @property
    def eof(self) -> Eof | None:
        """The final word, once it has come."""
        return self.eofs[0] if self.eofs else None


@dataclass
class Job:
    """One request as the recipient's program sees it."""

    message_id: MessageId
    peer: Address
    directive: str
    payload: bytearray = field(default_factory=bytearray)
    complete: bool = False
    aborted: str = ""
    ended: bool = False


Plugin = Callable[["SimNode", Job], None]


class SimNode:
    """One engine and the little program around it: it answers `echo:echo` unless told otherwise."""

    def __init__(self, sim: Simulator, id: str, options: dict[str, object]) -> None:
        self.sim = sim
        self.id = NodeId(Address(id))
        self.options = options
        self.alive = False
        self.stopped = False
        self.links = 0
        self.wires: dict[LinkId, tuple[Wire, int]] = {}
        self.full: set[LinkId] = set()
        self.reports: list[Report] = []
        self.outcomes: dict[MessageId, Outcome] = {}
        self.jobs: dict[MessageId, Job] = {}
        self.runs: dict[MessageId, int] = {}
        self.plugin: Plugin = echo
        self.unread = False
        self.pause = 0.0
        """For how many seconds the program looks at each piece before it takes the next."""
        self._reading_until = 0.0
        self._feeding: dict[Stream, tuple[bytes, int]] = {}
        self._wake = float("inf")
        self.start()

    def start(self) -> None:
        """Begin a new life: a new incarnation, nothing remembered."""
        serial = int(1000 * self.sim.now) + 1
        self.alive, self.stopped = True, False
        self.wires, self.full, self.jobs, self._feeding = {}, set(), {}, {}
        self._wake = float("inf")
        self.engine = Engine(
            self.id,
            self.sim.random.getrandbits(64) | 1,
            now=self.sim.now,
            serial=int(str(self.options.get("serial", serial))),
            heartbeat=float(str(self.options.get("heartbeat", 1.0))),
            route_timeout=float(str(self.options.get("route_timeout", 30.0))),
            leaf=bool(self.options.get("leaf", False)),
        )
        self.do(self.engine.describe(["echo:echo"], self.sim.now))

    def kill(self) -> None:
        """Die at once; the system closes the connections, so the neighbours notice."""
        self.alive = False
        for wire in self.sim.wires:
            if self in wire.ends:
                wire.cut()

    def restart(self) -> None:
        """Die and come back."""
        if self.alive:
            self.kill()
        self.start()
        for wire in self.sim.wires:
            if wire.ends[0] is self:
                self.sim.after(0.01, wire.dial)

    def send(
        self, recipient: str, payload: bytes = b"", directive: str = "echo:echo", timeout: float | None = None
    ) -> Outcome:
        """Send a request; see the outcome as it comes."""
        message_id = MessageId(self.sim.random.randbytes(16))
        outcome = self.outcomes[message_id] = Outcome(message_id, recipient)
        header = RequestHeader(directive, self.sim.now, timeout)
        now = self.sim.now
        self.do(
            self.engine.send(message_id, Address(recipient), header, payload[:65536], now,
                             last=len(payload) <= 65536, timeout=timeout)
        )  # fmt: skip
        if len(payload) > 65536:
            self._feeding[Stream(message_id, True)] = (payload, 65536)
            self._feed(Stream(message_id, True))
        return outcome

    def cancel(self, outcome: Outcome) -> None:
        """Cancel a request of this node."""
        self.do(self.engine.cancel(outcome.message_id, self.sim.now))

    def reply(self, job: Job, payload: bytes | None, serial: int = 1, eof: Eof | None = None) -> None:
        """Answer a job, with `eof` for good."""
        header = None if payload is None else ReplyHeader(self.sim.now, serial)
        job.ended = job.ended or eof is not None
        effects = self.engine.reply(
            job.message_id, header, payload or b"", self.sim.now, last=payload is not None, eof=eof
        )
        self.do(effects)

    def do(self, effects: list[Effect]) -> None:
        """Perform effects in order, and let the engine be checked."""
        pending = deque(effects)
        while pending:
            pending.extend(self._perform(pending.popleft()))
        self.sim.after_event(self)
        self._arm()

    def drain(self, link: LinkId) -> None:
        """Tell the engine that a link takes frames again, until it has no more or the link is full again."""
        self.full.discard(link)
        while link in self.wires and link not in self.full:
            effects = self.engine.link_ready(link, self.sim.now)
            if not effects:
                break
            self.do(effects)

    def _perform(self, effect: Effect) -> list[Effect]:
        now = self.sim.now
        match effect:
            case Transmit(link, frames):
                wire, end = self.wires.get(link, (None, 0))
                if wire is not None and (link in self.full or not wire.send(end, frames)):
                    self.full.add(link)
                    return self.engine.link_full(link, frames, now)
            case Deliver():
                self._deliver(effect)
                if self.pause:
                    self._read_later(effect)
                elif not self.unread:
                    return self.engine.consumed(effect.stream, effect.weight, now)
            case HangUp(link, _, pause):
                wire, end = self.wires.get(link, (None, 0))
                if wire is not None:
                    self.sim.after(0.0, lambda: wire.hang_up(end, pause) if wire.ids[end] == link else None)
            case Pull(stream):
                self.sim.after(0.0, lambda: self._feed(stream))
            case Abort(message_id, reason):
                job = self.jobs.get(message_id)
                if job is not None and not job.ended:
                    job.aborted = reason
                    job.ended = True
                    word = Eof(1, reason, f"stopped: {reason}")
                    return self.engine.reply(message_id, None, b"", now, last=False, eof=word)
            case Report():
                if self.sim.checked:
                    self.reports.append(effect)
                    self.sim.note(self, effect)
        return []

    def _read_later(self, piece: Deliver) -> None:
        engine = self.engine
        self._reading_until = max(self._reading_until, self.sim.now) + self.pause

        def read() -> None:
            if self.alive and self.engine is engine:
                self.do(engine.consumed(piece.stream, piece.weight, self.sim.now))

        self.sim.at(self._reading_until, read)

    def _feed(self, stream: Stream) -> None:
        while stream in self._feeding:
            payload, start = self._feeding[stream]
            if not self.engine.exchanges.is_open(stream):
                del self._feeding[stream]
                return
            room = min(self.engine.exchanges.room(stream), 65536)
            if room == 0:
                return
            end = start + room
            if end >= len(payload):
                del self._feeding[stream]
            else:
                self._feeding[stream] = (payload, end)
            self.do(self.engine.feed(stream, payload[start:end], self.sim.now, last=end >= len(payload)))

    def _deliver(self, piece: Deliver) -> None:
        message_id = piece.stream.message_id
        if piece.stream.request:
            if isinstance(piece.header, RequestHeader):
                self.jobs[message_id] = Job(message_id, piece.peer, piece.header.directive)
                self.runs[message_id] = self.runs.get(message_id, 0) + 1
            job = self.jobs[message_id]
            job.payload += piece.body
            if piece.last:
                job.complete = True
                self.sim.after(0.0, lambda: self.plugin(self, job) if not job.ended and self.alive else None)
            return
        outcome = self.outcomes[message_id]
        if isinstance(piece.header, ReplyHeader):
            outcome.serials.append(piece.header.serial)
        outcome.partial += piece.body
        outcome.hops = piece.hops
        if piece.last:
            outcome.replies.append(bytes(outcome.partial))
            outcome.partial.clear()
        if piece.eof is not None:
            outcome.eofs.append(piece.eof)
            outcome.ended_at = self.sim.now

    def _arm(self) -> None:
        deadline = self.engine.next_deadline()
        if deadline is not None and deadline < self._wake:
            self._wake = deadline
            engine = self.engine
            self.sim.at(deadline, lambda: self._tick(engine, deadline))

    def _tick(self, engine: Engine, deadline: float) -> None:
        if engine is not self.engine or not self.alive or deadline != self._wake:
            return
        self._wake = float("inf")
        if self.stopped:
            self._wake = self.sim.now + 0.1
            again = self._wake
            self.sim.at(again, lambda: self._tick(engine, again))
            return
        self.do(engine.tick(self.sim.now))


def echo(node: SimNode, job: Job) -> None:
    """The program of a node that was not told otherwise: send the payload back, and be done."""
    node.reply(job, bytes(job.payload), eof=Eof())
