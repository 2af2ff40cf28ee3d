"""The sockets of one node, behind one interface."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

from zmesh.core.message import LinkId
from zmesh.core.wire import Frames
from zmesh.transport.address import parse_peer, parse_url
from zmesh.transport.connection import Connection
from zmesh.transport.context import shared
from zmesh.transport.dialler import Dialler
from zmesh.transport.dials import Dial
from zmesh.transport.gate import Gate
from zmesh.transport.listener import Listener
from zmesh.transport.names import Names
from zmesh.transport.names import shared as shared_names
from zmesh.transport.port import Handler, Port

UNBOUND_WITHIN = 0.5


class Transport:
    """The sockets of one node. `names` looks up the names of peers; all of a process share one if it is not given."""

    def __init__(self, handler: Handler, names: Names = shared_names) -> None:
        self.handler = handler
        self.names = names
        self.loop = asyncio.get_running_loop()
        self.context = shared.acquire()
        self.links: dict[LinkId, Port] = {}
        self.listening: list[str] = []
        self._listeners: list[Listener] = []
        self._diallers: list[Dialler] = []
        self.touched: set[Port] = set()
        self._numbers = itertools.count(1)
        self.gate = Gate()
        self.draining = False
        self.closed = False

    def listen(self, url: str) -> str:
        """Bind a ROUTER and return the real URL (with the port, where `*` was given).

        Raises AddressError if the address is malformed, taken, or not of this machine.
        """
        port = Listener(self, parse_url(url), self.names)
        self._listeners.append(port)
        self.listening.append(port.url)
        return port.url

    def dial(self, url: str) -> None:
        """Keep a connection to a peer up, dialling again for ever. Raises AddressError if the URL is malformed."""
        self._diallers.append(Dialler(self, parse_peer(url), self.names))

    def dials(self) -> tuple[Dial, ...]:
        """How dialling each peer stands, in the order in which they were given."""
        return tuple(dialler.dial for dialler in self._diallers)

    def send(self, link: LinkId, frames: Frames) -> bool:
        """Hand frames to ZeroMQ; False if the link is full, and `on_link_ready` will come. Never blocks."""
        port = self.links.get(link)
        if port is None:
            self.handler.on_frames_lost(link, "link_gone")
            return True
        if link in port.full:
            return False
        if self.gate.shut:
            self.gate.wait()
        self.touched.add(port)
        return port.send(link, frames)

    def send_as_guest(self, links: Iterable[LinkId], frames: Frames) -> bool:
        """Send frames on these links from another thread than the loop's; False if that can't be done at the moment.

        When the loop goes on, it has to `look_again`.
        """
        with self.gate.enter() as entered:
            if entered and not self.closed:
                for link in links:
                    port = self.links.get(link)
                    if port is not None:
                        port.send_as_guest(link, frames)
        return entered

    def look_again(self) -> None:
        """Look at all sockets for input whose signal another thread may have swallowed."""
        self.touched.update(self.links.values())
        self.settle()

    def settle(self) -> None:
        """To be called after sending: look for input whose signal the sending has swallowed."""
        if self.draining or not self.touched:
            return
        touched, self.touched = self.touched, set()
        for port in touched:
            port.check_soon()

    def hang_up(self, link: LinkId, pause: float) -> None:
        """Close a link; what was dialled is dialled again, after `pause` seconds at the earliest."""
        port = self.links.pop(link, None)
        if port is not None:
            port.hang_up(link, pause)

    def where(self, link: LinkId) -> str:
        """Where the other end of a link is: the URL that was dialled, or the address that it was dialled from."""
        port = self.links.get(link)
        return port.where(link) if port is not None else ""

    def dialled(self, link: LinkId) -> str | None:
        """The peer's URL, if this node has dialled the link."""
        port = self.links.get(link)
        return port.where(link) if isinstance(port, Connection) else None

    def is_full(self, link: LinkId) -> bool:
        """Whether the last frames for that link did not go out."""
        port = self.links.get(link)
        return port is not None and link in port.full

    def healthy(self, link: LinkId) -> None:
        """The node has taken the link up: should it be lost, it is dialled again soon."""
        port = self.links.get(link)
        if port is not None:
            port.healthy()

    def new_link(self, port: Port) -> LinkId:
        """Number a new connection."""
        link = LinkId(next(self._numbers))
        self.links[link] = port
        return link

    async def close(self) -> None:
        """Close every socket; what was handed over is sent on for LINGER_MS. Nothing is left afterwards."""
        if self.closed:
            return
        self.closed = True
        freed = [listener.unbind() for listener in self._listeners]
        if any(freed):
            await asyncio.wait([future for future in freed if future is not None], timeout=UNBOUND_WITHIN)
        tasks = [dialler.task for dialler in self._diallers]
        for listener in self._listeners:
            listener.close()
        for dialler in self._diallers:
            dialler.close()
        self._listeners.clear()
        self._diallers.clear()
        self.links.clear()
        if tasks:
            await asyncio.wait(tasks)
        await shared.release()

    def close_now(self) -> None:
        """Close every socket without the loop, which may be closed; blocks for LINGER_MS at most."""
        if self.closed:
            return
        self.closed = True
        ports: list[Listener | Dialler] = [*self._listeners, *self._diallers]
        self._listeners.clear()
        self._diallers.clear()
        self.links.clear()
        for port in ports:
            port.close()
        shared.release_now()
