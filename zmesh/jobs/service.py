"""The jobs of one node: stored, run in turn, and shown on request, for as long as they are kept.

What a job does follows what is stored of it: it is stored that it runs before it does, and its output before its end.
So what a node finds when it starts is true, but for jobs that ran: these have failed, which is stored before the node
listens.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from zmesh.core.effects import Report
from zmesh.errors import ConfigError, MeshError, NodeOverloaded, RemoteError
from zmesh.jobs import processes
from zmesh.jobs.database import Database
from zmesh.jobs.intake import store_submission
from zmesh.jobs.output import RETRY_AFTER
from zmesh.jobs.queue import Bounds, Finish, Full, Instruction, Outcome, Queue, Requeue, Start, Stop, Unfinished
from zmesh.jobs.records import Records
from zmesh.jobs.rows import Conflict, Owner, Task
from zmesh.jobs.running import Attempt, Attempts
from zmesh.jobs.settings import JobSettings
from zmesh.jobs.states import JobState, JobStatus, Restart
from zmesh.jobs.store import Store, StoreError, Trouble
from zmesh.jobs.submission import Submission

log = logging.getLogger(__name__)
audit = logging.getLogger("zmesh.jobs.audit")
"""A line when a job is submitted, starts, has ended, is cancelled, removed, or read by another than its owner."""

T = TypeVar("T")

TICK, TICK_IDLE = 5.0, 60.0
"""Seconds between two notes that the node runs, each with a look at what need not be kept; while no job runs."""
TICKS_HELD = 3
"""Of these notes, how many pass until the lease on the jobs expires that each renews."""
SWEEP_EACH = 1000
"""Jobs after whose end is looked anew at what need not be kept."""
SWEEP = 200
"""Jobs that one transaction removes, at most."""
CLOSE_WITHIN = 5.0
"""Seconds that closing waits until it is stored how jobs have ended."""


class JobService:
    """The jobs of one node. `folder` is where they are kept; None: it keeps none. `note` takes what happens to them."""

    def __init__(
        self,
        node_id: str,
        settings: JobSettings,
        folder: Path | None,
        attempts: Attempts,
        note: Callable[[Report], None] = lambda report: None,
        *,
        incarnation: str | None = None,
    ) -> None:
        self.node_id = node_id
        self._incarnation = incarnation
        self.note = note
        self.settings = settings
        self._folder = folder
        self._attempts = attempts
        self._max_bytes = settings.keep_bytes + settings.max_payload_bytes
        self._store: Store | None = None
        self.records = Records(node_id, self.ready)
        self._opening = asyncio.Lock()
        bounds = Bounds(
            settings.max_running, settings.max_running_per_owner, settings.max_queued, settings.max_queued_per_owner
        )
        self._queue = Queue(bounds, settings.max_restarts)
        self._running: dict[str, Attempt] = {}
        self._writes: dict[str, asyncio.Task[Any]] = {}
        """For each job, the last change of its state that is not stored yet."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._swept = asyncio.Event()
        self._kept_bytes = 0
        self._finished = 0
        self._crowded = False
        self._clock = (0.0, time.monotonic())
        self._closing = False

    def _audit(self, text: str, *values: object) -> None:
        audit.info(text, *values)
        self.note(Report("job_changed", None, None, text % values))

    @property
    def keeps(self) -> bool:
        """Whether the node keeps jobs."""
        return self._folder is not None

    # -- open and close ------------------------------------------------------------------------------------------

    @property
    def counts(self) -> tuple[int, int]:
        """How many jobs run, and how many wait."""
        return self._queue.running, len(self._queue) - self._queue.running

    async def open(self) -> None:
        """Take over what the last run of the node has left; nothing if it has kept no jobs."""
        if self._folder is not None and (self._folder / "jobs.db").exists():
            try:
                await self.ready()
            except (ConfigError, StoreError) as error:
                log.error("%s; jobs are refused until then", error)

    async def ready(self) -> Store:
        """The store, which is opened if it is not. Raises RemoteError where none are kept, ConfigError, StoreError."""
        if self._store is not None:
            return self._store
        if self._folder is None:
            raise RemoteError(
                f"node {self.node_id!r} keeps no jobs, as it has no folder of state: it needs an identity "
                "('zmesh init', 'zmesh join'), or [jobs] folder in its configuration"
            )
        async with self._opening:
            self._check_closing()
            if self._store is None:
                store = Store(self._folder, self.node_id, self._max_bytes, self._on_damage, holder=self._incarnation)
                store.on_taken = self._on_taken
                async with AsyncExitStack() as undo:  # also where the request that needs the store is cancelled
                    undo.push_async_callback(store.close)
                    await store.open()
                    await self._recover(store)
                    self._check_closing()
                    undo.pop_all()
                self._store = store
                self._spawn(self._maintain(store))
                self._obey(self._queue.wake(time.monotonic()))
        return self._store

    def _check_closing(self) -> None:
        if self._closing:
            raise StoreError(Trouble.OTHER, f"node {self.node_id!r} is closing; ask again when it is back")

    async def _recover(self, store: Store) -> None:
        boot, wall = processes.boot_id(), time.time()
        found = await store.write(lambda database: database.recover(boot, wall, self.settings.max_restarts))
        await store.read(lambda database: processes.end(found.processes))
        base = await store.read(Database.clock)
        self._clock = (base, time.monotonic())
        for status in found.ended:
            self._audit("job %s of %s: %s", status.id, status.owner, status.shown)
        self._queue.close()
        for job in found.waiting:
            self._queue.add(job)
        self._queue.reopen()

    def stop(self) -> None:
        """Start no more jobs; those whose work is cancelled from now on were interrupted by the node's end."""
        self._closing = True
        self._queue.close()

    async def close(self) -> None:
        """Store how the jobs have ended whose work was cancelled, and close the database."""
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
        self._swept.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_WITHIN)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._store is not None:
            await self._store.close()

    def close_now(self) -> None:
        """Close without waiting; the next run of the node finds out what was not stored."""
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
        if self._store is not None:
            self._store.close_now()

    # -- submission ----------------------------------------------------------------------------------------------

    async def submit(
        self, submission: Submission, owner: Owner, first: bytes, rest: AsyncIterator[bytes] | None
    ) -> tuple[JobStatus, bool]:
        """Store a job and run it in its turn; its status, and whether it is new. `rest`: what follows of its payload.

        Raises NodeOverloaded past a limit, RemoteError for a key that is another job's, StoreError.
        """
        store = await self.ready()
        reached = self._queue.reserve(owner.id)
        if reached is None and self._crowded:
            self._queue.release(owner.id)
            reached = Full("keep_bytes", f"its jobs have {self.settings.keep_bytes} bytes, and none has ended")
        if reached is not None:
            text = f"node {self.node_id!r}: {reached.what} ([jobs] {reached.limit}); try again when some have ended"
            raise NodeOverloaded(text, limit=f"jobs_{reached.limit}")
        # A task of its own: what is stored has to run, also if the client is gone meanwhile.
        return await asyncio.shield(self._spawn(self._store_submission(store, submission, owner, first, rest)))

    async def _store_submission(
        self, store: Store, submission: Submission, owner: Owner, first: bytes, rest: AsyncIterator[bytes] | None
    ) -> tuple[JobStatus, bool]:
        try:
            stored = await store_submission(store, submission, owner, first, rest, self.settings.max_payload_bytes)
        except Conflict as error:
            raise RemoteError(f"node {self.node_id!r}: {error}") from None
        finally:
            self._queue.release(owner.id)
        if not stored.sequence:
            return stored.status, False
        self._kept_bytes += stored.size_bytes
        self._audit("%s submits job %s: %s", owner.id, stored.status.id, stored.status.title)
        job = Unfinished(
            submission.number,
            owner.id,
            submission.priority,
            stored.sequence,
            Restart.of(submission.restart),
            directive=submission.directive,
            title=submission.title,
        )
        self._obey(self._queue.add(job))
        return stored.status, True

    # -- ending and removing -------------------------------------------------------------------------------------

    def cancel(self, status: JobStatus, by: str) -> None:
        """Cancel the job for the node `by`; it has ended when its status says so."""
        number = status.id.rpartition("/")[2]
        self._audit("%s cancels job %s of %s", by, status.id, status.owner)
        attempt = self._running.get(number)
        if attempt is not None:
            attempt.by = by
        self._obey(self._queue.cancel(number, f"by {by!r}"))

    async def remove(self, status: JobStatus, by: str) -> None:
        """Delete a job that has ended. Raises RemoteError for one that has not, and StoreError."""
        number = status.id.rpartition("/")[2]
        if not status.state.ended or number in self._queue or number in self._writes:
            raise RemoteError(f"job {status.id} is {status.state}; cancel it first, or remove it with --force")
        store = await self.ready()
        await store.write(lambda database: database.remove(number), vital=True)
        self._audit("%s removes job %s of %s", by, status.id, status.owner)
        self.records.changed(number)

    # -- running -------------------------------------------------------------------------------------------------

    def _obey(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Start(number):
                    self._spawn(self._run(number))
                case Stop(number):
                    attempt = self._running.get(number)
                    if attempt is not None:
                        self._attempts.cancel(attempt)
                case Requeue(number, outcome):
                    self._requeue(number, outcome)
                case Finish(number, outcome):
                    self._finish(number, outcome)
        self._set_timer()

    async def _run(self, number: str) -> None:
        """Run a job once."""
        job, store = self._queue.get(number), self._store
        assert job is not None
        assert store is not None
        if number in self._writes:
            await asyncio.wait((self._writes[number],))
        attempt = None
        try:
            task = await self._started(store, number, job)
        except LookupError:
            outcome = Outcome(JobState.LOST, "lost", f"its payload was in what is kept as {self.records.damaged}")
        else:
            if task is None and not job.cancelled:
                return  # the node closes, and finds it waiting when it starts anew
            outcome = Outcome(JobState.CANCELLED, "cancelled", "cancelled before it ran")
            if task is not None:
                attempt, outcome = await self._attempt(store, task, job)
        for each in self._queue.ended(number, outcome, self._now()):
            if isinstance(each, Finish) and attempt is not None:
                self._finish(number, outcome, attempt.execution.returncode, attempt.seconds)
            else:
                self._obey([each])
        self._set_timer()

    async def _started(self, store: Store, number: str, job: Unfinished) -> Task | None:
        """Store that a job runs; None if it is cancelled, or the node closes, before that could be done."""
        while not (job.cancelled or self._closing):
            try:
                return await store.write(lambda database: database.start(number, time.time()))
            except StoreError as error:
                if error.trouble is not Trouble.TAKEN:
                    await asyncio.sleep(RETRY_AFTER)
        return None

    async def _attempt(self, store: Store, task: Task, job: Unfinished) -> tuple[Attempt, Outcome]:
        number = task.number

        def note_process(pid: int) -> None:
            name = processes.name_of(pid)
            self._spawn(_quietly(store.write(lambda database: database.runs_as(number, name))))

        attempt = self._attempts.prepare(task, store, self, partial(self.records.changed, number), note_process)
        self._running[number] = attempt
        self.records.changed(number)
        self._audit("job %s/%s of %s runs: %s", self.node_id, number, job.owner, task.title)
        try:
            outcome = await self._attempts.run(attempt, store, lambda: job.cancelled or self._closing)
        finally:
            del self._running[number]
        if job.cancelled and outcome.state is JobState.CANCELLED:
            outcome = outcome._replace(reason=f"by {attempt.by!r}")
        elif self._closing and outcome.state is JobState.CANCELLED:
            outcome = Outcome(JobState.FAILED, "node_restarted", "node stopped", interrupted=True)
        return attempt, outcome

    def _requeue(self, number: str, outcome: Outcome) -> None:
        """Store that a job waits again."""
        self._audit("job %s/%s waits again after: %s", self.node_id, number, outcome.reason)
        waits = Outcome(JobState.QUEUED, outcome.code, outcome.reason)
        self._change(number, lambda database: database.requeue(number, outcome), waits)

    def _finish(
        self, number: str, outcome: Outcome, returncode: int | None = None, seconds: float | None = None
    ) -> None:
        """Store how a job has ended."""
        clock, wall = self._age(), time.time()
        self._finished += 1
        if self._finished % SWEEP_EACH == 0:
            self._swept.set()
        self._change(
            number, lambda database: database.finish(number, outcome, returncode, wall, seconds, clock), outcome
        )
        self._audit("job %s/%s %s%s", self.node_id, number, outcome.state, outcome.reason and f": {outcome.reason}")

    def _change(self, number: str, change: Callable[[Database], None], outcome: Outcome) -> None:
        """Store a change of a job's state after those that are being stored."""
        self._writes[number] = self._spawn(self._store_change(number, change, outcome, self._writes.get(number)))

    async def _store_change(
        self, number: str, change: Callable[[Database], None], outcome: Outcome, before: asyncio.Task[Any] | None
    ) -> None:
        store = self._store
        assert store is not None
        try:
            if before is not None:
                await asyncio.wait((before,))
            while True:
                try:
                    await store.write(change, vital=True)
                except StoreError as error:
                    if error.trouble is Trouble.TAKEN:
                        break
                    self.records.unsaved[number] = outcome
                    self.records.changed(number)
                    await asyncio.sleep(RETRY_AFTER)
                else:
                    break
        finally:
            self.records.unsaved.pop(number, None)
            if self._writes.get(number) is asyncio.current_task():
                del self._writes[number]
            self.records.changed(number)

    # -- what is kept --------------------------------------------------------------------------------------------

    def take(self, size_bytes: int) -> int:
        """Take room for output (a Room)."""
        if self._crowded:
            return 0
        self._kept_bytes += size_bytes
        if self._kept_bytes > self.settings.keep_bytes:
            self._swept.set()
        return size_bytes

    async def _maintain(self, store: Store) -> None:
        """Note that the node runs, and remove what need not be kept."""
        while not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK if self._running else TICK_IDLE):
                    await self._swept.wait()
            self._swept.clear()
            try:
                await self.sweep(store)
            except StoreError as error:
                log.warning("%s", error)

    async def sweep(self, store: Store) -> None:
        """Remove what need not be kept any more. Raises StoreError."""
        clock, wall, settings = self._age(), time.time(), self.settings
        leased = TICKS_HELD * (TICK if self._running else TICK_IDLE)
        await store.write(lambda database: database.touch(clock, wall, leased), vital=True)
        before, total, full = clock - settings.keep_seconds, 0, True
        while full:
            removed, total = await store.write(
                lambda database: database.sweep(before, settings.max_kept, settings.keep_bytes, SWEEP), vital=True
            )
            full = len(removed) == SWEEP
            for number in removed:
                self.records.changed(number)
        self._kept_bytes, self._crowded = total, total > settings.keep_bytes
        await store.read(store.renew_reserve)

    def _age(self) -> float:
        """The clock by which jobs age."""
        base, since = self._clock
        return base + time.monotonic() - since

    def _on_damage(self, path: Path) -> None:
        """The database was damaged and is kept as `path`: what runs goes on, what waits is lost with its payload."""
        self.records.damaged = path
        if (store := self._store) is None:
            return
        clock, wall = self._age(), time.time()
        self._spawn(_quietly(store.write(lambda database: database.touch(clock, wall, TICKS_HELD * TICK))))
        reason = f"its payload was in what is kept as {path}"
        for job in list(self._queue):
            attempt = self._running.get(job.number)
            if attempt is not None:
                job.restart = Restart(0)
                self._adopt(job, attempt.task.owner.tags, JobState.RUNNING, "", attempt.execution.stored_bytes)
            else:
                self._queue.drop(job.number)
                self._adopt(job, (), JobState.LOST, reason, 0)

    def _on_taken(self, error: StoreError) -> None:
        """Another process has the database by now, and says of what runs here that it does not: so that is ended."""
        self.stop()
        self._audit("%s", error)
        for attempt in self._running.values():
            self._attempts.cancel(attempt)

    def _adopt(self, job: Unfinished, tags: tuple[str, ...], state: JobState, reason: str, output_bytes: int) -> None:
        wall = time.time()
        self._change(
            job.number,
            lambda database: database.adopt(job, tags, state, reason, wall, output_bytes),
            Outcome(state, "lost", reason),
        )

    # -- inside --------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._queue.next_deadline()
        if due is not None and not self._closing:
            self._timer = asyncio.get_running_loop().call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._obey(self._queue.wake(self._now()))

    def _spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, MeshError):
            log.error("a job could not be dealt with", exc_info=error)


async def _quietly(writing: Coroutine[Any, Any, object]) -> None:
    """Write what is of use, and not needed."""
    with suppress(StoreError):
        await writing
