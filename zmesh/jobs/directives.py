"""The directives `job:*`: parse the request, check the sender's permission, and answer."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager
from typing import TYPE_CHECKING, Any

from zmesh.errors import MeshError, NodeOverloaded, NotAllowed, RemoteError
from zmesh.jobs.rows import MORE, PIECE_BYTES, REPLY, STDOUT, Owner, Piece
from zmesh.jobs.service import JobService, audit
from zmesh.jobs.states import JobState, JobStatus, is_prefix
from zmesh.jobs.store import StoreError
from zmesh.jobs.submission import Submission, frame_head, split_head
from zmesh.payloads import Outgoing, Response, encode
from zmesh.serving import Directives, MemberQuota, Serving, Work

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBMIT = "job:submit"
LIST = "job:list"
STATUS = "job:status"
WATCH = "job:watch"
OUTPUT = "job:output"
RESULT = "job:result"
CANCEL = "job:cancel"
REMOVE = "job:remove"
READ_OTHERS = "job-admin:read"
"""The permission to see jobs of others."""
WRITE_OTHERS = "job-admin:write"
"""The permission to cancel and remove jobs of others."""
LEASE = 15.0
"""Seconds for which a status holds that `job:watch` has sent; it sends another one in a third of that."""
PAGE = 1000
MAX_LISTED = 100_000


class JobDirectives:
    """The directives of one node's jobs."""

    def __init__(self, service: JobService, serving: Serving, directives: Directives) -> None:
        self._service = service
        self._serving = serving
        self._directives = directives
        self._readers = MemberQuota("jobs", "max_readers", "requests that follow jobs", per="owner")
        functions: dict[str, Callable[..., Any]] = {
            SUBMIT: self.submit,
            LIST: self.list,
            STATUS: self.status,
            WATCH: self.watch,
            OUTPUT: self.output,
            RESULT: self.result,
            CANCEL: self.cancel,
            REMOVE: self.remove,
        }
        for name, function in functions.items():
            directives.register(name, function, stream=name == SUBMIT)

    async def submit(self, work: Work) -> dict[str, object]:
        """Store a job; its status, and whether it is `new`.

        Raises NotAllowed if the sender may not run it, and as `JobService.submit` does.
        """
        with _refusals():
            await self._service.ready()
            head, first, rest = await _open(work)
            submission = Submission.of(head)
            refusal = self._serving.refusal(submission.directive, work.sender)
            if refusal is not None:
                raise NotAllowed(f"the job needs the permission for what it runs: {refusal}")
            self._directives.find(submission.directive)
            subject = self._serving.subject(work.sender)
            owner = Owner(subject.id or work.sender, tuple(subject.tags), self._serving.is_own(work.sender))
            status, is_new = await self._service.submit(submission, owner, first, rest)
            return {**status.to_json(), "new": is_new}

    async def list(self, work: Work) -> AsyncGenerator[bytes, None]:
        """Jobs, the newest first, as tables of JSON: all that the sender may see, or those that are selected.

        Raises RemoteError for a malformed request, and NotAllowed.
        """
        with _refusals():
            asked = _asked(work, {"owner", "states", "limit"})
            owner, states, left = asked.get("owner"), asked.get("states") or [], asked.get("limit", MAX_LISTED)
            if owner is not None and not isinstance(owner, str):
                raise RemoteError("owner must be the id of a node")
            if not isinstance(states, list) or not all(state in list(JobState) for state in states):
                raise RemoteError(f"states must be a list of {', '.join(JobState)}")
            if not isinstance(left, int) or isinstance(left, bool) or not 1 <= left <= MAX_LISTED:
                raise RemoteError(f"limit must be a number from 1 to {MAX_LISTED}")
            me = self._me(work)
            if self._serving.refusal(READ_OTHERS, work.sender) is not None:
                if owner is not None and owner != me:
                    raise NotAllowed(f"jobs of {owner!r}: {self._serving.refusal(READ_OTHERS, work.sender)}")
                owner = me
            if not self._service.keeps:
                return
            async for page in self._service.records.pages(owner, states, left, PAGE):
                yield page

    async def status(self, work: Work) -> dict[str, object]:
        """The status of a job."""
        with _refusals():
            return (await self._job(work, READ_OTHERS)).to_json()

    async def watch(self, work: Work) -> AsyncGenerator[dict[str, object], None]:
        """The status of a job now, at each change, and at least every LEASE / 3 seconds, up to its end."""
        with _refusals(), self._reader(work):
            status = await self._job(work, READ_OTHERS)
            async for each in self._service.records.follow(status, LEASE / 3):
                yield each.to_json()

    async def output(self, work: Work) -> AsyncGenerator[bytes, None]:
        """The output of a job from an offset on, in frames, and with `follow` up to its end; then its status.

        Raises RemoteError for a malformed request, or if there is no such job.
        """
        with _refusals(), self._reader(work):
            status = await self._job(work, READ_OTHERS, {"offset", "follow"})
            asked = _asked(work)
            offset, follow = asked.get("offset", 0), asked.get("follow", False)
            if not isinstance(offset, int) or isinstance(offset, bool) or offset < 0:
                raise RemoteError("offset must be a number of bytes, 0 or more")
            async for piece, last in self._service.records.output(status, offset, follow=bool(follow)):
                if piece is not None:
                    yield frame_head(_head_of(piece)) + piece.data
                elif last is not None:
                    yield frame_head({"status": last.to_json()})

    async def result(self, work: Work) -> AsyncGenerator[Response | Outgoing, None]:
        """The replies of the last attempt of a job that is done, as its directive sent them; stdout of a command.

        Raises RemoteError if the job is not done, or not all of its output was kept.
        """
        with _refusals(), self._reader(work):
            status = await self._job(work, READ_OTHERS)
            if status.state is not JobState.DONE:
                raise RemoteError(f"job {status.id} is {status.shown}; it has no result")
            if status.omitted_bytes:
                raise RemoteError(f"{status.omitted_bytes} bytes of the output of job {status.id} were not kept")
            pieces = self._service.records.output(status, status.attempt_offset, follow=False)
            async with aclosing(pieces):
                if status.is_command:
                    yield Outgoing(encode(_stdout(pieces)))
                else:
                    async for reply in _replies(pieces):
                        yield reply

    async def cancel(self, work: Work) -> dict[str, object]:
        """Cancel a job, and wait for its end; its last status."""
        with _refusals():
            status = await self._job(work, WRITE_OTHERS)
            if not status.state.ended:
                self._service.cancel(status, self._me(work))
                async for each in self._service.records.follow(status, LEASE):
                    status = each
            return status.to_json()

    async def remove(self, work: Work) -> dict[str, object]:
        """Delete a job that has ended, with its output; its last status."""
        with _refusals():
            status = await self._job(work, WRITE_OTHERS)
            await self._service.remove(status, self._me(work))
            return status.to_json()

    # -- inside --------------------------------------------------------------------------------------------------

    def _me(self, work: Work) -> str:
        return self._serving.subject(work.sender).id or work.sender

    async def _job(self, work: Work, right: str, more: frozenset[str] | set[str] = frozenset()) -> JobStatus:
        """The job that is asked for. Raises NotAllowed if it is another's, and the sender may not."""
        number = _asked(work, {"id", *more}).get("id")
        if not is_prefix(number):
            raise RemoteError('{"id": "..."} must be 4 to 16 hex digits, which a job has after the node and the slash')
        await self._service.ready()
        status = await self._service.records.find(str(number))
        me = self._me(work)
        if status.owner != me:
            refusal = self._serving.refusal(right, work.sender)
            if refusal is not None:
                raise NotAllowed(f"job {status.id} is that of {status.owner!r}: {refusal}")
            audit.info("%s uses %s for job %s of %s", me, work.directive, status.id, status.owner)
        return status

    def _reader(self, work: Work) -> AbstractContextManager[None]:
        """Count a request that may last as long as its job. Raises NodeOverloaded."""
        settings, node = self._service.settings, self._service.node_id
        return self._readers.one_more(node, self._me(work), settings.max_readers, settings.max_readers_per_owner)


@contextmanager
def _refusals() -> Iterator[None]:
    """Convert errors of the job store to those that the client gets."""
    try:
        yield
    except StoreError as error:
        raise NodeOverloaded(str(error), limit="jobs_store") from None
    except RemoteError:
        raise
    except MeshError as error:
        raise RemoteError(str(error)) from None


async def _open(work: Work) -> tuple[Mapping[str, Any], bytes, AsyncIterator[bytes] | None]:
    """The head of a submission, what has come of its payload, and the rest; None if that is all."""
    data, chunks = b"", aiter(work)
    while (split := split_head(data)) is None:
        more = await anext(chunks, None)
        if more is None:
            raise RemoteError(f"{SUBMIT} takes a head, which is its length and JSON, and then the payload of the job")
        data += more
    head, first = split
    while len(first) <= PIECE_BYTES:
        more = await anext(chunks, None)
        if more is None:
            return head, first, None
        first += more
    return head, first, chunks


def _asked(work: Work, known: set[str] | None = None) -> Mapping[str, Any]:
    """The payload of a request, a table of JSON. Raises RemoteError."""
    try:
        asked = work.payload.json() if work.payload else {}
    except ValueError:
        asked = None
    if not isinstance(asked, Mapping):
        raise RemoteError(f"{work.directive} takes a table as JSON")
    if known is not None:
        for name in asked:
            if name not in known:
                raise RemoteError(f"{work.directive} takes no {name!r}; it takes {', '.join(sorted(known))}")
    return asked


def _head_of(piece: Piece) -> dict[str, object]:
    head: dict[str, object] = {"offset": piece.offset, "kind": piece.kind, "attempt": piece.attempt}
    if piece.head is not None:
        head["reply"] = json.loads(piece.head)
    return head


async def _stdout(pieces: AsyncIterator[tuple[Piece | None, JobStatus | None]]) -> AsyncGenerator[bytes, None]:
    async for piece, _ in pieces:
        if piece is not None and piece.kind == STDOUT and piece.data:
            yield piece.data


async def _replies(
    pieces: AsyncIterator[tuple[Piece | None, JobStatus | None]],
) -> AsyncGenerator[Outgoing, None]:
    """The replies that pieces are of; one of many pieces is read as it is sent."""
    waiting: list[Piece | None] = [(await anext(pieces))[0]]

    async def rest(first: bytes) -> AsyncGenerator[bytes, None]:
        if first:
            yield first
        while (piece := waiting[0]) is not None and piece.kind == MORE:
            if piece.data:
                yield piece.data
            waiting[0] = (await anext(pieces))[0]

    while (piece := waiting[0]) is not None:
        if piece.kind != REPLY:
            raise RemoteError("the output of the job is damaged")
        content_type, metadata = json.loads(piece.head or '["", {}]')
        waiting[0] = (await anext(pieces))[0]
        following = waiting[0]
        body = encode(rest(piece.data)) if following is not None and following.kind == MORE else piece.data
        yield Outgoing(body, content_type, metadata)
