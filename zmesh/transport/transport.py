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
from zmesh.transport.curve import LinkSecurity, key_to_text
from zmesh.transport.dial_status import DialStatus
from zmesh.transport.dialler import Dialler
from zmesh.transport.gate import Gate
from zmesh.transport.lingering import LingeringConnections
from zmesh.transport.link_socket import LinkSocket, TransportHandler
from zmesh.transport.listener import Listener
from zmesh.transport.resolver import Resolver
from zmesh.transport.resolver import shared as shared_resolver
from zmesh.transport.traffic import TrafficTable
from zmesh.transport.zap import shared as shared_zap

UNBOUND_WITHIN = 0.5


class Transport:
    """The ZeroMQ sockets of one node.

    `security` says which links are encrypted and which are refused; by default that of a node without an identity.
    `resolver` looks up host names; by default that of the process.
    """

    def __init__(
        self, handler: TransportHandler, resolver: Resolver = shared_resolver, security: LinkSecurity | None = None
    ) -> None:
        self.handler = handler
        self.resolver = resolver
        self._security = security if security is not None else LinkSecurity()
        self._zap_domain: bytes | None = None
        self.loop = asyncio.get_running_loop()
        self.context = shared.acquire()
        self.links: dict[LinkId, LinkSocket] = {}
        self.listening: list[str] = []
        self._listeners: dict[str, Listener] = {}
        self._diallers: dict[Dialler, str] = {}
        self.touched: set[LinkSocket] = set()
        self.traffic = TrafficTable()
        self._traffic = self.traffic.by_link
        self._numbers = itertools.count(1)
        self.gate = Gate()
        self.lingering = LingeringConnections(self.loop)
        self.draining = False
        self.closed = False

    def listen(self, url: str) -> str:
        """Bind a ROUTER and return the URL to dial it at: with the port, where `*` was given, and the key, if any.

        Raises AddressError if the address is malformed, taken, or not of this machine, or must not be plaintext.
        """
        target = parse_url(url)
        sock = Listener(self, target, self.resolver, self._security.to_listen(target))
        shown = sock.url if sock.key is None else f"{sock.url}?key={key_to_text(sock.key)}"
        self._listeners[shown] = sock
        self.listening.append(shown)
        return shown

    def dial(self, url: str) -> None:
        """Keep a connection to a peer up, dialling again for ever.

        Raises AddressError if the URL is malformed, or if the link would be plaintext and must not be.
        """
        target = parse_peer(url)
        self._diallers[Dialler(self, target, self.resolver, self._security.to_dial(target))] = url

    def links_at(self, listening: str) -> list[LinkId]:
        """The links that were accepted at one of the URLs of `listening`."""
        return [link for link, sock in self.links.items() if sock is self._listeners.get(listening)]

    def unlisten(self, listening: str) -> None:
        """Close one of the URLs of `listening`, after all links there were hung up."""
        self.listening.remove(listening)
        self._listeners.pop(listening).close()

    def links_to(self, url: str) -> list[LinkId]:
        """The links that were made by dialling this URL."""
        diallers = [dialler for dialler, given in self._diallers.items() if given == url]
        return [dialler.link for dialler in diallers if dialler.link is not None]

    def undial(self, url: str) -> None:
        """Dial this URL no more, and close its connection."""
        for dialler in [dialler for dialler, given in self._diallers.items() if given == url]:
            del self._diallers[dialler]
            dialler.close()

    def zap_domain(self) -> bytes:
        """The ZAP domain of the encrypted listeners. Raises ZMQError or RuntimeError if its handler can't start."""
        if self._zap_domain is None:
            self._zap_domain = shared_zap.open(self.context)
        return self._zap_domain

    def dials(self) -> tuple[DialStatus, ...]:
        """How dialling each peer stands, in the order in which they were given."""
        return tuple(dialler.dial for dialler in self._diallers)

    def send(self, link: LinkId, frames: Frames) -> bool:
        """Hand frames to ZeroMQ; False if the link is full, and `on_link_ready` will come. Never blocks."""
        sock = self.links.get(link)
        if sock is None:
            self.handler.on_frames_lost(link, "link_gone")
            return True
        if link in sock.full:
            return False
        if self.gate.shut:
            self.gate.wait()
        self.touched.add(sock)
        if not sock.send(link, frames):
            return False
        traffic = self._traffic[link]
        traffic.messages_out += 1
        traffic.bytes_out += len(frames[0]) if len(frames) == 1 else sum(map(len, frames))
        return True

    def send_from_thread(self, links: Iterable[LinkId], frames: Frames) -> bool:
        """Send frames on these links from another thread than the loop's; False if that can't be done at the moment.

        When the loop goes on, it has to `poll_all`.
        """
        with self.gate.enter() as entered:
            if entered and not self.closed:
                for link in links:
                    sock = self.links.get(link)
                    if sock is not None:
                        sock.send_from_thread(link, frames)
        return entered

    def poll_all(self) -> None:
        """Check all sockets for input whose signal another thread may have swallowed."""
        self.touched.update(self.links.values())
        self.settle()

    def settle(self) -> None:
        """Check the sockets that were sent on for input whose signal the sending has swallowed; call it afterwards."""
        if self.draining or not self.touched:
            return
        touched, self.touched = self.touched, set()
        for sock in touched:
            sock.check_soon()

    def hang_up(self, link: LinkId, pause: float) -> None:
        """Close a link; what was dialled is dialled again, after `pause` seconds at the earliest."""
        sock = self.links.pop(link, None)
        if sock is not None:
            sock.hang_up(link, pause)

    def remote_address(self, link: LinkId) -> str:
        """The address of the other end of a link: the URL that was dialled, or the address that it was dialled from."""
        sock = self.links.get(link)
        return sock.remote_address(link) if sock is not None else ""

    def dialled_url(self, link: LinkId) -> str | None:
        """The peer's URL, if this node has dialled the link."""
        sock = self.links.get(link)
        return sock.remote_address(link) if isinstance(sock, Connection) else None

    def is_full(self, link: LinkId) -> bool:
        """Whether the last frames for that link did not go out."""
        sock = self.links.get(link)
        return sock is not None and link in sock.full

    def on_established(self, link: LinkId) -> None:
        """A link is up: should it be lost, the peer is dialled again soon."""
        sock = self.links.get(link)
        if sock is not None:
            sock.on_established(link)

    def new_link(self, sock: LinkSocket) -> LinkId:
        """Number a new connection."""
        link = LinkId(next(self._numbers))
        self.links[link] = sock
        self.traffic.open(link, self.links)
        return link

    async def close(self) -> None:
        """Close every socket; what was handed over is sent on for LINGER_MS. Nothing is left afterwards."""
        if self.closed:
            return
        self.closed = True
        freed = [listener.unbind() for listener in self._listeners.values()]
        if any(freed):
            await asyncio.wait([future for future in freed if future is not None], timeout=UNBOUND_WITHIN)
        tasks = [dialler.task for dialler in self._diallers]
        for listener in self._listeners.values():
            listener.close()
        for dialler in self._diallers:
            dialler.close()
        self._listeners.clear()
        self._diallers.clear()
        self.links.clear()
        await self.lingering.ended()
        if tasks:
            await asyncio.wait(tasks)
        await shared.release(self._close_zap())

    def _close_zap(self) -> bool:
        domain, self._zap_domain = self._zap_domain, None
        return domain is None or shared_zap.close(domain)

    def close_now(self) -> None:
        """Close every socket without the loop, which may be closed; blocks for LINGER_MS at most."""
        if self.closed:
            return
        self.closed = True
        ports: list[Listener | Dialler] = [*self._listeners.values(), *self._diallers]
        self._listeners.clear()
        self._diallers.clear()
        self.links.clear()
        for sock in ports:
            sock.close()
        self.lingering.ended_now()
        shared.release_now(self._close_zap())
