"""Jobs when things break: nodes that are killed, stopped and frozen, links that are cut, databases that fail."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import zmesh
from zmesh import JobState
from zmesh.errors import NodeOverloaded, NodeRestarted, Unreachable
from zmesh.testing import eventually
from zmesh.testing.process import Process
from zmesh.testing.proxy import Proxy

ALLOW = {"job:*": ["*"], "exec:*": ["*"], "job-admin:*": ["*"]}
FAST = {"heartbeat": 0.2, "allow": ALLOW}
ENDLESS = "trap '' TERM; echo $$; echo begun; while :; do sleep 1; done"


def settings_of(folder: Path, **more: Any) -> dict[str, Any]:
    return {**FAST, "plugins": {"job": {"folder": str(folder), **more}}}


@pytest.fixture
async def desk() -> AsyncIterator[zmesh.Controller]:
    async with zmesh.Controller(node_id="desk", listen=["tcp://127.0.0.1:*"], **FAST) as desk:
        yield desk


@pytest.fixture
async def edge(desk: zmesh.Controller, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts the node `edge`, of which each is the next run of the one before."""
    processes: list[Process] = []

    async def start(**more: Any) -> Process:
        process = await Process.begin("edge", peers=list(desk.listening), **settings_of(tmp_path / "jobs", **more))
        processes.append(process)
        await desk.wait_for("edge", 60)
        return process

    yield start
    for process in processes:
        process.close()


async def begun(job: zmesh.Job) -> int:
    """Wait until the command of a job has written that it has begun; its process id."""
    out = b""
    async for piece in job.output():
        out += piece.data
        if b"begun\n" in out:
            break
    return int(out.split()[0])


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_a_killed_node_says_at_once_that_its_jobs_have_failed(desk: zmesh.Controller, edge: Any) -> None:
    node = await edge(max_running=2)
    script = ["sh", "-c", ENDLESS]
    ran = await desk.submit("edge", script)
    again = await desk.submit("edge", script, restart="on-restart")
    done = await desk.submit("edge", ["echo", "done"])
    waits = await desk.submit("edge", ["echo", "waited"], priority=-1)
    pids = [await begun(job) for job in (ran, again)]
    assert (await waits.status()).state == JobState.QUEUED
    node.kill()
    await edge(max_running=2)
    status = await ran.status()
    assert status.shown == "failed: node restarted"
    assert status.ended is not None
    assert not runs(pids[0])
    with pytest.raises(NodeRestarted, match="node restarted"):
        await ran.result()
    assert (await done.wait()).state == JobState.DONE
    result = await waits.result()
    assert result is not None
    assert result.text() == "waited\n"
    status = await again.status()
    while status.state == JobState.QUEUED:
        status = await again.status()
    assert (status.state, status.attempts) == (JobState.RUNNING, 2)
    await again.cancel()
    assert not runs(pids[1])


async def test_processes_that_outlived_their_node_are_ended_by_its_next_run(desk: zmesh.Controller, edge: Any) -> None:
    node = await edge()
    job = await desk.submit("edge", ["sh", "-c", ENDLESS])
    pid = await begun(job)
    supervisor = parent_of(pid)
    os.kill(supervisor, signal.SIGSTOP)  # it can't end what it has started
    node.kill()
    try:
        assert runs(pid)
        await edge()
        assert (await job.status()).shown == "failed: node restarted"
        assert not runs(pid)
    finally:
        os.kill(supervisor, signal.SIGKILL)


async def test_a_node_that_is_stopped_says_so_and_keeps_what_may_run_again(desk: zmesh.Controller, edge: Any) -> None:
    node = await edge()
    ran = await desk.submit("edge", ["sh", "-c", ENDLESS])
    again = await desk.submit("edge", ["sh", "-c", "echo once; exec sleep 600"], restart="on-restart")
    pid = await begun(ran)
    async for _ in again.output():
        break
    assert await asyncio.to_thread(node.close) == 0
    assert not runs(pid)
    await edge()
    assert (await ran.status()).shown == "failed: node stopped"
    out = b""
    async for piece in again.output():
        out += piece.data
        if piece.attempt == 2:
            break
    assert out == b"once\nonce\n"
    await again.cancel()


async def test_a_failure_is_tried_again_so_many_times(desk: zmesh.Controller, edge: Any, tmp_path: Path) -> None:
    await edge()
    count = tmp_path / "count"
    script = f"echo x >>{count}; [ $(wc -l <{count}) = 2 ] && echo second"
    job = await desk.submit("edge", ["sh", "-c", script], restart=3)
    result = await job.result()
    assert result is not None
    assert result.text() == "second\n"
    assert job.last is not None
    assert job.last.attempts == 2


async def test_a_submission_that_its_node_interrupts_becomes_one_job(desk: zmesh.Controller, edge: Any) -> None:
    node = await edge()
    submissions = [asyncio.create_task(desk.submit("edge", ["echo", str(n)], key=f"k{n}")) for n in range(50)]
    await asyncio.wait(submissions, return_when=asyncio.FIRST_COMPLETED)
    node.kill()
    await edge()
    jobs = await asyncio.gather(*submissions)
    for n, job in enumerate(jobs):
        assert (await desk.submit("edge", ["echo", str(n)], key=f"k{n}")).id == job.id
        await job.wait()
    assert len(await desk.jobs("edge")) == 50


async def test_output_is_followed_through_cut_links_and_a_restart_of_the_follower(
    desk: zmesh.Controller, tmp_path: Path
) -> None:
    listening = {"node_id": "edge", "listen": ["tcp://127.0.0.1:*"], **settings_of(tmp_path)}
    gate = f"{tmp_path}/gate"  # each cut lets a hundred lines through, so that the job does not end before the last cut
    waits = f"[ $((i % 100)) != 99 ] || while [ ! -e {gate}-$i ]; do sleep 0.05; done"
    script = f"for i in $(seq 0 399); do echo line $i; {waits}; sleep 0.01; done"
    async with zmesh.Controller(**listening) as node, Proxy(node.listening[0]) as proxy:
        desk.add_peer(proxy.url)
        await desk.wait_for("edge", 60)
        job = await desk.submit("edge", ["sh", "-c", script])
        out, cuts = b"", 0
        async for piece in job.output(lost_after=None):
            assert piece.offset == len(out)
            out += piece.data
            if out.count(b"\n") == 100 * (cuts + 1):
                proxy.cut(reset=bool(cuts % 2))
                (tmp_path / f"gate-{100 * cuts + 99}").touch()
                cuts += 1
        assert out == b"".join(b"line %d\n" % n for n in range(400))
        assert cuts == 4
        assert job.last is not None
        assert job.last.state == JobState.DONE


async def test_a_frozen_node_is_lost_contact_and_nothing_hangs(desk: zmesh.Controller, edge: Any) -> None:
    node = await edge()
    job = await desk.submit("edge", ["sleep", "600"])
    states = aiter(job.watch())
    while (await anext(states)).state != JobState.RUNNING:
        pass
    os.kill(node.process.pid, signal.SIGSTOP)
    try:
        status = await job.status(timeout=0.5)
        assert status.state == JobState.LOST
        assert re.fullmatch(r"lost contact \d+ s ago", status.reason)
        assert status.directive == "exec:run"
        with pytest.raises(Unreachable, match=r"lost contact \d+ s ago; it may go on"):
            await job.wait(lost_after=0.5)
        unknown = await desk.job(job.id).status(timeout=0.5)
        assert unknown.state == JobState.LOST
        assert unknown.reason.startswith("lost contact")
        assert (await anext(states)).state == JobState.LOST
    finally:
        os.kill(node.process.pid, signal.SIGCONT)
    async for status in states:
        if status.state == JobState.RUNNING:
            break
        assert status.state == JobState.LOST
    assert (await job.cancel()).state == JobState.CANCELLED


async def test_a_copy_of_the_folder_of_a_node_that_runs_leaves_its_commands_alone(
    desk: zmesh.Controller, edge: Any, tmp_path: Path
) -> None:
    await edge()
    job = await desk.submit("edge", ["sh", "-c", ENDLESS])
    pid = await begun(job)
    shutil.copytree(tmp_path / "jobs", tmp_path / "copy")
    async with zmesh.Controller(node_id="two", peers=list(desk.listening), **settings_of(tmp_path / "copy")) as two:
        copied = await two.job(f"two/{job.id.partition('/')[2]}").status()
        assert (copied.state, copied.lease_until) == (JobState.LOST, None)
        assert "it is that of node 'edge' at 20" in copied.reason
        assert runs(pid)
        status = await two.job(job.id).status()
        assert (status.state, status.incarnation) == (JobState.RUNNING, (await two.status("edge")).incarnation)
        assert status.lease_until is not None
    await job.cancel()


async def test_a_frozen_node_whose_jobs_were_taken_over_ends_what_it_runs(
    desk: zmesh.Controller, edge: Any, tmp_path: Path
) -> None:
    node = await edge()
    job = await desk.submit("edge", ["sh", "-c", ENDLESS])
    pid = await begun(job)
    os.kill(node.process.pid, signal.SIGSTOP)
    (tmp_path / "jobs" / "jobs.lock").unlink()
    async with zmesh.Controller(node_id="two", **settings_of(tmp_path / "jobs")) as two:
        with pytest.raises(zmesh.RemoteError, match=f"process {node.process.pid} of node 'edge' uses the jobs in"):
            await two.submit("two", "echo:echo", "a")
        with contextlib.closing(sqlite3.connect(tmp_path / "jobs" / "jobs.db")) as other:
            other.executescript("UPDATE lease SET process = '1:1:another'")  # as in another container
        await two.submit("two", "echo:echo", "a")
        taken = await two.job(f"two/{job.id.partition('/')[2]}").status()
        assert taken.shown == "failed: node restarted"
        os.kill(node.process.pid, signal.SIGCONT)
        await desk.wait_for("edge", 60)
        with pytest.raises(zmesh.RemoteError, match="another process has taken over the jobs of node 'edge'"):
            await job.status(timeout=60)
        await eventually(lambda: not runs(pid))


async def test_a_locked_database_refuses_and_what_ran_is_stored_afterwards(
    desk: zmesh.Controller, edge: Any, tmp_path: Path
) -> None:
    await edge()
    job = await desk.submit("edge", ["sh", "-c", "read line; echo $line"])
    gate = tmp_path / "gate"
    waits = await desk.submit("edge", ["sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.05; done; echo through"])
    await job.wait()
    async for status in waits.watch():
        if status.state == JobState.RUNNING:
            break
    other = sqlite3.connect(tmp_path / "jobs" / "jobs.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(NodeOverloaded, match="another program has locked the jobs of node 'edge'"):
        await desk.submit("edge", ["true"])
    gate.touch()
    assert (await waits.status()).state == JobState.RUNNING  # its output is not stored yet
    other.execute("ROLLBACK")
    other.close()
    result = await waits.result()
    assert result is not None
    assert result.text() == "through\n"


async def test_a_damaged_database_is_named_and_what_runs_goes_on(
    desk: zmesh.Controller, edge: Any, tmp_path: Path
) -> None:
    await edge(max_running=1)
    gate = tmp_path / "gate"
    script = f"echo begun; while [ ! -e {gate} ]; do sleep 0.05; done; echo through"
    runs_on = await desk.submit("edge", ["sh", "-c", script])
    async for _ in runs_on.output():
        break
    waits = await desk.submit("edge", ["true"])
    folder = tmp_path / "jobs"
    log = sqlite3.connect(folder / "jobs.db", isolation_level=None)
    log.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    log.close()
    content = (folder / "jobs.db").read_bytes()
    (folder / "jobs.db").write_bytes(content[:4096] + os.urandom(len(content) - 4096))
    with pytest.raises(NodeOverloaded, match="were damaged, and are kept aside"):
        while True:
            await desk.submit("edge", ["true"])
    assert [path.name.startswith("jobs.db.damaged-") for path in folder.glob("*.damaged-*[0-9Z]")] == [True]
    status = await waits.status()
    while status.state != JobState.LOST:  # it is written into the new one as the next thing
        status = await waits.status()
    assert "jobs.db.damaged-" in status.reason
    gate.touch()
    assert (await runs_on.wait()).state == JobState.DONE
    out = b"".join([piece.data async for piece in runs_on.output(6)])
    assert out == b"through\n"
    assert (await (await desk.submit("edge", ["true"])).wait()).state == JobState.DONE


async def test_a_node_with_an_identity_keeps_jobs_beside_its_keys(desk: zmesh.Controller, tmp_path: Path) -> None:
    from zmesh.trust import init  # here: it is the only one that needs an identity

    state = tmp_path / "state"
    init(name="lab", node_id="edge", state=state)
    async with zmesh.Controller(identity=state, allow=ALLOW) as node:
        job = await node.submit("edge", "echo:echo", "hello")
        assert (await job.result()).text() == "hello"  # type: ignore[union-attr]
    assert (state / "jobs" / "jobs.db").exists()
    assert (state / "jobs").stat().st_mode & 0o077 == 0
    assert (state / "jobs" / "jobs.db").stat().st_mode & 0o077 == 0
    async with zmesh.Controller(identity=state, allow=ALLOW) as node:
        assert (await node.job(job.id).result()).text() == "hello"  # type: ignore[union-attr]


async def test_two_nodes_of_one_folder_are_kept_apart(tmp_path: Path) -> None:
    async with zmesh.Controller(node_id="one", **settings_of(tmp_path)) as one:
        await one.submit("one", "echo:echo", "a")
        async with zmesh.Controller(node_id="two", **settings_of(tmp_path)) as two:
            with pytest.raises(zmesh.RemoteError, match="another process uses the jobs in"):
                await two.submit("two", "echo:echo", "a")
