"""One direction of an exchange: numbered chunks, acknowledged end to end.

The sender keeps every chunk until a cumulative acknowledgement covers it, and sends no more than the receiver's limit
and the congestion window allow. Limits and credit are absolute counts since the stream's start (as in RFC 9000
section 4.1), so a lost or late acknowledgement does no harm. The receiver hands chunks on in order and none twice; what
comes early it holds. Its limit is one window above what was read; a sender that the window holds up says so with a
chunk, and if the reader keeps up the window grows. The sender's resending timer follows RFC 6298, kept for each path in
`RttEstimator`. What is taken for lost is sent again before anything new, within the same window.

`ReplayWindow` is the receiver's memory of requests that it has seen: the sender numbers its requests to each recipient
and names with each one the lowest number that it may still send, so the memory stays as small as what is in flight and
a late copy of a request never runs twice.
"""

from __future__ import annotations

from collections import deque
from typing import cast

from zmesh.core.delivery.congestion import FIRST_WINDOW, CongestionControl, DeliverySnapshot
from zmesh.core.message import Eof, ReplyHeader, RequestHeader
from zmesh.core.wire import FLAG_BLOCKED, FLAG_EOF, FLAG_FIRST, FLAG_LAST, MAX_BODY, Chunk

WINDOW = FIRST_WINDOW
CHUNK_OVERHEAD = 512
BACKLOG = 256 * 1024
ACK_EVERY = WINDOW // 4
FIRST_TIMEOUT = 1.0
PATIENCE = 0.25
MAX_TIMEOUT = 8.0
MAX_SEEN = 65_536

Header = RequestHeader | ReplyHeader


class OutboundChunk:
    """One chunk on its way: what it carries, when and how often it was sent, its credit in windows."""

    __slots__ = (
        "body",
        "credit",
        "eof",
        "flags",
        "header",
        "mark",
        "returned",
        "sent",
        "sequence",
        "times",
    )

    def __init__(self, flags: int, header: Header | None, body: bytes, eof: Eof | None) -> None:
        self.sequence = 0
        self.flags = flags
        self.header = header
        self.body = body
        self.credit = len(body) + CHUNK_OVERHEAD
        self.eof = eof
        self.sent = 0.0
        self.times = 0
        self.returned = 0
        self.mark: DeliverySnapshot | None = None


class OutboundStream:
    """The sending end of a stream. `in_flight` is the credit of what is neither acknowledged nor taken for lost."""

    __slots__ = (
        "complete",
        "in_flight",
        "limit",
        "lost",
        "next",
        "pace",
        "partial",
        "pulled",
        "sent_credit",
        "tries",
        "unacked",
        "unacked_bytes",
        "unsent",
        "unsent_bytes",
    )

    def __init__(self) -> None:
        self.unsent: deque[OutboundChunk] = deque()
        self.unacked: dict[int, OutboundChunk] = {}
        self.lost: dict[int, OutboundChunk] = {}
        self.next = 0
        self.sent_credit = 0
        self.in_flight = 0
        self.limit = WINDOW
        self.pace: CongestionControl | None = None  # a stream of one chunk needs none
        self.unsent_bytes = 0
        self.unacked_bytes = 0
        self.complete = False
        self.partial = False
        """Whether a message has begun whose end was not pushed."""
        self.pulled = False
        """Whether somebody was told that there is no room, and is to hear of it when there is."""
        self.tries = 0

    @property
    def done(self) -> bool:
        """True when all has been sent and acknowledged."""
        return self.complete and not self.unsent and not self.unacked

    @property
    def kept_bytes(self) -> int:
        """Payload that is kept here, since it was not sent or not acknowledged."""
        return self.unsent_bytes + self.unacked_bytes

    @property
    def waiting(self) -> bool:
        """True if there is something to be sent, for the first time or once more."""
        return bool(self.unsent or self.lost)

    def room(self) -> int:
        """How many bytes of payload may be pushed now; 0 once nothing more will be taken."""
        return 0 if self.complete else max(0, BACKLOG - self.unsent_bytes)

    def push(self, header: Header | None, body: bytes, *, last: bool, eof: Eof | None, complete: bool) -> None:
        """Append a piece of a message (`header` opens one, `last` ends one) or the final word."""
        flags = FLAG_FIRST if header is not None else 0
        ending = (FLAG_LAST if last else 0) | (FLAG_EOF if eof is not None else 0)
        size = len(body)
        self.unsent_bytes += size
        self.complete = complete
        self.partial = not ending
        if size <= MAX_BODY:
            self.unsent.append(OutboundChunk(flags | ending, header, body, eof))
            return
        view = cast("bytes", memoryview(body))  # whose parts are no copies; they are sent as bytes would be
        start = 0
        while size - start > MAX_BODY:
            self.unsent.append(OutboundChunk(flags, header, view[start : start + MAX_BODY], None))
            flags, header = 0, None
            start += MAX_BODY
        self.unsent.append(OutboundChunk(flags | ending, header, view[start:], eof))

    def take(self, now: float) -> OutboundChunk | None:
        """The next chunk that the windows allow: what was lost first, then one that was never sent."""
        if self.lost:
            return self._take_lost(now)
        if not self.unsent:
            return None
        piece = self.unsent[0]
        credit = piece.credit
        sequence = self.next
        if self.sent_credit + credit > self.limit or (self.pace is not None and not self._fits(credit)):
            return None
        self.unsent.popleft()
        self.unsent_bytes -= credit - CHUNK_OVERHEAD
        self.unacked_bytes += credit - CHUNK_OVERHEAD
        if sequence:
            if self.pace is None:
                self.pace = CongestionControl()
            piece.mark = self.pace.mark(self.in_flight, now)
        self.sent_credit += credit
        self.in_flight += credit
        piece.sequence = sequence
        piece.sent = now
        piece.times = 1
        self.unacked[sequence] = piece
        self.next = sequence + 1
        if self.unsent:
            following = self.unsent[0].credit
            if self.sent_credit + following > self.limit and self._fits(following):
                piece.flags |= FLAG_BLOCKED
        return piece

    def acknowledge(self, following: int, limit: int, now: float) -> float | None:
        """Take in an acknowledgement; a round-trip time in seconds if one can be told from it, -1 if only progress."""
        if limit > self.limit:
            self.limit = limit
            self.tries = 0
        if following > self.next:
            return None
        piece: OutboundChunk | None = None
        acknowledged = 0
        while self.unacked and (first := next(iter(self.unacked))) < following:
            piece = self.unacked.pop(first)
            acknowledged += piece.credit
            self.unacked_bytes -= piece.credit - CHUNK_OVERHEAD
            if self.lost.pop(first, None) is None:
                self.in_flight -= piece.credit
        if piece is None:
            return None
        self.tries = 0
        if self.pace is not None:
            self.pace.on_delivered(acknowledged, piece.mark if piece.times == 1 else None, now)
        return now - piece.sent if piece.times == 1 else -1.0

    def overdue(self, timeout: float) -> float | None:
        """When the oldest chunk in flight is to be sent again, if nothing is heard until then."""
        for sequence, piece in self.unacked.items():
            if sequence not in self.lost:
                return piece.sent + timeout
        return None

    def on_path(self) -> None:
        """The way is another one from now on: what is under way may be lost with the old one, and is sent again."""
        if self.pace is not None:
            self.pace.on_path()
        self._lose_all()

    def on_timeout(self, now: float) -> None:
        """Nothing was heard of the oldest chunk in flight for too long: all that is under way is sent again."""
        oldest = next(piece for sequence, piece in self.unacked.items() if sequence not in self.lost)
        self._slow_down(oldest, now)
        self._lose_all()

    def on_returned(self, sequence: int, now: float, *, refused: bool) -> None:
        """A copy of a chunk came back and did not arrive; one that a full queue refused is sent again."""
        piece = self.unacked.get(sequence)
        if piece is None:
            return
        piece.returned += 1
        if refused and sequence not in self.lost:
            self._slow_down(piece, now)
            self.lost[sequence] = piece
            self.in_flight -= piece.credit

    def _slow_down(self, piece: OutboundChunk, now: float) -> None:
        if self.pace is not None:
            self.pace.on_congestion(self.in_flight, piece.sent, now)

    def _lose_all(self) -> None:
        self.lost = dict(self.unacked)
        self.in_flight = 0

    def _take_lost(self, now: float) -> OutboundChunk | None:
        sequence, piece = next(iter(self.lost.items()))
        # No acknowledgement passes the first one that is missing, so that one does not wait for the window.
        if sequence != next(iter(self.unacked)) and not self._fits(piece.credit):
            return None
        del self.lost[sequence]
        self.in_flight += piece.credit
        piece.sent = now
        piece.times += 1
        return piece

    def _fits(self, credit: int) -> bool:
        """Whether the path may hold so much more; one chunk always may."""
        return self.pace is None or not self.in_flight or self.in_flight + credit <= self.pace.window

    def check(self) -> None:
        """Raise AssertionError if the counts are not those of the chunks."""
        flying = sum(piece.credit for sequence, piece in self.unacked.items() if sequence not in self.lost)
        if flying != self.in_flight or not self.lost.keys() <= self.unacked.keys():
            raise AssertionError("the credit in flight is not that of the chunks")
        sizes = [sum(len(piece.body) for piece in pieces) for pieces in (self.unsent, self.unacked.values())]
        if sizes != [self.unsent_bytes, self.unacked_bytes]:
            raise AssertionError("the payload that is kept is not that of the chunks")


class FlowControlError(Exception):
    """A chunk that its receiver has no room for, as its sender was told."""


class InboundStream:
    """The receiving end of a stream. `window` is how much the sender may send before the reader has read it."""

    __slots__ = ("_taken", "expected", "held", "held_credit", "limit", "released", "since_ack", "window")

    def __init__(self) -> None:
        self.expected = 0
        self.held: dict[int, tuple[Chunk, bytes, int]] = {}
        self.held_credit = 0
        self.released = 0
        self.window = WINDOW
        self.limit = WINDOW
        self.since_ack = 0
        self._taken = 0

    def accept(self, chunk: Chunk, body: bytes, hops: int) -> list[tuple[Chunk, bytes, int]] | None:
        """The chunks that are next in order now; None if this one must be acknowledged at once (a copy, or early).

        Raises FlowControlError if the sender was never allowed to send this.
        """
        sequence = chunk.sequence
        credit = len(body) + CHUNK_OVERHEAD
        if sequence == self.expected and not self.held and self._taken + credit <= self.limit:
            self.expected += 1
            self._taken += credit
            self.since_ack += credit
            return [(chunk, body, hops)]
        if sequence < self.expected or sequence in self.held:
            return None
        if self._taken + credit > self.limit:
            raise FlowControlError
        self.held[sequence] = (chunk, body, hops)
        self.held_credit += credit
        self._taken += credit
        self.since_ack += credit
        ready = []
        while (item := self.held.pop(self.expected, None)) is not None:
            ready.append(item)
            self.held_credit -= len(item[1]) + CHUNK_OVERHEAD
            self.expected += 1
        return ready or None

    @property
    def unread(self) -> int:
        """The credit of what has come and was not read, what is held for its turn included."""
        return self._taken - self.released

    def lacks(self, sequence: int) -> bool:
        """True if a chunk has not come yet."""
        return sequence >= self.expected and sequence not in self.held

    def give_up_held(self, credit: int) -> None:
        """Drop chunks that are held for their turn, the last to come first, until so much is free; they come again."""
        while credit > 0 and self.held:
            _, (_, body, _) = self.held.popitem()
            freed = len(body) + CHUNK_OVERHEAD
            self.held_credit -= freed
            self._taken -= freed
            credit -= freed

    @property
    def keeps_up(self) -> bool:
        """True while the reader has read most of what came."""
        return self._taken - self.released <= self.window // 2

    def release(self, credit: int) -> bool:
        """The reader took this much; True if the sender should hear of the room at once."""
        self.released += credit
        return self.released + self.window - self.limit >= ACK_EVERY

    def acknowledge(self) -> tuple[int, int]:
        """What the sender is told now: the next chunk expected, and how much it may send in all."""
        self.since_ack = 0
        self.limit = max(self.limit, self.released + self.window)
        return self.expected, self.limit


class RttEstimator:
    """The round-trip time to one node, smoothed after RFC 6298.

    However steady the path was, an answer may be late by PATIENCE: the programs at both ends have other work, too.
    """

    __slots__ = ("_first", "smoothed", "variance")

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.variance = 0.0
        self._first = FIRST_TIMEOUT

    def measure(self, sample: float) -> None:
        """Take in one round trip of a chunk that was sent once (Karn's rule), in seconds."""
        if self.smoothed is None:
            self.smoothed, self.variance = sample, sample / 2
        else:
            self.variance += (abs(self.smoothed - sample) - self.variance) / 4
            self.smoothed += (sample - self.smoothed) / 8
        self._first = min(MAX_TIMEOUT, self.smoothed + max(PATIENCE, 4 * self.variance))

    def timeout(self, tries: int) -> float:
        """Seconds to wait for an acknowledgement after `tries` resendings."""
        return min(MAX_TIMEOUT, self._first * 2.0 ** min(tries, 8)) if tries else self._first


class ReplayWindow:
    """The numbers of the requests that one sender has made so far; all below `floor` are known."""

    __slots__ = ("_floor", "_seen")

    def __init__(self, floor: int = 0) -> None:
        self._floor = floor
        self._seen: set[int] = set()

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def end(self) -> int:
        """One more than the highest number that was seen, or the floor."""
        return max(self._seen, default=-1) + 1 or self._floor

    def knows(self, number: int) -> bool:
        """True if a request of this number has been there, or may have been."""
        return number < self._floor or number in self._seen

    def forget(self) -> None:
        """Keep no numbers: all up to the highest one that was seen are taken for known."""
        self._floor = self.end
        self._seen.clear()

    def accept(self, number: int, floor: int) -> bool:
        """True if a request of this number is new; `floor` is the lowest that the sender may still send."""
        if number == self._floor and floor <= number and not self._seen:
            self._floor += 1
            return True
        fresh = number >= self._floor and number not in self._seen
        if fresh:
            self._seen.add(number)
            if len(self._seen) > MAX_SEEN:
                floor = max(floor, sorted(self._seen)[MAX_SEEN // 2])
        if floor > self._floor:
            self._floor = floor
            self._seen = {seen for seen in self._seen if seen >= floor}
        while self._floor in self._seen:
            self._seen.remove(self._floor)
            self._floor += 1
        return fresh
