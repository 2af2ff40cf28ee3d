"""The anti-replay window of requests: each is accepted at most once (as in RFC 4303, section 3.4.3, without a bound on
reordering).

A client numbers its requests to each server and names with each one the lowest number that is still outstanding, so the
server remembers no more numbers than requests are in flight, and a late copy of a request never runs twice.
"""

from __future__ import annotations

MAX_NUMBERS = 65_536


class ReplayWindow:
    """The request numbers of one client that were seen; all below `lowest` count as seen."""

    __slots__ = ("_lowest", "_seen")

    def __init__(self, lowest: int = 0) -> None:
        self._lowest = lowest
        self._seen: set[int] = set()

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def end(self) -> int:
        """One more than the highest number that was seen, or the lowest that was not."""
        return max(self._seen, default=-1) + 1 or self._lowest

    def knows(self, number: int) -> bool:
        """Whether a request of this number was seen, or may have been."""
        return number < self._lowest or number in self._seen

    def compact(self) -> None:
        """Keep no single numbers: all up to the highest one that was seen count as seen."""
        self._lowest = self.end
        self._seen.clear()

    def accept_next(self, number: int, lowest_outstanding: int) -> bool:
        """Whether a request is the next one of a client whose others have all been seen; then nothing is kept for it.

        So are most requests: a client of which every one is answered before the next keeps no number here.
        """
        if number != self._lowest or lowest_outstanding > number or self._seen:
            return False
        self._lowest += 1
        return True

    def accept(self, number: int, lowest_outstanding: int) -> bool:
        """Whether a request of this number is new; the client sends none below `lowest_outstanding` any more."""
        if self.accept_next(number, lowest_outstanding):
            return True
        is_new = number >= self._lowest and number not in self._seen
        if is_new:
            self._seen.add(number)
            if len(self._seen) > MAX_NUMBERS:
                lowest_outstanding = max(lowest_outstanding, sorted(self._seen)[MAX_NUMBERS // 2])
        if lowest_outstanding > self._lowest:
            self._lowest = lowest_outstanding
            self._seen = {seen for seen in self._seen if seen >= lowest_outstanding}
        while self._lowest in self._seen:
            self._seen.remove(self._lowest)
            self._lowest += 1
        return is_new
