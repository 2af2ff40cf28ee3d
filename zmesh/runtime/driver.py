"""Drives the engine of one node: passes stimuli to it, performs its effects in order, and calls `tick` when it is due.

Effects of a stimulus that arises while effects are being performed come after those, and all are performed before
anything else happens. The driver decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, assert_never

from zmesh.core.effects import Abort, Deliver, Effect, HangUp, Pull, Report, ReportDelay, StreamOver, Transmit
from zmesh.core.engine import Engine
from zmesh.core.message import Eof, LinkId, MessageId, ReplyHeader, Stream
from zmesh.core.wire import Frames, encode_batch
from zmesh.runtime.exceptions import log_exception, must_propagate
from zmesh.runtime.wall_clock import SET_BY, describe_set, read_epoch

log = logging.getLogger(__name__)

NEVER = float("inf")
HELD_FOR = 0.001
"""Seconds after which packets that were held back go out before another one is."""

RESOLUTION = 0.001
"""Seconds by which a timer of the loop may go off early, and more."""


class Handle(Protocol):
    """One side of an exchange as the shell keeps it: the engine carries it, and its effects come back to it."""

    def on_chunk(self, chunk: Deliver) -> None:
        """The next chunk of the inbound stream, in order."""

    def on_room(self) -> None:
        """The outbound stream takes more (Pull)."""

    def on_stream_over(self) -> None:
        """The outbound stream takes no more (StreamOver)."""

    def on_abort(self, reason: str, reset_code: int) -> None:
        """Stop the work of this request (Abort); `reason` is a code of zmesh.errors. At the server only."""

    def on_probe(self) -> None:
        """The client probes (ReportDelay): report what the work waits for, if it has not begun. At the server only."""

    def on_failure(self, error: BaseException) -> None:
        """`on_chunk` raised: end this exchange."""


class LinkLayer(Protocol):
    """The transport as the driver uses it."""

    def send(self, link: LinkId, frames: Frames) -> bool:
        """Hand frames over; False if the link is full, and `on_link_ready` will come."""

    def settle(self) -> None:
        """Check for input whose signal the sending has swallowed."""

    def hang_up(self, link: LinkId, pause: float) -> None:
        """Close a link, and dial it again after `pause` seconds if this node has dialled it."""

    def is_full(self, link: LinkId) -> bool:
        """Whether the last frames for that link were not taken."""

    def remote_address(self, link: LinkId) -> str:
        """The URL that was dialled, or the address that the connection came from."""


class Driver:
    """The engine and its surroundings: the transport below, the two sides of exchanges above, and the loop's clock.

    Effects of one stimulus are emitted before the first of them is performed, so the first chunk of a request, and what
    comes with it, carries no handle yet: the server's side sets `accept` for such chunks, and `find` for such an Abort.
    `note` is called with each report. This is the TransportHandler of the node.
    """

    __slots__ = (
        "_alarm",
        "_batches",
        "_heartbeat",
        "_held_since",
        "_holding",
        "_later",
        "_later_at",
        "_links",
        "_loop",
        "_note",
        "_pass_on",
        "_pending",
        "_performing",
        "_sent",
        "_ticked_at",
        "_timer",
        "_wake_at",
        "accept",
        "closed",
        "engine",
        "find",
        "muted",
        "on_idle",
        "wall_clock",
    )

    def __init__(self, engine: Engine, heartbeat: float, note: Callable[[Report], None]) -> None:
        self.engine = engine
        self._pass_on = engine.fib.pass_on
        self._alarm = engine.alarm
        self._heartbeat = heartbeat
        self._note = note
        self._links: LinkLayer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: deque[Effect] = deque()
        self._performing = False
        self._batches = engine.batches
        self._holding = False
        """Whether small packets are held back, to leave together soon."""
        self._held_since = -math.inf
        self._sent = False
        """Whether something was sent since a frame came: what follows it is the second of a burst."""
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = NEVER
        self._later: asyncio.TimerHandle | None = None
        """A timer that goes off after `_timer`, at `_later_at`; it is kept, since deadlines come and go."""
        self._later_at = NEVER
        self._ticked_at = -math.inf
        self.accept: Callable[[Deliver], None] = _refuse
        self.find: Callable[[MessageId], Handle | None] = _find_nothing
        self.closed = False
        self.muted = False
        """Whether chunks are dropped instead of delivered, because the program ends."""
        self.wall_clock: Callable[[], float] = time.time
        """The machine's clock, seconds since 1970; `follow_clock` compares it at each tick and each new link."""
        self.on_idle: Callable[[], None] | None = None
        """Called whenever all effects have been performed."""

    def start(self, links: LinkLayer) -> None:
        """Perform effects from now on, in the running loop; those of earlier stimuli follow with the next one."""
        self._links = links
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Stop calling `tick`. Effects are still performed."""
        self.closed = True
        for timer in (self._timer, self._later):
            if timer is not None:
                timer.cancel()
        self._timer = self._later = None

    # -- stimuli: exchanges --------------------------------------------------------------------------------------

    def reply(
        self,
        message_id: MessageId,
        header: ReplyHeader | None,
        body: bytes,
        *,
        last: bool = True,
        eof: Eof | None = None,
    ) -> None:
        """Send a reply, or its beginning (`last` False), or with `eof` the end of the exchange."""
        self.perform(self.engine.reply(message_id, header, body, time.monotonic(), last=last, eof=eof))

    def feed(self, stream: Stream, body: bytes, *, last: bool) -> None:
        """Send more of the message under way on a stream."""
        self.perform(self.engine.feed(stream, body, time.monotonic(), last=last))

    def release_credit(self, stream: Stream, credit: int) -> None:
        """Release credit: so many bytes of an inbound stream have been read."""
        self.perform(self.engine.release_credit(stream, credit, time.monotonic()))

    def cancel(self, message_id: MessageId, reset_code: int = 0) -> None:
        """Cancel a request of this node, or reset it with a code. Harmless if it is over."""
        self.perform(self.engine.cancel(message_id, time.monotonic(), reset_code))

    def reset(self, message_id: MessageId, code: int, error: str) -> None:
        """End a request that was received here with a code, and drop what was not sent of its replies."""
        self.perform(self.engine.reset(message_id, code, error, time.monotonic()))

    def report_delay(self, message_id: MessageId, text: str) -> None:
        """Answer a probe of the client of a request: its work waits to begin, for what `text` says."""
        self.perform(self.engine.report_delay(message_id, text, time.monotonic()))

    def stop_sending(self, message_id: MessageId) -> None:
        """Have the client of a request stop sending it (STOP_SENDING). Harmless if all of it has come."""
        self.perform(self.engine.stop_sending(message_id, time.monotonic()))

    def room(self, stream: Stream) -> int:
        """How many bytes the stream takes now; 0 if it is over."""
        return 0 if self.closed else self.engine.room(stream)

    def is_open(self, stream: Stream) -> bool:
        """Whether the stream may take more."""
        return not self.closed and self.engine.is_open(stream)

    # -- stimuli: the transport (TransportHandler) --------------------------------------------------------------------

    def on_link_up(self, link: LinkId, *, dialled: bool, cost: int, channel: bytes = b"", local: bool = False) -> None:
        """A connection is there."""
        where = self._links.remote_address(link) if self._links is not None else ""
        where = f"at {where}" if dialled else f"from {where}"
        now = time.monotonic()
        self.follow_clock(now)
        how = self.engine.link_up(link, now, dialled=dialled, cost=cost, where=where, channel=channel, local=local)
        self.perform(how)

    def on_link_down(self, link: LinkId, reason: str) -> None:
        """A connection is gone."""
        self.perform(self.engine.link_down(link, time.monotonic(), reason))

    def on_link_suspect(self, link: LinkId) -> None:
        """A connection may be gone."""
        self.perform(self.engine.probe(link, time.monotonic()))

    def on_frames(self, link: LinkId, frames: list[bytes]) -> None:
        """A message has come; what only passes through goes on by the FIB."""
        now, links = time.monotonic(), self._links
        self._sent = False
        if self._performing or links is None:
            self.perform(self.engine.receive(link, frames, now))
            return
        hop = self._pass_on(link, frames, now)
        if hop is None:
            self._run(links, self.engine.receive(link, frames, now))
        elif self._holding:
            self._transmit(links, hop)
            if self._pending:
                self._run(links, [])
        elif not links.send(*hop):
            self._run(links, self.engine.link_full(*hop, now))

    def on_burst(self) -> None:
        """More messages wait to be read: what is sent because of them leaves together."""
        self._holding = True

    def on_burst_end(self) -> None:
        """Send what was held back."""
        links = self._links
        if self._performing or links is None:
            return
        self._release(links)
        if self._pending:
            self._run(links, [])

    def on_link_ready(self, link: LinkId) -> None:
        """A full link may take more: one frame is tried first, so that no more than that comes back."""
        links = self._links
        effects = self.engine.link_ready(link, time.monotonic(), most=1)
        while effects:
            self.perform(effects)
            if links is None or links.is_full(link):
                break
            effects = self.engine.link_ready(link, time.monotonic())

    def on_dial_failed(self, url: str, reason: str, code: str = "") -> None:
        """A peer does not answer; it is dialled again."""
        self.perform(self.engine.dial_failed(url, reason, time.monotonic()))
        self._note(Report("dial_failed", None, None, f"{url}: {reason}", text=code))

    def on_frames_lost(self, link: LinkId | None, reason: str) -> None:
        """A message was dropped: of a link that is gone or was hung up."""
        self._note(Report("frame_dropped", None, link, reason))

    def on_connection_shut(self, reason: str) -> None:
        """A connection was ended that no link had been made of."""
        self._note(Report("connection_shut", None, None, reason))

    def on_stranger(self, code: str, text: str) -> None:
        """A connection has ended in its handshake."""
        self._note(Report("stranger_refused", None, None, f"{code}: {text}"))

    # -- effects -------------------------------------------------------------------------------------------------

    def perform(self, effects: list[Effect]) -> None:
        """Perform what the engine returned, in order; effects of a stimulus that arises meanwhile come after.

        Frames that nothing waits ahead of go out at once even then, so that a reply is on its way before all that led
        to it has returned.
        """
        pending, links = self._pending, self._links
        if self._performing or links is None:
            for effect in effects:
                if pending or links is None or type(effect) is not Transmit:
                    pending.append(effect)
                else:
                    self._transmit(links, effect)
            return
        self._run(links, effects)
        if not self.closed:
            links.settle()

    def _run(self, links: LinkLayer, effects: list[Effect]) -> None:
        """Perform the effects of a stimulus, and of those that arise meanwhile."""
        pending, holds = self._pending, len(effects) > 1 and not self._holding
        self._performing = True
        if holds:
            self._holding = True
        pending.extend(effects)
        try:
            while pending:
                effect = pending.popleft()
                if type(effect) is Transmit:  # by far the most are this and the next
                    self._transmit(links, effect)
                elif type(effect) is Deliver:
                    self._deliver(effect)
                else:
                    self._do(links, effect)
                if holds and not pending:
                    holds = self._release(links)
        finally:
            self._performing = False
            if holds:
                self._holding = False
        if self._alarm.soonest < self._wake_at and not self.closed:
            self._arm()
        if self.on_idle is not None:
            self.on_idle()

    def _transmit(self, links: LinkLayer, effect: tuple[LinkId, Frames]) -> None:
        link, frames = effect
        if (self._holding or self._sent) and self._hold(links, link, frames):
            return
        self._sent = True
        if not links.send(link, frames):
            self._pending.extend(self.engine.link_full(link, frames, time.monotonic()))

    def _hold(self, links: LinkLayer, link: LinkId, frames: Frames) -> bool:
        """Hold a packet back; False if it has to be sent, before which what was held back for its link is sent."""
        if not self._holding and (self._loop is None or self._loop.is_closed()):
            return False
        batches, now = self._batches, time.monotonic()
        if batches.waiting and now > self._held_since + HELD_FOR:
            self._release(links, go_on=self._holding)
        if not batches.waiting:
            self._held_since = now
        if not batches.hold(link, frames):
            self._send_batch(links, link, batches.take(link))
            return False
        if not self._holding and self._loop is not None:
            self._holding = True
            self._loop.call_soon(self.on_burst_end)
        return True

    def _release(self, links: LinkLayer, *, go_on: bool = False) -> bool:
        """Send all that was held back; True if there was anything. `go_on`: hold back what follows."""
        self._holding = go_on
        waiting = self._batches.take_all()
        for link, packets in waiting.items():
            self._send_batch(links, link, packets)
        return bool(waiting)

    def _send_batch(self, links: LinkLayer, link: LinkId, packets: list[Frames]) -> None:
        if packets and not links.send(link, packets[0] if len(packets) == 1 else encode_batch(packets)):
            for frames in packets:
                self._pending.extend(self.engine.link_full(link, frames, time.monotonic()))

    def _deliver(self, chunk: Deliver) -> None:
        if self.muted:
            return
        if type(chunk.body) is not bytes:  # large frames come from ZeroMQ uncopied, as what only it knows
            chunk = chunk._replace(body=bytes(chunk.body))
        handle: Any = chunk.handle
        if handle is None:
            self.accept(chunk)
            return
        try:
            handle.on_chunk(chunk)
        except BaseException as error:
            if must_propagate(error):
                raise
            self.fail(handle, chunk.stream.message_id, error)

    def fail(self, handle: Handle, message_id: MessageId, error: BaseException) -> None:
        """End one exchange that can't go on, and nothing else: other frames wait behind this one."""
        text = "%s failed to take in a frame of %s"
        log_exception(log, text, self.engine.node, message_id.hex(), error=error, level=logging.ERROR)
        handle.on_failure(error)

    def _do(self, links: LinkLayer, effect: Effect) -> None:
        handle: Any
        match effect:
            case Pull():
                handle = effect.handle
                if handle is not None:
                    handle.on_room()
            case StreamOver():
                handle = effect.handle
                if handle is not None:
                    handle.on_stream_over()
            case Abort():
                handle = effect.handle or self.find(effect.message_id)
                if handle is not None:
                    handle.on_abort(effect.reason, effect.reset_code)
            case ReportDelay():
                handle = effect.handle
                handle.on_probe()
            case HangUp(link, _, pause):
                links.hang_up(link, pause)
            case Report():
                self._note(effect)
            case Transmit():
                self._transmit(links, effect)
            case Deliver():
                self._deliver(effect)
            case _:
                assert_never(effect)

    # -- time ----------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Have `tick` called when the engine is due next."""
        if self._loop is None:
            return
        deadline = self._alarm.soonest
        if self._timer is not None:  # it goes off after the deadline
            if self._later is not None:
                self._later.cancel()
            self._later, self._later_at = self._timer, self._wake_at
        elif self._later is not None and self._later_at <= deadline:
            self._timer, self._later = self._later, None
            self._wake_at = self._later_at
            return
        self._wake_at = deadline
        self._timer = self._loop.call_later(max(0.0, deadline - time.monotonic()), self._tick)

    def _tick(self) -> None:
        loop = self._loop
        if loop is None or self.closed:
            return
        now, self._timer = time.monotonic(), None
        if self._later is not None and self._later_at <= now + RESOLUTION:  # this may be its call
            self._later.cancel()
            self._later = None
        # By the engine's deadline: a timer that was set during a block is not late itself. And no earlier than the last
        # tick: the loop may be blocked again before the one that follows a block.
        late = now - max(self._alarm.soonest, self._ticked_at)
        self._ticked_at = now
        self._wake_at = NEVER
        self.follow_clock(now)
        if self._heartbeat < late < math.inf:
            # The loop was blocked. What has come meanwhile is read first, lest its lateness be taken for silence.
            self._timer = loop.call_later(0.0, self._tick)
            self._wake_at = now
            self.perform(self.engine.resume(late, now))
            return
        self.perform(self.engine.tick(now))

    def follow_clock(self, now: float) -> None:
        """Pass on that the machine's clock was set, if it was."""
        engine = self.engine
        if abs(self.wall_clock() - now - engine.epoch) < SET_BY or (found := read_epoch(self.wall_clock)) is None:
            return
        ahead = found - engine.epoch
        if abs(ahead) >= SET_BY:
            self._note(Report("clock_set", engine.node, None, describe_set(ahead)))
            self.perform(engine.clock_set(found, now))


def _refuse(chunk: Deliver) -> None:
    raise RuntimeError("this node serves no requests")


def _find_nothing(message_id: MessageId) -> Handle | None:
    return None
