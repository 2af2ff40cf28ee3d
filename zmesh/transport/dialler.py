"""A DEALER that dials. libzmq redials where nobody answers; after a breach of the protocol a new socket does."""

from __future__ import annotations

import asyncio
import random
import time

import zmq

from zmesh.core.message import LinkId
from zmesh.core.wire import Frames
from zmesh.errors import AddressError
from zmesh.transport.address import Target
from zmesh.transport.dials import Dial, DialState, Failure
from zmesh.transport.port import MORE, Owner, Port, send_body

CONNECT_MS = 5_000
REDIAL_FIRST_MS = 50
REDIAL_LAST_MS = 1_000
REDIAL_FIRST = 0.1
REDIAL_LAST = 10.0

_NOT_ZEROMQ = (Failure.NOT_ZEROMQ, "what answers there does not speak ZeroMQ")
_CLOSED = (Failure.CLOSED, "the connection was closed while it was being set up")
_FAILURES = {
    int(zmq.EVENT_CONNECT_RETRIED): (Failure.REFUSED, "nothing answers there"),
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): _CLOSED,
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): _NOT_ZEROMQ,
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): (Failure.NOT_ADMITTED, "the other side does not let us in"),
    int(zmq.EVENT_DISCONNECTED): _CLOSED,
}
_EVENTS = int(zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED) | sum(_FAILURES)


class Dialler(Port):
    """A DEALER. libzmq redials by itself; a link that the node hangs up on gets a new socket after a pause."""

    def __init__(self, transport: Owner, target: Target) -> None:
        super().__init__(transport)
        self.target = target
        self.link: LinkId | None = None
        self._pause = REDIAL_FIRST
        self._redial: asyncio.TimerHandle | None = None
        self._handshake: asyncio.TimerHandle | None = None
        self._failure: Failure | None = None
        self._reason = ""
        self._since = time.monotonic()
        self._tries = 0
        self._connect()

    @property
    def dial(self) -> Dial:
        """How dialling this peer stands."""
        if self.link is not None:
            state = DialState.LINKED
        else:
            state = DialState.CONNECTING if self._redial is None else DialState.WAITING
        return Dial(self.target.url, state, self._failure, self._reason, self._since, self._tries)

    def _connect(self) -> None:
        self._redial = None
        self._open(zmq.DEALER, self.target.endpoint, _EVENTS)
        sock = self._socket
        sock.set(zmq.IMMEDIATE, 1)
        sock.set(zmq.RECONNECT_IVL, REDIAL_FIRST_MS)
        sock.set(zmq.RECONNECT_IVL_MAX, REDIAL_LAST_MS)
        sock.set(zmq.CONNECT_TIMEOUT, CONNECT_MS)
        try:
            sock.connect(self.target.endpoint)
        except zmq.ZMQError as error:
            self._shut()
            raise AddressError(f"can't dial {self.target.url}: {error.strerror or error}") from None
        self._start()
        if self._monitor is None:
            self.transport.loop.call_soon(self._up)

    def where(self, link: LinkId) -> str:
        """The peer's URL."""
        return self.dial.url

    def send(self, link: LinkId, frames: Frames) -> bool:
        """Hand frames to ZeroMQ; False if the connection takes no more now."""
        try:
            self._send(frames[0], MORE)
        except zmq.Again:
            self.full.add(link)
            return False
        self._send(frames[1], MORE)
        send_body(self._send, frames[2])
        return True

    def hang_up(self, link: LinkId, pause: float) -> None:
        """Close the connection, and dial again after `pause` seconds at the earliest."""
        self.link, self._since = None, time.monotonic()
        self._replace(pause)

    def _replace(self, pause: float) -> None:
        """Close the socket and dial with a new one, after `pause` seconds at the earliest, and later each time."""
        self._stop_waiting()
        self._shut()
        self.full.clear()
        delay = max(pause, self._pause) * random.uniform(1.0, 1.5)
        self._pause = min(REDIAL_LAST, self._pause * 2)
        self._redial = self.transport.loop.call_later(delay, self._connect)

    def close(self) -> None:
        """Close the socket and dial no more."""
        self._stop_waiting()
        if self._redial is not None:
            self._redial.cancel()
            self._redial = None
        else:
            self._shut()

    def healthy(self) -> None:
        """The next pause is the shortest again."""
        self._pause = REDIAL_FIRST

    def _read(self) -> None:
        parts = self._read_parts()
        if self.link is not None:
            self.handler.on_frames(self.link, parts)

    def _up(self) -> None:
        if self._socket.closed:
            return
        self._down("dialled again")
        self.link, self._since = self.transport.new_link(self), time.monotonic()
        self._failure, self._reason, self._tries = None, "", 0
        self.handler.on_link_up(self.link, dialled=True, cost=self.target.cost)

    def _down(self, reason: str) -> None:
        link, self.link = self.link, None
        if link is not None:
            self._since = time.monotonic()
            self.full.discard(link)
            self.transport.links.pop(link, None)
            self.handler.on_link_down(link, reason)

    def _on_event(self, event: int, value: int) -> None:
        if event == zmq.EVENT_CONNECTED:
            # libzmq's own patience (HANDSHAKE_IVL) ends where it takes the first bytes for those of ZMTP 1.
            self._stop_waiting()
            self._handshake = self.transport.loop.call_later(1.2 * self._patience, self._give_up, _NOT_ZEROMQ)
            return
        self._stop_waiting()
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._up()
        elif event == zmq.EVENT_CONNECT_RETRIED:
            self._tell(_FAILURES[event])
        else:
            self._give_up(_FAILURES[event])

    def _give_up(self, why: tuple[Failure, str]) -> None:
        """End the connection, and dial anew; libzmq never dials again whom it found to break the protocol."""
        self._tell(why)
        self._down("the connection was closed")
        if not self._socket.closed:
            self._replace(0.0)

    def _tell(self, why: tuple[Failure, str]) -> None:
        if self.link is None:
            self._failure, self._reason = why
            self._tries += 1
            self.handler.on_dial_failed(self.target.url, self._reason)

    def _stop_waiting(self) -> None:
        if self._handshake is not None:
            self._handshake.cancel()
            self._handshake = None
