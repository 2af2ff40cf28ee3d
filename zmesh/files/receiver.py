"""The receiving end of a copy: requests the announced files that it lacks, and puts them in place.

A file has its name when it is complete, its digest is that of the sender, and it is on the disk. What is on the disk is
written and hashed in a thread, one block behind what is being received.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import NoReturn, TypeAlias, TypeVar

from zmesh.errors import CopyFailed, RemoteError
from zmesh.files.partial import WORTH_KEEPING, Partial, clean, key_of, name_for
from zmesh.files.places import written
from zmesh.files.progress import OnProgress, Progress, reason
from zmesh.files.records import (
    HOLE_BYTES,
    MAX_TEXT,
    WINDOW,
    EndedEarly,
    Entry,
    Kind,
    RecordReader,
    Type,
    number_of,
    numbered,
    position_of,
    positioned,
    record,
)
from zmesh.files.target import PERMISSIONS, Rules, Target
from zmesh.runtime import ThreadPool

T = TypeVar("T")
_Announced: TypeAlias = "tuple[Entry, tuple[bytes, ...]]"

NOT_WANTED = -1
IN_USE_WITHIN = 10.0
"""Seconds that what was received before is waited for: an attempt whose client was killed ends by then."""
IN_USE_AGAIN = 0.05
FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors after which no other file could be written either."""


@dataclass(slots=True)
class _Arriving:
    """A file that is being received; `partial` is None once it can't be written, and the rest is thrown away."""

    index: int
    entry: Entry
    names: tuple[bytes, ...]
    partial: Partial | None
    offset: int
    counted: int


class Receiver:
    """Receives the entries that `records` announce, and their content, into `target`.

    `sender` identifies the sender, so that each resumes only its own copies. Reasons of failures here
    get `near` before them, and those from there `far`.
    """

    def __init__(
        self,
        target: Target,
        rules: Rules,
        *,
        sender: bytes,
        records: RecordReader,
        send: Callable[[bytes], Awaitable[None]],
        progress: Progress,
        on_progress: OnProgress | None = None,
        near: str = "",
        far: str = "",
    ) -> None:
        self._target = target
        self._near = near
        self._far = far
        self._rules = rules
        self._sender = sender
        self._records = records
        self._send = send
        self._progress = progress
        self._report = on_progress or (lambda progress: None)
        self._threads = ThreadPool(1, "zmesh-receive-file")
        self._count = 0
        self._files: dict[int, _Announced] = {}
        """Files that were announced, and whose content has not come yet."""
        self._directories: dict[int, _Announced] = {}
        self._arriving: _Arriving | None = None
        self._writing: asyncio.Future[None] | None = None
        self._cleaned: tuple[bytes, ...] | None = None
        self._used: bytes | None = None
        """The directory in which temporaries are made now, in the journal of the node."""
        self._has_left = False
        """Whether one was left there."""

    async def run(self) -> None:
        """Receive all of it; what can't be written, or sent there, is in the progress.

        Raises CopyFailed if nothing more can be written at all, RemoteError for what no sender sends, and as the stream
        does.
        """
        try:
            await self._send(record(Kind.READY))
            while (each := await self._records.next()) is not None:
                if each.kind == Kind.DATA:
                    await self._on_data(each.parts)
                elif each.kind == Kind.FINISH:
                    if self._arriving is not None or self._files:
                        _refuse()
                    self._progress.is_listed = True
                    self._report(self._progress)
                    await self._send(record(Kind.FINISHED))
                    return
                else:
                    await self._on_record(each.kind, each.body)
            raise EndedEarly("the sender has ended the copy before its end")
        finally:
            closing = self._threads.submit(self._close)  # in line after what is being written
            self._threads.close()
            await asyncio.shield(closing)

    def _close(self) -> None:
        arriving, self._arriving = self._arriving, None
        if arriving is not None and arriving.partial is not None:
            self._keep(arriving.partial)
        self._release()
        self._target.close()

    def _keep(self, partial: Partial) -> None:
        self._has_left = partial.keep() or self._has_left

    def _release(self) -> None:
        used, self._used = self._used, None
        if used is not None and self._rules.leftovers is not None:
            self._rules.leftovers.release(used, left=self._has_left)
        self._has_left = False

    async def _on_record(self, kind: int, body: bytes) -> None:
        match kind:
            case Kind.ENTRY:
                await self._on_entry(Entry.of(body))
            case Kind.CONTENT:
                await self._on_content(*position_of(body))
            case Kind.HOLE:
                size = int.from_bytes(body, "big")
                if size > HOLE_BYTES:
                    raise RemoteError(f"a hole of {size} bytes is longer than {HOLE_BYTES}")
                await self._write(size, lambda partial: partial.hole(size))
            case Kind.END:
                await self._on_end(body)
            case Kind.ABORT:
                await self._on_abort(*number_of(body))
            case Kind.LEAVE:
                entry, names = _taken(self._directories, number_of(body)[0])
                try:
                    await self._do(lambda: self._target.finish_directory(names, entry))
                except OSError as error:
                    await self._fail(number_of(body)[0], names, error)
            case Kind.FAULT:
                self._progress.fail(self._far + body.decode(errors="replace")[:MAX_TEXT])
            case _:
                pass  # of a later version

    # -- entries -------------------------------------------------------------------------------------------------

    async def _on_entry(self, entry: Entry) -> None:
        index, target, progress = self._count, self._target, self._progress
        self._count += 1
        names = target.place(entry)
        try:
            target.check(names, entry)
            match entry.type:
                case Type.DIRECTORY:
                    await self._do(lambda: target.make_directory(names))
                    self._directories[index] = (entry, names)
                    progress.directories += 1
                case Type.LINK:
                    await self._do(lambda: target.make_link(names, entry))
                    progress.links += 1
                case Type.FILE:
                    await self._on_file(index, entry, names)
        except OSError as error:
            if entry.type == Type.DIRECTORY:
                self._directories[index] = (entry, ())
            await self._fail(index, names, error)
        if len(self._files) + len(self._directories) > 2 * WINDOW:
            raise RemoteError(f"more than {WINDOW} entries were announced ahead of their content")

    async def _on_file(self, index: int, entry: Entry, names: tuple[bytes, ...]) -> None:
        most = self._rules.max_file_bytes
        if most is not None and entry.size > most:
            raise OSError(errno.EFBIG, f"larger than the {most} bytes that [file] max_file_bytes allows")
        self._progress.total += entry.size
        offset = await self._do(lambda: self._have(entry, names))
        if offset == NOT_WANTED:
            self._progress.skipped += 1
            self._progress.done += entry.size
            self._report(self._progress)
        else:
            self._files[index] = (entry, names)
        await self._send(positioned(Kind.WANT, index, offset))

    def _have(self, entry: Entry, names: tuple[bytes, ...]) -> int:
        """How many bytes of a file are here already; NOT_WANTED if it is complete."""
        target = self._target
        if not names:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        found = target.stat(names)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if found is not None and stat.S_ISREG(found.st_mode):
            if (found.st_size, found.st_mtime_ns, found.st_mode & 0o7777) == (
                entry.size,
                entry.mtime,
                entry.mode & PERMISSIONS,
            ):
                return NOT_WANTED
        if entry.size < WORTH_KEEPING:
            return 0
        partial = target.stat((*names[:-1], name_for(self._key(entry, names))))
        return partial.st_size if partial is not None and partial.st_size <= entry.size else 0

    def _key(self, entry: Entry, names: tuple[bytes, ...]) -> bytes:
        return key_of(names[-1], entry.size, entry.mtime, self._sender)

    async def _fail(self, index: int, names: tuple[bytes, ...], error: OSError) -> None:
        """An entry can't be written. Raises CopyFailed if no other could either."""
        text = reason(self._target.shown(names), error)
        if error.errno in FATAL:
            raise CopyFailed(text)
        self._progress.fail(self._near + text)
        await self._send(numbered(Kind.FAILED, index, text))

    # -- content -------------------------------------------------------------------------------------------------

    async def _on_content(self, index: int, offset: int) -> None:
        if self._arriving is not None:
            _refuse()
        entry, names = _taken(self._files, index)
        arriving = self._arriving = _Arriving(index, entry, names, None, offset, offset)
        self._progress.done += offset
        try:
            await self._begin_when_free(arriving)
        except OSError as error:
            self._forget(arriving)
            await self._fail(index, names, error)
            return
        if arriving.partial is None:
            self._files[index] = (entry, names)
            await self._send(numbered(Kind.AGAIN, index))
        elif offset:
            self._progress.resumed += 1

    async def _begin_when_free(self, arriving: _Arriving) -> None:
        """Open the temporary of a file. What an attempt before has left of it may be in use until that is over.

        Raises OSError.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + (IN_USE_WITHIN if arriving.offset else 0.0)
        while loop.time() < until:
            with suppress(BlockingIOError):
                await self._do(lambda: self._begin(arriving, unless_used=True))
                return
            await asyncio.sleep(IN_USE_AGAIN)
        await self._do(lambda: self._begin(arriving, unless_used=False))

    def _begin(self, arriving: _Arriving, *, unless_used: bool) -> None:
        """Open the temporary of a file, unless it does not hold as much of it as is not sent. Raises OSError."""
        entry, names, offset = arriving.entry, arriving.names, arriving.offset
        directory = self._target.directory(names)
        with ExitStack() as undo:
            undo.callback(os.close, directory)
            if self._cleaned != names[:-1]:
                self._release()
                self._cleaned = names[:-1]
                clean(directory, self._rules.keep_partial)
                if self._rules.leftovers is not None:
                    self._used = self._rules.leftovers.use(directory)
            partial = Partial.open(directory, self._key(entry, names), unless_used=unless_used)
            undo.pop_all()
        with ExitStack() as undo:
            undo.callback(self._keep, partial)
            if offset == 0:
                partial.restart()
            elif partial.size >= offset:
                partial.resume(offset)
            else:
                return
            undo.pop_all()
        arriving.partial = partial

    async def _on_data(self, parts: list[bytes | memoryview]) -> None:
        await self._write(sum(map(len, parts)), lambda partial: partial.write(parts))

    async def _write(self, size: int, write: Callable[[Partial], None]) -> None:
        """Write a block when the one before it is written."""
        arriving = self._arriving or _refuse()
        arriving.counted += size
        self._progress.done += size
        self._progress.sent += size
        if arriving.counted > arriving.entry.size:
            raise RemoteError("more of a file was sent than was announced")
        if not await self._written(arriving):
            return
        partial = arriving.partial
        assert partial is not None
        self._writing = self._threads.submit(lambda: write(partial))
        self._writing.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._report(self._progress)

    async def _written(self, arriving: _Arriving) -> bool:
        """Wait until what was received is written; False if the file is not wanted any more."""
        writing, self._writing = self._writing, None
        if writing is not None:
            try:
                await writing
            except OSError as error:
                partial, arriving.partial = arriving.partial, None
                if partial is not None:
                    await self._do(partial.drop)
                await self._fail(arriving.index, arriving.names, error)
        return arriving.partial is not None

    async def _on_end(self, digest: bytes) -> None:
        arriving = self._arriving or _refuse()
        is_wanted = await self._written(arriving)
        self._arriving = None
        partial, entry, index = arriving.partial, arriving.entry, arriving.index
        if not is_wanted or partial is None:
            self._forget(arriving)
            return
        if arriving.counted != entry.size or partial.digest() != digest:
            self._forget(arriving)
            await self._do(partial.drop)
            if arriving.offset:  # what was there already is of something else
                self._files[index] = (entry, arriving.names)
                self._progress.resumed -= 1
                await self._send(numbered(Kind.AGAIN, index))
            else:
                path = self._target.shown(arriving.names)
                await self._fail(index, arriving.names, OSError(0, f"the digest of {written(path)} differs"))
            return
        try:
            await self._do(lambda: partial.commit(arriving.names[-1], entry.mode & PERMISSIONS, entry.mtime))
        except OSError as error:
            self._forget(arriving)
            await self._fail(index, arriving.names, error)
            return
        self._progress.files += 1
        self._report(self._progress)
        await self._send(numbered(Kind.DONE, index))

    async def _on_abort(self, index: int, text: str) -> None:
        arriving = self._arriving
        if arriving is not None and arriving.index == index:
            await self._written(arriving)
            self._arriving = None
            self._forget(arriving)
            if arriving.partial is not None:
                await self._do(arriving.partial.drop)
        else:
            self._files.pop(index, None)
        if text:
            self._progress.fail(self._far + text)

    def _forget(self, arriving: _Arriving) -> None:
        """Take the bytes of an unfinished file back from the progress."""
        self._progress.done -= arriving.counted

    async def _do(self, job: Callable[[], T]) -> T:
        return await self._threads.call(job)


def _taken(announced: dict[int, _Announced], index: int) -> _Announced:
    """Take an entry out of those that were announced. Raises RemoteError."""
    return announced.pop(index) if index in announced else _refuse()


def _refuse() -> NoReturn:
    raise RemoteError("the sender of the copy sends what it has not announced")
