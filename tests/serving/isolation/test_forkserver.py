"""The process that forks the others: it holds their limits, and sees that nothing is left of them."""

import asyncio
import os
import resource
import signal
import subprocess
import time

import pytest

from tests.payloads.kinds import async_generator, coroutine, every_kind, function, generator
from tests.serving.isolation.descendants import descendants, is_gone
from tests.waiting import WITHIN

MIB = 1024 * 1024


# --- memory and CPU time ------------------------------------------------------------------------------------------


@every_kind
async def test_a_process_that_wants_more_memory_than_it_may_have_is_distinguished(bench, kind):
    def hoard(work):
        return len(bytearray(300 * MIB))

    async def async_hoard(work):
        return hoard(work)

    async def async_yield_hoard(work):
        yield hoard(work)

    def yield_hoard(work):
        kept = []
        while True:
            kept.append(bytes(1000) + b"x")
            if not kept:
                yield

    hoards = {coroutine: async_hoard, function: hoard, async_generator: async_yield_hoard, generator: yield_hoard}
    bench.isolate("test:it", hoards[kind], max_memory_bytes=128 * MIB)
    exchange = await bench.call("test:it")
    assert exchange.error == "the process of test:it ran out of its 128 MiB of memory"
    assert exchange.reason == "remote"


async def test_what_fits_into_the_memory_that_it_may_have_runs(bench):
    bench.isolate("test:it", lambda work: len(bytearray(64 * MIB)), max_memory_bytes=128 * MIB)
    assert (await bench.call("test:it")).replies == [str(64 * MIB).encode()]


@pytest.mark.parametrize("kind", ["plain", "async", "stubborn"])
async def test_a_process_that_uses_up_its_cpu_time_is_stopped(benches, eventually, kind):
    def spin(work):
        if kind == "stubborn":
            signal.signal(signal.SIGXCPU, signal.SIG_IGN)
        while True:
            pass

    async def async_spin(work):
        spin(work)

    bench = benches(isolation={"*": {"grace": 0.0}})
    bench.isolate("test:it", async_spin if kind == "async" else spin, max_cpu_seconds=1)
    message_id = bench.start("test:it")
    exchange = bench.sink[message_id]
    await eventually(lambda: exchange.finished, timeout=WITHIN)  # a second of CPU time may be many on the clock
    await bench.runner.close()
    assert exchange.error == "the process of test:it used up its 1 s of CPU time"


# --- what the system refuses ---------------------------------------------------------------------------------------


async def test_without_a_descriptor_for_a_worker_a_call_ends_at_once_and_a_later_one_runs(bench, spooled, eventually):
    bench.isolate("test:it", function)
    await bench.call("test:it")
    await eventually(lambda: len(descendants()) == 1)
    (fork_server,) = descendants()
    soft, hard = resource.prlimit(fork_server, resource.RLIMIT_NOFILE)
    resource.prlimit(fork_server, resource.RLIMIT_NOFILE, (3, hard))
    for payload in (b"ab", spooled(b"x" * 9 * MIB)):  # which takes a socket, and one that takes a file as well
        exchange = await bench.call("test:it", payload)
        assert exchange.error == "the process of test:it could not be run: Too many open files"
    resource.prlimit(fork_server, resource.RLIMIT_NOFILE, (soft, hard))
    assert (await bench.call("test:it", b"ab")).replies == [b"ba"]
    await eventually(lambda: list(descendants()) == [fork_server])


# --- what is left -------------------------------------------------------------------------------------------------


async def test_workers_die_with_the_fork_server_and_the_next_call_starts_a_new_one(bench, eventually):
    bench.isolate("test:it", lambda work: signal.pause())
    bench.isolate("test:fine", function)
    message_id = bench.start("test:it")
    await eventually(lambda: len(descendants()) == 2)
    pids = descendants()
    os.kill(bench.runner._processes._fork_server._process.pid, signal.SIGKILL)
    exchange = await bench.end(message_id)
    assert exchange.error == "the process of test:it could not be run: its fork server has exited"
    await eventually(lambda: all(is_gone(pid) for pid in pids))
    assert (await bench.call("test:fine", b"ab")).replies == [b"ba"]


async def test_what_a_function_leaves_running_ends_with_it(bench, eventually):
    def leave(work):
        return subprocess.Popen(["sleep", "60"]).pid

    def fork(work):
        pid = os.fork()  # which has the connection to the node, too
        if pid == 0:
            time.sleep(60)
        os._exit(pid % 200 + 1)

    bench.isolate("test:leave", leave)
    bench.isolate("test:fork", fork)
    pid = int((await bench.call("test:leave")).replies[0])
    await eventually(lambda: is_gone(pid))
    assert "ended with exit status" in (await bench.call("test:fork")).error
    await eventually(lambda: len(descendants()) == 1)


async def test_what_has_left_the_session_is_killed_with_the_node_at_the_latest(bench):
    def daemon(work):
        return subprocess.Popen(["sleep", "60"], start_new_session=True).pid

    bench.isolate("test:it", daemon)
    pid = int((await bench.call("test:it")).replies[0])
    assert not is_gone(pid)
    await bench.runner.close()
    assert is_gone(pid)


async def test_no_call_leaves_a_zombie_or_a_descriptor(bench, eventually, spooled):
    bench.isolate("test:it", function)
    bench.isolate("test:crash", lambda work: os._exit(1))
    await bench.call("test:it")
    await eventually(lambda: len(descendants()) == 1)
    (fork_server,) = descendants()

    def opened():
        return len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{fork_server}/fd"))

    before = opened()
    for _ in range(5):
        await asyncio.gather(*(bench.call(name, spooled(b"x" * 9 * MIB)) for name in ("test:it", "test:crash")))
    await eventually(lambda: all(now <= was for now, was in zip(opened(), before, strict=True)))
    await eventually(lambda: list(descendants()) == [fork_server])
