"""The events of one node on its disk: SQLite, written in a thread in batches, read once when the node starts.

Where the disk fails, the events that could not be written are lost, and nothing else: a line is logged when that
begins, and the node goes on with those in memory.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from zmesh.operate.node_event import NodeEvent

log = logging.getLogger(__name__)

FILE = "events.db"
VERSION = 1
MAX_BYTES = 32 * 1024 * 1024
_SCHEMA = """
CREATE TABLE event (
    number INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, node TEXT NOT NULL, place TEXT NOT NULL,
    text TEXT NOT NULL
);
"""


class EventStore:
    """The last `kept` events in a folder. All methods block, and are called in one thread; none raises for the disk."""

    def __init__(self, folder: Path, kept: int) -> None:
        self._path = folder / FILE
        self._kept = kept
        self._connection: sqlite3.Connection | None = None
        self._failed = False

    def load(self) -> list[NodeEvent]:
        """The events that are there, the oldest first; none where they can't be read. A damaged file is replaced."""
        try:
            return self._load()
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            if getattr(error, "sqlite_errorcode", None) not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                return []
        self._remove()
        try:
            return self._load()
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            return []
        finally:
            self._failed = False

    def write(self, events: Sequence[NodeEvent]) -> None:
        """Add events, and remove the oldest ones past the limit."""
        if self._connection is None:
            return
        rows = [(each.number, each.time, each.kind, each.node, each.where, each.text) for each in events]
        try:
            with self._connection as connection:
                connection.executemany("INSERT OR REPLACE INTO event VALUES (?, ?, ?, ?, ?, ?)", rows)
                connection.execute("DELETE FROM event WHERE number <= ?", (events[-1].number - self._kept,))
            self._failed = False
        except sqlite3.Error as error:
            self._fail(error)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _load(self) -> list[NodeEvent]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = self._connection = sqlite3.connect(self._path, timeout=1.0)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        (page,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute(f"PRAGMA max_page_count = {MAX_BYTES // page}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if not version:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT")
        rows = connection.execute("SELECT number, time, kind, node, place, text FROM event ORDER BY number").fetchall()
        return [NodeEvent(*row) for row in rows[-self._kept :]]

    def _remove(self) -> None:
        self.close()
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                os.unlink(f"{self._path}{suffix}")

    def _fail(self, error: Exception) -> None:
        """Log that the disk fails, once until it works again."""
        if not self._failed:
            self._failed = True
            log.warning("events are kept in memory alone: %s: %s", self._path, error)
