"""The sending end of a stream: numbered chunks, kept until they are acknowledged end to end.

A cumulative acknowledgement covers all chunks below a sequence number. No more is sent than the receiver's limit
(`flow_control`) and the congestion window of the path (`congestion`) allow. Chunks that are taken for lost are
retransmitted before anything new, within the same windows. Small parts of a message that wait for the windows or for
the link become one chunk; none waits for more to come. Large ones are cut into chunks when these are sent, as long as
suits the path by then.
"""

from __future__ import annotations

from collections import deque
from typing import cast

from zmesh.core.delivery.congestion import CHUNK, MIN_CHUNK, CongestionControl, Transmission
from zmesh.core.delivery.flow_control import CHUNK_OVERHEAD, WINDOW
from zmesh.core.message import Eof, ReplyHeader, RequestHeader
from zmesh.core.wire import FLAG_BLOCKED, FLAG_EOF, FLAG_FIRST, FLAG_LAST

SEND_BUFFER = 256 * 1024
"""Bytes that may wait unsent, with CHUNK_OVERHEAD for each part; the source is read on when half of it is free. Two
chunks may wait where that is more."""

Header = RequestHeader | ReplyHeader


class OutboundChunk(Transmission):
    """One chunk of a stream: its content, its credit, and when and how often it was sent. Unsent: one or more chunks.

    `transmissions` counts the copies that were sent, `returned` those that came back undelivered. `gathered`: the body
    is a bytearray, to which more is appended until it is sent.
    """

    __slots__ = ("body", "eof", "flags", "gathered", "header", "returned", "sequence", "transmissions")

    def __init__(self, flags: int, header: Header | None, body: bytes, eof: Eof | None) -> None:
        size = len(body)  # as `credit_of` and `Transmission.__init__` have it, without their calls
        self.credit = size + CHUNK_OVERHEAD if size or not flags & FLAG_EOF else 0
        self.sent_at = 0.0
        self.delivered = 0
        self.delivered_at = 0.0
        self.sequence = 0
        self.flags = flags
        self.header = header
        self.body = body
        self.eof = eof
        self.transmissions = 0
        self.returned = 0
        self.gathered = False


class OutboundStream:
    """The sending end of a stream. `congestion`: that of its path; None: one of its own.

    `next` is the sequence number of the next new chunk; `sent_credit` the credit of all chunks sent, `limit` what it
    may become; `in_flight` the credit of chunks that are neither acknowledged nor taken for lost; `retries` counts the
    timeouts since the last progress.
    """

    __slots__ = (
        "complete",
        "congestion",
        "in_flight",
        "in_message",
        "limit",
        "lost",
        "next",
        "pull_pending",
        "retries",
        "sent_credit",
        "unacked",
        "unacked_bytes",
        "unsent",
        "unsent_bytes",
    )

    def __init__(self, congestion: CongestionControl | None = None) -> None:
        self.congestion = congestion if congestion is not None else CongestionControl()
        self.unsent: deque[OutboundChunk] = deque()
        self.unacked: dict[int, OutboundChunk] = {}
        self.lost: dict[int, OutboundChunk] = {}
        self.next = 0
        self.sent_credit = 0
        self.in_flight = 0
        self.limit = WINDOW
        self.unsent_bytes = 0
        self.unacked_bytes = 0
        self.complete = False
        """Whether nothing more will be pushed."""
        self.in_message = False
        """Whether a message has begun whose end was not pushed."""
        self.pull_pending = False
        """Whether the source has found no room, and gets a Pull when there is some."""
        self.retries = 0

    @property
    def is_finished(self) -> bool:
        """Whether all was sent and acknowledged."""
        return self.complete and not self.unsent and not self.unacked

    @property
    def is_last_in_flight(self) -> bool:
        """Whether one chunk is unacknowledged, and not taken for lost, and nothing waits to be sent."""
        return len(self.unacked) == 1 and not self.lost and not self.unsent

    @property
    def kept_bytes(self) -> int:
        """Bytes of payload that are unsent or unacknowledged."""
        return self.unsent_bytes + self.unacked_bytes

    @property
    def has_pending(self) -> bool:
        """Whether there is something to send, or to retransmit."""
        return bool(self.unsent or self.lost)

    @property
    def buffered(self) -> int:
        """The size of what waits unsent, in bytes of payload and CHUNK_OVERHEAD for each part."""
        return self.unsent_bytes + CHUNK_OVERHEAD * len(self.unsent)

    @property
    def buffer_bytes(self) -> int:
        """How much may wait unsent."""
        return max(SEND_BUFFER, 2 * self.congestion.chunk_bytes)

    def room(self) -> int:
        """How many bytes of payload may be pushed now; 0 if the stream is complete."""
        return 0 if self.complete else max(0, self.buffer_bytes - self.buffered)

    def push(self, header: Header | None, body: bytes, *, last: bool, eof: Eof | None, complete: bool) -> None:
        """Append a part of a message (`header` opens one, `last` ends one), or the end of the exchange (`eof`)."""
        flags = FLAG_FIRST if header is not None else 0
        ending = (FLAG_LAST if last else 0) | (FLAG_EOF if eof is not None else 0)
        self.unsent_bytes += len(body)
        self.complete = complete
        self.in_message = not ending
        if header is None and self.unsent and self._append(body, ending, eof):
            return
        self.unsent.append(OutboundChunk(flags | ending, header, body, eof))

    def send_only(
        self, header: Header | None, body: bytes, now: float, *, last: bool, eof: Eof | None
    ) -> OutboundChunk:
        """The only chunk of a stream on which nothing was pushed yet, sent now: a small one that the windows allow."""
        flags = (FLAG_FIRST if header is not None else 0) | (FLAG_LAST if last else 0)
        chunk = OutboundChunk(flags if eof is None else flags | FLAG_EOF, header, body, eof)
        chunk.transmissions = 1
        self.complete = True
        self.next = 1
        self.unacked[0] = chunk
        self.unacked_bytes = len(body)
        self.sent_credit = self.in_flight = chunk.credit
        self.congestion.on_sent_only(chunk, now)
        return chunk

    def _append(self, body: bytes, ending: int, eof: Eof | None) -> bool:
        """Append to the last chunk, if that is of the same message and has room for it; whether it has."""
        chunk = self.unsent[-1]
        size = len(chunk.body) + len(body)
        if chunk.flags & (FLAG_LAST | FLAG_EOF) or eof is not None or size > self.congestion.chunk_bytes:
            return False
        if body:
            if not chunk.gathered:
                chunk.gathered = True
                chunk.body = cast("bytes", bytearray(chunk.body))
            chunk.body += body
            chunk.credit += len(body)
        chunk.flags |= ending
        return True

    @property
    def is_in_flight(self) -> bool:
        """Whether a chunk is neither acknowledged nor taken for lost."""
        return len(self.unacked) != len(self.lost)

    @property
    def is_flow_blocked(self) -> bool:
        """Whether the receiver's limit holds back the next chunk."""
        return bool(self.unsent) and not self.lost and self.sent_credit + self._new_credit() > self.limit

    def next_credit(self) -> int:
        """The credit of the next chunk; 0 if there is none."""
        for chunk in self.lost.values():
            return chunk.credit
        return self._new_credit() if self.unsent else 0

    def _new_credit(self) -> int:
        """The credit of the next new chunk: a long one shrinks to the usual size if the receiver has no room for it."""
        credit = self.unsent[0].credit
        if credit <= MIN_CHUNK:
            return credit
        most = self.congestion.chunk_bytes + CHUNK_OVERHEAD
        if most > CHUNK + CHUNK_OVERHEAD and self.sent_credit + min(credit, most) > self.limit:
            most = CHUNK + CHUNK_OVERHEAD
        return min(credit, most)

    def next_chunk(self, now: float) -> OutboundChunk | None:
        """The next chunk that the windows allow to be sent: a lost one first, then a new one."""
        if self.lost:
            return self._next_lost(now)
        if not self.unsent:
            return None
        credit = self._new_credit()
        sequence = self.next
        if self.sent_credit + credit > self.limit or not self.congestion.fits(credit):
            return None
        chunk = self._take(credit)
        self.unsent_bytes -= len(chunk.body)
        self.unacked_bytes += len(chunk.body)
        self.congestion.on_sent(chunk, now)
        self.sent_credit += credit
        self.in_flight += credit
        chunk.sequence = sequence
        chunk.transmissions = 1
        self.unacked[sequence] = chunk
        self.next = sequence + 1
        if self.unsent:
            following = self._new_credit()
            if self.sent_credit + following > self.limit and self.congestion.fits(following):
                chunk.flags |= FLAG_BLOCKED
        return chunk

    def _take(self, credit: int) -> OutboundChunk:
        """Take out the next new chunk, which has that credit."""
        chunk = self.unsent[0]
        if chunk.gathered:
            chunk.gathered = False
            chunk.body = bytes(chunk.body)
        if chunk.credit == credit:
            return self.unsent.popleft()
        size = credit - CHUNK_OVERHEAD
        view = cast("bytes", memoryview(chunk.body))  # whose parts are no copies; they are sent as bytes would be
        taken = OutboundChunk(chunk.flags & FLAG_FIRST, chunk.header, view[:size], None)
        chunk.flags &= ~FLAG_FIRST
        chunk.header = None
        chunk.body = view[size:]
        chunk.credit -= size
        return taken

    def acknowledge(self, following: int, limit: int, now: float) -> float | None:
        """Take in an acknowledgement of all chunks below `following`, and a limit.

        Returns a round-trip time in seconds, -1 if there was progress but no sample (Karn's rule), None if neither.
        """
        if limit > self.limit:
            self.limit = limit
            self.retries = 0
        if following > self.next:
            return None
        chunk: OutboundChunk | None = None
        acknowledged = 0
        while self.unacked and (first := next(iter(self.unacked))) < following:
            chunk = self.unacked.pop(first)
            acknowledged += chunk.credit
            self.unacked_bytes -= len(chunk.body)
            if self.lost.pop(first, None) is None:
                self._leave(chunk)
        if chunk is None:
            return None
        self.retries = 0
        self.congestion.on_delivered(acknowledged, chunk if chunk.transmissions == 1 else None, now)
        return now - chunk.sent_at if chunk.transmissions == 1 else -1.0

    def retransmit_at(self, timeout: float) -> float | None:
        """When the oldest chunk in flight is to be retransmitted, or None if none is in flight."""
        for sequence, chunk in self.unacked.items():
            if sequence not in self.lost:
                return chunk.sent_at + timeout
        return None

    def on_path_change(self) -> None:
        """The path has changed: chunks in flight may be lost with the old one, and are retransmitted."""
        self.congestion.on_path_change()
        self._mark_all_lost()

    def abandon(self) -> None:
        """The stream is over: nothing of it is in flight any more."""
        for sequence, chunk in self.unacked.items():
            if sequence not in self.lost:
                self._leave(chunk)
        self.lost = self.unacked

    def on_timeout(self, now: float) -> None:
        """The oldest chunk in flight was not acknowledged in time: all that is in flight is taken for lost."""
        oldest = next(chunk for sequence, chunk in self.unacked.items() if sequence not in self.lost)
        self.congestion.on_congestion(oldest.sent_at, now)
        self._mark_all_lost()

    def on_returned(self, sequence: int, now: float, *, refused: bool) -> None:
        """A copy of a chunk came back undelivered; one that a full queue refused is taken for lost."""
        chunk = self.unacked.get(sequence)
        if chunk is None:
            return
        chunk.returned += 1
        if refused and sequence not in self.lost:
            self.congestion.on_congestion(chunk.sent_at, now)
            self.lost[sequence] = chunk
            self._leave(chunk)

    def _mark_all_lost(self) -> None:
        for sequence, chunk in self.unacked.items():
            if sequence not in self.lost:
                self._leave(chunk)
        self.lost = dict(self.unacked)

    def _next_lost(self, now: float) -> OutboundChunk | None:
        sequence, chunk = next(iter(self.lost.items()))
        if not self.congestion.fits(chunk.credit):
            return None
        del self.lost[sequence]
        self.congestion.on_sent(chunk, now)
        self.in_flight += chunk.credit
        chunk.transmissions += 1
        return chunk

    def _leave(self, chunk: OutboundChunk) -> None:
        self.in_flight -= chunk.credit
        self.congestion.leave(chunk.credit)

    def check(self) -> None:
        """Raise AssertionError if the counts are not those of the chunks."""
        in_flight = sum(chunk.credit for sequence, chunk in self.unacked.items() if sequence not in self.lost)
        if in_flight != self.in_flight or not self.lost.keys() <= self.unacked.keys():
            raise AssertionError("the credit in flight is not that of the chunks")
        sizes = [sum(len(chunk.body) for chunk in chunks) for chunks in (self.unsent, self.unacked.values())]
        if sizes != [self.unsent_bytes, self.unacked_bytes]:
            raise AssertionError("the payload that is kept is not that of the chunks")
