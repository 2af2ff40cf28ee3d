"""One direction of an exchange: numbered chunks, acknowledged end to end.

The sender keeps every chunk until a cumulative acknowledgement covers it, and sends no more than the receiver's limit
allows. Limits and weights are absolute counts since the stream's start (as in RFC 9000 section 4.1), so a lost or late
acknowledgement does no harm. The receiver hands chunks on in order and none twice; what comes early it holds. The
sender's resending timer follows RFC 6298, kept for each path in `PathTime`.

`Replays` is the receiver's memory of requests that it has seen: the sender numbers its requests to each recipient and
tells with each one the lowest number that it may still send, so the memory stays as small as what is under way and a
late copy of a request never runs twice.
"""

from __future__ import annotations

from collections import deque

from zmesh.core.message import Eof, ReplyHeader, RequestHeader
from zmesh.core.wire import FLAG_EOF, FLAG_FIRST, FLAG_LAST, MAX_BODY, Chunk

WINDOW = 1024 * 1024
CHUNK_OVERHEAD = 512
BACKLOG = 256 * 1024
MAX_HELD = 4096
ACK_EVERY = WINDOW // 4
FIRST_TIMEOUT = 1.0
MIN_TIMEOUT = 0.25
MAX_TIMEOUT = 8.0
MAX_SEEN = 65_536

Header = RequestHeader | ReplyHeader


class Piece:
    """One chunk on its way: what it carries, and when and how often it was sent."""

    __slots__ = ("body", "eof", "first_sent", "flags", "header", "returned", "sent", "sequence", "times")

    def __init__(self, flags: int, header: Header | None, body: bytes | memoryview, eof: Eof | None) -> None:
        self.sequence = 0
        self.flags = flags
        self.header = header
        self.body = body
        self.eof = eof
        self.first_sent = 0.0
        self.sent = 0.0
        self.times = 0
        self.returned = 0


class Outbound:
    """The sending end of a stream."""

    __slots__ = ("complete", "limit", "next", "pulled", "sent_weight", "tries", "unacked", "unsent", "unsent_bytes")

    def __init__(self) -> None:
        self.unsent: deque[Piece] = deque()
        self.unacked: dict[int, Piece] = {}
        self.next = 0
        self.sent_weight = 0
        self.limit = WINDOW
        self.unsent_bytes = 0
        self.complete = False
        self.pulled = False
        self.tries = 0

    @property
    def done(self) -> bool:
        """True when all has been sent and acknowledged."""
        return self.complete and not self.unsent and not self.unacked

    def room(self) -> int:
        """How many bytes of payload may be pushed now."""
        return max(0, BACKLOG - self.unsent_bytes)

    def push(self, header: Header | None, body: bytes, *, last: bool, eof: Eof | None, complete: bool) -> None:
        """Append a piece of a message (`header` opens one, `last` ends one) or the final word."""
        flags = FLAG_FIRST if header is not None else 0
        ending = (FLAG_LAST if last else 0) | (FLAG_EOF if eof is not None else 0)
        self.unsent_bytes += len(body)
        self.complete = complete
        view = memoryview(body)
        start = 0
        while len(body) - start > MAX_BODY:
            self.unsent.append(Piece(flags, header, view[start : start + MAX_BODY], None))
            flags, header = 0, None
            start += MAX_BODY
        self.unsent.append(Piece(flags | ending, header, view[start:] if start else body, eof))

    def take(self, now: float) -> Piece | None:
        """The next chunk that the window allows, to be sent for the first time."""
        if not self.unsent:
            return None
        piece = self.unsent[0]
        weight = len(piece.body) + CHUNK_OVERHEAD
        if self.sent_weight + weight > self.limit:
            return None
        self.unsent.popleft()
        self.unsent_bytes -= len(piece.body)
        self.sent_weight += weight
        piece.sequence = self.next
        piece.first_sent = piece.sent = now
        piece.times = 1
        self.unacked[self.next] = piece
        self.next += 1
        return piece

    def acknowledge(self, following: int, limit: int, now: float) -> float | None:
        """Take in an acknowledgement; a round-trip time in seconds if one can be told from it, -1 if only progress."""
        if limit > self.limit:
            self.limit = limit
            self.tries = 0
        if following > self.next:
            return None
        sample: float | None = None
        while self.unacked and (first := next(iter(self.unacked))) < following:
            piece = self.unacked.pop(first)
            sample = now - piece.sent if piece.times == 1 else -1.0
            self.tries = 0
        return sample

    def overdue(self, timeout: float) -> float | None:
        """When the oldest unacknowledged chunk is to be sent again, if nothing is heard until then."""
        if not self.unacked:
            return None
        return next(iter(self.unacked.values())).sent + timeout

    def again(self, now: float) -> list[Piece]:
        """All chunks under way, to be sent once more."""
        pieces = list(self.unacked.values())
        for piece in pieces:
            if piece.returned == piece.times:  # no copy of it can have arrived, so nothing is known of its age
                piece.first_sent = now
            piece.sent = now
            piece.times += 1
        return pieces

    def returned(self, sequence: int) -> None:
        """A copy of a chunk came back, and did not arrive."""
        piece = self.unacked.get(sequence)
        if piece is not None:
            piece.returned += 1


class Inbound:
    """The receiving end of a stream."""

    __slots__ = ("consumed", "ended", "expected", "held", "limit", "since_ack")

    def __init__(self) -> None:
        self.expected = 0
        self.held: dict[int, tuple[Chunk, bytes, int]] = {}
        self.consumed = 0
        self.limit = WINDOW
        self.since_ack = 0
        self.ended = False

    def accept(self, chunk: Chunk, body: bytes, hops: int) -> list[tuple[Chunk, bytes, int]] | None:
        """The chunks that are next in order now; None if this one must be acknowledged at once (a copy, or early)."""
        sequence = chunk.sequence
        if sequence == self.expected and not self.held:
            self.expected += 1
            self.since_ack += len(body) + CHUNK_OVERHEAD
            return [(chunk, body, hops)]
        if sequence < self.expected or sequence in self.held or sequence >= self.expected + MAX_HELD:
            return None
        self.held[sequence] = (chunk, body, hops)
        self.since_ack += len(body) + CHUNK_OVERHEAD
        ready = []
        while (item := self.held.pop(self.expected, None)) is not None:
            ready.append(item)
            self.expected += 1
        return ready or None

    def consume(self, weight: int) -> bool:
        """The reader took this much; True if the sender should hear of the room at once."""
        self.consumed += weight
        return self.consumed + WINDOW - self.limit >= ACK_EVERY

    def acknowledge(self, *, at_once: bool) -> tuple[int, int]:
        """What to tell the sender: the next chunk expected, and how much it may send in all.

        What is not told at once may wait for a while, so it does not count as told.
        """
        limit = max(self.limit, self.consumed + WINDOW)
        if at_once:
            self.since_ack = 0
            self.limit = limit
        return self.expected, limit


class PathTime:
    """The round-trip time to one node, smoothed after RFC 6298."""

    __slots__ = ("smoothed", "variance")

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.variance = 0.0

    def measure(self, sample: float) -> None:
        """Take in one round trip of a chunk that was sent once (Karn's rule), in seconds."""
        if self.smoothed is None:
            self.smoothed, self.variance = sample, sample / 2
        else:
            self.variance += (abs(self.smoothed - sample) - self.variance) / 4
            self.smoothed += (sample - self.smoothed) / 8

    def timeout(self, tries: int) -> float:
        """Seconds to wait for an acknowledgement after `tries` resendings."""
        first = FIRST_TIMEOUT if self.smoothed is None else max(MIN_TIMEOUT, self.smoothed + 4 * self.variance)
        return min(MAX_TIMEOUT, first * 2.0 ** min(tries, 8) if tries else first)


class Replays:
    """The numbers of the requests that one sender has made so far."""

    __slots__ = ("_floor", "_seen")

    def __init__(self) -> None:
        self._floor = 0
        self._seen: set[int] = set()

    def __len__(self) -> int:
        return len(self._seen)

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
