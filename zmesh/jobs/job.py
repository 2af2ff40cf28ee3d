"""A job as its client sees it, at the node that submitted it or at any other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zmesh.arguments import check_timeout
from zmesh.core.durations import span
from zmesh.errors import (
    Cancelled,
    CommandFailed,
    ExchangeError,
    NodeRestarted,
    RemoteError,
    TimedOut,
    Unreachable,
    exchange_error,
)
from zmesh.jobs.states import JobId, JobState, JobStatus, contact_lost
from zmesh.jobs.submission import split_head
from zmesh.runtime import described_timeout

if TYPE_CHECKING:
    from zmesh.payloads import Payload
    from zmesh.requests import Reply, ReplyStream, Requester

STATUS_WITHIN = 5.0
"""Seconds that a node may take to answer about a job before contact is said to be lost."""
LEASE = 15.0
"""Seconds for which a status holds that a node has sent while its job is watched."""
LOST_AFTER = 30.0
"""Seconds without contact after which `wait` and `output` raise Unreachable."""
AGAIN_AFTER = 0.5
CANCEL_WITHIN = 30.0
_KINDS = {1: "stdout", 2: "stderr", 3: "reply", 4: "more"}
_LOST = (Unreachable, TimedOut)
_INTERRUPTED = (NodeRestarted, Cancelled)
"""The errors of a request whose node closes or restarts; the request is repeated."""


@dataclass(frozen=True, slots=True)
class JobOutput:
    """A piece of a job's output: `data`, which begins `offset` bytes after the beginning of all output.

    `stream` is `stdout` or `stderr` for a command; for any other directive `reply`, with which a reply begins that has
    this `content_type` and `metadata`, or `more`, which continues it. `attempt` counts the starts of the job.
    """

    offset: int
    stream: str
    data: bytes
    attempt: int = 1
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """The offset of what follows."""
        return self.offset + len(self.data)


class Job:
    """A job at a node; made by `mesh.submit`, or by `mesh.job` from its id.

    `id` is its node and its number there, such as `edge-7/3f9a8b0c4d5e6f70`; `last` the last status that was received.
    """

    def __init__(self, mesh: Requester, id: str, last: JobStatus | None = None) -> None:
        self._mesh = mesh
        self._named = JobId.of(id)
        self._heard = time.monotonic() if last is not None else None
        self._watching: ReplyStream | None = None
        self.last = last

    @property
    def id(self) -> str:
        """Its id."""
        return self.last.id if self.last is not None else str(self._named)

    @property
    def node(self) -> str:
        """The node that works."""
        return self._named.node

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    # -- its state -----------------------------------------------------------------------------------------------

    async def status(self, timeout: float = STATUS_WITHIN) -> JobStatus:
        """Its status now; LOST, with the time without contact, if its node does not answer in `timeout` seconds.

        Raises RemoteError if no such job is kept there, and NotAllowed.
        """
        check_timeout(timeout)
        over = time.monotonic() + timeout
        while True:
            left = max(0.0, over - time.monotonic())
            try:
                payload = await self._request("job:status", timeout=left, route_timeout=left)
            except _LOST as error:
                return self._lost(error)
            except _INTERRUPTED as error:
                if over <= time.monotonic():
                    return self._lost(error)
                await asyncio.sleep(min(AGAIN_AFTER, left))
            else:
                return self._note(payload)

    async def watch(self) -> AsyncGenerator[JobStatus, None]:
        """Its status now and at each change, up to its end; LOST while its node can't be reached.

        Nothing is polled: the node sends each change. Raises RemoteError if no such job is kept there, and NotAllowed.
        """
        yielded: JobStatus | None = None
        while True:
            watching = self._mesh.stream(self.node, "job:watch", self._asked(), route_timeout=LEASE)
            try:
                async with watching as replies:
                    self._watching = replies
                    while True:
                        async with asyncio.timeout(LEASE):
                            reply = await anext(aiter(replies), None)
                        if reply is None:
                            break
                        status = self._note(reply.payload)
                        if status != yielded:
                            yielded = status
                            yield status
                        if status.state.ended:
                            return
            except (TimeoutError, *_LOST) as error:
                yielded = self._lost(error)
                yield yielded
            except _INTERRUPTED:
                pass
            await asyncio.sleep(AGAIN_AFTER)

    async def wait(self, timeout: float | None = None, *, lost_after: float | None = LOST_AFTER) -> JobStatus:
        """Wait for the end of the job; its last status.

        Raises TimedOut after `timeout` seconds, Unreachable after `lost_after` seconds without contact (None: never),
        and RemoteError if no such job is kept there. The job goes on in all cases.
        """
        check_timeout(timeout)
        status: JobStatus | None = None
        try:
            async with described_timeout(timeout, lambda: self._standing(status)), aclosing(self.watch()) as statuses:
                async for status in statuses:
                    if status.state is JobState.LOST and status.code == "unreachable":
                        self._check_contact(lost_after, status)
                    elif status.state.ended:
                        return status
        except TimeoutError as over:
            if timeout is None:
                raise
            raise TimedOut(f"job {self.id} has not ended within {timeout:g} s; {over}", node=self.node) from None
        raise RemoteError(f"node {self.node!r} ended the watch of job {self.id} without its end", node=self.node)

    async def result(self, timeout: float | None = None) -> Payload | None:
        """The payload of its only reply, as `request` returns it, once it has ended; the stdout of a command.

        Raises what `request` would have: RemoteError, CommandFailed, Cancelled, NodeRestarted, TooManyReplies; and as
        `wait` does, to which `timeout` (seconds) belongs.
        """
        await self._ended_well(timeout)
        return await self._request(RESULT)

    async def replies(self, timeout: float | None = None) -> AsyncGenerator[Reply, None]:
        """Its replies once it has ended. `timeout` and errors are those of `result`, except TooManyReplies."""
        await self._ended_well(timeout)
        async with self._mesh.stream(self.node, RESULT, self._asked()) as replies:
            async for reply in replies:
                yield reply

    # -- its output ----------------------------------------------------------------------------------------------

    async def output(
        self, offset: int = 0, *, follow: bool = True, lost_after: float | None = LOST_AFTER
    ) -> AsyncGenerator[JobOutput, None]:
        """Its output from so many bytes on: with `follow` up to its end, else what there is.

        What is missed while its node is out of reach follows when it is back, from the byte that was there. Raises
        Unreachable after `lost_after` seconds without contact, and RemoteError if no such job is kept there.
        """
        while True:
            asked = {**self._asked(), "offset": offset, "follow": follow}
            try:
                async with self._mesh.stream(self.node, "job:output", asked, route_timeout=LEASE) as replies:
                    async for reply in replies:
                        split = split_head(reply.payload.readall())
                        if split is None:
                            raise RemoteError(f"node {self.node!r} answers with something else", node=self.node)
                        head, data = split
                        if "status" in head:
                            self._heard, self.last = time.monotonic(), JobStatus.from_json(self.node, head["status"])
                            return
                        self._heard = time.monotonic()
                        piece = _piece_of(head, data)
                        offset = piece.end
                        yield piece
            except _LOST as error:
                self._check_contact(lost_after, self._lost(error))
            except _INTERRUPTED:
                pass
            await asyncio.sleep(AGAIN_AFTER)

    # -- its end -------------------------------------------------------------------------------------------------

    async def cancel(self, timeout: float | None = CANCEL_WITHIN) -> JobStatus:
        """Cancel the job, and wait for its end, `timeout` seconds at most; its last status. Harmless if it has ended.

        Raises as `request` does.
        """
        return self._note(await self._request("job:cancel", timeout=timeout))

    async def remove(self, timeout: float | None = CANCEL_WITHIN) -> None:
        """Delete the job and its output at its node, within `timeout` seconds.

        Raises RemoteError if it has not ended, and as `request` does.
        """
        await self._request("job:remove", timeout=timeout)

    # -- inside --------------------------------------------------------------------------------------------------

    def _asked(self) -> dict[str, object]:
        return {"id": self._named.number}

    async def _request(
        self, directive: str, *, timeout: float | None = None, route_timeout: float | None = None
    ) -> Payload | None:
        return await self._mesh.request(
            self.node, directive, self._asked(), timeout=timeout, route_timeout=route_timeout
        )

    def _note(self, payload: Payload | None) -> JobStatus:
        """The status in an answer."""
        self.last = status_in(self.node, payload)
        self._heard = time.monotonic()
        return self.last

    def _lost(self, error: BaseException) -> JobStatus:
        """The status while its node is out of reach."""
        if self._heard is not None:
            reason = f"lost contact {span(time.monotonic() - self._heard)} ago"
        else:
            reason = contact_lost(str(error))
        known = self.last or JobStatus(id=self.id, state=JobState.LOST, directive="", title="", owner="")
        return known.lost(reason)

    def _check_contact(self, lost_after: float | None, status: JobStatus) -> None:
        """Raises Unreachable if there was no contact for so many seconds."""
        if self._heard is None:
            self._heard = time.monotonic() - LEASE
        if lost_after is not None and time.monotonic() - self._heard >= lost_after:
            raise Unreachable(
                f"job {self.id}: {status.reason}; it may go on, and is asked for by its id", node=self.node
            )

    def _standing(self, status: JobStatus | None) -> str:
        """How it stands while it has not ended, and what is known of its node, for the text of an error."""
        obstacle = "" if self._watching is None else self._watching.obstacle
        if status is None:
            stands = f"node {self.node!r} has not answered; it goes on if it had been accepted there"
        elif status.state is JobState.LOST:
            stands = f"it may go on: {status.reason}"
        else:
            before = span(time.monotonic() - (self._heard or 0.0))
            stands = f"it goes on, and {before} ago it was {status.state}"
        return "; ".join(filter(None, [stands, obstacle]))

    async def _ended_well(self, timeout: float | None) -> None:
        error = error_of(await self.wait(timeout))
        if error is not None:
            raise error


RESULT = "job:result"


def status_in(node: str, payload: Payload | None) -> JobStatus:
    """The status that an answer holds. Raises RemoteError."""
    try:
        value: Any = payload.json() if payload is not None else None
    except ValueError:
        value = None
    return JobStatus.from_json(node, value)


def error_of(status: JobStatus) -> ExchangeError | None:
    """The error that `request` would have raised for work with this end; None if the job is done."""
    if status.state is JobState.DONE:
        return None
    text = f"job {status.id} {status.shown}"
    if status.state is JobState.CANCELLED:
        return Cancelled(text, node=status.node)
    if status.code == CommandFailed.code:
        return CommandFailed(text, node=status.node, returncode=status.returncode or 0)
    return exchange_error(status.code, text, node=status.node, message_id="")


def _piece_of(head: Mapping[str, Any], data: bytes) -> JobOutput:
    content_type, metadata = head.get("reply") or ("", {})
    kind = _KINDS.get(head.get("kind", 0), "more")
    return JobOutput(int(head["offset"]), kind, data, int(head.get("attempt", 1)), content_type, metadata)
