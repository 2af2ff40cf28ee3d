"""One exchange of a copy as its client makes it: to a node, from one, or from one to another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from itertools import groupby
from typing import TYPE_CHECKING, Any

from zmesh.errors import ConfigError, CopyFailed, RemoteError
from zmesh.files import beneath
from zmesh.files.listing import Top, close_tops, find_tops
from zmesh.files.places import Job, NodePath, Place, name_of
from zmesh.files.progress import OnProgress, Progress, reason
from zmesh.files.receiver import Receiver
from zmesh.files.records import MAX_TEXT, EndedEarly, Kind, RecordReader
from zmesh.files.sender import Sender
from zmesh.files.session import READ, WRITE, Waiting, session
from zmesh.files.target import Rules, Target
from zmesh.remote import unpack
from zmesh.runtime import ThreadPool
from zmesh.serving import OpenStream

if TYPE_CHECKING:
    from zmesh.requests import ReplyStream


class Transfer:
    """One exchange, or two for a copy from one node to another."""

    def __init__(
        self, open_stream: OpenStream, recursive: bool, on_progress: OnProgress | None, route_timeout: float | None
    ) -> None:
        self._open_stream = open_stream
        self._recursive = recursive
        self._report = on_progress
        self._route_timeout = route_timeout
        self.progress = Progress()
        self._waiting = Waiting()

    @property
    def waits_for_route(self) -> bool:
        """Whether nothing has begun yet because no route leads to a node."""
        return self._waiting.for_route

    @property
    def obstacle(self) -> str:
        """The obstacle that holds it back, for the text of an error; empty once a node has begun it."""
        return self._waiting.obstacle

    async def make(self, job: Job) -> None:
        """Make it; what was not copied is in the progress. Raises CopyFailed if nothing can be, and as `stream`."""
        threads = ThreadPool(1, "zmesh-find-file")
        try:
            if job.node_from is None:
                tops = await threads.call(lambda: _tops(job.paths, follow=not self._recursive))
                await self._to(job, tops)
            elif job.node_to is None:
                target = await threads.call(lambda: _target(job))
                await self._from(job, job.node_from, target)
            else:
                await self._between(job, job.node_from, job.node_to)
        finally:
            threads.close()

    def _session(
        self, node: str, directive: str, start: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[tuple[RecordReader, ReplyStream]]:
        return session(self._open_stream, node, directive, start, self._route_timeout, self._waiting)

    async def _to(self, job: Job, tops: Sequence[Top]) -> None:
        node = job.node_to or ""
        with ExitStack() as undo:
            undo.callback(close_tops, tops)
            async with self._session(node, WRITE, _destination(job)) as (records, replies):
                sender = Sender(
                    tops, recursive=self._recursive, records=records, send=replies.write, progress=self.progress,
                    on_progress=self._report, far=f"node {node!r}: ",
                )  # fmt: skip
                undo.pop_all()  # the sender closes them, in the thread that reads
                await sender.run()

    async def _from(self, job: Job, node: str, target: Target) -> None:
        start = {"paths": job.paths, "recursive": self._recursive}
        with ExitStack() as undo:
            undo.callback(target.close)
            async with self._session(node, READ, start) as (records, replies):
                receiver = Receiver(
                    target, Rules(), sender=node.encode(), records=records, send=replies.write,
                    progress=self.progress, on_progress=self._report, far=f"node {node!r}: ",
                )  # fmt: skip
                undo.pop_all()  # the receiver closes it, in the thread that writes
                await receiver.run()

    async def _between(self, job: Job, source: str, destination: str) -> None:
        """Have one node grant the files to the other, and that one fetch them."""
        wanted = {"paths": job.paths, "recursive": self._recursive, "reader": destination}
        async with self._session(source, READ, wanted) as (granted, _):
            grant = await granted.next()
            if grant is None or grant.kind != Kind.GRANT:
                raise EndedEarly(f"node {source!r} grants nothing")
            granter = {"node": source, "token": grant.body, "route_timeout": self._route_timeout}
            start = {**_destination(job), "from": granter}
            async with self._session(destination, WRITE, start) as (records, _):
                failures: list[str] = []
                while (each := await records.next()) is not None and each.kind != Kind.FINISHED:
                    if each.kind == Kind.STATUS:
                        self._take(unpack(each.body))
                    elif each.kind == Kind.FAULT:
                        failures.append(each.body.decode(errors="replace")[:MAX_TEXT])
                if each is None:
                    raise EndedEarly(f"node {destination!r} has ended the copy before its end")
                self.progress.failures = failures

    def _take(self, counts: dict[str, Any]) -> None:
        try:
            self.progress.take(counts)
        except ValueError as error:
            raise RemoteError(f"the status of a copy has no counts: {error}") from None
        if self._report is not None:
            self._report(self.progress)


def _destination(job: Job) -> dict[str, Any]:
    return {"path": job.destination, "into": job.into, "contents": job.contents}


def _tops(paths: Sequence[bytes], *, follow: bool) -> list[Top]:
    """The sources on this machine. Raises CopyFailed for one that is not there."""

    def find(path: bytes) -> beneath.Spot:
        try:
            return beneath.find((beneath.ROOT,), os.path.join(os.getcwdb(), path), follow=follow)
        except OSError as error:
            raise CopyFailed(reason(path, error)) from None

    return find_tops(paths, find)


def _target(job: Job) -> Target:
    """The destination on this machine. Raises CopyFailed."""
    try:
        path = os.path.join(os.getcwdb(), job.destination)
        return Target.find((beneath.ROOT,), path, into=job.into, contents=job.contents)
    except OSError as error:
        raise CopyFailed(reason(job.destination, error)) from None


def listed(sources: Place | Iterable[Place]) -> list[Place]:
    """The sources as a list; a program may give a single one as it is."""
    return [sources] if isinstance(sources, (str, os.PathLike, NodePath)) else list(sources)


def plan(sources: Sequence[Place], destination: Place) -> list[Job]:
    """The exchanges that copy all of this. Raises ConfigError."""
    if not sources:
        raise ConfigError("a copy needs a source at least")
    node_to, path = _split(destination)
    into = len(sources) > 1
    jobs = []
    for (node_from, contents), group in groupby(
        list(map(_split, sources)), key=lambda each: (each[0], name_of(each[1]) is None)
    ):
        if node_from is None and node_to is None:
            raise ConfigError("neither place is at a node; a place at a node is written NODE:PATH, as in edge-7:/srv")
        jobs.append(Job(node_from, tuple(each[1] for each in group), node_to, path, into, contents))
    return jobs


def _split(place: Place) -> tuple[str | None, bytes]:
    parsed = NodePath.parse(place)
    return (parsed.node, parsed.path) if isinstance(parsed, NodePath) else (None, parsed)
