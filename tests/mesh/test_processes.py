"""Isolated directives over the whole road: asked for across a mesh, cancelled from afar, and outlived by nothing.

(That no descriptor, thread, task or temporary file is left is checked after every test of this folder, by a fixture in
conftest.py.)"""

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import zmesh
import zmesh.sync
from tests.forked import servers
from zmesh.core.delivery.congestion import MAX_WINDOW
from zmesh.testing import Mesh, eventually

MIB = 1024 * 1024


def is_running(pid):
    """Whether it runs; one that has ended and waits for its parent, which may be the machine's own, does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def children():
    """The processes that this one has started, zombies too."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()} - servers()


def slow(work):
    try:
        yield [os.getpid()]
        time.sleep(60)
    finally:
        time.sleep(0.2)
        (Path(work.payload.text()) / "cleaned up").touch()


@pytest.fixture
async def chain():
    """Three nodes in a row. The last one runs what is isolated, and has nothing running when it is closed."""
    grace = {"test:stubborn": {"grace": 0.2}}
    async with Mesh.chain("asks", "between", "runs", tcp=True, isolation=grace) as mesh:
        yield mesh
    await eventually(lambda: not children())


async def test_replies_of_an_isolated_directive_stream_to_a_node_that_is_not_a_neighbour(chain):
    def count(work):
        yield from range(work.payload.json())

    chain["runs"].register("test:count", count, isolate=True)
    replies = chain["asks"].stream("runs", "test:count", 5).send()
    assert [reply.payload.json() async for reply in replies] == [0, 1, 2, 3, 4]


async def test_a_crash_is_an_error_at_the_client_and_the_node_answers_on(chain):
    chain["runs"].register("test:crash", lambda work: signal.raise_signal(signal.SIGSEGV), isolate=True)
    with pytest.raises(zmesh.RemoteError, match=r"^node 'runs': the process of test:crash was killed by SIGSEGV$"):
        await chain["asks"].request("runs", "test:crash")
    assert (await chain["asks"].request("runs", "echo:echo", b"still there")).readall() == b"still there"


async def test_a_client_that_cancels_is_answered_when_the_process_has_ended(chain, tmp_path):
    chain["runs"].register("test:slow", slow, isolate=True)
    request = chain["asks"].stream("runs", "test:slow", str(tmp_path)).send()
    replies = aiter(request)
    (pid,) = (await anext(replies)).payload.json()
    request.cancel()
    with pytest.raises(zmesh.Cancelled):
        await anext(replies)
    assert (tmp_path / "cleaned up").exists()
    assert not is_running(pid)


async def test_a_client_that_leaves_its_loop_early_ends_the_process(chain, tmp_path):
    chain["runs"].register("test:slow", slow, isolate=True)
    request = chain["asks"].stream("runs", "test:slow", str(tmp_path))
    async with request as replies:
        (pid,) = (await anext(replies)).payload.json()
    await eventually(lambda: request.ended)
    assert (tmp_path / "cleaned up").exists()
    assert not is_running(pid)


async def test_a_task_that_is_cancelled_while_it_waits_ends_the_process(chain, tmp_path):
    chain["runs"].register("test:slow", slow, isolate=True)
    request = chain["asks"].stream("runs", "test:slow", str(tmp_path)).send()
    replies = aiter(request)
    (pid,) = (await anext(replies)).payload.json()
    waiting = asyncio.create_task(anext(replies))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await eventually(lambda: request.ended)
    assert (tmp_path / "cleaned up").exists()
    assert not is_running(pid)


async def test_the_deadline_of_a_request_ends_the_process(chain):
    def stubborn(work):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        yield [os.getpid()]
        while True:
            time.sleep(60)

    chain["runs"].register("test:stubborn", stubborn, isolate=True)
    pids = []
    for timeout in (3.0, 9.0, 27.0):
        with pytest.raises(zmesh.TimedOut):
            async for reply in chain["asks"].stream("runs", "test:stubborn", timeout=timeout).send():
                pids += reply.payload.json()
        if pids:  # else it was over before the process had begun
            break
    await eventually(lambda: not is_running(pids[0]))


async def test_closing_a_node_in_the_middle_ends_its_processes_and_their_children():
    def busy(work):
        child = subprocess.Popen(["sleep", "60"])
        yield [os.getpid(), child.pid]
        child.wait()

    async with Mesh.chain("asks", "runs", tcp=True) as mesh:
        mesh["runs"].register("test:busy", busy, isolate=True)
        replies = [aiter(mesh["asks"].stream("runs", "test:busy").send()) for _ in range(3)]
        pids = [pid for each in replies for pid in (await anext(each)).payload.json()]
        assert all(map(is_running, pids))
        await mesh["runs"].close()
        assert not children()
        await eventually(lambda: not any(map(is_running, pids)))
        for each in replies:
            with pytest.raises(zmesh.Cancelled):
                await anext(each)


async def test_a_program_without_asyncio_can_offer_isolated_directives():
    def program():
        with zmesh.sync.Controller(zmesh.Config(node_id="it")) as mesh:
            mesh.register("test:pid", lambda work: os.getpid(), isolate=True, max_cpu_seconds=60)
            return mesh.request("it", "test:pid").json()

    assert await asyncio.to_thread(program) != os.getpid()


WORKER = """
import os, signal, subprocess, time

def stubborn(work):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "60"])
    yield [os.getpid(), os.getppid(), child.pid, work.payload.name]
    while True:
        time.sleep(60)

def digest(work):
    return hashlib.sha256(work.payload.readall() if work.config else b"".join(work.payload)).hexdigest()

def back(work):
    return work.payload

def parts(work):
    for number in range(work.payload.json()):
        yield bytes(1 << 20)

async def offer(mesh):
    for function in (stubborn, digest, back, parts):
        mesh.register(f"test:{function.__name__}", function, isolate=True)
    mesh.register("test:stream_digest", digest, isolate=True, stream=True)
    mesh.register("test:stream_back", back, isolate=True, stream=True)
"""


async def test_a_node_that_is_killed_leaves_no_process_and_no_file_behind(process, tmp_path):
    worker = await process("runs", more=WORKER, spool_dir=str(tmp_path))
    await worker.ask("offer(mesh)")
    async with zmesh.Controller(zmesh.Config(node_id="asks", peers=worker.listening)) as mesh:
        replies = aiter(mesh.stream("runs", "test:stubborn", bytes(9 * MIB)).send())
        *pids, name = (await anext(replies)).payload.json()
        assert all(map(is_running, pids))
        assert os.access(name, os.F_OK)
        worker.kill()
        await eventually(lambda: not any(map(is_running, pids)))
        await eventually(lambda: not os.access(name, os.F_OK))
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("streaming", ["", "stream_"])
async def test_large_payloads_pass_through_a_process_in_both_directions_with_flat_memory_at_its_node(
    process, tmp_path, streaming
):
    worker = await process("runs", more=WORKER, spool_dir=str(tmp_path))
    await worker.ask("offer(mesh)")
    big = tmp_path / "big"
    page = os.urandom(MIB)
    with big.open("wb") as file:
        for _ in range(128):
            file.write(page)
    expected = hashlib.sha256(page * 128).hexdigest()
    async with zmesh.Controller(zmesh.Config(node_id="asks", peers=worker.listening, spool_dir=str(tmp_path))) as mesh:
        await mesh.request("runs", f"test:{streaming}digest", b"warm")
        before = worker.memory("VmHWM")
        digest = await mesh.request("runs", f"test:{streaming}digest", big)
        assert digest.text() == expected
        back = await mesh.request("runs", f"test:{streaming}back", big)
        found = hashlib.sha256()
        for chunk in back:
            found.update(chunk)
        back.close()
        assert found.hexdigest() == expected
        assert worker.memory("VmHWM") - before < 2 * MAX_WINDOW + 32 * MIB


async def test_a_client_that_reads_slowly_slows_the_process(process):
    worker = await process("runs", more=WORKER)
    await worker.ask("offer(mesh)")
    async with zmesh.Controller(zmesh.Config(node_id="asks", peers=worker.listening)) as mesh:
        await mesh.request("runs", "test:digest", b"warm")
        before = worker.memory("VmHWM")
        count = 0
        async for reply in mesh.stream("runs", "test:parts", 100).send():
            count += len(reply.payload)
            await asyncio.sleep(0.002)
        assert count == 100 * MIB
        assert worker.memory("VmHWM") - before < 2 * MAX_WINDOW + 32 * MIB


def test_an_import_of_zmesh_loads_nothing_of_what_isolation_needs():
    script = "import zmesh, sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=180, check=True)
    assert {
        "cloudpickle",
        "zmesh.serving.isolation.worker",
        "zmesh.serving.isolation.forkserver",
        "zmesh.serving.isolation.processes",
    }.isdisjoint(done.stdout.split())
