"""Running attempts of jobs: a Work for the node's Runner, with the permissions of the job's owner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from zmesh.errors import Cancelled, MeshError, NotAllowed, RemoteError
from zmesh.jobs.execution import Execution, pieces_of, whole_payload
from zmesh.jobs.output import OutputLog, Room
from zmesh.jobs.queue import Outcome
from zmesh.jobs.rows import Task
from zmesh.jobs.store import Store
from zmesh.payloads import Payload, PayloadStorage, StreamedPayload
from zmesh.remote import RUN
from zmesh.runtime import new_message_id
from zmesh.serving import Serving, Work


@dataclass(slots=True, eq=False)
class Attempt:
    """One run of a job."""

    task: Task
    execution: Execution
    message_id: str = field(default_factory=lambda: new_message_id().hex())
    by: str | None = None
    """The node that has cancelled it."""
    seconds: float = 0.0
    """How long it has run, once it has ended."""


class Attempts:
    """Runs the attempts of jobs at one node."""

    def __init__(self, serving: Serving, storage: PayloadStorage, max_seconds: float | None, limit_bytes: int) -> None:
        self._serving = serving
        self._storage = storage
        self._max_seconds = max_seconds
        self._limit_bytes = limit_bytes

    def prepare(
        self, task: Task, store: Store, room: Room, written: Callable[[], None], note_process: Callable[[int], None]
    ) -> Attempt:
        """An attempt that is about to run; its output goes to the store."""
        log = OutputLog(store, task, self._limit_bytes, room, written)
        return Attempt(task, Execution(task, log, note_process))

    async def run(self, attempt: Attempt, store: Store, cancelled: Callable[[], bool]) -> Outcome:
        """Run it to its end, when all of its output is stored; how it has ended."""
        task, execution, runner = attempt.task, attempt.execution, self._serving.runner
        began = time.monotonic()
        feeding: asyncio.Task[None] | None = None
        try:
            refusal = self._refusal(task)
            if refusal is not None:
                execution.finish(reason=NotAllowed.code, error=refusal)
            else:
                payload: Payload
                if task.directive == RUN:
                    payload = streamed = StreamedPayload()
                    feeding = asyncio.create_task(execution.feed(streamed, pieces_of(store, task)))
                else:
                    payload = await whole_payload(store, task, self._storage)
                runner.start(self._work(attempt, payload), execution)
                if cancelled():
                    self.cancel(attempt)
        except (MeshError, OSError, RuntimeError) as error:  # the latter where no thread can be started
            text = f"its payload can't be read: {error}"
            execution.finish(reason=RemoteError.code, error=text)
        try:
            return await execution.outcome()
        finally:
            attempt.seconds = time.monotonic() - began
            if feeding is not None:
                feeding.cancel()
                await asyncio.wait((feeding,))

    def cancel(self, attempt: Attempt) -> None:
        """End its work."""
        self._serving.runner.cancel(attempt.message_id, Cancelled.code, attempt.by)

    def _refusal(self, task: Task) -> str | None:
        """Why its owner may not have it run any more."""
        owner = task.owner
        if owner.own:
            return None
        decision = self._serving.policy.decide(task.directive, owner.id, owner.tags)
        if decision.allowed:
            return None
        text = f"node {self._serving.node_id!r} does not let {owner.id!r} call {task.directive} any more"
        return f"{text} ({decision.rule}); its configuration would, with {decision.remedy}"

    def _work(self, attempt: Attempt, payload: Payload) -> Work:
        task, serving = attempt.task, self._serving
        payload.describe(task.content_type, task.metadata)
        limits = [each for each in (task.seconds, self._max_seconds) if each is not None]
        deadline = asyncio.get_running_loop().time() + min(limits) if limits else None
        header = {
            "message_id": attempt.message_id,
            "sender": task.owner.id,
            "recipient": serving.node_id,
            "timestamp": time.time(),
            "directive": task.directive,
            "job": task.number,
        }
        section = serving.sections.get(task.directive.partition(":")[0]) or {}
        return Work(
            attempt.message_id,
            task.directive,
            task.owner.id,
            header,
            payload,
            section,
            False,
            deadline,
            task.metadata,
        )
