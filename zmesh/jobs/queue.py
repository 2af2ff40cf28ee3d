"""The queue of the jobs of one node that have not ended: which runs next, and what follows from an end. Pure.

A job is queued, then running, and at its end either over or queued again. Of those that are queued the one of the
highest priority starts, the first submitted among equals; a submitter that has its share of running jobs is passed
over. Every stimulus returns the instructions that follow from it; ids, times and outcomes come in as arguments.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from zmesh.jobs.states import JobState, Restart

DELAY_FIRST, DELAY_MOST = 1.0, 60.0
"""Seconds after a failure until a job runs again: the first time, doubling, and at most."""


SLACK = 64
"""Ranks of cancelled jobs that an owner's heap may hold beside as many as it has jobs."""


class Bounds(NamedTuple):
    """The most jobs that may run and wait, in all and of one owner."""

    running: int
    running_per_owner: int
    queued: int
    queued_per_owner: int


class Outcome(NamedTuple):
    """How an attempt ended. `state` is DONE, FAILED or CANCELLED; `interrupted`: its node has stopped."""

    state: JobState
    code: str = ""
    reason: str = ""
    interrupted: bool = False


class Start(NamedTuple):
    """Store that the job runs, then run it."""

    number: str


class Stop(NamedTuple):
    """End the work of a job."""

    number: str


class Requeue(NamedTuple):
    """Store that the job waits again, because of this outcome."""

    number: str
    outcome: Outcome


class Finish(NamedTuple):
    """Store how the job has ended."""

    number: str
    outcome: Outcome


Instruction = Start | Stop | Requeue | Finish


def runs_again(restart: Restart, restarts: int, outcome: Outcome, most: int) -> bool:
    """Whether a job whose attempt ended so runs again, having done so `restarts` times."""
    allowed = most if restart.times is None else min(most, restart.times)
    if restarts >= allowed or outcome.state is not JobState.FAILED:
        return False
    return outcome.interrupted or restart.on_failure


@dataclass(slots=True)
class Unfinished:
    """A job that is queued or runs."""

    number: str
    owner: str
    priority: int
    sequence: int
    restart: Restart = field(default_factory=Restart)
    restarts: int = 0
    directive: str = ""
    title: str = ""
    running: bool = False
    cancelled: bool = False
    not_before: float | None = None
    """When it runs again after a failure."""

    @property
    def rank(self) -> tuple[int, int, str]:
        """Its place in the queue."""
        return (-self.priority, self.sequence, self.number)


class Full(NamedTuple):
    """A limit that is reached: the setting of `[jobs]`, and what there is."""

    limit: str
    what: str


class Queue:
    """The table of unfinished jobs."""

    def __init__(self, bounds: Bounds, max_restarts: int) -> None:
        self._bounds = bounds
        self._max_restarts = max_restarts
        self._jobs: dict[str, Unfinished] = {}
        self._ready: dict[str, list[tuple[int, int, str]]] = {}
        """For each owner, the ranks of its jobs that may start, as a heap; also of some that don't wait any more."""
        self._delayed: list[tuple[float, str]] = []
        self._running: dict[str, int] = {}
        self._unfinished: dict[str, int] = {}
        self._reserved = 0
        self._closed = False

    def __len__(self) -> int:
        """The jobs that are queued or run."""
        return len(self._jobs)

    def __iter__(self) -> Iterator[Unfinished]:
        return iter(self._jobs.values())

    def __contains__(self, number: object) -> bool:
        return number in self._jobs

    def get(self, number: str) -> Unfinished | None:
        """The job, if it has not ended."""
        return self._jobs.get(number)

    @property
    def running(self) -> int:
        """How many run."""
        return sum(self._running.values())

    # -- stimuli -------------------------------------------------------------------------------------------------

    def reserve(self, owner: str) -> Full | None:
        """Reserve room for a job that is to be stored; None, or the limit that is reached if there is no room."""
        if len(self._jobs) + self._reserved >= self._bounds.queued:
            return Full("max_queued", f"{self._bounds.queued} jobs wait or run there already")
        if self._unfinished.get(owner, 0) >= self._bounds.queued_per_owner:
            most = self._bounds.queued_per_owner
            return Full("max_queued_per_owner", f"{most} jobs of {owner!r} wait or run there already")
        self._reserved += 1
        _count(self._unfinished, owner, 1)
        return None

    def release(self, owner: str) -> None:
        """Release the room that was reserved: the job is not stored, or `add` follows."""
        self._reserved -= 1
        _count(self._unfinished, owner, -1)

    def add(self, job: Unfinished) -> list[Instruction]:
        """A job is stored and waits."""
        self._jobs[job.number] = job
        _count(self._unfinished, job.owner, 1)
        self._make_ready(job)
        return self._start()

    def cancel(self, number: str, reason: str) -> list[Instruction]:
        """The job is to be cancelled."""
        job = self._jobs.get(number)
        if job is None or job.cancelled:
            return []
        job.cancelled = True
        if job.running:
            return [Stop(number)]
        self._remove(job)
        return [Finish(number, Outcome(JobState.CANCELLED, "cancelled", reason))]

    def ended(self, number: str, outcome: Outcome, now: float) -> list[Instruction]:
        """An attempt has ended."""
        job = self._jobs[number]
        job.running = False
        _count(self._running, job.owner, -1)
        if not job.cancelled and runs_again(job.restart, job.restarts, outcome, self._max_restarts):
            if not outcome.interrupted:
                job.not_before = now + min(DELAY_MOST, DELAY_FIRST * 2 ** min(job.restarts, 16))
                heapq.heappush(self._delayed, (job.not_before, number))
            job.restarts += 1
            if outcome.interrupted:
                self._make_ready(job)
            return [Requeue(number, outcome), *self._start()]
        self._remove(job)
        return [Finish(number, outcome), *self._start()]

    def wake(self, now: float) -> list[Instruction]:
        """Time has passed."""
        while self._delayed and self._delayed[0][0] <= now:
            at, number = heapq.heappop(self._delayed)
            job = self._jobs.get(number)
            if job is not None and job.not_before == at:
                job.not_before = None
                self._make_ready(job)
        return self._start()

    def next_deadline(self) -> float | None:
        """When `wake` is due."""
        return self._delayed[0][0] if self._delayed else None

    def drop(self, number: str) -> None:
        """A job that waits is lost."""
        job = self._jobs[number]
        if not job.running:
            self._remove(job)

    def close(self) -> None:
        """Start no more."""
        self._closed = True

    def reopen(self) -> None:
        """Start jobs again, from the next stimulus on."""
        self._closed = False

    # -- inside --------------------------------------------------------------------------------------------------

    def _make_ready(self, job: Unfinished) -> None:
        heap = self._ready.setdefault(job.owner, [])
        heapq.heappush(heap, job.rank)
        if len(heap) > 2 * self._unfinished.get(job.owner, 0) + SLACK:  # most of them were cancelled
            heap[:] = {rank for rank in heap if self._waits(rank[2])}
            heapq.heapify(heap)

    def _remove(self, job: Unfinished) -> None:
        del self._jobs[job.number]
        _count(self._unfinished, job.owner, -1)

    def _start(self) -> list[Instruction]:
        started: list[Instruction] = []
        while not self._closed and self.running < self._bounds.running:
            job = self._next()
            if job is None:
                break
            job.running = True
            _count(self._running, job.owner, 1)
            started.append(Start(job.number))
        return started

    def _next(self) -> Unfinished | None:
        """Take the job that starts next out of its heap."""
        best: str | None = None
        for owner in list(self._ready):
            if self._running.get(owner, 0) >= self._bounds.running_per_owner:
                continue
            heap = self._ready[owner]
            while heap and not self._waits(heap[0][2]):
                heapq.heappop(heap)
            if not heap:
                del self._ready[owner]
            elif best is None or heap[0] < self._ready[best][0]:
                best = owner
        if best is None:
            return None
        return self._jobs[heapq.heappop(self._ready[best])[2]]

    def _waits(self, number: str) -> bool:
        job = self._jobs.get(number)
        return job is not None and not job.running and job.not_before is None

    def check(self) -> None:
        """Raise AssertionError for a table that contradicts itself or is past its bounds."""
        running: dict[str, int] = {}
        for job in self._jobs.values():
            if job.running:
                _count(running, job.owner, 1)
            elif job.cancelled:
                raise AssertionError("a cancelled job waits")
        if running != self._running or self.running > self._bounds.running:
            raise AssertionError("running jobs are miscounted, or too many")
        if any(count > self._bounds.running_per_owner for count in running.values()):
            raise AssertionError("an owner runs more than its share")
        waiting = [job for job in self._jobs.values() if self._waits(job.number)]
        free = [job for job in waiting if self._running.get(job.owner, 0) < self._bounds.running_per_owner]
        if free and self.running < self._bounds.running and not self._closed:
            raise AssertionError("a job waits though it might run")
        if any(len(heap) > 2 * len(self._jobs) + SLACK + 1 for heap in self._ready.values()):
            raise AssertionError("an owner's heap grows without jobs")
        ranks = {rank for heap in self._ready.values() for rank in heap}
        if any(job.rank not in ranks for job in waiting):
            raise AssertionError("a job waits for ever")


def _count(counts: dict[str, int], owner: str, by: int) -> None:
    left = counts.get(owner, 0) + by
    if left:
        counts[owner] = left
    else:
        counts.pop(owner, None)
