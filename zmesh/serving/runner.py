"""Executes requests at a node: in tasks, worker threads or processes, up to the final reply.

Async directives run as tasks on the loop, plain ones in daemon threads, isolated ones in processes. Whatever a
directive does (returns, raises, calls `sys.exit`, is cancelled, never ends), its request's
`finish` is called once for it, and never while a reply of the same work is still being handed over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, suppress
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, cast

from zmesh.errors import Cancelled, NodeOverloaded, Overloaded, RemoteError, TimedOut
from zmesh.payloads import Outgoing, PayloadLike, Response, StreamedPayload, outgoing
from zmesh.runtime import (
    EagerStarter,
    abandon,
    code_of,
    describe,
    directive_frames,
    is_a,
    log_exception,
    log_line,
    must_propagate,
    text_of,
)
from zmesh.serving.directives import Directives
from zmesh.serving.failure_log import FailureLog
from zmesh.serving.member_quota import member_of
from zmesh.serving.overload import overload_report
from zmesh.serving.running import RunningWork
from zmesh.serving.shape import Shape
from zmesh.serving.work import ReplySink, Work, WorkReset

if TYPE_CHECKING:
    from zmesh.core.effects import Report
    from zmesh.serving.isolation import Isolation, Processes
    from zmesh.serving.thread_executor import ThreadExecutor

_Reply: TypeAlias = "PayloadLike | Response | Outgoing"

logger = logging.getLogger(__name__)

CLOSE_WITHIN = 5.0
"""Seconds that closing waits for work that was cancelled, and for a plugin's own `close`."""

_TURN = 32


_LEFT_TO_OTHERS = 8
"""One in so many places of `max_work` stays free of the requests of one other node, if there are as many."""


class Runner:
    """The table of running work at one node. Not thread-safe: used on the loop that `start` is called on."""

    def __init__(
        self,
        directives: Directives,
        *,
        max_workers: int,
        max_work: int,
        max_processes: int = 1,
        isolation: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
        spool_dir: str | None = None,
        note: Callable[[Report], None] | None = None,
    ) -> None:
        self._directives = directives
        self._note = note
        self._max_workers = max_workers
        self._max_work = max_work
        self._isolation = (max_processes, isolation, spool_dir)
        self._active: dict[str, RunningWork] = {}
        self._of: dict[str, int] = {}  # a Counter costs each request nine times as much
        self._failures = FailureLog()
        self._starter = EagerStarter()
        self._threads: ThreadExecutor | None = None
        self._processes: Processes | None = None
        self._idle: asyncio.Event | None = None
        self._closed = False

    def configure(
        self, max_workers: int, max_work: int, max_processes: int, isolation: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Apply other limits to the work that starts from now on."""
        self._max_workers, self._max_work = max_workers, max_work
        self._isolation = (max_processes, isolation, self._isolation[2])
        if self._threads is not None:
            self._threads.set_limit(max_workers)
        if self._processes is not None:
            self._processes.configure(max_processes, isolation)

    def wants_stream(self, directive: str) -> bool:
        """Whether to start this directive at the first chunk of its payload; also True for an unknown one, to fail."""
        try:
            return self._directives.find(directive).stream
        except RemoteError:
            return True

    def start(self, work: Work, request: ReplySink) -> None:
        """Run the work, or finish its request at once if it can't be run; a message id that runs is ignored.

        Never raises.
        """
        message_id = work.message_id
        active = self._active
        if message_id in active:
            log_line(logger, logging.WARNING, "%s from %s is running already", work.directive, work.sender)
            return
        try:
            entry = self._directives.find(work.directive)
            if self._closed:
                raise Cancelled("the node is closing; send it again when it is back, or to another")
            member = member_of(work.sender)
            own = self._of.get(member, 0)
            if len(active) >= self._max_work or own >= self._max_work - self._max_work // _LEFT_TO_OTHERS:
                self._check_room(work, member)
        except (RemoteError, Cancelled, Overloaded) as error:
            work.payload.close()
            self._count(error, work)
            request.finish(reason=error.code, error=str(error))
            return
        running = active[message_id] = RunningWork(work, request, entry)
        self._of[member] = own + 1
        if entry.isolation is not None:
            self._spawn(running, self._iterate(running, partial(self._isolated, entry.isolation)))
        elif entry.shape is Shape.COROUTINE:
            self._spawn(running, self._call(running))
        elif entry.shape is Shape.ASYNC_GENERATOR:
            self._spawn(running, self._iterate(running, entry.run))
        else:
            self._run_in_thread(running)
        if work.deadline is not None and message_id in active:
            running.timer = asyncio.get_running_loop().call_at(work.deadline, self.cancel, message_id, TimedOut.code)

    def _check_room(self, work: Work, member: str) -> None:
        """Raises Overloaded if all places are taken, or another node has all that it may."""
        limit, runs = "max_work", f"{self._max_work} requests"
        if len(self._active) < self._max_work:
            if member == work.header["recipient"]:
                return
            limit, runs = "max_work_per_node", f"{self._of[member]} requests of {member!r}"
        text = f"the node runs {runs} already (max_work{'' if limit == 'max_work' else ', less an eighth for others'})"
        raise Overloaded(f"{text}; try again later, or set it higher there", limit=limit)

    def _count(self, error: BaseException, work: Work) -> None:
        """Count work that ends because of a limit of this node."""
        report = overload_report(error, work.sender)
        if report is not None and self._note is not None:
            self._note(report)

    def cancel(self, message_id: str, reason: str = Cancelled.code, by: str | None = None, reset_code: int = 0) -> None:
        """Stop this work, if it runs; when it has ended, it is finished with `reason`, whatever it returned.

        `reason` is a code of zmesh.errors. `by` is the node that has cancelled it, if that is not the client.

        A task gets CancelledError, a process SIGTERM and then SIGKILL. A thread gets `work.cancelled`, and Cancelled
        raised where it waits for a reply to go out or for a chunk to come in.
        """
        running = self._active.get(message_id)
        if running is None or running.reason is not None:
            return
        running.reason = reason
        running.by = by
        running.work.reset_code = reset_code
        running.work.cancelled = True
        if running.task is not None:
            if running.task.get_loop().is_closed():
                abandon(running.task)
            else:
                running.task.cancel()
            if not running.started:  # its body will never run
                self._end(running)
        elif running.claim is not None:
            if running.claim.acquire(blocking=False):  # it still waits for a thread
                self._end(running)
                return
            if running.handing is not None:
                with suppress(RuntimeError):  # the loop is closed
                    running.handing.cancel()
            if isinstance(running.work.payload, StreamedPayload):
                running.work.payload.fail(running.work.cancellation())

    def delay(self, message_id: str) -> str:
        """The limit that this work waits for before it can begin, as a text; empty if it has begun, or does not run."""
        running = self._active.get(message_id)
        if running is None:
            return ""
        if running.claim is not None and running.thread is None:
            limit = f"threads (max_workers is {self._max_workers})"
        elif self._processes is not None and self._processes.is_waiting(message_id):
            limit = f"processes (max_processes is {self._isolation[0]})"
        else:
            return ""
        return f"{running.work.directive} has not begun, other requests have all {limit}"

    def when_ended(self, message_id: str, watcher: Callable[[], None]) -> None:
        """Call `watcher` when this work has ended; now, if it does not run."""
        running = self._active.get(message_id)
        if running is None:
            watcher()
        else:
            running.watchers.append(watcher)

    def __len__(self) -> int:
        """The number of running requests."""
        return len(self._active)

    def active(self, limit: int | None = None) -> list[dict[str, object]]:
        """Running requests in order of start, as a ping reports them: `id`, `message_id`, `directive`, `sender`.

        At most `limit` of them.

        `id` is the message id as a number, as the Receptor reports it; few readers of JSON keep all of its 39 digits.
        """
        return [
            {
                "id": int(message_id, 16),
                "message_id": message_id,
                "directive": running.work.directive,
                "sender": running.work.sender,
            }
            for message_id, running in islice(self._active.items(), limit)
        ]

    def directives(self) -> Iterator[str]:
        """The directive of each running request."""
        return (running.entry.name for running in self._active.values())

    async def close(self) -> None:
        """Cancel all work, wait for its end, then close the plugins and end the threads. Takes no more work.

        What does not end within CLOSE_WITHIN, and a process its grace beyond that, is named in the log, finished as
        cancelled, and left behind.
        """
        self._closed = True
        for message_id in list(self._active):
            self.cancel(message_id)
        left_behind = False
        try:
            if self._active:
                self._idle = self._idle or asyncio.Event()
                try:
                    await asyncio.wait_for(self._idle.wait(), max(map(self._ends_within, self._active.values())))
                except TimeoutError:
                    left_behind = True
                    self._leave_behind()
            await self._close_plugins()
        finally:
            self._starter.close()
            if self._processes is not None:
                await self._processes.close()
            threads, self._threads = self._threads, None
            if threads is not None:
                threads.close()
                if not left_behind:
                    threads.join(1.0)  # they are idle, so this is a matter of microseconds

    def close_now(self) -> None:
        """Cancel all work and finish it as cancelled, without waiting for its end. Takes no more work.

        Plugins are not closed: nothing is left that could await their `close`.
        """
        self._closed = True
        if self._processes is not None:
            self._processes.close_now()
        for running in list(self._active.values()):
            running.reason = Cancelled.code
            running.work.cancelled = True
            with suppress(RuntimeError):  # the loop is closed, and nothing that waits in it goes on
                self._end(running)
            if running.task is not None:
                abandon(running.task)
        self._starter.close()
        if self._threads is not None:
            self._threads.close()

    # --- tasks -------------------------------------------------------------------------------------------------------

    def _spawn(self, running: RunningWork, coroutine: Coroutine[object, object, None]) -> None:
        task = running.task = self._starter.start(coroutine, running.work.directive)
        if task is not None and running.reason is not None:  # cancelled by its own first steps
            task.cancel()

    async def _call(self, running: RunningWork) -> None:
        running.started = True
        encoded = None
        try:
            result = await running.entry.run(running.work)
            if result is not None:
                encoded = outgoing(result)
        except BaseException as failure:  # SystemExit and the like must not reach the loop
            self._end(running, failure)
            if is_a(failure, KeyboardInterrupt):
                raise
        else:
            self._end(running, None, encoded)

    async def _iterate(self, running: RunningWork, run: Callable[[Work], AsyncGenerator[_Reply, None]]) -> None:
        running.started = True
        request, count = running.request, 0
        try:
            async with aclosing(run(running.work)) as values:
                async for value in values:
                    if value is not None:
                        await request.reply(outgoing(value))
                    count += 1
                    if count % _TURN == 0:
                        await asyncio.sleep(0)  # a generator that never waits must leave the loop to others
        except BaseException as failure:
            self._end(running, failure)
            if is_a(failure, KeyboardInterrupt):
                raise
        else:
            self._end(running)

    # --- processes ---------------------------------------------------------------------------------------------------

    def _isolated(self, isolation: Isolation, work: Work) -> AsyncGenerator[Outgoing, None]:
        if self._processes is None:
            from zmesh.serving.isolation import Processes  # here: few nodes run anything isolated

            self._processes = Processes(*self._isolation, self._failures)
        return self._processes.run(work, isolation)

    def _ends_within(self, running: RunningWork) -> float:
        """Seconds that this work may take from being cancelled to its end."""
        isolation = running.entry.isolation
        if isolation is None or self._processes is None:
            return CLOSE_WITHIN
        return CLOSE_WITHIN + self._processes.limits(running.work.directive, isolation).grace

    # --- threads -----------------------------------------------------------------------------------------------------

    def _run_in_thread(self, running: RunningWork) -> None:
        try:
            if self._threads is None:
                from zmesh.serving.thread_executor import ThreadExecutor  # here: no command serves requests

                self._threads = ThreadExecutor(self._max_workers, self._end)
            self._threads.submit(running)
        except RuntimeError as error:
            text = f"the node can start no thread for {running.work.directive} ({error}); try again later"
            self._end(running, NodeOverloaded(text, limit="system_resources"))

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self, running: RunningWork, failure: BaseException | None = None, encoded: Outgoing | None = None) -> None:
        """Remove the work from the table and finish its request; idempotent."""
        work = running.work
        message_id = work.message_id
        if self._active.get(message_id) is not running:
            if encoded is not None:
                encoded.close()
            return
        del self._active[message_id]
        member = member_of(work.sender)
        left = self._of.pop(member) - 1
        if left:
            self._of[member] = left
        if running.timer is not None:
            running.timer.cancel()
        if self._idle is not None and not self._active:
            self._idle.set()
        if running.reason is not None or failure is not None:
            if encoded is not None:
                encoded.close()
            work.payload.close()
            reason, error = _outcome(running, failure, self._failures)
            if reason == Overloaded.code and failure is not None:
                self._count(failure, work)
            is_reset = running.reason is None and failure is not None and is_a(failure, WorkReset)
            reset_code = cast("WorkReset", failure).reset_code if is_reset else None
            running.request.finish(reason=reason, error=error, reset_code=reset_code)
        elif encoded is None:
            work.payload.close()
            running.request.finish()
        else:
            if isinstance(encoded.body, bytes):  # a source may read from the work's payload
                work.payload.close()
            running.request.finish(encoded)
        for watcher in running.watchers:
            watcher()

    def _leave_behind(self) -> None:
        for running in list(self._active.values()):
            log_line(
                logger,
                logging.WARNING,
                "%s for %s did not end within %g s of being cancelled and is left behind%s",
                running.work.directive,
                running.work.sender,
                self._ends_within(running),
                f" in the thread {running.thread}" if running.thread else "",
            )
            self._end(running)

    async def _close_plugins(self) -> None:
        for close in self._directives.closers():
            try:
                await asyncio.wait_for(close(), CLOSE_WITHIN)
            except BaseException as error:  # a plugin's failure must not keep the node from closing
                if must_propagate(error):
                    raise
                log_exception(logger, "a plugin failed to close", error=error)


def _outcome(running: RunningWork, failure: BaseException | None, log: FailureLog) -> tuple[str, str]:
    """The reason code and the error text of work that failed, for the client."""
    directive = running.work.directive
    task = running.task
    from_outside = failure is not None and is_a(failure, asyncio.CancelledError) and task and task.cancelling()
    if running.reason == Cancelled.code or (running.reason is None and from_outside):
        by = f" by {running.by!r}" if running.by is not None else ""
        return Cancelled.code, f"{directive} was cancelled{by}"
    if running.reason == TimedOut.code:
        return running.reason, f"{directive} did not end before its deadline"
    if running.reason is not None:
        return running.reason, f"{directive} was stopped: {running.reason}"
    assert failure is not None
    if is_a(failure, WorkReset):
        return Cancelled.code, text_of(failure)
    if is_a(failure, RemoteError):  # raised by the plugin for the client
        return code_of(cast("RemoteError", failure)), text_of(failure)
    if (end := log.next()) is not None:
        log_exception(logger, "%s for %s failed%s", directive, running.work.sender, end, error=failure)
    return RemoteError.code, describe(failure)


directive_frames.update((Runner._call.__code__, Runner._iterate.__code__))
