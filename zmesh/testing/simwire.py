"""The simulator's connections: FIFO, as ZeroMQ's are, and open to all that may befall one on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.core.message import LinkId
from zmesh.core.wire import Frames

if TYPE_CHECKING:
    from zmesh.testing.simnode import SimNode
    from zmesh.testing.simulator import Simulator

REDIAL = 0.1
"""Seconds until a connection that failed is tried again, at the least."""


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
