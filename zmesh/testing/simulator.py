"""Engines by the dozen on a virtual clock: the code that runs in production, without a socket or a second of waiting.

A simulation is decided by its seed. Links are FIFO, as ZeroMQ's are; they can lose frames, fall silent, be cut and come
back, have little room, and are dialled anew as the transport would. Every effect is obeyed as the node obeys it, every
engine is checked after each event, and so is that no packet could run in a circle.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from zmesh.core.effects import Abort, Deliver, Effect, HangUp, Pull, Report, Transmit
from zmesh.core.engine import Engine
from zmesh.core.links import DEFAULT_COST
from zmesh.core.message import Address, Eof, LinkId, MessageId, NodeId, ReplyHeader, RequestHeader, Stream
from zmesh.core.wire import Frames

REDIAL = 0.1


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


class Wire:
    """A connection that `dialler` keeps up to `listener`. Times in seconds, `loss` from 0 to 1, `room` in frames."""

    def __init__(
        self, sim: Simulator, dialler: SimNode, listener: SimNode, delay: float, jitter: float, cost: int, room: int
    ) -> None:
        self.sim = sim
        self.ends = (dialler, listener)
        self.delay = delay
        self.jitter = jitter
        self.cost = cost
        self.room = room
        self.loss = 0.0
        self.silent = False
        self.down = False
        self.removed = False
        self.session = 0
        self.ids: list[LinkId | None] = [None, None]
        self.under_way = [0, 0]
        self._last = [0.0, 0.0]
        self._held: list[deque[Frames]] = [deque(), deque()]

    def dial(self) -> None:
        """Connect, if both ends are up; else try again later, for ever."""
        dialler, listener = self.ends
        if self.removed or self.ids[0] is not None or not dialler.alive:
            return
        if self.down or not listener.alive:
            self.sim.after(REDIAL * (1 + self.sim.random.random()), self.dial)
            return
        self.session += 1
        self.under_way = [0, 0]
        self._last = [self.sim.now, self.sim.now]
        link = self._attach(0)
        dialler.do(dialler.engine.link_up(link, self.sim.now, dialled=True, cost=self.cost))

    def _attach(self, end: int) -> LinkId:
        node = self.ends[end]
        node.links += 1
        link = self.ids[end] = LinkId(node.links)
        node.wires[link] = (self, end)
        self.sim.reconnected()
        return link

    def send(self, end: int, frames: Frames) -> bool:
        """Take frames from one end; False if there is no room for them now."""
        if self.under_way[end] >= self.room:
            return False
        self.sim.frames += 1
        if self.sim.tap is not None:
            self.sim.tap(frames)
        if self.silent or (self.loss and self.sim.random.random() < self.loss):
            return True
        when = max(self._last[end], self.sim.now + self.delay + self.jitter * self.sim.random.random())
        self._last[end] = when
        self.under_way[end] += 1
        session = self.session
        self.sim.at(when, lambda: self._arrive(end, session, frames))
        return True

    def _arrive(self, end: int, session: int, frames: Frames) -> None:
        if session != self.session:
            return
        self.under_way[end] -= 1
        node = self.ends[1 - end]
        if node.alive and not node.stopped:
            if self.ids[1 - end] is None and end == 0:
                link = self._attach(1)
                node.do(node.engine.link_up(link, self.sim.now, dialled=False, cost=self.cost))
            at = self.ids[1 - end]
            if at is not None:
                node.do(node.engine.receive(at, frames, self.sim.now))
        sender = self.ends[end]
        mine = self.ids[end]
        if mine is not None and sender.alive and mine in sender.full:
            sender.drain(mine)

    def hang_up(self, end: int, pause: float) -> None:
        """One end closes the connection. A dialler's peer notices; a listener can only forget it."""
        link = self.ids[end]
        if link is not None:
            self.ends[end].wires.pop(link, None)
            self.ids[end] = None
        if end == 0:
            self._drop_other(1, "closed by the other end")
            self.session += 1
            self.sim.after(max(pause, REDIAL) * (1 + self.sim.random.random()), self.dial)

    def cut(self, *, notice: bool = True) -> None:
        """Break the connection now; with `notice` both ends learn of it at once, and it is dialled again."""
        self.session += 1
        if notice:
            self._drop_other(0, "cut")
            self._drop_other(1, "cut")
            self.sim.after(REDIAL * (1 + self.sim.random.random()), self.dial)

    def take_down(self) -> None:
        """Cut the connection and keep it cut until `bring_up`."""
        self.down = True
        self.cut()

    def bring_up(self) -> None:
        """Let the dialler through again."""
        self.down = False

    def remove(self) -> None:
        """Take the wire away for good."""
        self.removed = True
        self.cut()

    def _drop_other(self, end: int, reason: str) -> None:
        link = self.ids[end]
        if link is None:
            return
        self.ids[end] = None
        node = self.ends[end]
        node.wires.pop(link, None)
        node.full.discard(link)
        if node.alive:
            node.do(node.engine.link_down(link, self.sim.now, reason))


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


class Simulator:
    """A mesh on a virtual clock. For large ones, `checked` False leaves out the checks after each event, and forgets
    what the engines report.

    `audit`: paths are looked at after every event, the tables of an engine after every `audit`-th one.
    """

    def __init__(self, seed: int = 0, *, checked: bool = True, audit: int = 1) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 0.0
        self.checked = checked
        self.audit = audit
        self.nodes: dict[str, SimNode] = {}
        self.wires: list[Wire] = []
        self.events = 0
        self.frames = 0
        self.tap: Callable[[Frames], object] | None = None
        """Is shown every frame that a node puts on a wire."""
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self._moved: set[NodeId] = set()
        self._changes = 0

    def __repr__(self) -> str:
        return f"Simulator(seed={self.seed}, now={self.now:.3f}, nodes={len(self.nodes)})"

    def add(self, *ids: str, **options: object) -> list[SimNode]:
        """Start nodes; options: heartbeat, route_timeout, serial, leaf."""
        for id in ids:
            self.nodes[id] = SimNode(self, id, options)
        return [self.nodes[id] for id in ids]

    def connect(
        self,
        dialler: str,
        listener: str,
        *,
        delay: float = 0.002,
        jitter: float = 0.0,
        cost: int = DEFAULT_COST,
        room: int = 1 << 30,
    ) -> Wire:
        """Let one node dial another."""
        wire = Wire(self, self.nodes[dialler], self.nodes[listener], delay, jitter, cost, room)
        self.wires.append(wire)
        self.after(0.0, wire.dial)
        return wire

    def remove(self, id: str) -> None:
        """Let a node die, and take it and its wires out of the mesh; nothing if it is not there."""
        node = self.nodes.pop(id, None)
        if node is None:
            return
        if node.alive:
            node.kill()
        for wire in [wire for wire in self.wires if node in wire.ends]:
            wire.remove()
            self.wires.remove(wire)

    def chain(self, *ids: str, **options: object) -> list[SimNode]:
        """Start nodes, each dialling the one before it."""
        nodes = self.add(*ids, **options)
        for left, right in itertools.pairwise(ids):
            self.connect(right, left)
        return nodes

    def at(self, when: float, what: Callable[[], object]) -> None:
        """Do something at a time."""
        self._count += 1
        heapq.heappush(self._queue, (max(when, self.now), self._count, what))

    def after(self, seconds: float, what: Callable[[], object]) -> None:
        """Do something after a while."""
        self.at(self.now + seconds, what)

    def run(self, seconds: float) -> None:
        """Let that much time pass."""
        self.run_until(lambda: False, seconds)

    def run_until(self, predicate: Callable[[], bool], limit: float = 60.0) -> bool:
        """Let time pass until the predicate holds; False if it does not within `limit` seconds."""
        end = self.now + limit
        if predicate():
            return True
        while self._queue and self._queue[0][0] <= end:
            self.now, _, what = heapq.heappop(self._queue)
            self.events += 1
            try:
                what()
            except Exception as error:
                error.add_note(f"in {self!r}; replay with this seed")
                raise
            if predicate():
                return True
        self.now = end
        return False

    def settle(self, limit: float = 30.0) -> bool:
        """Let time pass until every node that is up has a route to every other in its partition, and its record."""
        return self.run_until(self.settled, limit)

    def settled(self) -> bool:
        """True if every wire that can be is connected, and every node knows its partition's nodes and records."""
        for wire in self.wires:
            usable = not (wire.down or wire.removed) and all(node.alive and not node.stopped for node in wire.ends)
            if usable and None in wire.ids:
                return False
        for part in self.partitions():
            records = {id: self.nodes[id].engine.records.get(NodeId(Address(id))) for id in part}
            for id in part:
                engine = self.nodes[id].engine
                if engine.nodes() != part or engine.records.known() != records:
                    return False
        return True

    def partitions(self) -> list[set[str]]:
        """The sets of nodes that can reach each other over links that are up."""
        beside: dict[str, set[str]] = {id: set() for id, node in self.nodes.items() if node.alive and not node.stopped}
        for wire in self.wires:
            a, b = wire.ends
            if wire.ids[0] is not None and wire.ids[1] is not None and a.id in beside and b.id in beside:
                if not (a.engine.leaf or b.engine.leaf):
                    beside[a.id].add(b.id)
                    beside[b.id].add(a.id)
        parts: list[set[str]] = []
        left = {id for id in beside if not self.nodes[id].engine.leaf}
        while left:
            part, border = set(), [left.pop()]
            while border:
                id = border.pop()
                part.add(id)
                new = beside[id] - part
                border.extend(new)
                part |= new
            left -= part
            parts.append(part)
        return parts

    def note(self, node: SimNode, report: Report) -> None:
        """Remember which routes have moved, to look for circles."""
        if report.event == "route_changed" and report.node is not None:
            self._moved.add(report.node)

    def reconnected(self) -> None:
        """A connection has another end again: any path may go on there."""
        self._moved.update(node.id for node in self.nodes.values())

    def after_event(self, node: SimNode) -> None:
        """Check the engine that has just worked, and all paths to where a route has moved."""
        if not self.checked:
            return
        self._changes += 1
        if self._changes % self.audit == 0:
            node.engine.check()
        if self._moved:
            moved, self._moved = self._moved, set()
            for destination in moved:
                self.check_paths(destination)

    def check_paths(self, destination: NodeId) -> None:
        """Raise AssertionError if a packet to `destination` would come by a node twice, wherever it starts."""
        safe: set[SimNode] = set()
        for start in self.nodes.values():
            seen: dict[SimNode, None] = {}
            here: SimNode | None = start
            while here is not None and here.id != destination and here not in safe:
                if here in seen:
                    path = " > ".join(node.id for node in [*seen, here])
                    raise AssertionError(f"a loop to {destination}: {path} (seed {self.seed})")
                seen[here] = None
                selected = here.engine.routes.get(destination)
                here = self._other_end(here, selected.link) if selected is not None else None
            safe.update(seen)

    def _other_end(self, node: SimNode, link: LinkId) -> SimNode | None:
        wire, end = node.wires.get(link, (None, 0))
        if wire is None or wire.ids[1 - end] is None:
            return None
        return wire.ends[1 - end]

    def all(self, ids: Iterable[str] | None = None) -> list[SimNode]:
        """The nodes that are up."""
        return [node for id, node in self.nodes.items() if node.alive and (ids is None or id in ids)]
