"""Quotas of a table with bounded room: which rows are evicted when it is full.

A table of what neighbours advertise is filled by all of them, and one that advertises far too much must not take the
room of the others. So while there is room every neighbour may use it, and when there is none, rows of the neighbour
with the most are evicted for those with less (the policy of longest queue drop, which is fair between flows for the
same reason; Suter et al., *Buffer Management Schemes for Supporting TCP in Gigabit Routers with Per-flow Queueing*,
IEEE JSAC 1999). Rows that are idle are evicted first, the oldest before the others; of those in use the newest.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class _Share(Generic[K]):
    """The rows of one neighbour: those in use and the idle ones, each in the order of their age, and their weight."""

    __slots__ = ("idle", "size", "used")

    def __init__(self) -> None:
        self.used: dict[K, None] = {}
        self.idle: dict[K, None] = {}
        self.size = 0


class Quotas(Generic[K]):
    """The rows of one table by their key, each with its owner (the neighbour that sent it) and its weight; all of them
    together weigh `capacity` at most.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rows: dict[K, tuple[Hashable, int]] = {}
        self._shares: dict[Hashable, _Share[K]] = {}
        self._largest: Hashable = None
        self._second = 0
        """No owner but the largest has more than this, so the largest need not be searched for at each change."""
        self._idle = 0
        self.total = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: K) -> bool:
        return key in self._rows

    @property
    def has_room(self) -> bool:
        """True if a row would be taken without evicting one that is in use."""
        return self.total < self._capacity or self._idle > 0

    def keys(self) -> set[K]:
        """The keys of all rows."""
        return set(self._rows)

    def of(self, owner: Hashable) -> int:
        """The weight of an owner's rows."""
        share = self._shares.get(owner)
        return share.size if share is not None else 0

    def take(self, key: K, owner: Hashable, weight: int = 1) -> list[K] | None:
        """Add a row that is in use, or change its owner or weight. Returns the rows that are evicted for it; None if
        there is no room, and nothing has changed then.
        """
        row = self._rows.get(key)
        if row == (owner, weight):
            self.use(key)
            return []
        victims: list[K] = []
        if row is not None:
            self._remove(key)
        undo: list[tuple[K, Hashable, int, bool]] = []
        while self.total + weight > self._capacity:
            victim = self._victim(owner, weight)
            if victim is None:
                for other, other_owner, other_weight, was_idle in reversed(undo):
                    self._enter(other, other_owner, other_weight, is_idle=was_idle)
                if row is not None:
                    self._enter(key, *row, is_idle=False)
                return None
            undo.append((victim, *self._rows[victim], victim in self._shares[self._rows[victim][0]].idle))
            self._remove(victim)
            victims.append(victim)
        self._enter(key, owner, weight, is_idle=False)
        return victims

    def use(self, key: K) -> None:
        """The row is in use (again)."""
        self._move(key, idle=False)

    def idle(self, key: K) -> None:
        """The row is not in use any more, and is evicted before the others."""
        self._move(key, idle=True)

    def drop(self, key: K) -> None:
        """The row is gone."""
        if key in self._rows:
            self._remove(key)

    def _victim(self, owner: Hashable, weight: int) -> K | None:
        """The row to evict next, so that this owner may have that much more."""
        own = self._shares.get(owner)
        largest = self._find_largest()
        if largest is not None and largest is not own and largest.size > (own.size if own is not None else 0) + weight:
            return next(iter(largest.idle)) if largest.idle else next(reversed(largest.used))
        if own is not None and own.idle:
            return next(iter(own.idle))
        if self._idle:
            return next(iter(max(self._shares.values(), key=lambda share: len(share.idle)).idle))
        return None

    def _find_largest(self) -> _Share[K] | None:
        share = self._shares.get(self._largest)
        if share is None and self._shares:
            first, *others = heapq.nlargest(2, self._shares, key=lambda owner: self._shares[owner].size)
            self._largest, share = first, self._shares[first]
            self._second = self._shares[others[0]].size if others else 0
        return share

    def _enter(self, key: K, owner: Hashable, weight: int, *, is_idle: bool) -> None:
        self._rows[key] = (owner, weight)
        share = self._shares.get(owner)
        if share is None:
            share = self._shares[owner] = _Share()
        (share.idle if is_idle else share.used)[key] = None
        self._idle += is_idle
        share.size += weight
        self.total += weight
        if owner != self._largest:
            self._second = max(self._second, share.size)
            self._look_again()

    def _remove(self, key: K) -> None:
        owner, weight = self._rows.pop(key)
        share = self._shares[owner]
        if key in share.used:
            del share.used[key]
        else:
            del share.idle[key]
            self._idle -= 1
        share.size -= weight
        self.total -= weight
        if not share.size:
            del self._shares[owner]
        self._look_again()

    def _look_again(self) -> None:
        largest = self._shares.get(self._largest)
        if largest is None or largest.size < self._second:
            self._largest = None

    def _move(self, key: K, *, idle: bool) -> None:
        row = self._rows.get(key)
        if row is None:
            return
        share = self._shares[row[0]]
        of, to = (share.used, share.idle) if idle else (share.idle, share.used)
        if key in of:
            del of[key]
            to[key] = None
            self._idle += 1 if idle else -1

    def check(self) -> None:
        """Raise AssertionError if the sums are not those of the rows."""
        if sum(weight for _, weight in self._rows.values()) != self.total or self.total > self._capacity:
            raise AssertionError("the weight of a table is not that of its rows")
        if sum(len(share.idle) for share in self._shares.values()) != self._idle:
            raise AssertionError("a table that has lost count of the rows that are not in use")
        if {key for share in self._shares.values() for key in (*share.used, *share.idle)} != self._rows.keys():
            raise AssertionError("a row without a share, or a share of no row")
