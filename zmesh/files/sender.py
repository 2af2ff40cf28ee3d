"""The sending end of a copy: lists the sources, and sends the content of the files that the receiver requests.

Entries are announced WINDOW ahead of the content, so that many small files need no round trip each. Files are listed,
read and hashed in a thread, one block ahead of what is being sent.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import NoReturn, TypeAlias

from xxhash import xxh3_128

from zmesh.errors import RemoteError
from zmesh.files.beneath import open_beneath
from zmesh.files.listing import Fault, Item, Leave, Top, close_tops, listed
from zmesh.files.places import written
from zmesh.files.progress import OnProgress, Progress, reason
from zmesh.files.records import (
    DATA_BYTES,
    HOLE_BYTES,
    WINDOW,
    EndedEarly,
    Kind,
    RecordReader,
    number_of,
    numbered,
    position_of,
    positioned,
    record,
)
from zmesh.files.records import Type as EntryType
from zmesh.runtime import ThreadPool

Send: TypeAlias = "Callable[[bytes], Awaitable[None]]"
BATCH = 64
"""Entries that are listed at a time."""
ZEROS = bytes(1024 * 1024)
NOT_WANTED = -1


class Sender:
    """Sends what its sources have; `records` are the answers of the receiver, whose failures get `far` before them."""

    def __init__(
        self,
        tops: Sequence[Top],
        *,
        recursive: bool,
        records: RecordReader,
        send: Send,
        progress: Progress,
        on_progress: OnProgress | None = None,
        far: str = "",
    ) -> None:
        self._tops = tops
        self._far = far
        self._items = listed(tops, recursive=recursive)
        self._records = records
        self._send = send
        self._progress = progress
        self._report = on_progress or (lambda progress: None)
        self._threads = ThreadPool(1, "zmesh-send-file")
        self._count = 0
        self._pending: deque[Item | Leave] = deque()
        self._open: dict[int, Item] = {}
        """Files that were announced, and whose outcome the receiver has not reported."""
        self._wanted: dict[int, int] = {}
        self._again: set[int] = set()
        self._finished = False
        self._failure: BaseException | None = None
        self._answered: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Send all of it; what can't be sent, or written there, is in the progress. Raises as sending does."""
        answers = asyncio.create_task(self._take_answers())
        try:
            await self._send_all()
        finally:
            answers.cancel()
            closing = self._threads.submit(self._close)
            self._threads.close()
            await asyncio.shield(closing)

    def _close(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            close()
        close_tops(self._tops)

    async def _send_all(self) -> None:
        listing = True
        while listing or self._pending:
            if listing and len(self._pending) <= WINDOW - BATCH and len(self._open) <= WINDOW - BATCH:
                listing = await self._announce()
            elif self._pending:
                await self._send_next(self._pending.popleft())
            else:
                await self._answer()
        await self._send(record(Kind.FINISH))
        while not self._finished:
            await self._answer()

    async def _announce(self) -> bool:
        """Announce the next entries; False at the end."""
        batch = await self._threads.call(lambda: list(islice(self._items, BATCH)))
        said = []
        for each in batch:
            match each:
                case Fault():
                    self._progress.fail(each.text)
                    said.append(record(Kind.FAULT, each.text[:1000].encode(errors="backslashreplace")))
                case Leave():
                    self._pending.append(each)
                case Item():
                    each.index = self._count
                    self._count += 1
                    said.append(each.entry.packed())
                    self._announced(each)
        if len(batch) < BATCH:
            self._progress.is_listed = True
        if said:
            await self._send(b"".join(said))
        self._report(self._progress)
        return len(batch) == BATCH

    def _announced(self, item: Item) -> None:
        match item.entry.type:
            case EntryType.FILE:
                self._progress.total += item.entry.size
                self._open[item.index] = item
                self._pending.append(item)
            case EntryType.DIRECTORY:
                self._progress.directories += 1
            case EntryType.LINK:
                self._progress.links += 1

    async def _send_next(self, item: Item | Leave) -> None:
        if isinstance(item, Leave):
            await self._send(numbered(Kind.LEAVE, item.item.index))
            return
        index = item.index
        while index not in self._wanted and index in self._open:
            await self._answer()
        offset = self._wanted.pop(index, NOT_WANTED)
        if offset == NOT_WANTED or index not in self._open:
            return
        await self._send_content(item, offset)
        if offset:
            while index in self._open and index not in self._again:
                await self._answer()
            if index in self._again and index in self._open:
                self._again.discard(index)
                await self._send_content(item, 0)

    async def _send_content(self, item: Item, offset: int) -> None:
        """Send a file from an offset on, as long as the receiver takes it."""
        index, threads, progress = item.index, self._threads, self._progress
        file = _File(item, offset)
        counted = offset
        progress.done += offset
        ahead = _ahead(threads.submit(file.begin))
        try:
            while True:
                data, size, is_over = await ahead
                if not is_over:
                    ahead = _ahead(threads.submit(file.read))
                if index not in self._open or index in self._again:
                    progress.done -= counted
                    await self._send(numbered(Kind.ABORT, index))
                    return
                await self._send(data)
                progress.done += size
                progress.sent += size
                counted += size
                self._report(progress)
                if is_over:
                    return
        except OSError as error:
            progress.done -= counted
            await self._abort(item, reason(item.path, error))
        except _Changed:
            progress.done -= counted
            await self._abort(item, f"{written(item.path)} was changed while it was copied: copy it again")
        finally:
            ahead.cancel()
            threads.run(file.close)

    async def _abort(self, item: Item, text: str) -> None:
        if self._open.pop(item.index, None) is not None:
            self._progress.fail(text)
            self._progress.total -= item.entry.size
        await self._send(numbered(Kind.ABORT, item.index, text))

    # -- answers -------------------------------------------------------------------------------------------------

    async def _answer(self) -> None:
        """Wait for another answer. Raises what has ended them."""
        if self._failure is not None:
            raise self._failure
        if self._answered is None:
            self._answered = asyncio.get_running_loop().create_future()
        await self._answered

    async def _take_answers(self) -> None:
        try:
            while not self._finished:
                answer = await self._records.next()
                if answer is None:
                    raise EndedEarly("the receiver has ended the copy before its end")
                self._on_answer(answer.kind, answer.body)
                self._wake()
        except Exception as error:  # noqa: BLE001  # whatever the stream has ended with is raised where answers are awaited
            self._failure = error
            self._wake()

    def _wake(self) -> None:
        answered, self._answered = self._answered, None
        if answered is not None and not answered.done():
            answered.set_result(None)

    def _on_answer(self, kind: int, body: bytes) -> None:
        progress = self._progress
        match kind:
            case Kind.READY:
                pass
            case Kind.WANT:
                index, offset = position_of(body)
                item = self._known(index)
                if not NOT_WANTED <= offset <= item.entry.size:
                    _refuse()
                if offset == NOT_WANTED:
                    del self._open[index]
                    progress.skipped += 1
                    progress.done += item.entry.size
                elif offset:
                    progress.resumed += 1
                self._wanted[index] = offset
            case Kind.DONE:
                index = self._known(number_of(body)[0]).index
                del self._open[index]
                self._again.discard(index)
                progress.files += 1
            case Kind.AGAIN:
                self._again.add(self._known(number_of(body)[0]).index)
                progress.resumed -= 1
            case Kind.FAILED:
                index, text = number_of(body)
                self._again.discard(index)
                if (item_ := self._open.pop(index, None)) is not None:
                    progress.total -= item_.entry.size
                progress.fail(self._far + text)
            case Kind.FINISHED:
                if self._open:
                    _refuse()
                self._finished = True
            case _:
                pass  # of a later version

    def _known(self, index: int) -> Item:
        return self._open.get(index) or _refuse()


def _refuse() -> NoReturn:
    raise RemoteError("the receiver of the copy answers something that it was not asked")


class _Changed(Exception):
    """A file is not what it was when it was listed."""


class _File:
    """A file that is read from an offset on, in one thread."""

    def __init__(self, item: Item, offset: int) -> None:
        self._item = item
        self._at = offset
        self._digest = xxh3_128()
        self._descriptor = -1
        self._is_sparse = False

    def begin(self) -> tuple[bytes, int, bool]:
        """Open it, hash what is there already, and read as `read`. Raises OSError and _Changed."""
        item = self._item
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        self._descriptor = descriptor = open_beneath(item.top, item.inner, flags)
        self._check()
        self._is_sparse = os.fstat(descriptor).st_blocks * 512 < item.entry.size
        at = 0
        while at < self._at:
            data = os.pread(descriptor, min(DATA_BYTES, self._at - at), at)
            if not data:
                raise _Changed
            self._digest.update(data)
            at += len(data)
        data, size, is_over = self.read()
        return positioned(Kind.CONTENT, item.index, at) + data, size, is_over

    def read(self) -> tuple[bytes, int, bool]:
        """The next records, how many bytes of the file they hold, and whether they are the last. Raises as `begin`."""
        size = self._item.entry.size
        data, taken = self._block(min(DATA_BYTES, size - self._at)) if self._at < size else (b"", 0)
        self._at += taken
        is_over = self._at >= size
        if is_over:
            self._check()
            data += record(Kind.END, self._digest.digest())
        return data, taken, is_over

    def _block(self, most: int) -> tuple[bytes, int]:
        if self._is_sparse:
            hole, most = self._next_extent(most)
            if hole:
                for start in range(0, hole, len(ZEROS)):
                    self._digest.update(ZEROS[: hole - start])
                return record(Kind.HOLE, hole.to_bytes(8, "big")), hole
        data = os.pread(self._descriptor, most, self._at)
        if not data:
            raise _Changed
        self._digest.update(data)
        return record(Kind.DATA, data), len(data)

    def _next_extent(self, most: int) -> tuple[int, int]:
        """The size of the hole that begins here, or how much data there is (lseek(2), SEEK_DATA and SEEK_HOLE)."""
        size, at = self._item.entry.size, self._at
        try:
            start = min(size, os.lseek(self._descriptor, at, os.SEEK_DATA))
        except OSError as error:
            if error.errno != errno.ENXIO:
                self._is_sparse = False  # this file system does not say
                return 0, most
            start = size
        if start > at:
            return min(start - at, HOLE_BYTES), 0
        return 0, min(most, os.lseek(self._descriptor, at, os.SEEK_HOLE) - at)

    def _check(self) -> None:
        found, entry = os.fstat(self._descriptor), self._item.entry
        if not stat.S_ISREG(found.st_mode) or (found.st_size, found.st_mtime_ns) != (entry.size, entry.mtime):
            raise _Changed

    def close(self) -> None:
        """Close it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _ahead(reading: asyncio.Future[tuple[bytes, int, bool]]) -> asyncio.Future[tuple[bytes, int, bool]]:
    """The block that is read ahead, whose error does not matter if it is not awaited any more."""
    reading.add_done_callback(lambda done: done.cancelled() or done.exception())
    return reading
