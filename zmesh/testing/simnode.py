"""The simulator's nodes: an engine, a shell that performs its effects as a real node does, and a program that uses it.

A `SimNode` performs effects as `zmesh.node.Node` does: in order, those of a stimulus that arises meanwhile after the
others; only frames go out at once while no other effect is pending. All times passed to an engine are those of its
node's own clock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from zmesh.core.effects import Abort, Deliver, Effect, HangUp, Pull, Report, ReportDelay, StreamOver, Transmit
from zmesh.core.engine import Engine
from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import Address, Eof, LinkId, MessageId, NodeId, ReplyHeader, RequestHeader, Stream
from zmesh.core.wire import Frames, Record, encode_batch
from zmesh.testing.simclock import Clock
from zmesh.testing.simexchange import Job, Outcome

if TYPE_CHECKING:
    from zmesh.core.credentials import Credentials, LeafKey
    from zmesh.testing.simulator import Simulator
    from zmesh.testing.simwire import Port, Session, Wire

STOPPED_POLL = 0.1
NOT_BEGUN = "has not begun"
"""The text with which a node answers a probe for a job without a reply."""


Plugin = Callable[["SimNode", Job], None]
Listener = Callable[["SimNode", Job, bytes], None]


class SimNode:
    """One engine and a program around it, by default one that answers `echo:echo`.

    Options: those of the engine (`credentials` as a function of the node id, called at each start), and `offset`,
    `drift` and `epoch` of its `Clock`.
    """

    lies = False
    """Whether it sends forged frames (see `simliar`)."""

    batches = True
    """Whether it sends batches."""

    def __init__(self, sim: Simulator, id: str, options: dict[str, object]) -> None:
        self.sim = sim
        self.id = NodeId(Address(id))
        self.options = options
        self.alive = False
        self.stopped = False
        self.inbox: deque[Callable[[], object]] | None = None
        """The stimuli of a frozen node, which wait in the buffers of its system; None for all others."""
        self.links = 0
        self.wires: dict[LinkId, Port] = {}
        self.full: set[LinkId] = set()
        self.reports: list[Report] = []
        self.outcomes: dict[MessageId, Outcome] = {}
        self.jobs: dict[MessageId, Job] = {}
        self.runs: dict[MessageId, int] = {}
        self.plugin: Plugin = echo
        self.listener: Listener = ignore
        """Called with each part of a request as it comes, before `plugin` is called when it is complete."""
        self.unread = False
        self.pause = 0.0
        """Seconds for which the program processes each chunk before it reads the next."""
        self.clock = Clock(
            lambda: sim.now,
            self._on_clock,
            offset=self._number("offset", 0.0),
            drift=self._number("drift", 0.0),
            epoch=self._number("epoch", 0.0),
        )
        self._reading_until = 0.0
        self._feeding: dict[Stream, tuple[bytes, int]] = {}
        self._pending: deque[Effect] = deque()
        self._performing = self._holding = False
        self._wake = math.inf
        self._alarms = 0
        self.start()

    def _number(self, option: str, default: float) -> float:
        return float(str(self.options.get(option, default)))

    def _credentials(self) -> Credentials | None:
        """The credentials of the next incarnation; the option is a function that makes them for a node id."""
        make = self.options.get("credentials")
        return cast("Credentials", make(str(self.id))) if callable(make) else None

    def _leaf_key(self) -> LeafKey | None:
        """The key of the next incarnation of a leaf without credentials; the option is a function that makes it."""
        make = self.options.get("leaf_key")
        return cast("LeafKey", make()) if callable(make) else None

    @property
    def now(self) -> float:
        """The time of this node's monotonic clock, in seconds."""
        return self.clock.now()

    def start(self) -> None:
        """Start a new incarnation, without any state of the one before."""
        serial, limits = int(1000 * self.clock.wall()) + 1, self.options.get("limits")
        self.alive, self.stopped, self.inbox = True, False, None
        self.wires, self.full, self.jobs, self._feeding = {}, set(), {}, {}
        self._pending, self._performing, self._holding = deque(), False, False
        self._wake = math.inf
        self.engine = Engine(
            self.id,
            self.sim.random.getrandbits(64) | 1,
            now=self.now,
            epoch=self.clock.epoch,
            serial=int(str(self.options.get("serial", serial))),
            heartbeat=self._number("heartbeat", 1.0),
            route_timeout=self._number("route_timeout", 30.0),
            leaf=bool(self.options.get("leaf", False)),
            limits=limits if isinstance(limits, Limits) else DEFAULT_LIMITS,
            credentials=self._credentials(),
            leaf_key=self._leaf_key(),
        )
        self.do(self.engine.describe(["echo:echo"], self.now))

    def kill(self) -> None:
        """Die at once; the system closes the connections, so the neighbours notice."""
        self._die(lambda wire, session, end: wire.abandon(session, end, notice=True))

    def lose_power(self) -> None:
        """Die with the whole machine: the connections are not closed, so the neighbours have to detect it."""
        self._die(lambda wire, session, end: wire.abandon(session, end, notice=False))

    def leave(self) -> None:
        """Say goodbye, and end in good order: what was sent arrives before the connections are closed."""
        self.do(self.engine.close(self.now))
        self._die(lambda wire, session, end: wire.finish(session, end))

    def _die(self, end_of: Callable[[Wire, Session, int], object]) -> None:
        self.alive, self.inbox = False, None
        for wire in self.sim.wires:
            if self in wire.ends:
                end_of(wire, wire.session, wire.ends.index(self))
        for port in list(self.wires.values()):
            end_of(port.wire, port.session, port.end)

    def restart(self) -> None:
        """Die and come back."""
        if self.alive:
            self.kill()
        self.start()
        for wire in self.sim.wires:
            if wire.ends[0] is self:
                self.sim.after(0.01, wire.dial)

    def freeze(self, *, clock: bool = False) -> None:
        """Do nothing until `resume`; frames that arrive wait. With `clock` the monotonic clock stands still, too."""
        self.stopped = True
        if self.inbox is None:
            self.inbox = deque()
        if clock:
            self.clock.stop()

    def resume(self, *, first: bool = False) -> None:
        """Go on; `first`: what is due is done before what has come is read."""
        self.stopped = False
        inbox, self.inbox = self.inbox, None
        self.clock.go()
        if not self.alive:
            return
        if first:
            self.do(self.engine.tick(self.now))
        while inbox:
            inbox.popleft()()

    def send(
        self,
        recipient: str,
        payload: bytes = b"",
        directive: str = "echo:echo",
        timeout: float | None = None,
        route_timeout: float | None = None,
    ) -> Outcome:
        """Send a request; the outcome is filled as it comes. Time-outs are in seconds."""
        message_id = MessageId(self.sim.random.randbytes(16))
        outcome = self.outcomes[message_id] = Outcome(message_id, recipient)
        header = RequestHeader(directive, self.clock.wall(), timeout)
        now = self.now
        self.do(
            self.engine.send(message_id, Address(recipient), header, payload[:65536], now,
                             last=len(payload) <= 65536, timeout=timeout, route_timeout=route_timeout)
        )  # fmt: skip
        if len(payload) > 65536:
            self._feeding[Stream(message_id, True)] = (payload, 65536)
            self._feed(Stream(message_id, True))
        return outcome

    def open(
        self, recipient: str, directive: str, timeout: float | None = None, route_timeout: float | None = None
    ) -> Outcome:
        """Send a request whose payload is written later, with `write`."""
        message_id = MessageId(self.sim.random.randbytes(16))
        outcome = self.outcomes[message_id] = Outcome(message_id, recipient)
        header = RequestHeader(directive, self.clock.wall(), timeout)
        self.do(
            self.engine.send(message_id, Address(recipient), header, b"", self.now, last=False, timeout=timeout,
                             route_timeout=route_timeout)
        )  # fmt: skip
        return outcome

    def write(self, outcome: Outcome, data: bytes, *, last: bool = False) -> bool:
        """Write to a request that was opened, and with `last` end it; False if there is no room now, or ever."""
        stream = Stream(outcome.message_id, True)
        if self.engine.room(stream) < max(1, len(data)):
            return False
        outcome.written += data
        self.do(self.engine.feed(stream, data, self.now, last=last))
        return True

    def own_record(self) -> Record | None:
        """The record of the node with this id, as it is flooded."""
        return self.engine.routing.record(self.id)

    def records(self) -> Mapping[NodeId, Record]:
        """All records that this node knows, as they are flooded."""
        return self.engine.routing.records()

    def cancel(self, outcome: Outcome, reset_code: int = 0) -> None:
        """Cancel a request of this node, or reset it with a code."""
        self.do(self.engine.cancel(outcome.message_id, self.now, reset_code))

    def reset(self, job: Job, code: int) -> None:
        """End a job at once with a code."""
        job.ended = True
        self.do(self.engine.reset(job.message_id, code, "as requested", self.now))

    def stop_sending(self, job: Job) -> None:
        """Have the client stop sending the payload of a job."""
        self.do(self.engine.stop_sending(job.message_id, self.now))

    def reply(self, job: Job, payload: bytes | None, serial: int = 1, eof: Eof | None = None) -> None:
        """Reply to a job, with `eof` as the end."""
        header = None if payload is None else ReplyHeader(self.clock.wall(), serial)
        job.ended = job.ended or eof is not None
        effects = self.engine.reply(job.message_id, header, payload or b"", self.now, last=payload is not None, eof=eof)
        self.do(effects)

    def do(self, effects: list[Effect]) -> None:
        """Perform effects in order, and let the engine be checked.

        Called while others are performed, it leaves these for later, except frames while no effect is pending.
        """
        pending = self._pending
        if self._performing:
            for effect in effects:
                if pending or not isinstance(effect, Transmit):
                    pending.append(effect)
                else:
                    self._perform(effect)
            return
        self._performing, self._holding = True, self.batches and len(effects) > 1
        pending.extend(effects)
        try:
            while pending:
                self._perform(pending.popleft())
                if not pending:
                    self._holding = False
                    for link, packets in self.engine.batches.take_all().items():
                        self._put(link, packets)
        finally:
            self._performing = False
        self.sim.after_event(self)
        self._arm()

    def receive(self, link: LinkId, frames: Frames) -> None:
        """Frames have come on a link; what only passes through goes on by the FIB, as with `Driver.on_frames`."""
        hop = None if self._performing else self.engine.fib.pass_on(link, frames, self.now)
        self.do([Transmit(*hop)] if hop is not None else self.engine.receive(link, frames, self.now))

    def drain(self, link: LinkId) -> None:
        """Report the link as ready to the engine until it has no more frames or the link is full again."""
        self.full.discard(link)
        while link in self.wires and link not in self.full:
            effects = self.engine.link_ready(link, self.now)
            if not effects:
                break
            self.do(effects)

    def transmit(self, link: LinkId, frames: Frames) -> bool:
        """Put frames on a link; False if it takes no more now."""
        port = self.wires.get(link)
        if port is None:
            return True
        if link in self.full:
            return False
        if port.session is not port.wire.session:
            port.wire.refuse(port.session, port.end)
            return True
        if port.wire.send(port.end, frames):
            return True
        self.full.add(link)
        return False

    def _put(self, link: LinkId, packets: list[Frames]) -> None:
        """Put packets on a link, several as a batch; what it does not take goes back to the engine."""
        if packets and not self.transmit(link, packets[0] if len(packets) == 1 else encode_batch(packets)):
            for frames in packets:
                self._pending.extend(self.engine.link_full(link, frames, self.now))

    def hang_up(self, effect: HangUp) -> None:
        """Close a connection."""
        port = self.wires.get(effect.link)
        if port is not None:
            port.wire.hang_up(port.session, port.end, effect.pause)

    def _perform(self, effect: Effect) -> None:
        now = self.now
        match effect:
            case Transmit(link, frames):
                batches = self.engine.batches
                if not self._holding or not batches.hold(link, frames):
                    self._put(link, batches.take(link))
                    self._put(link, [frames])
            case Deliver():
                self.deliver(effect)
                if self.pause:
                    self._read_later(effect)
                elif not self.unread:
                    self.do(self.engine.release_credit(effect.stream, effect.credit, now))
            case HangUp():
                self.hang_up(effect)
            case Pull(stream):
                self.sim.after(0.0, lambda: self._feed(stream))
            case StreamOver(stream):
                self._feeding.pop(stream, None)
                if stream.request and stream.message_id in self.outcomes:
                    self.outcomes[stream.message_id].stopped = True
            case Abort(message_id, reason):
                job = self.jobs.get(message_id)
                if job is not None and not job.ended:
                    job.aborted = reason
                    job.reset_code = effect.reset_code
                    job.ended = True
                    eof = Eof(1, reason, f"stopped: {reason}")
                    self.do(self.engine.reply(message_id, None, b"", now, last=False, eof=eof))
            case ReportDelay(message_id):
                job = self.jobs.get(message_id)
                if job is not None and not job.ended:
                    text = f"node {self.id!r}: {job.directive} {NOT_BEGUN}"
                    self.do(self.engine.report_delay(message_id, text, now))
            case Report():
                if self.sim.checked:
                    self.reports.append(effect)
                    self.sim.note(self, effect)

    def _read_later(self, chunk: Deliver) -> None:
        engine = self.engine
        self._reading_until = max(self._reading_until, self.sim.now) + self.pause

        def read() -> None:
            if self.alive and self.engine is engine:
                self.do(engine.release_credit(chunk.stream, chunk.credit, self.now))

        self.sim.at(self._reading_until, read)

    def _feed(self, stream: Stream) -> None:
        while stream in self._feeding:
            payload, start = self._feeding[stream]
            if not self.engine.is_open(stream):
                del self._feeding[stream]
                return
            room = self.engine.room(stream)
            if room == 0:
                return
            end = start + room
            if end >= len(payload):
                del self._feeding[stream]
            else:
                self._feeding[stream] = (payload, end)
            self.do(self.engine.feed(stream, payload[start:end], self.now, last=end >= len(payload)))

    def deliver(self, chunk: Deliver) -> None:
        """Take the next chunk of a request or of replies."""
        message_id = chunk.stream.message_id
        if chunk.stream.request:
            if isinstance(chunk.header, RequestHeader):
                self.jobs[message_id] = Job(message_id, chunk.peer, chunk.header.directive)
                self.runs[message_id] = self.runs.get(message_id, 0) + 1
                self.engine.attach(message_id, self.jobs[message_id])
            job = self.jobs.get(message_id)
            if job is None:  # a request without a beginning, which a member has made up
                return
            job.payload += chunk.body
            job.complete = chunk.last
            if not job.ended:
                self.listener(self, job, chunk.body)
            if chunk.last and not job.ended:
                self.plugin(self, job)
            return
        outcome = self.outcomes[message_id]
        if isinstance(chunk.header, ReplyHeader):
            outcome.serials.append(chunk.header.serial)
        outcome.partial += chunk.body
        outcome.hops = chunk.hops
        if chunk.last:
            outcome.replies.append(bytes(outcome.partial))
            outcome.partial.clear()
        if chunk.eof is not None:
            outcome.eofs.append(chunk.eof)
            outcome.ended_at = self.now

    def _arm(self) -> None:
        """Have `tick` called when the engine is due next, by this node's clock."""
        deadline = self.engine.next_deadline()
        if deadline is not None and deadline < self._wake:
            self._wake = deadline
            when = self.clock.when(deadline)
            if when < math.inf:
                self._alarms += 1
                alarm = self._alarms
                self.sim.at(when, lambda: self._ring(alarm))

    def _ring(self, alarm: int) -> None:
        if alarm != self._alarms or not self.alive:
            return
        if self.stopped:
            self.sim.after(STOPPED_POLL, lambda: self._ring(alarm))
            return
        self._wake = math.inf
        self.do(self.engine.tick(self.now))

    def _on_clock(self) -> None:
        """The clock shows something else than it would have."""
        self._wake = math.inf
        self._alarms += 1
        self._arm()


def ignore(node: SimNode, job: Job, part: bytes) -> None:
    """The default listener of a node."""


def echo(node: SimNode, job: Job) -> None:
    """The default program of a node: send the payload back, and end."""
    node.reply(job, bytes(job.payload), eof=Eof())
