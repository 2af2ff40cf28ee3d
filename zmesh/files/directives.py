"""`file:read` and `file:write`: the ends of a copy at a node. Each has an end of it at the client, over two streams of
records (`records.py`): the payload of the request, and that of the only reply. With `file:granted` the other end is a
node to which a client has granted what it may read here (`grants.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from zmesh.core.durations import exact
from zmesh.core.message import is_address
from zmesh.errors import CopyFailed, ExchangeError, NodeRestarted, NotAllowed, RemoteError
from zmesh.files import beneath
from zmesh.files.beneath import Outside
from zmesh.files.grants import Grant, Grants
from zmesh.files.leftovers import Leftovers
from zmesh.files.listing import Top, close_tops, find_tops
from zmesh.files.outbox import Outbox
from zmesh.files.places import MAX_PATH, written
from zmesh.files.progress import Progress, reason
from zmesh.files.receiver import Receiver
from zmesh.files.records import MAX_TEXT, Kind, RecordReader, record
from zmesh.files.sender import Sender
from zmesh.files.session import GRANTED, session
from zmesh.files.settings import FileSettings
from zmesh.files.target import Rules, Target
from zmesh.remote import check_keys, pack, unpack
from zmesh.runtime import ThreadPool, describe, text_of
from zmesh.serving import MemberQuota, NodePlugin, Requesting, Work, directive, member_of

if TYPE_CHECKING:
    from zmesh.config import Config
    from zmesh.identity import Identity
    from zmesh.runtime import Tasks

audit = logging.getLogger("zmesh.remote.audit")
"""A line when a copy begins, and one when it has ended."""

T = TypeVar("T")

MAX_SOURCES = 1024
"""Paths in one request."""
SWEEP_EVERY = 3600.0
"""Seconds between two looks for temporaries that no copy has gone on with."""
JOURNAL = "copies"
"""The file in the folder of a node's state that lists where they may be."""
STATUS_EVERY = 0.25
"""Seconds between two reports to the client of a copy between two other nodes."""


class _SourceRestarted(RemoteError):
    """The node that sends to this one has restarted; the client makes the copy again, as if this one had."""

    code = NodeRestarted.code


class Keeping(Protocol):
    """A node as the copies use it: its settings, its tasks, and its identity with the folder of state, if any."""

    tasks: Tasks

    @property
    def config(self) -> Config:
        """Its settings."""

    @property
    def identity(self) -> Identity | None:
        """Its identity."""


class Files(Requesting, NodePlugin):
    """The copies at one node."""

    settings = FileSettings

    def __init__(self) -> None:
        self._settings = FileSettings()
        self._transfers = MemberQuota("file", "max_transfers", "copies")
        self._grants = Grants()
        self._leftovers = Leftovers()
        self._tasks: Tasks | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[None] | None = None

    def attach_node(self, node: Keeping) -> None:
        """Take the node, in whose folder of state is kept where copies have left temporaries."""
        self._tasks = node.tasks
        identity = node.identity
        if identity is not None and identity.state is not None and not node.config.ephemeral:
            self._leftovers = Leftovers(identity.state.folder / JOURNAL)

    async def start(self, settings: FileSettings) -> None:
        """Take the settings, and delete left temporaries, now and every SWEEP_EVERY seconds."""
        self._settings = settings
        if self._leftovers.is_kept:
            await _in_thread(self._leftovers.load)
        self._sweep_if_needed()

    async def close(self) -> None:
        """Stop the deleting."""
        if self._timer is not None:
            self._timer.cancel()
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait((self._sweeping,))

    def _sweep_if_needed(self) -> None:
        """Have a sweep made where anything was left, and look again in SWEEP_EVERY."""
        if self._tasks is None:
            return
        if not self._leftovers.is_empty:
            self._tasks.spawn(self._sweep(), "zmesh temporaries", self._on_sweeping)
        self._timer = asyncio.get_running_loop().call_later(SWEEP_EVERY, self._sweep_if_needed)

    def _on_sweeping(self, task: asyncio.Task[None]) -> None:
        self._sweeping = task

    async def _sweep(self) -> None:
        deleted = await _in_thread(lambda: self._leftovers.sweep(self._settings.keep_partial))
        if deleted:
            audit.info("%d temporaries of copies that were broken off are deleted", deleted)

    @directive(stream=True)
    async def read(self, work: Work) -> AsyncGenerator[Outbox, None]:
        """Send the files beneath the paths of the START record, or grant that to the node `reader` in it.

        Raises NotAllowed, NodeOverloaded, CopyFailed and RemoteError.
        """
        records = RecordReader(aiter(work.payload))
        start = await _start(records, work, "paths", "recursive", "reader")
        paths, recursive, reader = _paths(start), _flag(start, "recursive"), start.get("reader")
        with self._one_more(work):
            tops = await _in_thread(lambda: self._tops(paths, follow=not recursive))
            if reader is None:
                replies = self._send(work, records, tops, recursive, f"reads {_shown(paths)}")
            else:
                close_tops(tops)
                replies = self._grant(work, records, Grant(str(reader), tuple(paths), recursive, work.sender))
            async with aclosing(replies):
                async for reply in replies:
                    yield reply

    @directive(stream=True)
    async def granted(self, work: Work) -> AsyncGenerator[Outbox, None]:
        """Send what was granted by the token of the START record. Raises as `read` does."""
        records = RecordReader(aiter(work.payload))
        grant = self._grants.find((await _start(records, work, "token")).get("token"), work.sender)
        what = f"reads {_shown(grant.paths)} for {grant.client}"
        with self._one_more(work):
            tops = await _in_thread(lambda: self._tops(grant.paths, follow=not grant.recursive))
            async with aclosing(self._send(work, records, tops, grant.recursive, what)) as replies:
                async for reply in replies:
                    yield reply

    @directive(stream=True)
    async def write(self, work: Work) -> AsyncGenerator[Outbox, None]:
        """Take files into the path of the START record: from the client, or from another node that has granted them.

        Raises NotAllowed, NodeOverloaded, CopyFailed and RemoteError.
        """
        records = RecordReader(aiter(work.payload))
        start = await _start(records, work, "path", "into", "contents", "from")
        path, sender = _path(start.get("path")), _identity(work.sender)
        source = _source(start["from"]) if start.get("from") is not None else None
        into, contents = _flag(start, "into"), _flag(start, "contents")
        with self._one_more(work):
            target = await _in_thread(lambda: self._target(path, into=into, contents=contents))
            progress, outbox, what = Progress(), Outbox(), f"writes {written(path)}"
            if source is None:
                receiver = Receiver(
                    target, self._rules, sender=sender, records=records, send=outbox.send, progress=progress
                )
                running = receiver.run()
            else:
                node, token, within = source
                own_id = str(work.header["recipient"])
                running = self._fetch(node, token, within, target, sender, outbox, progress, own_id)
                what += f" from {node!r}"
            async with aclosing(_serve(running, outbox, work, what, progress)) as replies:
                async for reply in replies:
                    yield reply

    def _send(
        self, work: Work, records: RecordReader, tops: Sequence[Top], recursive: bool, what: str
    ) -> AsyncGenerator[Outbox, None]:
        progress, outbox = Progress(), Outbox()
        sender = Sender(tops, recursive=recursive, records=records, send=outbox.send, progress=progress)
        return _serve(sender.run(), outbox, work, what, progress)

    def _grant(self, work: Work, records: RecordReader, grant: Grant) -> AsyncGenerator[Outbox, None]:
        outbox = Outbox()

        async def until_the_client_ends() -> None:
            with self._grants.given(grant) as token:
                await outbox.send(record(Kind.GRANT, token))
                await records.next()

        what = f"lets {grant.reader!r} read {_shown(grant.paths)}"
        return _serve(until_the_client_ends(), outbox, work, what, Progress())

    async def _fetch(
        self,
        node: str,
        token: bytes,
        route_timeout: float | None,
        target: Target,
        sender: bytes,
        outbox: Outbox,
        progress: Progress,
        own_id: str,
    ) -> None:
        """Take files from another node, and let the client know how far that is."""
        assert self.open_stream is not None
        await outbox.send(record(Kind.READY))
        reported = 0.0

        def report(progress: Progress) -> None:
            nonlocal reported
            if time.monotonic() >= reported + STATUS_EVERY:
                reported = time.monotonic()
                outbox.post(record(Kind.STATUS, pack(progress.counts())))

        try:
            async with session(self.open_stream, node, GRANTED, {"token": token}, route_timeout) as (records, replies):
                receiver = Receiver(
                    target, self._rules, sender=sender + b":" + node.encode(), records=records, send=replies.write,
                    progress=progress, on_progress=report, near=f"node {own_id!r}: ", far=f"node {node!r}: ",
                )  # fmt: skip
                await receiver.run()
        except NotAllowed:
            raise
        except NodeRestarted as error:
            raise _SourceRestarted(text_of(error)) from None
        except ExchangeError as error:
            raise CopyFailed(text_of(error)) from None
        for text in progress.failures:
            await outbox.send(record(Kind.FAULT, text[:MAX_TEXT].encode(errors="backslashreplace")))
        await outbox.send(record(Kind.STATUS, pack(progress.counts())) + record(Kind.FINISHED))

    @property
    def _rules(self) -> Rules:
        return Rules(self._settings.max_file_bytes, self._settings.keep_partial, self._leftovers)

    def _one_more(self, work: Work) -> AbstractContextManager[None]:
        """Count a copy meanwhile. Raises NodeOverloaded."""
        settings, node = self._settings, work.header["recipient"]
        member = member_of(work.sender)
        return self._transfers.one_more(node, member, settings.max_transfers, settings.max_transfers_per_node)

    def _tops(self, paths: Sequence[bytes], *, follow: bool) -> list[Top]:
        def find(path: bytes) -> beneath.Spot:
            return self._find("read", path, lambda tops, path: beneath.find(tops, path, follow=follow))

        return find_tops(paths, find)

    def _target(self, path: bytes, *, into: bool, contents: bool) -> Target:
        return self._find("write", path, lambda tops, path: Target.find(tops, path, into=into, contents=contents))

    def _find(self, direction: str, path: bytes, find: Callable[[Sequence[bytes], bytes], T]) -> T:
        """Apply `find` to the allowed directories and an absolute path. Raises NotAllowed, CopyFailed."""
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
        if not task.cancelled() and (error := task.exception()) is not None:
            how = f"failed: {describe(error)}"
        done, lasted = progress.copied, exact(time.monotonic() - began)
        audit.info("%s %s: %s, %d files, %d bytes in %s", work.sender, what, how, done.files, progress.sent, lasted)


async def _start(records: RecordReader, work: Work, *keys: str) -> dict[str, Any]:
    first = await records.next()
    if first is None or first.kind != Kind.START:
        raise RemoteError("a copy takes records, of which the first is what to copy")
    start = unpack(first.body)
    check_keys(start, keys, work.directive)
    return start


def _flag(start: dict[str, Any], name: str) -> bool:
    value = start.get(name, False)
    if not isinstance(value, bool):
        raise RemoteError(f"{name} must be true or false")
    return value


def _shown(paths: Sequence[bytes]) -> str:
    return ", ".join(map(written, paths[:3])) + (", ..." if len(paths) > 3 else "")


def _source(value: object) -> tuple[str, bytes, float | None]:
    """The node that has granted files, its token, and how long to wait for a route to it. Raises RemoteError."""
    table = value if isinstance(value, dict) else {}
    node, token, within = table.get("node"), table.get("token"), table.get("route_timeout")
    if not isinstance(node, str) or not is_address(node) or not isinstance(token, bytes):
        raise RemoteError("from must be a table of a node and a token")
    if within is not None and not (isinstance(within, (int, float)) and within >= 0):
        raise RemoteError("route_timeout must be a number of seconds, 0 or more")
    return node, token, within


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
    """The sender without what changes with each command: `ada@hub` for `ada.4f2a@hub`, `@hub` for `cli-4f2a@hub`."""
    leaf, _, node = sender.rpartition("@")
    return f"{leaf.rpartition('.')[0]}@{node}".encode()


async def _in_thread(job: Callable[[], T]) -> T:
    """Run a job that blocks for a moment on a disk."""
    threads = ThreadPool(1, "zmesh-find-file")
    try:
        return await threads.call(job)
    finally:
        threads.close()
