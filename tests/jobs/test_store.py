"""The database of jobs and its thread: what survives, what is grouped, and a full, locked or damaged database."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from zmesh.errors import ConfigError
from zmesh.jobs.database import SLEPT_MOST, Database
from zmesh.jobs.queue import Outcome
from zmesh.jobs.rows import Conflict, Owner, Piece, Task
from zmesh.jobs.states import JobState
from zmesh.jobs.store import RESERVE, Store, StoreError, Trouble
from zmesh.jobs.submission import Submission

ADA = Owner("ada", ("dev",))
MIB = 1024 * 1024


def submission(number: int = 1, **options: object) -> Submission:
    return Submission(number=f"{number:016x}", directive="test:work", title="work", **options)  # type: ignore[arg-type]


def stored(database: Database, number: int = 1, payload: bytes = b"payload", **options: object) -> str:
    given = submission(number, **options)
    database.submit(given, ADA, given.hasher().digest(), payload, 1000.0)
    return given.number


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    stores: list[Store] = []

    async def open_(**options: object) -> Store:
        store = Store(tmp_path / "jobs", "edge", 64 * MIB, **options)  # type: ignore[arg-type]
        await store.open()
        stores.append(store)
        return store

    yield open_
    for store in stores:
        await store.close()


async def test_one_that_could_not_be_opened_holds_nothing_when_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever tries anew would read that another process uses the jobs."""
    release = Store._release

    def late(store: Store) -> None:
        time.sleep(0.05)
        release(store)

    def refuse(*_: object) -> None:
        raise ConfigError("held")

    monkeypatch.setattr(Store, "_release", late)
    monkeypatch.setattr("zmesh.jobs.lease.LeaseTable.take", refuse)
    for _ in range(3):
        with pytest.raises(ConfigError, match="held"):
            await Store(tmp_path / "jobs", "edge", 64 * MIB).open()


def database(folder: Path) -> Database:
    return Database(folder / "jobs.db", "edge", 64 * MIB)


def test_a_job_and_its_output_are_read_as_they_were_stored(tmp_path: Path) -> None:
    jobs = database(tmp_path)
    number = stored(jobs, key="k", metadata={"a": "b"}, priority=3, restart="2", seconds=1.5)
    task = jobs.start(number, 1001.0)
    assert (task.owner, task.directive, task.attempt, dict(task.metadata)) == (ADA, "test:work", 1, {"a": "b"})
    assert task.seconds == 1.5
    first = jobs.inputs(task.sequence, 0)
    assert first is not None
    assert first[0] == b"payload"
    assert jobs.inputs(task.sequence, first[1]) is None
    jobs.append(task, [Piece(1, b"abc", None, 0, 1), Piece(2, b"de", None, 3, 1)], 7)
    jobs.append(task, [Piece(1, b"fgh", None, 5, 1)], 0)
    for offset in range(9):
        pieces = jobs.output(number, offset, 0)
        assert b"".join(piece.data for piece in pieces) == b"abcdefgh"[offset:]
        assert not pieces or pieces[0].offset == offset
    after = jobs.output(number, 0, 0)[0].row
    assert [piece.data for piece in jobs.output(number, 0, after)] == [b"de", b"fgh"]
    jobs.finish(number, Outcome(JobState.DONE), 0, 1002.0, 1.25, 50.0)
    status = jobs.status(number)
    assert (status.state, status.seconds, status.output_bytes, status.omitted_bytes) == (JobState.DONE, 1.25, 8, 7)
    assert status == jobs.find(number[:4])[0]
    with pytest.raises(LookupError):
        jobs.start(number, 1003.0)
    jobs.remove(number)
    assert jobs.find(number) == []
    jobs.close()


def test_the_same_key_with_another_content_is_a_conflict(tmp_path: Path) -> None:
    jobs = database(tmp_path)
    stored(jobs, 1, key="k")
    again = submission(2, key="k")
    assert jobs.existing(again, ADA, again.hasher().digest()) == f"{1:016x}"
    assert jobs.existing(again, Owner("bob"), again.hasher().digest()) is None
    with pytest.raises(Conflict, match="the key 'k'"):
        jobs.existing(again, ADA, b"other")
    with pytest.raises(Conflict, match="number of another job"):
        jobs.existing(submission(1), Owner("bob"), b"")
    jobs.close()


def test_what_ran_when_the_node_died_has_failed_or_waits_again(tmp_path: Path) -> None:
    jobs = database(tmp_path)
    never, again, waits = (stored(jobs, each, restart=when) for each, when in ((1, "never"), (2, "1"), (3, "never")))
    sequence = jobs.arrive(submission(4), ADA, 1000.0)
    jobs.add_input(sequence, b"half of a payload")
    jobs.touch(5.0, 1010.0)
    for number in (never, again):
        jobs.start(number, 1011.0)
        jobs.runs_as(number, "4000000:1")
    jobs.close()
    jobs = database(tmp_path)
    found = jobs.recover("another boot", 1100.0, 100)
    assert [status.shown for status in found.ended] == ["failed: node restarted"]
    assert found.ended[0].ended == 1011.0
    assert [(job.number, job.restarts) for job in found.waiting] == [(again, 1), (waits, 0)]
    assert found.processes == []  # of another boot
    jobs.start(again, 1101.0)
    jobs.runs_as(again, "4000000:1")
    found = jobs.recover("another boot", 1110.0, 100)
    assert [status.id for status in found.ended] == [f"edge/{again}"]
    assert found.processes == ["4000000:1"]
    assert len(jobs.listed(None, (), None, 100)[0]) == 3
    jobs.close()


@pytest.mark.parametrize(("moved", "aged"), [(10.0, 10.0), (-3600.0, 0.0), (10 * 365 * 86400.0, SLEPT_MOST)])
def test_a_clock_that_is_moved_ages_nothing_by_more_than_a_day(tmp_path: Path, moved: float, aged: float) -> None:
    jobs = database(tmp_path)
    jobs.touch(100.0, 1_000_000.0)
    jobs.recover("", 1_000_000.0 + moved, 0)
    assert jobs.clock() == 100.0 + aged
    jobs.close()


def test_what_ended_first_is_removed_first_by_age_number_and_bytes(tmp_path: Path) -> None:
    jobs = database(tmp_path)
    for each in range(1, 11):
        number = stored(jobs, each, payload=bytes(1000))
        if each <= 8:
            jobs.start(number, 0.0)
            jobs.finish(number, Outcome(JobState.DONE), None, 0.0, 0.0, 10.0 * each)
    kept = {f"{each:016x}" for each in range(1, 11)}
    for before, most_jobs, most_bytes, gone in (
        (5.0, 100, 10**6, ()),
        (15.0, 100, 10**6, (1,)),
        (0.0, 8, 10**6, (2,)),
        (0.0, 100, 6500, (3, 4)),
        (1000.0, 0, 0, (5, 6, 7, 8)),
        (1000.0, 0, 0, ()),
    ):
        removed, total = jobs.sweep(before, most_jobs, most_bytes)
        assert removed == [f"{each:016x}" for each in gone]
        kept -= set(removed)
        assert total == 1000 * len(kept)
    assert kept == {f"{each:016x}" for each in (9, 10)}
    jobs.close()


def test_jobs_are_listed_in_pages_the_newest_first(tmp_path: Path) -> None:
    jobs = database(tmp_path)
    for each in range(1, 26):
        stored(jobs, each)
    seen, before = list[str](), None
    while True:
        page, before = jobs.listed("ada", ["queued"], before, 10)
        seen += page
        if before is None:
            break
    assert len(seen) == 25
    assert f"{25:016x}" in seen[0]
    assert jobs.listed("bob", [], None, 10) == ([], None)
    assert jobs.listed(None, ["done"], None, 10) == ([], None)
    jobs.close()


async def test_many_operations_are_one_transaction_and_one_that_fails_undoes_only_itself(opened: Callable) -> None:
    store = await opened()
    numbers = await asyncio.gather(*(store.write(lambda jobs, n=n: stored(jobs, n)) for n in range(1, 101)))
    assert len(set(numbers)) == 100

    def fails(jobs: Database) -> None:
        stored(jobs, 1000)
        raise ValueError("mine")

    writes = [store.write(lambda jobs, n=n: stored(jobs, n)) for n in (101, 102)]
    results = await asyncio.gather(writes[0], store.write(fails), writes[1], return_exceptions=True)
    assert isinstance(results[1], ValueError)
    assert len((await store.read(lambda jobs: jobs.listed(None, (), None, 1000)))[0]) == 102


async def test_another_process_is_kept_out(opened: Callable, tmp_path: Path) -> None:
    store = await opened()
    with pytest.raises(ConfigError, match="another process uses the jobs"):
        await opened()
    await store.close()
    await (await opened()).write(stored)


async def test_a_database_that_is_locked_is_an_error_and_then_goes_on(opened: Callable) -> None:
    store = await opened()
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another program has locked") as caught:
        await store.write(stored)
    assert caught.value.trouble is Trouble.LOCKED
    assert await store.read(lambda jobs: jobs.find("0000")) == []
    other.execute("ROLLBACK")
    other.close()
    await store.write(stored)


async def test_a_damaged_database_is_kept_aside_and_a_new_one_begun(opened: Callable, tmp_path: Path) -> None:
    store = await opened()
    await store.write(stored)
    await store.close()
    content = bytearray(store.path.read_bytes())
    content[100:8000] = os.urandom(7900)
    store.path.write_bytes(content)
    aside: list[Path] = []
    store = await opened(on_damage=aside.append)
    assert await store.read(lambda jobs: jobs.find("0000")) == []
    assert [path.name.startswith("jobs.db.damaged-") for path in aside] == [True]
    assert aside[0].read_bytes()[100:8000] == content[100:8000]
    await store.close()
    store.path.write_bytes(b"no database at all" * 1000)
    store = await opened(on_damage=aside.append)
    await store.write(stored)
    assert len(set(aside)) == 2


async def test_one_that_is_damaged_while_it_is_open_is_kept_aside(opened: Callable) -> None:
    aside: list[Path] = []
    store = await opened(on_damage=aside.append)
    for each in range(1, 200):
        await store.write(lambda jobs, n=each: stored(jobs, n, payload=bytes(5000)))
    await store.read(lambda jobs: jobs._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    content = store.path.read_bytes()
    _overwrite(store.path, content[:4096] + os.urandom(len(content) - 4096))
    await store.read(lambda jobs: jobs._connection.execute("PRAGMA shrink_memory"))
    with pytest.raises(StoreError) as caught:
        for each in range(1, 200):
            await store.read(lambda jobs, n=each: jobs.status(f"{n:016x}"))
    assert caught.value.trouble is Trouble.DAMAGED
    assert aside
    await store.write(stored)


async def test_a_full_database_refuses_and_still_takes_what_is_vital(opened: Callable) -> None:
    """`max_page_count` makes SQLite answer as on a full disk."""
    store = await opened()
    number = await store.write(stored)
    task: Task = await store.write(lambda jobs: jobs.start(number, 0.0))
    await store.read(lambda jobs: jobs._connection.execute("PRAGMA max_page_count = 1").fetchall())
    with pytest.raises(StoreError, match="no room for jobs in .*zmesh job rm") as caught:
        await store.write(lambda jobs: jobs.append(task, [Piece(1, bytes(MIB))], 0))
    assert caught.value.trouble is Trouble.FULL
    assert (store.folder / RESERVE).exists()
    outcome = Outcome(JobState.DONE)
    await store.write(lambda jobs: jobs.finish(number, outcome, 0, 1.0, 1.0, 1.0), vital=True)
    assert (await store.read(lambda jobs: jobs.status(number))).state == JobState.DONE
    with pytest.raises(StoreError):
        await store.write(lambda jobs: jobs.append(task, [Piece(1, bytes(MIB))], 0), vital=True)
    assert not (store.folder / RESERVE).exists()  # it was tried


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounting a small disk needs root")
async def test_on_a_full_disk_the_end_of_a_job_is_stored(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not _run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)):
        pytest.skip("this container may not mount")
    store = Store(disk / "jobs", "edge", 64 * MIB)
    try:
        await store.open()
        number = await store.write(stored)
        task: Task = await store.write(lambda jobs: jobs.start(number, 0.0))
        for _ in range(4):
            await store.write(lambda jobs: jobs.append(task, [Piece(1, bytes(MIB // 4))], 0))
        _fill(disk / "filler")
        with pytest.raises(StoreError) as caught:
            while True:
                await store.write(lambda jobs: jobs.append(task, [Piece(1, bytes(MIB // 4))], 0))
        assert caught.value.trouble is Trouble.FULL
        with pytest.raises(StoreError):
            await store.write(lambda jobs: stored(jobs, 2, payload=bytes(MIB)))
        outcome = Outcome(JobState.FAILED, "remote", "no")
        await store.write(lambda jobs: jobs.finish(number, outcome, 1, 1.0, 1.0, 1.0), vital=True)
        await store.write(lambda jobs: jobs.remove(number), vital=True)
        (disk / "filler").unlink()
        await store.write(lambda jobs: stored(jobs, 3))
        await store.read(store.renew_reserve)
        assert (store.folder / RESERVE).exists()
    finally:
        await store.close()
        assert _run("umount", str(disk))


def _run(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def _overwrite(path: Path, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.write(content)


def _fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


async def test_where_a_damaged_database_can_not_be_kept_aside_its_users_learn_that_and_can_try_again(
    opened: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread goes on; an operation that it does not answer would be waited for in vain."""
    store = await opened()
    os.unlink(store.path)  # as if it was replaced

    def refuse(source: str, target: str) -> None:
        raise OSError(30, "read-only file system")

    store.path.write_bytes(b"another file" * 1000)
    monkeypatch.setattr(os, "replace", refuse)
    async with asyncio.timeout(60):
        with pytest.raises(StoreError, match="can't be used: read-only file system"):
            await store.write(stored)
        monkeypatch.undo()
        await store.write(stored)


async def test_what_comes_after_an_end_of_the_thread_that_nobody_asked_for_is_refused(
    opened: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(self: Store, operations: object) -> None:
        raise SystemExit

    store = await opened()
    monkeypatch.setattr(Store, "_perform", end)
    monkeypatch.setattr(threading, "excepthook", lambda failure: None)
    waiting = [asyncio.ensure_future(store.read(lambda database: None)) for _ in range(2)]
    async with asyncio.timeout(60):
        for each in (*waiting, store.read(lambda database: None)):
            with pytest.raises(StoreError, match="are closed"):
                await each
        assert store._thread is not None
        await asyncio.to_thread(store._thread.join)


async def test_where_no_thread_can_be_started_the_database_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    store = Store(tmp_path, "edge", 64 * MIB)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(StoreError, match="the jobs of node 'edge' can't be used: can't start new thread"):
        await store.open()
    monkeypatch.undo()
    async with asyncio.timeout(60):
        await store.close()
