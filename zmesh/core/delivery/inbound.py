"""The receiving end of a stream: reordering, reassembly and flow control.

Chunks are delivered in order and none twice; those that arrive early are buffered until the missing ones are there. A
sender that is blocked by flow control says so with a chunk (FLAG_BLOCKED), and if the reader keeps up the window grows
(`Receiver`).
"""

from __future__ import annotations

from zmesh.core.delivery.flow_control import ACK_EVERY, WINDOW, FlowControlError, credit_of
from zmesh.core.wire import STOP_SENDING, Chunk

Received = tuple[Chunk, bytes, int]
"""A chunk, its body, and the number of links that it crossed."""


class InboundStream:
    """The receiving end of a stream. All sizes are credit, in bytes: see `flow_control`.

    `expected` is the next sequence number in order, and `buffered` holds the chunks that arrived early.
    `received` counts the credit of all received chunks, early ones included, `released` that of the chunks which were
    read; `limit` is the last limit that the sender was given, and `window` the credit that it may use before the reader
    reads. `stopped`: the rest is not read, of which the sender is notified in place of a limit.
    """

    __slots__ = (
        "buffered",
        "buffered_credit",
        "expected",
        "limit",
        "received",
        "released",
        "stopped",
        "unacked_credit",
        "window",
    )

    def __init__(self) -> None:
        self.expected = 0
        self.buffered: dict[int, Received] = {}
        self.buffered_credit = 0
        self.released = 0
        self.window = WINDOW
        self.limit = WINDOW
        self.unacked_credit = 0
        self.received = 0
        self.stopped = False

    def accept(self, chunk: Chunk, body: bytes, hops: int) -> list[Received] | None:
        """The chunks that are next in order now; None if this one must be acknowledged at once (a copy, or early).

        Raises FlowControlError if it exceeds the limit.
        """
        sequence = chunk.sequence
        credit = credit_of(chunk.flags, len(body))
        if sequence == self.expected and not self.buffered and self.received + credit <= self.limit:
            self.expected += 1
            self.received += credit
            self.unacked_credit += credit
            return [(chunk, body, hops)]
        if sequence < self.expected or sequence in self.buffered:
            return None
        if self.received + credit > self.limit:
            raise FlowControlError
        self.buffered[sequence] = (chunk, body, hops)
        self.buffered_credit += credit
        self.received += credit
        self.unacked_credit += credit
        ready = []
        while (item := self.buffered.pop(self.expected, None)) is not None:
            ready.append(item)
            self.buffered_credit -= credit_of(item[0].flags, len(item[1]))
            self.expected += 1
        return ready or None

    def is_missing(self, sequence: int) -> bool:
        """Whether a chunk has not been received yet."""
        return sequence >= self.expected and sequence not in self.buffered

    def drop_buffered(self, credit: int) -> None:
        """Drop early chunks, the last received first, until so much is free; their sender retransmits them."""
        while credit > 0 and self.buffered:
            _, (chunk, body, _) = self.buffered.popitem()
            freed = credit_of(chunk.flags, len(body))
            self.buffered_credit -= freed
            self.received -= freed
            credit -= freed

    @property
    def reader_keeps_up(self) -> bool:
        """Whether no more than half a window is unread."""
        return self.received - self.released <= self.window // 2

    def release(self, credit: int) -> bool:
        """The reader has read this much; True if the sender should get the higher limit at once."""
        self.released += credit
        return self.released + self.window - self.limit >= ACK_EVERY

    def acknowledge(self) -> tuple[int, int]:
        """The next chunk expected and the limit, to be sent in an acknowledgement now."""
        self.unacked_credit = 0
        self.limit = max(self.limit, self.released + self.window)
        return self.expected, STOP_SENDING if self.stopped else self.limit
