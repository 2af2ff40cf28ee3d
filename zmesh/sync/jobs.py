"""Jobs for programs without asyncio: work that is left at nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zmesh.jobs import CANCEL_WITHIN, LOST_AFTER, STATUS_WITHIN
from zmesh.jobs import Job as AsyncJob
from zmesh.sync.blocking_node import BlockingNode
from zmesh.sync.iteration import Iteration

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable
    from typing import Unpack

    from zmesh.jobs import JobOutput, JobStatus, SubmitOptions
    from zmesh.payloads import Payload, PayloadLike
    from zmesh.remote import Word
    from zmesh.requests import Reply


class Job:
    """A job at a node; as `zmesh.Job`, with its errors, but a call returns when it is done, and iterations block.

    A `timeout` is in seconds.
    """

    def __init__(
        self,
        job: AsyncJob,
        do: Callable[[Callable[[], Awaitable[Any]]], Any],
        iterate: Callable[[Callable[[], AsyncGenerator[Any, None]]], Iteration[Any]],
    ) -> None:
        self._job = job
        self._do = do
        self._iterate = iterate

    @property
    def id(self) -> str:
        """Its id, such as `edge-7/3f9a8b0c4d5e6f70`."""
        return self._job.id

    @property
    def node(self) -> str:
        """The node that works."""
        return self._job.node

    @property
    def last(self) -> JobStatus | None:
        """The last status that was received."""
        return self._job.last

    def __repr__(self) -> str:
        return repr(self._job)

    def status(self, timeout: float = STATUS_WITHIN) -> JobStatus:
        """Its status now; LOST if its node does not answer in time."""
        status: JobStatus = self._do(lambda: self._job.status(timeout))
        return status

    def watch(self) -> Iteration[JobStatus]:
        """Its status now and at each change, up to its end; LOST while its node can't be reached."""
        return self._iterate(self._job.watch)

    def wait(self, timeout: float | None = None, *, lost_after: float | None = LOST_AFTER) -> JobStatus:
        """Wait for its end; its last status.

        Raises TimedOut, and Unreachable after `lost_after` seconds without contact.
        """
        status: JobStatus = self._do(lambda: self._job.wait(timeout, lost_after=lost_after))
        return status

    def result(self, timeout: float | None = None) -> Payload | None:
        """The payload of its only reply once it has ended, as `request` returns it; the stdout of a command."""
        payload: Payload | None = self._do(lambda: self._job.result(timeout))
        return payload

    def replies(self, timeout: float | None = None) -> Iteration[Reply]:
        """Its replies once it has ended."""
        return self._iterate(lambda: self._job.replies(timeout))

    def output(
        self, offset: int = 0, *, follow: bool = True, lost_after: float | None = LOST_AFTER
    ) -> Iteration[JobOutput]:
        """Its output from so many bytes on: with `follow` up to its end, else what there is."""
        return self._iterate(lambda: self._job.output(offset, follow=follow, lost_after=lost_after))

    def cancel(self, timeout: float | None = CANCEL_WITHIN) -> JobStatus:
        """Cancel it, and wait for its end; its last status."""
        status: JobStatus = self._do(lambda: self._job.cancel(timeout))
        return status

    def remove(self, timeout: float | None = CANCEL_WITHIN) -> None:
        """Delete it and its output at its node."""
        self._do(lambda: self._job.remove(timeout))


class Jobs(BlockingNode):
    """The part of a Controller that leaves jobs at nodes."""

    def submit(
        self,
        node: str,
        work: str | Sequence[Word],
        payload: PayloadLike = None,
        /,
        **options: Unpack[SubmitOptions],
    ) -> Job:
        """Leave a job at a node: a directive with its payload, or a command with its stdin.

        As `zmesh.Controller.submit` in all else.
        """
        return self._blocking(self._do(lambda: self._mesh.submit(node, work, payload, **options)))

    def job(self, id: str) -> Job:
        """The job of that id. Raises ConfigError for a malformed id."""
        return self._blocking(self._mesh.job(id))

    def jobs(
        self,
        node: str,
        *,
        owner: str | None = None,
        states: Sequence[str] = (),
        limit: int | None = None,
        timeout: float | None = None,
        route_timeout: float | None = None,
    ) -> list[JobStatus]:
        """The jobs that a node keeps, the newest first; as `zmesh.Controller.jobs`."""
        return self._do(
            lambda: self._mesh.jobs(
                node, owner=owner, states=states, limit=limit, timeout=timeout, route_timeout=route_timeout
            )
        )

    def _blocking(self, job: AsyncJob) -> Job:
        def iterate(begin: Callable[[], AsyncGenerator[Any, None]]) -> Iteration[Any]:
            source = begin()
            return self._iterating(Iteration(self._opened(), source, source.aclose))

        return Job(job, self._do, iterate)
