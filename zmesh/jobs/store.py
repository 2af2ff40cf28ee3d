"""The thread that reads and writes the database of jobs: one transaction for all that waits (group commit).

A disk that is full, a database that another process has locked, or one that is damaged is a StoreError of whoever
waits for the operation. A damaged database is moved aside and a new one begun; `on_damage` gets its path. One that is
removed or replaced is treated so, too. Once another process has taken the lease nothing is read or written any more.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from zmesh.errors import ConfigError, MeshError
from zmesh.jobs import processes
from zmesh.jobs.database import Database
from zmesh.jobs.lease import ENDED, Claim, TakenOver, file_of, holders_in, name_holders
from zmesh.runtime import close_in_child, closing, describe

log = logging.getLogger(__name__)

T = TypeVar("T")

FILE = "jobs.db"
LOCK = "jobs.lock"
RESERVE = "jobs.reserve"
RESERVE_BYTES = 1024 * 1024
"""Bytes of disk that are kept for what has to be written when the disk is full: how jobs have ended, and removals."""
GROUP = 1000
"""Operations in one transaction, at most."""
HELD_FOR = 180.0
"""Seconds for which the lease on a database is taken at first."""


class Trouble(Enum):
    """The kind of trouble that keeps the database from being used."""

    FULL = "full"
    LOCKED = "locked"
    DAMAGED = "damaged"
    TAKEN = "taken"
    OTHER = "other"


class StoreError(MeshError):
    """The database can't be used now; the text says why, and the way out."""

    def __init__(self, trouble: Trouble, text: str) -> None:
        super().__init__(text)
        self.trouble = trouble


class _Operation(NamedTuple):
    function: Callable[[Database], Any]
    future: asyncio.Future[Any]
    writes: bool
    vital: bool

    def perform(self, database: Database) -> tuple[Any, BaseException | None]:
        """Call the function; returns its result and None, or None and the error."""
        try:
            return self.function(database), None
        except BaseException as error:  # noqa: BLE001  # all of it is the caller's
            return None, error


class Store:
    """The database of one node and its thread. Bound to the loop that `open` is called on."""

    def __init__(
        self,
        folder: Path,
        node_id: str,
        max_bytes: int,
        on_damage: Callable[[Path], None] = lambda path: None,
        *,
        holder: str | None = None,
    ) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._node_id = node_id
        self._max_bytes = max_bytes
        self._on_damage = on_damage
        self.on_taken: Callable[[StoreError], None] = lambda error: None
        """Called once when another process has taken the lease."""
        self._holder = holder or os.urandom(8).hex()
        self._taken = False
        self._operations: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        """Done when the thread has closed the database."""
        self._over = False
        """Whether the thread takes no more operations."""
        self._lock = -1
        self._database: Database | None = None
        self._file = ""
        """The identity of the file of the open database (`lease.file_of`)."""

    async def open(self) -> None:
        """Open the database and lock out other processes.

        Raises ConfigError if another one holds it, and StoreError if it can't be used.
        """
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        thread = threading.Thread(target=self._work, name="zmesh-jobs", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._ended = None
            raise StoreError(Trouble.OTHER, f"the jobs of node {self._node_id!r} can't be used: {error}") from None
        self._thread = thread
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.close)  # who tries anew must not find the lock held by this one
            await self._submit(lambda database: None, writes=False, vital=False)
            undo.pop_all()

    async def write(self, function: Callable[[Database], T], *, vital: bool = False) -> T:
        """The result of `function`, once its writes are durable. Raises StoreError, and what it raises.

        `vital`: written also when the disk is full, from what is kept for that.
        """
        return await self._submit(function, writes=True, vital=vital)

    async def read(self, function: Callable[[Database], T]) -> T:
        """The result of `function`, which only reads. Raises StoreError, and what it raises."""
        return await self._submit(function, writes=False, vital=False)

    async def _submit(self, function: Callable[[Database], T], *, writes: bool, vital: bool) -> T:
        if self._loop is None or self._thread is None:
            raise self._closed()
        future: asyncio.Future[T] = self._loop.create_future()
        self._operations.put(_Operation(function, future, writes, vital))
        if self._over:  # the thread may have ended before it could take that
            self._refuse_the_rest()
        return await future

    async def close(self) -> None:
        """Write what waits, and close the database."""
        ended, self._ended = self._ended, None
        self.close_now()
        if ended is not None:
            await ended

    def close_now(self) -> None:
        """Have the thread write what waits and end; does not wait for it."""
        if self._thread is not None:
            self._operations.put(None)
            self._thread = None

    # -- in the thread -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        ended = self._ended
        try:
            going = True
            while going:
                group = [self._operations.get()]
                with suppress(queue.Empty):
                    while len(group) < GROUP:
                        group.append(self._operations.get_nowait())
                going = None not in group
                operations = [each for each in group if each is not None]
                if operations:
                    with ExitStack() as unless_done:
                        unless_done.callback(self._refuse, operations)
                        self._perform(operations)
                        unless_done.pop_all()
        finally:
            with ExitStack() as steps:
                assert ended is not None
                steps.callback(self._settle, [partial(_succeed, ended, None)])
                steps.callback(self._refuse_the_rest)
                self._release()

    def _refuse_the_rest(self) -> None:
        """Refuse operations that are queued after the end, or before an unexpected one, so that none waits in vain."""
        self._over = True
        with suppress(queue.Empty):
            while True:
                operation = self._operations.get_nowait()
                if operation is not None:
                    self._fail(operation, self._closed())

    def _refuse(self, operations: list[_Operation]) -> None:
        for each in operations:
            self._fail(each, self._closed())

    def _closed(self) -> StoreError:
        return StoreError(Trouble.OTHER, f"the jobs of node {self._node_id!r} are closed")

    def _release(self) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error, OSError):
                self._database.lease.release(self._holder, time.time())
                name_holders(self._lock, self._holder + ENDED)
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None
        if self._lock >= 0:
            closing(self._lock)
            with suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_UN)  # a child that is being started has a copy, which would keep it
            os.close(self._lock)
            self._lock = -1

    def _perform(self, operations: list[_Operation]) -> None:
        try:
            database = self._opened()
        except (sqlite3.Error, OSError, ConfigError) as error:
            failure = error if isinstance(error, ConfigError) else self._described(error)
            if isinstance(error, _Replaced):
                failure = self._try_to_set_aside(str(error)) or failure
            for each in operations:
                self._fail(each, failure)
            return
        if not self._attempt(database, operations):
            for each in operations:  # one of them failed, and what the others have done was undone with it
                self._perform_alone(each)

    def _attempt(self, database: Database, operations: list[_Operation]) -> bool:
        """Perform them in one transaction; False, and nothing was done, if that fails."""
        writes = any(each.writes for each in operations)
        results: list[Callable[[], None]] = []
        with ExitStack() as undo, suppress(sqlite3.Error):
            undo.callback(_roll_back, database)
            if writes:
                database.begin()
            database.lease.verify(self._holder)
            for each in operations:
                result, error = each.perform(database)
                if error is not None:  # which it has again when it is performed alone
                    return False
                results.append(partial(_succeed, each.future, result))
            if writes:
                database.commit()
            undo.pop_all()
            self._settle(results)
            return True
        return False

    def _perform_alone(self, operation: _Operation) -> None:
        for may_free in (operation.vital, False):
            result, error = None, None
            try:
                database = self._opened()
                with ExitStack() as undo:
                    undo.callback(_roll_back, database)
                    if operation.writes:
                        database.begin()
                    database.lease.verify(self._holder)
                    result, error = operation.perform(database)
                    if operation.writes and error is None:
                        database.commit()
            except (sqlite3.Error, OSError, ConfigError) as failure:
                error = failure
            if error is None:
                self._settle([partial(_succeed, operation.future, result)])
            elif isinstance(error, (sqlite3.Error, OSError)):
                described = self._described(error)
                if described.trouble is Trouble.DAMAGED:
                    described = self._try_to_set_aside(str(error)) or described
                elif described.trouble is Trouble.FULL and may_free and self._free_reserve():
                    continue
                elif described.trouble is Trouble.TAKEN:
                    self._lose(described)
                self._fail(operation, described)
            else:
                self._fail(operation, error)
            return

    def _settle(self, results: list[Callable[[], None]]) -> None:
        def settle() -> None:
            for each in results:
                each()

        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed: there is no waiter
            self._loop.call_soon_threadsafe(settle)

    def _fail(self, operation: _Operation, error: BaseException) -> None:
        self._settle([partial(_reject, operation.future, error)])

    def _opened(self) -> Database:
        """The database, which is opened if it is not. Raises sqlite3.Error, OSError and ConfigError."""
        if self._database is not None and file_of(self.path) != self._file:
            raise _Replaced("removed or replaced")
        if self._database is None:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            try:
                self._database = self._held()
            except sqlite3.Error as error:
                if self._described(error).trouble is not Trouble.DAMAGED:
                    raise
                self._set_aside(str(error))
                self._database = self._held()
            self._file = file_of(self.path)
            self._reserve()
        return self._database

    def _held(self) -> Database:
        """The database, opened, with the lease on it. The lock file names both holders until the new one has it."""
        claim = Claim(self._holder, self._node_id, processes.named_here(os.getpid()))
        with ExitStack() as undo:
            database = Database(self.path, self._node_id, self._max_bytes)
            undo.callback(database.close)
            undo.callback(_roll_back, database)
            database.begin()
            before = database.lease.take(claim, holders_in(self._lock), time.time(), HELD_FOR, processes.runs_here)
            name_holders(self._lock, before, self._holder)
            database.commit()
            undo.pop_all()
        with suppress(OSError):
            name_holders(self._lock, self._holder)
        return database

    def _lose(self, error: StoreError) -> None:
        """Another process has the database; nothing more is to be done with it."""
        if not self._taken:
            self._taken = True
            log.error("%s", error)
            assert self._loop is not None
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.on_taken, error)

    def _take_lock(self) -> None:
        if self._lock >= 0:
            return
        descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigError(
                f"another process uses the jobs in {self.folder}; stop it, or give this node a folder of its own "
                "([jobs] folder, or another identity)"
            ) from None
        self._lock = descriptor
        close_in_child(descriptor)  # which would hold the lock for as long as it runs

    def _set_aside(self, why: str) -> None:
        """Move a damaged database out of the way."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None
        aside = self.path.with_name(f"{FILE}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        number = 0
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{aside.name.partition('.damaged')[0]}.damaged-{number}")
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")
        log.error("the jobs of %s are damaged (%s); they are kept as %s, and new ones begun", self._node_id, why, aside)
        assert self._loop is not None
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._on_damage, aside)

    def _try_to_set_aside(self, why: str) -> StoreError | None:
        """Move a damaged database out of the way; what keeps that from being done, with which it is tried again."""
        try:
            self._set_aside(why)
        except OSError as error:
            return self._described(error)
        return None

    # -- a full disk ---------------------------------------------------------------------------------------------

    def _reserve(self) -> None:
        """Keep some of the disk for what has to be written when it is full."""
        path = self.folder / RESERVE
        with suppress(OSError):
            if path.exists() and path.stat().st_size >= RESERVE_BYTES:
                return
            free = os.statvfs(self.folder)
            if free.f_bavail * free.f_frsize < 4 * RESERVE_BYTES:
                return
            with open(path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)

    def _free_reserve(self) -> bool:
        """Release what was kept; False if there is nothing."""
        try:
            os.unlink(self.folder / RESERVE)
        except OSError:
            return False
        if self._database is not None:
            self._database.checkpoint_by_itself(False)  # it would take what has just been freed
        log.warning("the disk of %s is full: what was kept for how jobs end is used", self.folder)
        return True

    def renew_reserve(self, database: Database) -> None:
        """Write the reserve of RESERVE_BYTES anew, if the disk has room; an operation for `read`."""
        if not (self.folder / RESERVE).exists():
            with suppress(sqlite3.Error):
                database.shrink()
            self._reserve()
            database.checkpoint_by_itself((self.folder / RESERVE).exists())

    def _described(self, error: sqlite3.Error | OSError) -> StoreError:
        """The error as the waiter of the operation gets it."""
        if isinstance(error, TakenOver):
            text = (
                f"another process has taken over the jobs of node {self._node_id!r} in {self.folder}; end one of them"
            )
            return StoreError(Trouble.TAKEN, f"{text}, and start the other anew")
        if isinstance(error, _Replaced):
            text = f"the database of the jobs of node {self._node_id!r} was removed or replaced while it runs"
            return StoreError(Trouble.DAMAGED, f"{text}; what was put in its place is kept aside in {self.folder}")
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if isinstance(code, int) else None
        node, where = repr(self._node_id), self.folder
        if primary == sqlite3.SQLITE_FULL or getattr(error, "errno", None) == 28:
            text = f"node {node} has no room for jobs in {where}; make room there, or remove some ('zmesh job rm')"
            return StoreError(Trouble.FULL, text)
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            text = f"another program has locked the jobs of node {node}, {self.path}; end it, or try again"
            return StoreError(Trouble.LOCKED, text)
        if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            text = f"the jobs of node {node} were damaged, and are kept aside in {where}; submit anew"
            return StoreError(Trouble.DAMAGED, text)
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return StoreError(Trouble.OTHER, f"the jobs of node {node} in {where} can't be used: {reason}")


class _Replaced(sqlite3.DatabaseError):
    """The file of the open database is not there any more."""


def _roll_back(database: Database) -> None:
    with suppress(sqlite3.Error):
        database.roll_back()


def _succeed(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _reject(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        fits = isinstance(error, Exception) and not isinstance(error, StopIteration)
        future.set_exception(error if fits else RuntimeError(describe(error)))
