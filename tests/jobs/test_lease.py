"""The lease on a database of jobs: whose it is after a crash, a copy, a restored backup, and without its lock file."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from zmesh.errors import ConfigError
from zmesh.jobs.database import Database
from zmesh.jobs.lease import Finding, Lease, judge
from zmesh.jobs.queue import Outcome
from zmesh.jobs.rows import Owner, Recovered
from zmesh.jobs.states import JobState
from zmesh.jobs.store import FILE, LOCK, Store, StoreError, Trouble
from zmesh.jobs.submission import Submission

MIB = 1024 * 1024
LEASE = Lease("a1", "edge", "17:4:boot", "900", 100.0, 115.0, False)
RUNNING, QUEUED, DONE = f"{1:016x}", f"{2:016x}", f"{3:016x}"


@pytest.mark.parametrize(
    ("lease", "file", "named", "runs", "found"),
    [
        pytest.param(LEASE._replace(holder=""), "900", [], True, Finding.OWN, id="new"),
        pytest.param(LEASE, "900", ["a1"], False, Finding.OWN, id="its node was killed"),
        pytest.param(LEASE, "900", ["a1"], True, Finding.OWN, id="the lock says more than a process"),
        pytest.param(LEASE, "900", ["a1", "b2"], False, Finding.OWN, id="killed while the next run took it"),
        pytest.param(LEASE, "901", ["a1"], True, Finding.COPY, id="the folder of a running node was copied"),
        pytest.param(LEASE, "901", ["a1"], False, Finding.COPY, id="the folder of a killed node was copied"),
        pytest.param(LEASE, "900", ["a1-ended"], False, Finding.COPY, id="one of its last run was written over it"),
        pytest.param(LEASE._replace(released=True), "900", ["a1-ended"], False, Finding.OWN, id="stopped"),
        pytest.param(LEASE._replace(released=True), "901", ["a1"], False, Finding.OWN, id="moved while stopped"),
        pytest.param(LEASE, "900", ["b2"], False, Finding.COPY, id="an earlier one was written over it"),
        pytest.param(LEASE._replace(released=True), "900", ["b2"], False, Finding.COPY, id="an earlier one, released"),
        pytest.param(LEASE, "900", [], True, Finding.HELD, id="the lock file of a running node was removed"),
        pytest.param(LEASE, "900", [], False, Finding.OWN, id="the lock file of a killed node was removed"),
        pytest.param(LEASE, "901", [], True, Finding.COPY, id="the database alone was copied"),
        pytest.param(LEASE._replace(released=True), "901", [], False, Finding.OWN, id="the database alone was moved"),
    ],
)
def test_what_a_database_is(lease: Lease, file: str, named: list[str], runs: bool, found: Finding) -> None:
    assert judge(lease, file, named, lambda process: runs) is found


def fill(database: Database) -> None:
    """A job that runs, one that waits and may run again, and one that is done."""
    for number in (RUNNING, QUEUED, DONE):
        given = Submission(number=number, directive="test:work", title="work", restart="on-restart")
        database.submit(given, Owner("ada"), given.hasher().digest(), b"", 1000.0)
    database.start(RUNNING, 1001.0)
    database.runs_as(RUNNING, f"{os.getpid()}:1")
    database.start(DONE, 1001.0)
    database.finish(DONE, Outcome(JobState.DONE), 0, 1002.0, 1.0, 1.0)


def states(database: Database) -> list[str]:
    return [database.status(number).state for number in (RUNNING, QUEUED, DONE)]


def recover(database: Database) -> Recovered:
    return database.recover("boot", 2000.0, 100)


def backup(of: Path, to: Path) -> None:
    with closing(sqlite3.connect(of)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statement)


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Any]]:
    stores: list[Store] = []

    async def open_(folder: Path, node_id: str = "edge", **options: Any) -> Store:
        store = Store(folder, node_id, 64 * MIB, **options)
        stores.append(store)
        await store.open()
        return store

    yield open_
    for store in stores:
        await store.close()


async def test_of_a_copied_folder_nothing_runs_again_and_what_ran_is_lost(opened: Any, tmp_path: Path) -> None:
    first = await opened(tmp_path / "first", "one")
    await first.write(recover)
    await first.write(fill)
    (tmp_path / "second").mkdir()
    shutil.copy(tmp_path / "first" / LOCK, tmp_path / "second")
    backup(tmp_path / "first" / FILE, tmp_path / "second" / FILE)
    second = await opened(tmp_path / "second", "two")
    found = await second.write(recover)
    assert found.waiting == []
    assert found.processes == []  # which are those of the first
    assert await second.read(states) == ["lost", "lost", "done"]
    status = await second.read(lambda jobs: jobs.status(RUNNING))
    assert "copied or restored from a backup: it is that of node 'one' at 20" in status.reason
    assert await first.read(states) == ["running", "queued", "done"]
    await second.close()
    second = await opened(tmp_path / "second", "two")  # its own by now
    assert (await second.write(recover)).ended == []


@pytest.mark.parametrize("restore", [os.replace, shutil.copyfile], ids=["moved", "copied"])
async def test_what_ran_when_a_backup_was_made_is_lost_when_that_is_restored(
    opened: Any, tmp_path: Path, restore: Callable[[Path, Path], Any]
) -> None:
    store = await opened(tmp_path / "jobs")
    await store.write(recover)
    await store.write(fill)
    backup(tmp_path / "jobs" / FILE, tmp_path / "backup")
    await store.write(lambda jobs: jobs.finish(RUNNING, Outcome(JobState.DONE), 0, 1003.0, 1.0, 1.0))
    await store.close()
    restore(tmp_path / "backup", tmp_path / "jobs" / FILE)
    store = await opened(tmp_path / "jobs")
    await store.write(recover)
    assert await store.read(states) == ["lost", "lost", "done"]


async def test_a_folder_that_is_moved_while_its_node_is_stopped_is_the_same(opened: Any, tmp_path: Path) -> None:
    store = await opened(tmp_path / "jobs")
    await store.write(recover)
    await store.write(fill)
    await store.write(lambda jobs: jobs.finish(RUNNING, Outcome(JobState.DONE), 0, 1003.0, 1.0, 1.0))
    await store.close()
    shutil.copytree(tmp_path / "jobs", tmp_path / "elsewhere")
    store = await opened(tmp_path / "elsewhere")
    found = await store.write(recover)
    assert [job.number for job in found.waiting] == [QUEUED]
    assert await store.read(states) == ["done", "queued", "done"]


async def test_a_database_of_a_node_that_runs_is_refused_without_its_lock_file(opened: Any, tmp_path: Path) -> None:
    store = await opened(tmp_path / "jobs")
    (tmp_path / "jobs" / LOCK).unlink()
    with pytest.raises(ConfigError, match=rf"process {os.getpid()} of node 'edge' uses the jobs in .*lock file was"):
        await opened(tmp_path / "jobs")
    await store.close()
    await opened(tmp_path / "jobs")


async def test_a_node_from_which_the_database_was_taken_reads_and_writes_no_more(opened: Any, tmp_path: Path) -> None:
    first = await opened(tmp_path / "jobs")
    await first.write(fill)
    taken = asyncio.Event()
    first.on_taken = lambda error: taken.set()
    (tmp_path / "jobs" / LOCK).unlink()
    execute(tmp_path / "jobs" / FILE, "UPDATE lease SET process = '1:1:another'")  # in another namespace of processes
    second = await opened(tmp_path / "jobs")
    for operation in (first.read(states), first.write(fill)):
        with pytest.raises(StoreError, match="another process has taken over the jobs of node 'edge'") as caught:
            await operation
        assert caught.value.trouble is Trouble.TAKEN
    await taken.wait()
    await first.close()
    assert await second.read(states) == ["running", "queued", "done"]
    assert not (await second.read(lambda jobs: jobs.lease.read())).released


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
async def test_a_database_that_is_removed_or_replaced_under_its_node_is_noticed(
    opened: Any, tmp_path: Path, replaced: bool
) -> None:
    aside: list[Path] = []
    store = await opened(tmp_path / "jobs", on_damage=aside.append)
    await store.write(fill)
    if replaced:
        backup(tmp_path / "jobs" / FILE, tmp_path / "backup")
        os.replace(tmp_path / "backup", tmp_path / "jobs" / FILE)
    else:
        (tmp_path / "jobs" / FILE).unlink()
    with pytest.raises(StoreError, match="removed or replaced while it runs") as caught:
        await store.write(recover)
    assert caught.value.trouble is Trouble.DAMAGED
    await store.write(fill)
    assert len(aside) == 1
    assert aside[0].exists() == replaced


async def test_a_database_of_before_leases_is_taken_over(opened: Any, tmp_path: Path) -> None:
    store = await opened(tmp_path / "jobs")
    await store.write(fill)
    await store.close()
    before = "DROP TABLE lease; ALTER TABLE job DROP COLUMN incarnation; PRAGMA user_version = 1"
    execute(tmp_path / "jobs" / FILE, before)
    (tmp_path / "jobs" / LOCK).write_bytes(b"")
    store = await opened(tmp_path / "jobs")
    found = await store.write(recover)
    assert [job.number for job in found.waiting] == [RUNNING, QUEUED]


async def test_a_running_job_names_the_run_that_holds_its_lease(opened: Any, tmp_path: Path) -> None:
    store = await opened(tmp_path / "jobs", holder="00000000000000a1")
    await store.write(fill)
    await store.write(lambda jobs: jobs.touch(1.0, 5000.0, 15.0))
    running, queued, done = [await store.read(lambda jobs, n=n: jobs.status(n)) for n in (RUNNING, QUEUED, DONE)]
    assert (running.incarnation, running.lease_until) == ("00000000000000a1", 5015.0)
    assert (queued.incarnation, queued.lease_until) == ("", None)
    assert (done.incarnation, done.lease_until) == ("00000000000000a1", None)
