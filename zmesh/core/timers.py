"""Deadlines by key, the earliest first.

`Timers` is a binary heap with lazy deletion: setting, moving and cancelling a deadline cost O(log n) at most. The heap
is rebuilt when half of its entries are obsolete, so memory is proportional to the deadlines that are set.

`Timeouts` is for many keys and few lengths: timeouts of equal length are a FIFO, since the one that is started first
expires first, so starting and cancelling one cost O(1).
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Hashable, Iterator
from typing import Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)

_SWEEP_AT = 64
_KEPT_LENGTHS = 16


class WallClock:
    """The time of day, as the machine's clock shows it; `epoch`: seconds since 1970 at `now` 0. It may be set anew."""

    __slots__ = ("epoch",)

    def __init__(self, epoch: float) -> None:
        self.epoch = epoch

    def at(self, now: float) -> float:
        """Seconds since 1970 at `now`."""
        return self.epoch + now


class Alarm:
    """The earliest deadline of all the tables that share it; cheap to read after every event.

    It may be too early (after a cancellation), never too late. `soonest` is infinite if there is no deadline. `node` is
    the alarm of the whole node where this one is of some of its tables; it is lowered with it.
    """

    __slots__ = ("_node", "soonest")

    def __init__(self, node: Alarm | None = None) -> None:
        self._node = node
        self.soonest = math.inf

    def at(self, when: float) -> None:
        """Lower `soonest` to `when`."""
        if when < self.soonest:
            self.soonest = when
            if self._node is not None:
                self._node.at(when)


class Table(Protocol):
    """A table with deadlines."""

    def next_deadline(self) -> float | None:
        """The earliest, or None."""


class Alarms:
    """The alarms of the parts of a node, each with its table; `node` is that of all of them."""

    __slots__ = ("_node", "_parts")

    def __init__(self, node: Alarm, *parts: tuple[Alarm, Table]) -> None:
        self._node = node
        self._parts = parts

    def reset(self, now: float) -> None:
        """Set the alarms that have gone off to what is due next."""
        for alarm, table in self._parts:
            if alarm.soonest <= now:
                deadline = table.next_deadline()
                alarm.soonest = math.inf if deadline is None else deadline
        self._node.soonest = min(alarm.soonest for alarm, _ in self._parts)

    def check(self) -> None:
        """Raise AssertionError if an alarm goes off too late."""
        for alarm, table in self._parts:
            deadline = table.next_deadline()
            if deadline is not None and not self._node.soonest <= alarm.soonest <= deadline:
                raise AssertionError("an alarm that goes off too late")


class Timers(Generic[K]):
    """One deadline for each key."""

    __slots__ = ("_alarm", "_count", "_due", "_heap")

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self._due: dict[K, tuple[float, int, K]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: K) -> bool:
        return key in self._due

    def __iter__(self) -> Iterator[K]:
        return iter(self._due)

    def set(self, key: K, deadline: float) -> None:
        """Set or replace the deadline of `key`."""
        self._count = count = self._count + 1
        self._due[key] = due = (deadline, count, key)
        heapq.heappush(self._heap, due)
        if deadline < self._alarm.soonest:
            self._alarm.at(deadline)
        if len(self._heap) > 2 * len(self._due) + _SWEEP_AT:
            self._heap = list(self._due.values())
            heapq.heapify(self._heap)

    def set_default(self, key: K, deadline: float) -> None:
        """Set the deadline of `key` unless it has one."""
        if key not in self._due:
            self.set(key, deadline)

    def set_sooner(self, key: K, deadline: float) -> None:
        """Set the deadline of `key` unless it has an earlier one."""
        due = self._due.get(key)
        if due is None or due[0] > deadline:
            self.set(key, deadline)

    def cancel(self, key: K) -> None:
        """Remove the deadline of `key`, if there is one."""
        self._due.pop(key, None)

    def next_deadline(self) -> float | None:
        """The earliest deadline, or None."""
        heap, due = self._heap, self._due
        while heap:
            earliest = heap[0]
            if due.get(earliest[2]) is earliest:
                return earliest[0]
            heapq.heappop(heap)
        return None

    def expire(self, now: float, most: int | None = None) -> list[K]:
        """Take out and return the keys whose deadline is `now` or earlier, in order; the first `most` of them only."""
        expired: list[K] = []
        if not self._heap or self._heap[0][0] > now:
            return expired
        while len(expired) != most and (when := self.next_deadline()) is not None and when <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            expired.append(key)
        return expired


class Timeouts(Generic[K]):
    """One timeout for each key, of which few have different lengths."""

    __slots__ = ("_by_length", "_first")

    def __init__(self, alarm: Alarm) -> None:
        self._by_length: dict[float, dict[K, float]] = {}
        """The deadlines by key, in their order, of all timeouts of one length."""
        self._first: Timers[float] = Timers(alarm)
        """For each length a time at which its first deadline is, or was before it was cancelled."""

    def start(self, key: K, length: float, now: float) -> None:
        """Have `key`, which has no timeout, expire `length` seconds from `now`, which never decreases."""
        fifo = self._by_length.get(length)
        if fifo is None:
            fifo = self._by_length[length] = {}
            self._first.set(length, now + length)
        fifo[key] = now + length

    def cancel(self, key: K, length: float) -> None:
        """Stop the timeout of `key`, which was started with that length, if it has not expired."""
        fifo = self._by_length.get(length)
        if fifo is not None and fifo.pop(key, None) is not None and not fifo and len(self._by_length) > _KEPT_LENGTHS:
            del self._by_length[length]
            self._first.cancel(length)

    def next_deadline(self) -> float | None:
        """A time before which none expires; None if there are none."""
        return self._first.next_deadline()

    def expire(self, now: float) -> list[K]:
        """Take out and return the keys that expire at `now` or earlier; those of one length in order."""
        expired: list[K] = []
        for length in self._first.expire(now):
            fifo = self._by_length[length]
            due = [key for key, _ in itertools.takewhile(lambda item: item[1] <= now, fifo.items())]
            for key in due:
                del fifo[key]
            expired += due
            if fifo:
                self._first.set(length, next(iter(fifo.values())))
            else:
                del self._by_length[length]
        return expired
