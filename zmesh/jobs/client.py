"""Jobs as a program calls them: `submit`, `job` and `jobs`, which a Controller inherits."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from zmesh import payloads
from zmesh.arguments import check_content_type, check_directive, check_metadata, check_node, check_timeout, shown
from zmesh.errors import ConfigError, NodeRestarted
from zmesh.requests import Requester

if TYPE_CHECKING:
    from typing import Unpack

    from zmesh.jobs.job import Job
    from zmesh.jobs.states import JobStatus
    from zmesh.payloads import PayloadLike, Source
    from zmesh.remote import Word

PIECE = 64 * 1024
TRIES = 5
"""How often a submission is sent while its node restarts; it becomes one job all the same."""


class SubmitOptions(TypedDict, total=False):
    """How a job runs.

    With a `key` of the program's own, submitting the same again gives the same job for as long as it is kept, and
    another content is an error. Jobs of a higher `priority` (-100 to 100) start first. `restart` says when it may run
    again: `"never"`, `"on-restart"` of its node, or at most so many times after that or after a failure. It is stopped
    after `timeout` seconds. `content_type` and `metadata` are as with `send`; `env`, `cwd` and `user` those of `run`,
    for a command. `route_timeout` is that of `request`, for the submission.
    """

    key: str | None
    priority: int
    restart: str | int
    timeout: float | None
    content_type: str | None
    metadata: Mapping[str, str] | None
    env: Mapping[str, str] | None
    cwd: Word | None
    user: str | None
    route_timeout: float | None


class Jobs(Requester):
    """The part of a Controller that leaves jobs at nodes."""

    async def submit(
        self,
        node: str,
        work: str | Sequence[Word],
        payload: PayloadLike = None,
        /,
        **options: Unpack[SubmitOptions],
    ) -> Job:
        """Leave a job at a node: a directive with its payload, or a command (a list of words) with its stdin.

        The job is stored there when this returns, and goes on whatever becomes of this node. The node must allow
        `job:submit`, and what is to run. Options are those of SubmitOptions.

        Raises NotAllowed, UnknownDirective, NodeOverloaded past a limit of `[jobs]`, RemoteError for a key that is
        another job's, and as `request` does; ConfigError and TypeError for what can't be an argument.
        """
        from zmesh.jobs.job import Job, status_in

        check_node(node)
        route_timeout = options.pop("route_timeout", None)
        check_timeout(route_timeout, "route_timeout")
        head, body = _submission(work, payload, options)
        tries = TRIES if isinstance(body, bytes) else 1
        while True:
            tries -= 1
            whole = head + body if isinstance(body, bytes) else _joined(head, body)
            try:
                answer = await self.request(node, "job:submit", whole, route_timeout=route_timeout)
            except NodeRestarted:  # it may have been stored before; its number makes it the same job
                if not tries:
                    raise
            else:
                status = status_in(node, answer)
                return Job(self, status.id, status)

    def job(self, id: str) -> Job:
        """The job of that id, such as `edge-7/3f9a8b0c4d5e6f70`, or the first digits of its number.

        Nothing is asked before one of its methods is called. Raises ConfigError for a malformed id.
        """
        from zmesh.jobs.job import Job

        return Job(self, id)

    async def jobs(
        self,
        node: str,
        *,
        owner: str | None = None,
        states: Sequence[str] = (),
        limit: int | None = None,
        timeout: float | None = None,
        route_timeout: float | None = None,
    ) -> list[JobStatus]:
        """The jobs that a node keeps, the newest first: those of `owner`, a node id, or all that this node may see.

        At most `limit` of them, in these `states`. `timeout` and `route_timeout` are in seconds, as those of `request`.
        Raises ConfigError for an unknown state, and as `request` does.
        """
        from zmesh.jobs.states import JobState, JobStatus

        for state in states:
            if not isinstance(state, str) or state not in list(JobState):
                raise ConfigError(f"{shown(state)} is no state of a job; there are {', '.join(JobState)}")
        asked: dict[str, object] = {"owner": owner, "states": list(map(str, states))}
        if limit is not None:
            asked["limit"] = limit
        found: list[JobStatus] = []
        async with self.stream(node, "job:list", asked, timeout=timeout, route_timeout=route_timeout) as pages:
            async for page in pages:
                found += JobStatus.many_from_json(node, page.payload.json())
        return found


def _submission(
    work: str | Sequence[Word], payload: PayloadLike, options: SubmitOptions
) -> tuple[bytes, bytes | Source]:
    """The head of a submission, and the payload of the job."""
    import shlex  # these here: few programs submit jobs

    from zmesh.jobs.states import Restart
    from zmesh.jobs.submission import MAX_TITLE, Submission
    from zmesh.remote import RUN, start_record

    timeout, content_type = options.get("timeout"), options.get("content_type")
    check_timeout(timeout)
    check_content_type(content_type)
    body = payloads.encode(payload)
    if isinstance(work, str):
        check_directive(work)
        directive, title = work, work
        for name in ("env", "cwd", "user"):
            if options.get(name) is not None:
                raise TypeError(f"{name} is for a command, which is a list of its words, not for a directive")
        content_type = payloads.content_type_of(payload) if content_type is None else content_type
    else:
        begin = start_record(work, env=options.get("env"), cwd=options.get("cwd"), user=options.get("user"))
        directive, content_type = RUN, ""
        title = shlex.join(os.fsdecode(word).encode(errors="replace").decode() for word in work)
        body = _input(begin, body)
    submission = Submission(
        number=os.urandom(8).hex(),
        directive=directive,
        title=title if len(title) <= MAX_TITLE else f"{title[: MAX_TITLE - 3]}...",
        key=options.get("key"),
        priority=options.get("priority", 0),
        restart=str(Restart.of(options.get("restart", "never"))),
        seconds=timeout,
        content_type=content_type or "",
        metadata=check_metadata(options.get("metadata")),
    )
    return submission.head(), body


def _input(begin: bytes, stdin: bytes | Source) -> bytes | Source:
    """The records of a command and its stdin."""
    from zmesh.remote import Kind, record

    end = record(Kind.INPUT_END)
    if isinstance(stdin, bytes):
        pieces = [record(Kind.INPUT, stdin[at : at + PIECE]) for at in range(0, len(stdin), PIECE)]
        return b"".join((begin, *pieces, end))

    async def records() -> AsyncIterator[bytes]:
        yield begin
        try:
            while data := await stdin.read(PIECE):
                yield record(Kind.INPUT, data)
        finally:
            stdin.close()
        yield end

    source: Any = payloads.encode(records())
    return source  # type: ignore[no-any-return]


def _joined(head: bytes, body: Source) -> AsyncIterator[bytes]:
    async def pieces() -> AsyncIterator[bytes]:
        yield head
        try:
            while data := await body.read(PIECE):
                yield data
        finally:
            body.close()

    return pieces()
