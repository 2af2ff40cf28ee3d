"""The output of one running job on its way to the database: joined, bounded, and waited for when the disk is slow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from zmesh.jobs.database import Database
from zmesh.jobs.rows import MORE, PIECE_BYTES, REPLY, Piece, Task
from zmesh.jobs.store import Store, StoreError, Trouble

WAITING_BYTES = 1024 * 1024
"""Bytes of output that wait for the database before the job waits."""
RETRY_AFTER = 0.25
"""Seconds until what could not be written is tried again."""


class Room(Protocol):
    """How much output may be kept."""

    def take(self, size_bytes: int) -> int:
        """Take room for so many bytes of a job; how many there is room for."""


class OutputLog:
    """Takes the output of a job, and writes it in a task of its own. `written` is called after each write."""

    def __init__(self, store: Store, task: Task, limit_bytes: int, room: Room, written: Callable[[], None]) -> None:
        self._store = store
        self._task = task
        self._limit = limit_bytes
        self._room = room
        self._written = written
        self._offset = self.stored_bytes = task.output_bytes
        self._waiting: deque[Piece] = deque()
        self._waiting_bytes = 0
        self._unreported = 0
        self._writing: asyncio.Task[None] | None = None
        self._progress: asyncio.Event = asyncio.Event()
        self.omitted = 0
        """Bytes that are not kept."""

    async def add(self, kind: int, data: bytes, head: str | None = None) -> None:
        """Take output, and wait while too much of it waits to be written. What is past the limit is counted alone."""
        kept = max(0, min(len(data), self._limit - self._offset, self._room.take(len(data))))
        omitted = len(data) - kept
        self.omitted += omitted
        self._unreported += omitted
        for at in range(0, kept, PIECE_BYTES) if kept else (0,) if head is not None else ():
            piece = data[at : min(at + PIECE_BYTES, kept)]
            later = kind == REPLY and at > 0
            self._append(MORE if later else kind, piece, None if later else head)
        self._begin()
        while self._waiting_bytes > WAITING_BYTES:
            self._progress.clear()
            await self._progress.wait()

    async def flush(self) -> None:
        """Wait until all of it is written."""
        while self._writing is not None:
            await asyncio.shield(self._writing)

    def _append(self, kind: int, data: bytes, head: str | None) -> None:
        last = self._waiting[-1] if self._waiting else None
        self._waiting_bytes += len(data)
        if last is not None and last.kind == kind != REPLY and len(last.data) + len(data) <= PIECE_BYTES:
            self._waiting[-1] = last._replace(data=last.data + data)
        else:
            self._waiting.append(Piece(kind, data, head, self._offset, self._task.attempt))
        self._offset += len(data)

    def _begin(self) -> None:
        if self._writing is None and (self._waiting or self._unreported):
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        """Write what waits until nothing does."""
        try:
            while self._waiting or self._unreported:
                pieces, self._waiting = list(self._waiting), deque()
                omitted, self._unreported = self._unreported, 0
                await self._write_all(pieces, omitted)
                size = sum(len(piece.data) for piece in pieces)
                self._waiting_bytes -= size
                self.stored_bytes += size
                self._progress.set()
                self._written()
        finally:
            self._writing = None
            self._progress.set()

    async def _write_all(self, pieces: list[Piece], omitted: int) -> None:
        while True:

            def append(database: Database) -> None:
                database.append(self._task, pieces, omitted)  # noqa: B023  # it is awaited within this iteration

            try:
                await self._store.write(append)
                return
            except StoreError as error:
                if error.trouble is Trouble.TAKEN:
                    return  # the job is being stopped
                if error.trouble is Trouble.FULL and pieces:
                    lost = sum(len(piece.data) for piece in pieces)
                    self.omitted += lost
                    omitted += lost
                    pieces = []  # a job does not wait for room on a disk, and what is missing is counted
                else:
                    await asyncio.sleep(RETRY_AFTER)
