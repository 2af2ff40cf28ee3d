"""The two streams of an exchange as a transport of asyncio, at both ends of a connection.

Bytes go straight from the engine to the protocol and back, without a task in between. What a protocol that has paused
reading does not take keeps its room in the stream's window, so that the other end stops sending: only this stream
waits.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zmesh.payloads import OutboundWriter

HIGH_WATER = 64 * 1024
"""Bytes that wait for room in the stream, from which on a protocol is asked to pause writing."""


class StreamTransport(asyncio.Transport, ABC):
    """One end of a connection through the mesh.

    Subclasses implement the reset and the end of its exchange. `extra` are the values of `get_extra_info`.
    """

    _start_tls_compatible = True  # so that `loop.start_tls` takes it, as it does any transport of asyncio's own

    def __init__(self, extra: Mapping[str, object] | None = None) -> None:
        super().__init__(extra)
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.BaseProtocol | None = None
        self._writer: OutboundWriter | None = None
        self._give_back: Callable[[int], None] = _nothing
        self._unread: deque[bytes] = deque()
        self._reading = True
        self._eof = False
        """Whether the other end has ended its direction, and the protocol knows."""
        self._eof_waits = False
        self._closing = False
        self._lost = False
        self._paused_writing = False
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4

    def begin(self, writer: OutboundWriter, give_back: Callable[[int], None], protocol: asyncio.Protocol) -> None:
        """Begin, with the writer of the outbound stream; `give_back` releases credit of received bytes."""
        self._writer, self._give_back, self._protocol = writer, give_back, protocol
        writer.moved = self._on_moved
        protocol.connection_made(self)

    # -- the receiving direction ---------------------------------------------------------------------------------

    def feed(self, data: bytes) -> int:
        """Take data that has come; returns how many of its bytes are kept, and given back later."""
        if self._closing:
            if data:
                self._lose(None)
                self._reset()  # as TCP answers data for a socket that was closed
            return 0
        if not self._reading or self._unread:
            self._unread.append(data)
            return len(data)
        self._receive(data)
        return 0

    def _receive(self, data: bytes) -> None:
        protocol = self._receiver
        if not isinstance(protocol, asyncio.BufferedProtocol):
            protocol.data_received(data)
            return
        left = memoryview(data)  # as that of TLS
        while left:
            buffer = memoryview(protocol.get_buffer(len(left)))
            size = min(len(buffer), len(left))
            buffer[:size] = left[:size]
            protocol.buffer_updated(size)
            left = left[size:]

    def feed_eof(self) -> None:
        """The other end has ended its direction."""
        if self._unread:
            self._eof_waits = True
            return
        self._eof_waits = False
        self._eof = True
        if not self._closing and not self._receiver.eof_received():
            self.close()
        self._check_ended()

    def pause_reading(self) -> None:
        """Have the protocol get no data."""
        self._reading = False

    def resume_reading(self) -> None:
        """Have the protocol get data again."""
        if not self._reading and not self._closing:
            self._reading = True
            if self._unread:
                self._loop.call_soon(self._read_on)

    def is_reading(self) -> bool:
        """Whether the protocol gets data."""
        return self._reading and not self._closing

    def _read_on(self) -> None:
        taken = 0
        while self._unread and self._reading:
            data = self._unread.popleft()
            taken += len(data)
            self._receive(data)
        self._give_back(taken)
        if self._eof_waits and not self._unread and not self._closing:
            self.feed_eof()

    # -- the sending direction -----------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send data. Without room at the other end it is queued here, and the protocol is asked to pause.

        Raises RuntimeError after `write_eof`.
        """
        writer = self._opened
        if writer.ended:
            raise RuntimeError("nothing can be written after write_eof")
        if writer.over or self._lost:
            return
        writer.write(data if type(data) is bytes else bytes(data))
        if writer.pending_bytes > self._high and not self._paused_writing:
            self._paused_writing = True
            self._receiver.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several pieces of data."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """True."""
        return True

    def write_eof(self) -> None:
        """End this direction, after what was written; the other one goes on."""
        if not self._opened.ended:
            self._opened.end()
            self._check_ended()

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for room in the stream."""
        return self._opened.pending_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The low and the high mark."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks at which the protocol is asked to pause and to resume writing, in bytes. Raises ValueError."""
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) must be at least low ({low}), and low 0 or more")
        self._high, self._low = high, low

    def _on_moved(self) -> None:
        if self._paused_writing and self._opened.pending_bytes <= self._low:
            self._paused_writing = False
            if not self._lost:
                self._receiver.resume_writing()
        if self._opened.ended:
            self._check_ended()

    # -- the end -------------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing

    def close(self) -> None:
        """End this direction after what was written, and receive nothing any more."""
        if self._closing:
            return
        self._closing = True
        if self._unread:
            self._unread.clear()
            self.abort()
            return
        self._opened.end()
        self._check_ended()

    def abort(self) -> None:
        """Reset the connection: nothing that waits is sent, and the other end is reset, too."""
        if not self._lost:
            self._reset()
            self._lose(None)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand received data to another protocol from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol that gets the data."""
        assert self._protocol is not None
        return self._protocol

    def _lose(self, error: Exception | None) -> None:
        """The connection is over; `error` if not as both ends wanted."""
        if self._lost:
            return
        self._lost = self._closing = True
        self._unread.clear()
        self._loop.call_soon(self._tell_lost, error)

    def _tell_lost(self, error: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(error)

    def _check_ended(self) -> None:
        """End the connection when both directions have ended and all that was written is handed over."""
        writer = self._opened
        if self._closing and writer.ended and not writer.pending_bytes and not self._lost:
            self._lose(None)
        if self._eof and writer.ended and not writer.pending_bytes:
            self._finish()

    @property
    def _receiver(self) -> Any:
        """The protocol, be it a Protocol or one of an SSL connection."""
        return self._protocol

    @property
    def _opened(self) -> OutboundWriter:
        assert self._writer is not None, "the connection is not there yet"
        return self._writer

    @abstractmethod
    def _reset(self) -> None:
        """Reset the exchange."""

    @abstractmethod
    def _finish(self) -> None:
        """Both directions have ended; may be called several times."""


def _nothing(size_bytes: int) -> None:
    """Nothing to give back to."""
