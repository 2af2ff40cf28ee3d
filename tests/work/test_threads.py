import asyncio
import threading

import pytest

from zmesh.threads import Threads


@pytest.fixture
def make():
    made = []

    def threads(limit):
        made.append(Threads(limit, "pool"))
        return made[-1]

    yield threads
    for pool in made:
        pool.close()
        assert pool.join(5.0) == []


def test_jobs_run_in_the_order_of_their_coming(make):
    pool, done = make(1), []
    for number in range(100):
        pool.run(lambda number=number: done.append(number))
    pool.close()
    assert pool.join(5.0) == []
    assert done == list(range(100))


def test_a_thread_starts_when_it_is_needed_and_no_more_than_allowed(make):
    pool = make(2)
    release, started = threading.Event(), threading.Semaphore(0)

    def block():
        started.release()
        release.wait(60)

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pool")]
    for _ in range(5):
        pool.run(block)
    for _ in range(2):
        assert started.acquire(timeout=20)
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("pool")]
    assert sorted(names) == ["pool-1", "pool-2"]
    release.set()


async def test_an_idle_thread_is_used_again(make):
    pool = make(10)
    assert len({await pool.call(threading.get_ident) for _ in range(50)}) < 10


async def test_a_call_gives_back_what_the_function_returns_or_raises(make):
    def fail(error):
        raise error

    pool = make(1)
    assert await pool.call(lambda: 5) == 5
    with pytest.raises(ValueError, match="bad"):
        await pool.call(lambda: fail(ValueError("bad")))
    for error in (StopIteration(1), SystemExit(2), KeyboardInterrupt()):
        with pytest.raises(RuntimeError, match=type(error).__name__):
            await pool.call(lambda error=error: fail(error))


async def test_a_call_that_was_cancelled_is_forgotten(make):
    pool, release = make(1), threading.Event()
    for function in (lambda: release.wait(60), lambda: release.wait(60) and 1 / 0):
        call = asyncio.ensure_future(pool.call(function))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
    release.set()
    assert await pool.call(lambda: "still works") == "still works"


def test_closed_threads_take_no_more_jobs_and_those_that_hang_are_named(make):
    pool, release = make(1), threading.Event()
    pool.run(lambda: release.wait(60))
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.run(print)
    assert pool.join(0.0) == ["pool-1"]
    release.set()


def test_a_loop_that_has_gone_is_no_trouble(make):
    async def leave():
        asyncio.ensure_future(pool.call(lambda: release.wait(60)))  # noqa: RUF006
        await asyncio.sleep(0)

    pool, release = make(1), threading.Event()
    asyncio.run(leave())
    release.set()
