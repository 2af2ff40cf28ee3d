"""A DEALER that is connected to one endpoint, once: when its connection fails or ends, so does it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import zmq

from zmesh.core.message import LinkId
from zmesh.core.wire import Frames
from zmesh.transport.address import Target
from zmesh.transport.curve import Dialled, key_to_text
from zmesh.transport.dial_status import DialError, DialFailure
from zmesh.transport.link_socket import IN, LAST, MORE, OUT, LinkSocket, send_rest

if TYPE_CHECKING:
    from zmesh.transport.transport import Transport

CONNECT_WITHIN = 5.0
"""Seconds for the TCP connection of ZeroMQ."""
LOOK_AGAIN = 0.05
NEVER_MS = 24 * 3_600_000
"""ZMQ_RECONNECT_IVL of a socket that is closed when its connection is over."""

NOT_ZEROMQ = (DialFailure.NOT_ZEROMQ, "what answers there does not speak ZeroMQ")
_CLOSED = (DialFailure.CLOSED, "the connection was closed while it was being set up")
_FAILURES = {
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): _CLOSED,
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): NOT_ZEROMQ,
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): (DialFailure.NOT_ADMITTED, "it does not let this node in"),
    int(zmq.EVENT_DISCONNECTED): _CLOSED,
}
_MISMATCH = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
ENCRYPTED = (
    DialFailure.ENCRYPTED,
    "it takes no plaintext links; its URL needs ?key= and its key after it, as 'zmesh node' there prints it",
)
PLAINTEXT = (
    DialFailure.PLAINTEXT,
    "it speaks plaintext, and this URL has a key; take ?key= out of it, or let that node 'zmesh init' or 'zmesh join'",
)
_EVENTS = int(zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_CONNECT_RETRIED) | sum(_FAILURES)


class Ended(NamedTuple):
    """How a connection has ended.

    `linked`: whether it was ever up, `failure` why it was not (None where ZeroMQ did not connect and does not say
    why), `pause` the seconds that the node wants to pass before the next.
    """

    linked: bool
    failure: DialError | None = None
    pause: float = 0.0


class Connection(LinkSocket):
    """One connection, dialled by ZeroMQ. `ended` is resolved when it is over.

    Raises ZMQError or OSError if no socket can be made.
    """

    def __init__(
        self,
        transport: Transport,
        endpoint: str,
        target: Target,
        on_up: Callable[[], None],
        on_healthy: Callable[[], None],
        keys: Dialled | None = None,
    ) -> None:
        super().__init__(transport)
        self._keys = keys
        self.link: LinkId | None = None
        self.ended: asyncio.Future[Ended] = transport.loop.create_future()
        self._target = target
        self._on_up = on_up
        self._on_established = on_healthy
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._open(zmq.DEALER, endpoint, _EVENTS)
        try:
            # Not IMMEDIATE: with it libzmq 4.3.5 drops what is unread, such as GOODBYE, when the connection ends.
            # Nothing is sent before the handshake either way.
            # Once it has failed it is replaced. Without an interval, libzmq would not report it.
            self._socket.set(zmq.RECONNECT_IVL, NEVER_MS)
            if keys is not None:
                self._socket.set(zmq.CURVE_SERVERKEY, keys.listener)
                self._socket.set(zmq.CURVE_PUBLICKEY, keys.own.public)
                self._socket.set(zmq.CURVE_SECRETKEY, keys.own.secret)
            self._socket.connect(endpoint)
        except zmq.ZMQError:
            self._shut()
            raise
        self._start()
        if self._monitor is None:
            transport.loop.call_soon(self._up)
        else:
            self._wait(CONNECT_WITHIN, DialError(DialFailure.TIMED_OUT, "the connection timed out"))

    def remote_address(self, link: LinkId) -> str:
        """The peer's URL."""
        return self._target.url

    def send(self, link: LinkId, frames: Frames) -> bool:
        """Hand frames to ZeroMQ; False if the connection takes no more now."""
        alone = len(frames) == 1
        try:
            self._send(frames[0], LAST if alone else MORE)
        except zmq.Again:
            self.full.add(link)
            return False
        if not alone:
            send_rest(self._send, frames)
        return True

    def _parts(self, link: LinkId, frames: Frames) -> tuple[bytes, ...]:
        return frames if link == self.link else ()

    def hang_up(self, link: LinkId, pause: float) -> None:
        """Close the connection; the next one begins after `pause` seconds at the earliest."""
        self.link = None
        self._end(Ended(True, None, pause))

    def on_established(self, link: LinkId) -> None:
        """The link is up."""
        self._on_established()

    def close(self) -> None:
        """Close the socket, if it is still open."""
        self._stop_waiting()
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if not self.closed:
            self._shut()

    def _read(self) -> None:
        frame = self._recv(LAST, False)
        parts = self._read_rest(frame) if frame.more else [frame.bytes]
        if self.link is not None:
            self._take(self.link, parts)
        else:
            self.handler.on_frames_lost(None, "link_gone")

    def _retry(self, signalled: bool) -> None:
        """A DEALER with one connection says whether that has room, and its descriptor says when that may change."""
        if self._events() & OUT:
            for link in list(self.full):
                self.full.discard(link)
                self.handler.on_link_ready(link)

    def _retry_later(self, events: int) -> None:
        if events & OUT:
            self._scheduled = True
            self.transport.loop.call_soon(self.drain)
        elif self._look is None:  # a look costs little, and a signal that was missed would cost the link
            self._look = self.transport.loop.call_later(LOOK_AGAIN, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        if self.full:
            self.check_soon()

    def _up(self) -> None:
        if self.closed or self.link is not None:
            return
        self.link = self.transport.new_link(self)
        self._on_up()
        channel = self._keys.channel if self._keys is not None else b""
        target = self._target
        self.handler.on_link_up(self.link, dialled=True, cost=target.cost, channel=channel, local=target.is_private)

    def _on_event(self, event: int, value: int) -> None:
        if self.closed:
            return
        if event == zmq.EVENT_CONNECTED:
            # libzmq's own patience (HANDSHAKE_IVL) ends where it takes the first bytes for those of ZMTP 1.
            self._wait(1.2 * self._patience, DialError(*NOT_ZEROMQ))
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._stop_waiting()
            self._up()
        elif event == zmq.EVENT_CONNECT_RETRIED:
            self._lose(Ended(self.link is not None))
        else:
            self._lose(Ended(self.link is not None, DialError(*self._failure(event, value))))

    def _failure(self, event: int, value: int) -> tuple[DialFailure, str]:
        """Why a connection has failed in its handshake, by a monitor event and its value."""
        failure = _FAILURES[event]
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == _MISMATCH:
            return ENCRYPTED if self._keys is None else PLAINTEXT
        if failure is not _CLOSED or self._keys is None:
            return failure
        key = key_to_text(self._keys.listener)
        text = (
            f"it closed the connection during the handshake: its key is not {key}, or it has just stopped; 'zmesh "
            "node' there prints its URL with its key"
        )
        return DialFailure.WRONG_KEY, text

    def _lose(self, ended: Ended) -> None:
        """End a connection that was closed, after reading what came over it before, such as GOODBYE."""
        if self.link is not None:
            self.drain()
        if self.closed:  # the node has hung up meanwhile
            return
        if self.link is not None and self._events() & IN:
            self.transport.loop.call_soon(self._lose, ended)
        else:
            self._end(ended)

    def _wait(self, seconds: float, failure: DialError) -> None:
        self._stop_waiting()
        self._timer = self.transport.loop.call_later(seconds, self._end, Ended(False, failure))

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, ended: Ended) -> None:
        link, self.link = self.link, None
        self.close()
        self.full.clear()
        if not self.ended.done():
            self.ended.set_result(ended)
        if link is not None:
            self.transport.links.pop(link, None)
            self.handler.on_link_down(link, "the connection was closed")
