"""The simulator's connections: FIFO and reliable, as ZeroMQ's over TCP are, and subject to all kinds of faults.

A `Wire` is what a dialler keeps up, a `Session` one connection of it. Each end of a session has a link of its own, and
learns by itself, at its own time or never, that the connection is gone. So for a while a listener may hold a link of an
old session beside that of the next, or a node one to a machine without power.

Each direction of a wire has its own delay, loss, bandwidth and silence: routes through the Internet are seldom the same
both ways, and a radio may hear whom it does not reach.

Copies: a connection never delivers a frame twice (TCP numbers its bytes, and libzmq sends nothing again on the next
connection). What comes twice was sent twice by its source, after a time-out or on another path; loss in one direction,
silence in one direction, and a break that its ends learn of at different times bring that about: the receiver still
reads what the sender has already given up. `copies` adds to it what a forwarder might do that can't know whether a
frame has arrived: acknowledgements, and chunks for the node that runs there, arrive twice, one right behind the other.
Nothing else is copied, since a source counts which of its copies came back, and may rely on that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zmesh.core import wire
from zmesh.core.effects import Effect
from zmesh.core.message import LinkId
from zmesh.core.wire import Frames, Kind

if TYPE_CHECKING:
    from zmesh.testing.simnode import SimNode
    from zmesh.testing.simulator import Simulator

REDIAL = 0.1
"""Seconds until a connection that failed is tried again, at the least."""

UNLIMITED = float("inf")


class Direction:
    """The impairments of one direction. `delay` and `jitter` in seconds, `loss` and `copies` from 0 to 1,
    `bandwidth` in bytes a second; `silent`: nothing arrives, without a notice.
    """

    __slots__ = ("bandwidth", "copies", "delay", "jitter", "loss", "silent")

    def __init__(self, delay: float, jitter: float) -> None:
        self.delay = delay
        self.jitter = jitter
        self.loss = 0.0
        self.copies = 0.0
        self.silent = False
        self.bandwidth = UNLIMITED


class Session:
    """One connection: the link at each end (None: that end does not know it, or no more), and the frames in flight."""

    __slots__ = ("broken", "hung_up", "idle_at", "ids", "last", "under_way")

    def __init__(self, now: float) -> None:
        self.ids: list[LinkId | None] = [None, None]
        self.broken = False
        """Whether what is sent from now on is lost."""
        self.hung_up = False
        """Whether the listener drops arriving frames: a ROUTER can't close a connection."""
        self.under_way = [0, 0]
        self.last = [now, now]
        """When the last frame from each end arrives."""
        self.idle_at = [now, now]
        """When the last byte from each end has been sent."""


class Port(NamedTuple):
    """The end of a session of a wire that a link of a node is."""

    wire: Wire
    end: int
    session: Session


class Wire:
    """A connection that `dialler` (end 0) keeps up to `listener` (end 1); `room` in frames, per direction; `cost` is
    that of both ends, or a pair of the dialler's and the listener's.

    `delay`, `jitter`, `loss`, `silent` and `bandwidth` set both directions at once, and read the dialler's.
    """

    def __init__(
        self,
        sim: Simulator,
        dialler: SimNode,
        listener: SimNode,
        delay: float | tuple[float, float],
        jitter: float,
        cost: int | tuple[int, int],
        room: int,
    ) -> None:
        there, back = _both(delay)
        self.sim = sim
        self.ends = (dialler, listener)
        self.directions = (Direction(there, jitter), Direction(back, jitter))
        self.cost = cost
        self.room = room
        self.down = False
        self.removed = False
        self.channel = b""
        """The CURVE public keys that the engines are given."""
        self.local = False
        """Whether the connection is local to the engines: only their user can open it."""
        self.session = Session(0.0)
        self.session.broken = True
        self._attempt = 0

    @property
    def ids(self) -> list[LinkId | None]:
        """The links of the latest session, the dialler's first."""
        return self.session.ids

    @property
    def delay(self) -> float:
        """Seconds from end to end."""
        return self.directions[0].delay

    @delay.setter
    def delay(self, seconds: float | tuple[float, float]) -> None:
        self.directions[0].delay, self.directions[1].delay = _both(seconds)

    @property
    def jitter(self) -> float:
        """Most seconds of random delay beside `delay`; order is kept."""
        return self.directions[0].jitter

    @jitter.setter
    def jitter(self, seconds: float) -> None:
        for direction in self.directions:
            direction.jitter = seconds

    @property
    def loss(self) -> float:
        """The share of frames that are lost."""
        return self.directions[0].loss

    @loss.setter
    def loss(self, share: float) -> None:
        for direction in self.directions:
            direction.loss = share

    @property
    def silent(self) -> bool:
        """Whether nothing arrives, without a notice."""
        return self.directions[0].silent

    @silent.setter
    def silent(self, silent: bool) -> None:
        for direction in self.directions:
            direction.silent = silent

    @property
    def bandwidth(self) -> float:
        """Bytes a second."""
        return self.directions[0].bandwidth

    @bandwidth.setter
    def bandwidth(self, rate: float) -> None:
        for direction in self.directions:
            direction.bandwidth = rate

    def heal(self) -> None:
        """Let both directions carry everything again, as fast as they can."""
        self.bring_up()
        for direction in self.directions:
            direction.loss, direction.copies, direction.jitter, direction.silent = 0.0, 0.0, 0.0, False
            direction.bandwidth = UNLIMITED

    # -- opening -------------------------------------------------------------------------------------------------

    def dial(self) -> None:
        """Connect, if both ends are up; else try again later, for ever."""
        dialler, listener = self.ends
        if self.removed or self.ids[0] is not None or not dialler.alive:
            return
        if self.down or not listener.alive:
            self._redial(REDIAL)
            return
        self.session = session = Session(self.sim.now)
        link = self._attach(session, 0)
        dialler.do(self._up(dialler, link, dialled=True))

    def _up(self, node: SimNode, link: LinkId, *, dialled: bool) -> list[Effect]:
        cost = self.cost if isinstance(self.cost, int) else self.cost[not dialled]
        return node.engine.link_up(link, node.now, dialled=dialled, cost=cost, channel=self.channel, local=self.local)

    def _redial(self, pause: float) -> None:
        self._attempt += 1
        attempt = self._attempt
        later = pause * (1 + self.sim.random.random())
        self.sim.after(later, lambda: self.dial() if attempt == self._attempt else None)

    def _attach(self, session: Session, end: int) -> LinkId:
        node = self.ends[end]
        node.links += 1
        link = session.ids[end] = LinkId(node.links)
        node.wires[link] = Port(self, end, session)
        self.sim.reconnected()
        return link

    # -- carrying ------------------------------------------------------------------------------------------------

    def send(self, end: int, frames: Frames) -> bool:
        """Take frames from one end of the latest session; False if there is no room for them now."""
        session = self.session
        if session.under_way[end] >= self.room:
            return False
        sim, direction = self.sim, self.directions[end]
        sim.frames += 1
        if sim.tap is not None:
            sim.tap(frames)
        if session.broken:
            self.refuse(session, end)
            return True
        if direction.silent or (direction.loss and sim.random.random() < direction.loss):
            return True
        when = sim.now
        if direction.bandwidth < UNLIMITED:
            size = wire.size_of(frames)
            when = session.idle_at[end] = max(when, session.idle_at[end]) + size / direction.bandwidth
        when = max(session.last[end], when + direction.delay + direction.jitter * sim.random.random())
        session.last[end] = when
        session.under_way[end] += 1
        sim.at(when, lambda: self._arrive(session, end, frames))
        return True

    def refuse(self, session: Session, end: int) -> None:
        """Answer a frame on a connection that the other machine does not know: with RST, if that machine is up."""
        there, back = self.directions[end], self.directions[1 - end]
        if not (there.silent or back.silent or self.down) and self.ends[1 - end].alive:
            self.sim.after(there.delay + back.delay, lambda: self.notice(session, end, "reset by the other end"))

    def _arrive(self, session: Session, end: int, frames: Frames) -> None:
        node = self.ends[1 - end]
        if node.inbox is not None:
            node.inbox.append(lambda: self._arrive(session, end, frames))
            return
        session.under_way[end] -= 1
        if node.alive and not node.stopped:
            self._hand_over(session, end, node, frames)
            direction = self.directions[end]
            if direction.copies and self.sim.random.random() < direction.copies and _may_be_copied(node, frames):
                self._hand_over(session, end, node, frames)
        sender = self.ends[end]
        mine = session.ids[end]
        if mine is not None and sender.alive and mine in sender.full:
            sender.drain(mine)

    def _hand_over(self, session: Session, end: int, node: SimNode, frames: Frames) -> None:
        if session.ids[1 - end] is None and end == 0 and not (session.broken or session.hung_up):
            link = self._attach(session, 1)
            node.do(self._up(node, link, dialled=False))
        at = session.ids[1 - end]
        if at is not None:
            node.receive(at, frames)

    # -- ending --------------------------------------------------------------------------------------------------

    def hang_up(self, session: Session, end: int, pause: float) -> None:
        """Close the connection at one end. Frames that a dialler has sent arrive, then the listener notices; a listener
        can only drop later frames, and the dialler has to find out.
        """
        link = session.ids[end]
        if link is None:
            return
        if end == 1:
            self._detach(session, end, link)
            session.hung_up = True
            return
        self.finish(session, end)
        self._redial(max(pause, REDIAL))

    def finish(self, session: Session, end: int) -> None:
        """One end is closed in good order: what it has sent arrives, and then that it is closed."""
        link = session.ids[end]
        if link is not None:
            self._detach(session, end, link)
        session.broken = True
        direction = self.directions[end]
        if not direction.silent:
            arrival = max(session.last[end], self.sim.now + direction.delay)
            self.sim.at(arrival, lambda: self.notice(session, 1 - end, "closed by the other end"))

    def abandon(self, session: Session, end: int, *, notice: bool) -> None:
        """The node at one end is dead; the other notices at once if its system has closed the connection."""
        link = session.ids[end]
        if link is not None:
            self._detach(session, end, link)
        session.broken = True
        if notice:
            self.notice(session, 1 - end, "cut")

    def reconnect(self, lag: float) -> None:
        """The connection broke, and libzmq has made the next one before the dialler hears of it, `lag` seconds later.

        What it sends meanwhile goes over the new connection, whose listener does not know who that is.
        """
        former = self.session
        link = former.ids[0]
        if link is None or former.broken or self.down or not self.ends[1].alive:
            return
        former.broken, former.ids[0] = True, None
        self.session = session = Session(self.sim.now)
        session.ids[0] = link
        self.ends[0].wires[link] = Port(self, 0, session)
        self.notice(former, 1, "cut")
        self.sim.after(lag, lambda: self._redialled(session, link))

    def _redialled(self, session: Session, link: LinkId) -> None:
        if session.ids[0] == link:
            self.finish(session, 0)
            node = self.ends[0]
            self._redial(0.0)
            if node.alive:
                node.do(node.engine.link_down(link, node.now, "dialled again"))

    def cut(self, *, notice: bool = True, lags: tuple[float, float] = (0.0, 0.0)) -> None:
        """Break the connection, which is dialled anew as soon as the dialler knows.

        `lags`: after how many seconds the dialler and the listener notice; frames in flight to an end that has not
        noticed arrive. Without `notice` only frames in flight are lost.
        """
        session = self.session
        if not notice:
            self.session = Session(self.sim.now)
            for end, link in enumerate(session.ids):
                if link is not None:
                    self.session.ids[end] = link
                    self.ends[end].wires[link] = Port(self, end, self.session)
                    self.sim.after(0.0, lambda node=self.ends[end], link=link: node.drain(link))  # type: ignore[misc]
            session.ids, session.broken = [None, None], True
            return
        session.broken = True
        for end, lag in enumerate(lags):
            if lag:
                self.sim.after(lag, lambda end=end: self.notice(session, end, "cut"))  # type: ignore[misc]
            else:
                self.notice(session, end, "cut")

    def notice(self, session: Session, end: int, reason: str) -> None:
        """One end learns that the connection is gone."""
        node = self.ends[end]
        link = session.ids[end]
        if link is None:
            return
        if node.inbox is not None:
            node.inbox.append(lambda: self.notice(session, end, reason))
            return
        self._detach(session, end, link)
        if end == 0:
            self._redial(REDIAL)
        if node.alive:
            if end == 1:  # a ROUTER learns only that a descriptor was closed; a frame sent on the link finds out which
                node.do(node.engine.probe(link, node.now))
            node.do(node.engine.link_down(link, node.now, reason))

    def take_down(self) -> None:
        """Cut the connection and keep it cut until `bring_up`."""
        self.down = True
        self.cut()

    def bring_up(self) -> None:
        """Let the dialler connect again."""
        self.down = False

    def remove(self) -> None:
        """Take the wire away for good."""
        self.removed = True
        self.cut()

    def _detach(self, session: Session, end: int, link: LinkId) -> None:
        session.ids[end] = None
        node = self.ends[end]
        node.wires.pop(link, None)
        node.full.discard(link)


def _both(delay: float | tuple[float, float]) -> tuple[float, float]:
    return delay if isinstance(delay, tuple) else (delay, delay)


def _may_be_copied(node: SimNode, frames: Frames) -> bool:
    """Whether a second copy changes nothing that its source counts: see the head of this file."""
    try:
        route = wire.read_packet(frames)
        if route.destination != node.engine.address or route.kind not in (Kind.ACK, Kind.CHUNK):
            return False
        return route.kind == Kind.ACK or wire.decode_chunk(route.head).target == node.engine.incarnation
    except wire.WireError:
        return False
