"""The jobs of one node in SQLite: what is stored of each, and every statement that reads or changes it.

All of it blocks, so it is called in the thread of a Store, which wraps changes in transactions. Ages are counted by a
clock of the node's own (`clock`): it runs while the node does, and at most SLEPT_MOST seconds are added for the time
between two runs. So a clock that is moved removes nothing before its time.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from zmesh.jobs.lease import SCHEMA as LEASE_SCHEMA
from zmesh.jobs.lease import LeaseTable
from zmesh.jobs.queue import Outcome, Unfinished, runs_again
from zmesh.jobs.rows import PIECE_BYTES, Conflict, Owner, Piece, Recovered, Task
from zmesh.jobs.states import JobState, JobStatus, Restart
from zmesh.jobs.submission import Submission

VERSION = 2
SLEPT_MOST = 86_400.0
"""Seconds that jobs age at most between two runs of their node."""
CHECKED_BYTES = 64 * 1024 * 1024
"""Size of a database up to which it is checked when it is opened."""
LOCKED_WITHIN = 2.0
"""Seconds that another process may hold the database locked before a request fails."""
_SPARE_BYTES = 64 * 1024 * 1024

_SCHEMA = """
CREATE TABLE job (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, number TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, tags TEXT NOT NULL,
    own INTEGER NOT NULL,
    key TEXT, digest BLOB, directive TEXT NOT NULL, title TEXT NOT NULL, content_type TEXT NOT NULL,
    metadata TEXT NOT NULL, priority INTEGER NOT NULL, restart TEXT NOT NULL, limit_seconds REAL, state TEXT NOT NULL,
    code TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', returncode INTEGER, submitted REAL NOT NULL,
    started REAL, ended REAL, seconds REAL, ended_clock REAL, attempts INTEGER NOT NULL DEFAULT 0,
    restarts INTEGER NOT NULL DEFAULT 0, attempt_offset INTEGER NOT NULL DEFAULT 0, process TEXT,
    input_bytes INTEGER NOT NULL DEFAULT 0, output_bytes INTEGER NOT NULL DEFAULT 0,
    omitted_bytes INTEGER NOT NULL DEFAULT 0, incarnation TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX job_key ON job (owner, key) WHERE key IS NOT NULL;
CREATE INDEX job_state ON job (state, ended_clock);
CREATE TABLE input (job INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX input_job ON input (job);
CREATE TABLE output (
    job INTEGER NOT NULL, offset INTEGER NOT NULL, attempt INTEGER NOT NULL, kind INTEGER NOT NULL, head TEXT,
    data BLOB NOT NULL
);
CREATE INDEX output_job ON output (job, offset);
CREATE TABLE node (clock REAL NOT NULL, seen REAL NOT NULL, boot TEXT NOT NULL);
INSERT INTO node VALUES (0, 0, '');
"""
_UPGRADE = "ALTER TABLE job ADD COLUMN incarnation TEXT NOT NULL DEFAULT '';"
ARRIVING = "arriving"
"""The state of a job whose payload is being stored; used in this module only."""
_HIDDEN = f"state != '{ARRIVING}'"
_LEASED = "CASE WHEN state = 'running' THEN (SELECT expires FROM lease) END"
_COLUMNS = ", ".join(_LEASED if name == "lease_until" else name for name in JobStatus._fields[1:])


class Database:
    """The database of one node; `max_bytes` of jobs are to fit in. Raises sqlite3.Error, as all methods do."""

    def __init__(self, path: Path, node_id: str, max_bytes: int) -> None:
        self.path = path
        self._status = f"SELECT json_array('{node_id}/' || number, {_COLUMNS}) FROM job"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(path, timeout=LOCKED_WITHIN, isolation_level=None, check_same_thread=False)
        with ExitStack() as undo:
            undo.callback(self._connection.close)
            self._prepare(max_bytes)
            undo.pop_all()
        self.lease = LeaseTable(self._connection, path)

    def _prepare(self, max_bytes: int) -> None:
        run = self._connection.execute
        (version,) = run("PRAGMA user_version").fetchone()
        if not version:
            run("PRAGMA auto_vacuum = INCREMENTAL")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA secure_delete = OFF")  # deleting must write little where the disk is full
        (page,) = run("PRAGMA page_size").fetchone()
        run(f"PRAGMA max_page_count = {(max_bytes + max_bytes // 4 + _SPARE_BYTES) // page}")
        if version > VERSION:
            raise sqlite3.NotSupportedError(f"{self.path} was written by a later version of zmesh ({version})")
        schema = _UPGRADE if version else _SCHEMA
        if version < VERSION:
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {schema} {LEASE_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT"
            )
        if version and self.path.stat().st_size <= CHECKED_BYTES:
            (answer,) = run("PRAGMA quick_check(1)").fetchone()
            if answer != "ok":
                error = sqlite3.DatabaseError(answer)
                error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise error

    def shrink(self) -> None:
        """Release unused pages of the file to the disk; not in a transaction."""
        for statement in ("wal_checkpoint(TRUNCATE)", "incremental_vacuum(1000)", "wal_checkpoint(TRUNCATE)"):
            self._connection.execute(f"PRAGMA {statement}").fetchall()

    def checkpoint_by_itself(self, going: bool) -> None:
        """Have commits checkpoint the write-ahead log or not (wal_autocheckpoint); the database may grow then."""
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {1000 if going else 0}")

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def begin(self) -> None:
        """Begin a transaction that writes."""
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make what was written durable."""
        self._connection.execute("COMMIT")

    def roll_back(self) -> None:
        """Undo what was written since `begin`; harmless without."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    # -- the node ------------------------------------------------------------------------------------------------

    def recover(self, boot: str, wall: float, max_restarts: int) -> Recovered:
        """Take over after the last run of the node: what ran then has failed, or waits again.

        Of a copy (see `zmesh.jobs.lease`) all that had not ended is lost: the node that runs it may be another one.
        """
        run = self._connection.execute
        clock, seen, last_boot = run("SELECT clock, seen, boot FROM node").fetchone()
        clock += min(SLEPT_MOST, max(0.0, wall - seen)) if seen else 0.0
        for (sequence,) in run("SELECT sequence FROM job WHERE state = ?", (ARRIVING,)).fetchall():
            self.discard(sequence)
        ended, processes = [], []
        if copied := self.lease.copied():
            for (number,) in run("SELECT number FROM job WHERE state IN ('running', 'queued')").fetchall():
                self.finish(number, Outcome(JobState.LOST, "lost", copied), None, wall, None, clock)
                ended.append(self.status(number))
        outcome = Outcome(JobState.FAILED, "node_restarted", "node restarted", interrupted=True)
        for number, restart, restarts, process, started in run(
            "SELECT number, restart, restarts, process, started FROM job WHERE state = 'running'"
        ).fetchall():
            if process is not None and last_boot == boot:
                processes.append(process)
            if runs_again(Restart.of(restart), restarts, outcome, max_restarts):
                self.requeue(number, outcome)
            else:
                self.finish(number, outcome, None, max(seen or wall, started or 0.0), None, clock)
                ended.append(self.status(number))
        run("UPDATE node SET clock = ?, seen = ?, boot = ?", (clock, wall, boot))
        waiting = [
            Unfinished(number, owner, priority, sequence, Restart.of(restart), restarts, directive, title)
            for number, owner, priority, sequence, restart, restarts, directive, title in run(
                "SELECT number, owner, priority, sequence, restart, restarts, directive, title FROM job "
                "WHERE state = 'queued' ORDER BY sequence"
            )
        ]
        return Recovered(waiting, ended, processes, seen)

    def clock(self) -> float:
        """Seconds that this node's jobs have aged."""
        return float(self._connection.execute("SELECT clock FROM node").fetchone()[0])

    def touch(self, clock: float, wall: float, leased: float = 0.0) -> None:
        """Note that the node runs, and renew the lease for `leased` seconds; its jobs have aged to `clock`."""
        self._connection.execute("UPDATE node SET clock = ?, seen = ?", (clock, wall))
        self.lease.renew(wall, leased)

    # -- submission ----------------------------------------------------------------------------------------------

    def arrive(self, submission: Submission, owner: Owner, wall: float) -> int:
        """Store a job whose payload follows; its sequence number. `wall`: seconds since 1970."""
        return self._insert(submission, owner, None, wall, ARRIVING, 0)

    def add_input(self, sequence: int, data: bytes) -> None:
        """Append to the payload of a job."""
        self._connection.execute("INSERT INTO input VALUES (?, ?)", (sequence, data))

    def complete(self, sequence: int, submission: Submission, owner: Owner, digest: bytes, size: int) -> str | None:
        """Mark the payload of a job as whole, so that the job waits to run.

        Returns the number of the job that the same submission has made before, None if it is new. Raises Conflict.
        """
        existing = self.existing(submission, owner, digest)
        if existing is not None:
            self.discard(sequence)
            return existing
        self._connection.execute(
            "UPDATE job SET state = 'queued', number = ?, key = ?, digest = ?, input_bytes = ? WHERE sequence = ?",
            (submission.number, submission.key, digest, size, sequence),
        )
        return None

    def submit(
        self, submission: Submission, owner: Owner, digest: bytes, payload: bytes, wall: float
    ) -> tuple[str | None, int]:
        """Store a job with its payload: (None, its sequence number), or the number of the one that it is already.

        Raises Conflict.
        """
        existing = self.existing(submission, owner, digest)
        if existing is not None:
            return existing, 0
        sequence = self._insert(submission, owner, digest, wall, JobState.QUEUED, len(payload))
        if payload:
            self.add_input(sequence, payload)
        return None, sequence

    def existing(self, submission: Submission, owner: Owner, digest: bytes) -> str | None:
        """The number of the job that this submission has made before. Raises Conflict."""
        found = self._connection.execute(
            f"SELECT number, owner, key, digest FROM job WHERE (number = ? OR (owner = ? AND key = ?)) AND {_HIDDEN}",
            (submission.number, owner.id, submission.key),
        ).fetchall()
        for number, its_owner, key, its_digest in found:
            if number == submission.number and (its_owner != owner.id or key != submission.key):
                raise Conflict(f"{number} is the number of another job; leave the number to zmesh")
            if its_digest != digest:
                what = f"the key {key!r}" if key is not None else f"the number {number}"
                raise Conflict(
                    f"{what} is that of job {number}, which has another content; give this one a key of its own, or "
                    "remove that job"
                )
            return str(number)
        return None

    def _insert(
        self, submission: Submission, owner: Owner, digest: bytes | None, wall: float, state: str, size: int
    ) -> int:
        hidden = state == ARRIVING
        cursor = self._connection.execute(
            "INSERT INTO job (number, owner, tags, own, key, digest, directive, title, content_type, metadata, "
            "priority, restart, limit_seconds, state, submitted, input_bytes) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                os.urandom(12).hex() if hidden else submission.number,
                owner.id,
                json.dumps(owner.tags),
                owner.own,
                None if hidden else submission.key,
                digest,
                submission.directive,
                submission.title,
                submission.content_type,
                json.dumps(dict(submission.metadata)),
                submission.priority,
                submission.restart,
                submission.seconds,
                state,
                wall,
                size,
            ),
        )
        return int(cursor.lastrowid or 0)

    # -- running -------------------------------------------------------------------------------------------------

    def start(self, number: str, wall: float) -> Task:
        """Mark a job as running. Raises LookupError if it does not wait any more."""
        cursor = self._connection.execute(
            "UPDATE job SET state = 'running', started = ?, ended = NULL, seconds = NULL, attempts = attempts + 1, "
            "attempt_offset = output_bytes, reason = '', code = '', returncode = NULL, process = NULL, "
            "incarnation = (SELECT holder FROM lease) "
            "WHERE number = ? AND state = 'queued'",
            (wall, number),
        )
        if not cursor.rowcount:
            raise LookupError(number)
        row = self._connection.execute(
            "SELECT sequence, number, owner, tags, own, directive, title, content_type, metadata, limit_seconds, "
            "attempts, input_bytes, output_bytes FROM job WHERE number = ?",
            (number,),
        ).fetchone()
        owner = Owner(row[2], tuple(json.loads(row[3])), bool(row[4]))
        return Task(row[0], row[1], owner, row[5], row[6], row[7], json.loads(row[8]), *row[9:])

    def runs_as(self, number: str, process: str) -> None:
        """Note the process of a command, to be killed when its node restarts."""
        self._connection.execute("UPDATE job SET process = ? WHERE number = ?", (process, number))

    def append(self, task: Task, pieces: Iterable[Piece], omitted: int) -> None:
        """Append to the output of a job, and note how many bytes of it were not kept."""
        run = self._connection.execute
        found = run("SELECT sequence FROM job WHERE number = ?", (task.number,)).fetchone()
        if found is None:
            return
        rows = [(found[0], piece.offset, piece.attempt, piece.kind, piece.head, piece.data) for piece in pieces]
        self._connection.executemany("INSERT INTO output VALUES (?, ?, ?, ?, ?, ?)", rows)
        run(
            "UPDATE job SET output_bytes = output_bytes + ?, omitted_bytes = omitted_bytes + ? WHERE sequence = ?",
            (sum(len(row[5]) for row in rows), omitted, found[0]),
        )

    def requeue(self, number: str, outcome: Outcome) -> None:
        """Mark a job that ran as waiting again."""
        self._connection.execute(
            "UPDATE job SET state = 'queued', restarts = restarts + 1, process = NULL, code = ?, reason = ? "
            "WHERE number = ?",
            (outcome.code, f"again after: {outcome.reason}", number),
        )

    def finish(
        self, number: str, outcome: Outcome, returncode: int | None, wall: float, seconds: float | None, clock: float
    ) -> None:
        """Mark a job as ended at `wall` (seconds since 1970), after running for `seconds`."""
        self._connection.execute(
            "UPDATE job SET state = ?, code = ?, reason = ?, returncode = ?, ended = ?, seconds = ?, ended_clock = ?, "
            "process = NULL WHERE number = ?",
            (outcome.state, outcome.code, outcome.reason, returncode, wall, seconds, clock, number),
        )

    def adopt(
        self, job: Unfinished, tags: tuple[str, ...], state: JobState, reason: str, wall: float, output_bytes: int
    ) -> None:
        """Insert a job of a damaged database, of which nothing else is left."""
        self._connection.execute(
            "INSERT OR IGNORE INTO job (number, owner, tags, own, directive, title, content_type, metadata, priority, "
            "restart, state, code, reason, submitted, started, ended, ended_clock, attempts, output_bytes, "
            "incarnation) "
            "SELECT ?, ?, ?, 0, ?, ?, '', '{}', ?, 'never', ?, ?, ?, ?, ?, ?, ?, 1, ?, holder FROM lease",
            (
                job.number,
                job.owner,
                json.dumps(tags),
                job.directive,
                job.title,
                job.priority,
                state,
                "lost" if state is JobState.LOST else "",
                reason,
                wall,
                None if state is JobState.LOST else wall,
                wall if state is JobState.LOST else None,
                0.0 if state is JobState.LOST else None,
                output_bytes,
            ),
        )

    # -- removal -------------------------------------------------------------------------------------------------

    def remove(self, number: str) -> None:
        """Delete a job, its payload and its output."""
        for (sequence,) in self._connection.execute("SELECT sequence FROM job WHERE number = ?", (number,)).fetchall():
            self.discard(sequence)

    def discard(self, sequence: int) -> None:
        """As `remove`, by the sequence number."""
        for statement in (
            "DELETE FROM output WHERE job = ?",
            "DELETE FROM input WHERE job = ?",
            "DELETE FROM job WHERE sequence = ?",
        ):
            self._connection.execute(statement, (sequence,))

    def sweep(self, ended_before: float, max_jobs: int, max_bytes: int, limit: int = 200) -> tuple[list[str], int]:
        """Remove ended jobs: those that ended before `ended_before` on the clock, and the earliest while there are more
        than `max_jobs` or `max_bytes`. At most `limit` jobs; returns their numbers, and the bytes that are left.
        """
        run = self._connection.execute
        count, total = run("SELECT count(*), coalesce(sum(input_bytes + output_bytes), 0) FROM job").fetchone()
        removed = []
        for sequence, number, size, ended in run(
            "SELECT sequence, number, input_bytes + output_bytes, ended_clock FROM job WHERE ended_clock IS NOT NULL "
            "AND state NOT IN ('queued', 'running') ORDER BY ended_clock, sequence LIMIT ?",
            (limit,),
        ).fetchall():
            if ended > ended_before and count <= max_jobs and total <= max_bytes:
                break
            self.discard(sequence)
            removed.append(number)
            count, total = count - 1, total - size
        if removed:
            run("PRAGMA incremental_vacuum(1000)").fetchall()
        return removed, total

    # -- reading -------------------------------------------------------------------------------------------------

    def find(self, prefix: str) -> list[JobStatus]:
        """The jobs whose numbers begin so, two at most."""
        rows = self._connection.execute(
            f"{self._status} WHERE number >= ? AND number < ? AND {_HIDDEN} LIMIT 2", (prefix, f"{prefix}g")
        )
        return [_status_of(row[0]) for row in rows]

    def status(self, number: str) -> JobStatus:
        """The status of a job. Raises LookupError if there is none."""
        for row in self._connection.execute(f"{self._status} WHERE number = ?", (number,)):
            return _status_of(row[0])
        raise LookupError(number)

    def listed(
        self, owner: str | None, states: Iterable[str], before: int | None, limit: int
    ) -> tuple[list[str], int | None]:
        """Jobs, the newest first, as JSON, and the sequence number of the last if there may be more."""
        states = list(states)
        where, values = [_HIDDEN], list[Any]()
        if owner is not None:
            where.append("owner = ?")
            values.append(owner)
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        if before is not None:
            where.append("sequence < ?")
            values.append(before)
        query = self._status.replace("SELECT ", "SELECT sequence, ", 1)
        rows = self._connection.execute(
            f"{query} WHERE {' AND '.join(where)} ORDER BY sequence DESC LIMIT ?", (*values, limit)
        ).fetchall()
        return [row[1] for row in rows], rows[-1][0] if len(rows) == limit else None

    def output(self, number: str, offset: int, after: int, limit: int = 4 * PIECE_BYTES) -> list[Piece]:
        """The pieces of a job's output from an offset on, whose row is `after` another; about `limit` bytes of them."""
        found, size = list[Piece](), 0
        for kind, data, head, at, attempt, row in self._connection.execute(
            "SELECT kind, data, head, offset, attempt, output.rowid FROM output JOIN job ON job = sequence "
            "WHERE number = ? AND output.rowid > ? AND offset >= "
            "(SELECT coalesce(max(offset), 0) FROM output WHERE job = sequence AND offset <= ?) "
            "ORDER BY offset, output.rowid LIMIT 1000",
            (number, after, offset),
        ):
            if at < offset:
                if at + len(data) <= offset:
                    continue
                data, at = data[offset - at :], offset
            found.append(Piece(kind, data, head, at, attempt, row))
            size += len(data)
            if size >= limit:
                break
        return found

    def inputs(self, sequence: int, after: int) -> tuple[bytes, int] | None:
        """The next piece of a job's payload after a row of the table, and its own; None at the end."""
        row = self._connection.execute(
            "SELECT data, rowid FROM input WHERE job = ? AND rowid > ? ORDER BY rowid LIMIT 1", (sequence, after)
        ).fetchone()
        return None if row is None else (row[0], row[1])


def _status_of(text: str) -> JobStatus:
    return JobStatus(*json.loads(text))._checked()
