"""Copies as a program calls them: `copy`, which a Controller inherits."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from zmesh.errors import ConfigError, CopyFailed, NodeRestarted, RemoteError, StreamClosed
from zmesh.files.places import NodePath, Place, place_of
from zmesh.files.progress import Copied, OnProgress, Progress

if TYPE_CHECKING:
    from typing import Unpack

    from zmesh.files.listing import Top
    from zmesh.files.records import RecordReader
    from zmesh.payloads import PayloadLike
    from zmesh.requests import ReplyStream

READ, WRITE = "file:read", "file:write"
ATTEMPTS = 5
"""How often a copy is made whose node has started anew meanwhile."""

T = TypeVar("T")


class CopyOptions(TypedDict, total=False):
    """How files are copied.

    `recursive` copies directories, and links as links. `on_progress(progress)` is called on the loop as the copy goes
    on. `route_timeout` is that of `stream`.
    """

    recursive: bool
    on_progress: OnProgress | None
    route_timeout: float | None


class Files(ABC):
    """The part of a Controller that copies files."""

    @abstractmethod
    def stream(
        self,
        node: str,
        directive: str,
        payload: PayloadLike = None,
        *,
        timeout: float | None = None,
        route_timeout: float | None = None,
        buffered: bool = True,
        writable: bool = False,
    ) -> ReplyStream:
        """As `Controller.stream`."""

    async def copy(
        self, sources: Place | Iterable[Place], destination: Place, /, **options: Unpack[CopyOptions]
    ) -> Copied:
        """Copy files between this machine and a node: `await mesh.copy("app.tar", "edge-7:/srv/app.tar")`.

        A place is `NODE:PATH`, a NodePath, or a path of this machine. Several sources go into a directory. Each file
        gets its name when all of it is there and on the disk, with the mode and time of the source; a copy that is
        made again goes on where it was broken off. What is there with the same size, mode and time is left as it is.

        The node must allow `file:read` or `file:write`. Raises CopyFailed if anything was not copied, when all else
        was; NotAllowed; ConfigError for what is no place; and as `stream` does. Options are those of CopyOptions.
        """
        many = [sources] if isinstance(sources, (str, os.PathLike, NodePath)) else list(sources)
        plan = _plan([place_of(each) for each in many], place_of(destination))
        totals = Copied()
        failures: list[str] = []
        failed = 0
        for each in plan:
            progress = await self._copy(each, **options)
            totals += progress.copied
            failures += progress.failures
            failed += progress.failed
        if failed:
            more = f", and {failed - 1} more" if failed > 1 else ""
            raise CopyFailed(failures[0] + more, failures=failures, failed=failed)
        return totals

    async def _copy(
        self,
        job: _Job,
        *,
        recursive: bool = False,
        on_progress: OnProgress | None = None,
        route_timeout: float | None = None,
    ) -> Progress:
        """One exchange, and once more where its node has started anew."""
        for attempt in range(ATTEMPTS):
            progress = Progress()
            try:
                if job.node_to is not None:
                    await self._upload(job, recursive, progress, on_progress, route_timeout)
                else:
                    await self._download(job, recursive, progress, on_progress, route_timeout)
            except NodeRestarted:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return progress
        raise AssertionError

    async def _upload(
        self, job: _Job, recursive: bool, progress: Progress, report: OnProgress | None, route_timeout: float | None
    ) -> None:
        from zmesh.files.sender import Sender  # here: few programs copy files

        node = job.node_to or ""
        tops = await _in_thread(lambda: _tops(job.paths, follow=not recursive))
        start = {"path": job.destination, "into": job.into, "contents": job.contents}
        async with self._session(node, WRITE, start, route_timeout) as (records, replies):
            sender = Sender(
                tops, recursive=recursive, records=records, send=replies.write, progress=progress,
                on_progress=report, far=f"node {node!r}: ",
            )  # fmt: skip
            await sender.run()

    async def _download(
        self, job: _Job, recursive: bool, progress: Progress, report: OnProgress | None, route_timeout: float | None
    ) -> None:
        from zmesh.files.receiver import Receiver  # here: few programs copy files
        from zmesh.files.target import Rules

        node = job.node_from or ""
        target = await _in_thread(lambda: _target(job))
        start = {"paths": job.paths, "recursive": recursive}
        async with self._session(node, READ, start, route_timeout) as (records, replies):
            receiver = Receiver(
                target, Rules(), sender=node.encode(), records=records, send=replies.write, progress=progress,
                on_progress=report, far=f"node {node!r}: ",
            )  # fmt: skip
            await receiver.run()

    @asynccontextmanager
    async def _session(
        self, node: str, directive: str, start: dict[str, Any], route_timeout: float | None
    ) -> AsyncIterator[tuple[RecordReader, ReplyStream]]:
        """The two streams of a copy. Raises, in the place of what its end has met, what the request has ended with."""
        from zmesh.files.records import EndedEarly, Kind, RecordReader, pack, record

        request = self.stream(
            node, directive, record(Kind.START, pack(start)), route_timeout=route_timeout, buffered=False, writable=True
        )
        async with request as replies:
            reply = await anext(replies, None)
            if reply is None:
                raise RemoteError(f"node {node!r} has ended the copy before its end", node=node)
            try:
                yield RecordReader(aiter(reply.payload)), replies
            except (StreamClosed, EndedEarly):
                async for _ in replies:
                    pass
                raise
            await replies.end()
            async for _ in replies:
                pass


@dataclass(frozen=True, slots=True)
class _Job:
    """One exchange: paths of one machine, and where they go on another; None is this machine."""

    node_from: str | None
    paths: tuple[bytes, ...]
    node_to: str | None
    destination: bytes
    into: bool
    contents: bool


def _plan(sources: Sequence[NodePath | bytes], destination: NodePath | bytes) -> list[_Job]:
    """The exchanges that copy all of this. Raises ConfigError."""
    from zmesh.files.listing import name_of

    if not sources:
        raise ConfigError("a copy needs a source at least")
    node_to, path = _split(destination)
    into = len(sources) > 1
    jobs = []
    for (node_from, contents), group in groupby(
        (_split(each) for each in sources), key=lambda each: (each[0], name_of(each[1]) is None)
    ):
        if node_from is None and node_to is None:
            raise ConfigError("neither place is at a node; a place at a node is written NODE:PATH, as in edge-7:/srv")
        if node_from is not None and node_to is not None:
            raise ConfigError("one of the two places must be on this machine")
        jobs.append(_Job(node_from, tuple(each[1] for each in group), node_to, path, into, contents))
    return jobs


def _split(place: NodePath | bytes) -> tuple[str | None, bytes]:
    return (place.node, place.path) if isinstance(place, NodePath) else (None, place)


def _tops(paths: Sequence[bytes], *, follow: bool) -> list[Top]:
    """The sources on this machine. Raises CopyFailed for one that is not there."""
    from zmesh.files import beneath
    from zmesh.files.listing import Top, name_of
    from zmesh.files.progress import reason

    tops = []
    for path in paths:
        try:
            spot = beneath.find((beneath.ROOT,), os.path.join(os.getcwdb(), path), follow=follow)
        except OSError as error:
            raise CopyFailed(reason(path, error)) from None
        tops.append(Top(spot, path, name_of(path)))
    return tops


def _target(job: _Job) -> Any:
    """The destination on this machine. Raises CopyFailed."""
    from zmesh.files.beneath import ROOT
    from zmesh.files.progress import reason
    from zmesh.files.target import Target

    try:
        path = os.path.join(os.getcwdb(), job.destination)
        return Target.find((ROOT,), path, into=job.into, contents=job.contents)
    except OSError as error:
        raise CopyFailed(reason(job.destination, error)) from None


async def _in_thread(job: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, job)
