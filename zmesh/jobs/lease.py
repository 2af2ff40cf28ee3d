"""The lease on a database of jobs: which run of which node holds it, so that a stale `running` is recognised as such.

A run of a node holds the database while it has the lock file (flock(2)), which names that run, too. The lease is a row
beside the jobs: the holder (the node's incarnation), its process, the file that the database was, and until when it is
renewed. Who opens a database decides from that alone what its jobs are, without a clock:

- The lock file names the holder, and the file is the same: the holder has ended, and with it what it ran.
- The lock file is gone, and the process of the holder runs: another node is at work here.
- Anything else is a copy: another folder's database, or one from a backup. What became of its jobs since is not known,
  and processes that it names are not those of this node.

Every transaction compares the holder (a fencing token), so a node from which the database was taken writes no more.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from zmesh.errors import ConfigError

ENDED = "-ended"
"""Follows a holder in the lock file that has released its lease."""
_SELECT = "SELECT holder, node, process, file, renewed, expires, released FROM lease"
SCHEMA = """
CREATE TABLE lease (
    holder TEXT NOT NULL, node TEXT NOT NULL, process TEXT NOT NULL, file TEXT NOT NULL, renewed REAL NOT NULL,
    expires REAL NOT NULL, released INTEGER NOT NULL, copied TEXT NOT NULL
);
INSERT INTO lease VALUES ('', '', '', '', 0, 0, 1, '');
"""


class Claim(NamedTuple):
    """A claim to a database: the run of a node that makes it, the node, and its process (`processes.named_here`)."""

    holder: str
    node: str
    process: str


class Lease(NamedTuple):
    """The row. `renewed` and `expires` are times of the node's clock, for readers; nothing is decided by them."""

    holder: str
    node: str
    process: str
    file: str
    renewed: float
    expires: float
    released: bool


class Finding(Enum):
    """The relation of a database to the run of a node that opens it; the module says what decides it."""

    OWN = "own"
    HELD = "held"
    COPY = "copy"


class TakenOver(sqlite3.OperationalError):
    """Another run of a node holds the database by now."""


def judge(lease: Lease, file: str, named: Sequence[str], runs: Callable[[str], bool]) -> Finding:
    """Judge a database that is in `file` and whose lock file, which is locked, names these holders.

    `runs` says of the process of a lease whether it is running on this machine.
    """
    if not lease.holder:  # new, or of a version without leases
        return Finding.OWN
    in_place = lease.file == file
    if lease.released:  # a folder may be moved while its node is stopped
        is_last = not named or lease.holder in named or lease.holder + ENDED in named
        return Finding.OWN if is_last else Finding.COPY
    if named:
        return Finding.OWN if in_place and lease.holder in named else Finding.COPY
    if not in_place:
        return Finding.COPY
    return Finding.HELD if runs(lease.process) else Finding.OWN


def file_of(path: Path) -> str:
    """The name of the file at a path that a copy does not have; empty if there is none."""
    try:
        return str(os.stat(path).st_ino)
    except FileNotFoundError:
        return ""


class LeaseTable:
    """The lease in an open database. Raises sqlite3.Error, as all methods do."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def read(self) -> Lease:
        """The lease as it is."""
        lease = Lease(*self._connection.execute(_SELECT).fetchone())
        return lease._replace(released=bool(lease.released))

    def take(self, claim: Claim, named: Sequence[str], wall: float, seconds: float, runs: Callable[[str], bool]) -> str:
        """Hold the database from now on; the former holder, or nothing if it is a copy, which is noted for `copied`.

        Raises ConfigError if another node holds it.
        """
        lease, file = self.read(), file_of(self._path)
        found = judge(lease, file, named, runs)
        if found is Finding.HELD:
            raise ConfigError(
                f"process {lease.process.partition(':')[0]} of node {lease.node!r} uses the jobs in "
                f"{self._path.parent}, though its lock file was removed; stop it, or give this node a folder of its "
                "own ([jobs] folder, or another identity)"
            )
        self._connection.execute(
            "UPDATE lease SET holder = ?, node = ?, process = ?, file = ?, renewed = ?, expires = ?, released = 0",
            (claim.holder, claim.node, claim.process, file, wall, wall + seconds),
        )
        if found is Finding.OWN:
            return lease.holder
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(lease.renewed))
        copied = f"its record was copied or restored from a backup: it is that of node {lease.node!r} at {at}"
        self._connection.execute("UPDATE lease SET copied = ?", (copied,))
        return ""

    def copied(self) -> str:
        """The reason why the states of unfinished jobs are unknown; empty if they are known. Returned once."""
        (text,) = self._connection.execute("SELECT copied FROM lease").fetchone()
        self._connection.execute("UPDATE lease SET copied = ''")
        return str(text)

    def verify(self, holder: str) -> None:
        """Raises TakenOver if another holds the database."""
        (now,) = self._connection.execute("SELECT holder FROM lease").fetchone()
        if now != holder:
            raise TakenOver(f"it is held by another run of a node ({now})")

    def renew(self, wall: float, seconds: float) -> None:
        """Renew the lease for `seconds` from `wall` (seconds since 1970)."""
        self._connection.execute("UPDATE lease SET renewed = ?, expires = ?", (wall, wall + seconds))

    def release(self, holder: str, wall: float) -> None:
        """Note that the holder has ended; harmless for any other."""
        self._connection.execute(
            "UPDATE lease SET released = 1, renewed = ?, expires = ? WHERE holder = ?", (wall, wall, holder)
        )


def holders_in(descriptor: int) -> list[str]:
    """The holders that a lock file names."""
    return os.pread(descriptor, 256, 0).decode(errors="replace").split()


def name_holders(descriptor: int, *holders: str) -> None:
    """Have a lock file name these holders."""
    text = "\n".join((*holders, "")).encode()
    os.pwrite(descriptor, text, 0)
    os.ftruncate(descriptor, len(text))
    os.fsync(descriptor)
