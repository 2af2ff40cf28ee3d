"""`file:read` and `file:write`: the ends of a copy at a node. Each has an end of it at the client, over two streams of
records (`records.py`): the payload of the request, and that of the only reply.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from zmesh.errors import CopyFailed, NodeOverloaded, NotAllowed, RemoteError
from zmesh.files import beneath
from zmesh.files.beneath import Outside
from zmesh.files.listing import Top, name_of
from zmesh.files.outbox import Outbox
from zmesh.files.places import MAX_PATH, written
from zmesh.files.progress import Progress, reason
from zmesh.files.receiver import Receiver
from zmesh.files.records import Kind, RecordReader, unpack
from zmesh.files.sender import Sender
from zmesh.files.settings import FileSettings
from zmesh.files.target import Rules, Target
from zmesh.runtime import ThreadPool
from zmesh.serving import Work, directive

audit = logging.getLogger("zmesh.remote.audit")
"""A line when a copy begins, and one when it has ended."""

T = TypeVar("T")

MAX_SOURCES = 1024
"""Paths in one request."""


class Files:
    """The copies at one node."""

    settings = FileSettings

    def __init__(self) -> None:
        self._settings = FileSettings()
        self._transfers = 0

    async def start(self, settings: FileSettings) -> None:
        """Take the settings."""
        self._settings = settings

    @directive(stream=True)
    async def read(self, work: Work) -> AsyncGenerator[Outbox, None]:
        """Send the files beneath the paths of the START record. Raises NotAllowed, NodeOverloaded and RemoteError."""
        records = RecordReader(aiter(work.payload))
        start = await _start(records)
        paths, recursive = _paths(start), start.get("recursive") is True
        shown = ", ".join(map(written, paths[:3])) + (", ..." if len(paths) > 3 else "")
        with self._one_more():
            tops = await _in_thread(lambda: self._tops(paths, follow=not recursive))
            progress, outbox = Progress(), Outbox()
            sender = Sender(tops, recursive=recursive, records=records, send=outbox.send, progress=progress)
            async with aclosing(_serve(sender.run(), outbox, work, f"reads {shown}", progress)) as replies:
                async for reply in replies:
                    yield reply

    @directive(stream=True)
    async def write(self, work: Work) -> AsyncGenerator[Outbox, None]:
        """Take files into the path of the START record. Raises NotAllowed, NodeOverloaded, CopyFailed, RemoteError."""
        records = RecordReader(aiter(work.payload))
        start = await _start(records)
        path = _path(start.get("path"))
        into, contents = start.get("into") is True, start.get("contents") is True
        with self._one_more():
            target = await _in_thread(lambda: self._target(path, into=into, contents=contents))
            progress, outbox = Progress(), Outbox()
            rules = Rules(self._settings.max_file_bytes, self._settings.keep_partial)
            receiver = Receiver(
                target, rules, sender=_identity(work.sender), records=records, send=outbox.send, progress=progress
            )
            async with aclosing(_serve(receiver.run(), outbox, work, f"writes {written(path)}", progress)) as replies:
                async for reply in replies:
                    yield reply

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        """Count a copy. Raises NodeOverloaded."""
        most = self._settings.max_transfers
        if self._transfers >= most:
            raise NodeOverloaded(f"the node makes {most} copies already ([file] max_transfers); try again later")
        self._transfers += 1
        try:
            yield
        finally:
            self._transfers -= 1

    def _tops(self, paths: Sequence[bytes], *, follow: bool) -> list[Top]:
        tops: list[Top] = []
        try:
            for path in paths:
                spot = self._find("read", path, lambda tops, path: beneath.find(tops, path, follow=follow))
                tops.append(Top(spot, path, name_of(path)))
        except BaseException:
            for top in tops:
                top.spot.close()
            raise
        return tops

    def _target(self, path: bytes, *, into: bool, contents: bool) -> Target:
        return self._find("write", path, lambda tops, path: Target.find(tops, path, into=into, contents=contents))

    def _find(self, direction: str, path: bytes, find: Callable[[Sequence[bytes], bytes], T]) -> T:
        """What `find` makes of the directories that are allowed and an absolute path. Raises NotAllowed, CopyFailed."""
        settings = self._settings
        allowed = settings.read if direction == "read" else settings.write
        base = os.fsencode(settings.directory) or os.path.expanduser(b"~")
        try:
            return find([os.fsencode(each) for each in allowed], os.path.join(base, path))
        except Outside:
            there = ", ".join(allowed) or "no directory"
            raise NotAllowed(f"[file] {direction} allows {there} here, and {written(path)} leads elsewhere") from None
        except OSError as error:
            raise CopyFailed(reason(path, error)) from None


async def _serve(
    end: Coroutine[Any, Any, None], outbox: Outbox, work: Work, what: str, progress: Progress
) -> AsyncGenerator[Outbox, None]:
    """The reply of one end of a copy, which runs meanwhile. Raises what that does."""
    began = time.monotonic()
    audit.info("%s %s", work.sender, what)

    async def run() -> None:
        try:
            await end
        finally:
            outbox.close()

    task = asyncio.create_task(run())
    how = "broken off"
    try:
        yield outbox
        await task
        how = f"done, {progress.failed} failures" if progress.failed else "done"
    finally:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled() and task.exception() is not None:
            how = f"failed: {task.exception()}"
        done, seconds = progress.copied, time.monotonic() - began
        audit.info(
            "%s %s: %s, %d files, %d bytes in %.3g s", work.sender, what, how, done.files, progress.sent, seconds
        )


async def _start(records: RecordReader) -> dict[str, Any]:
    first = await records.next()
    if first is None or first.kind != Kind.START:
        raise RemoteError("a copy takes records, of which the first is what to copy")
    return unpack(first.body)


def _path(value: object) -> bytes:
    if not isinstance(value, bytes) or not value or b"\0" in value or len(value) > MAX_PATH:
        raise RemoteError(f"a path must be 1 to {MAX_PATH} bytes, none of them 0")
    return value


def _paths(start: dict[str, Any]) -> list[bytes]:
    paths = start.get("paths")
    if not isinstance(paths, list) or not 1 <= len(paths) <= MAX_SOURCES:
        raise RemoteError(f"paths must be a list of 1 to {MAX_SOURCES}")
    return [_path(path) for path in paths]


def _identity(sender: str) -> bytes:
    """Who sends, without what changes with each command: `ada@hub` for `ada.4f2a@hub`, `@hub` for `cli-4f2a@hub`."""
    leaf, _, node = sender.rpartition("@")
    return f"{leaf.rpartition('.')[0]}@{node}".encode()


async def _in_thread(job: Callable[[], T]) -> T:
    """What blocks for a moment on a disk."""
    threads = ThreadPool(1, "zmesh-find-file")
    try:
        return await threads.call(job)
    finally:
        threads.close()
