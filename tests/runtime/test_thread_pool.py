import asyncio
import threading
import time
from concurrent.futures import Future
from functools import partial

import pytest

from tests.waiting import WITHIN, until
from zmesh.runtime.thread_pool import ThreadPool, released_slot, wait_in_thread


@pytest.fixture
def make():
    made = []

    def threads(limit):
        made.append(ThreadPool(limit, "pool"))
        return made[-1]

    yield threads
    for pool in made:
        pool.close()
        assert pool.join(WITHIN) == []


def test_jobs_run_in_the_order_of_their_coming(make):
    pool, done = make(1), []
    for number in range(100):
        pool.run(lambda number=number: done.append(number))
    pool.close()
    assert pool.join(WITHIN) == []
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
        assert started.acquire(timeout=90)
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("pool")]
    assert sorted(names) == ["pool-1", "pool-2"]
    release.set()


async def test_an_idle_thread_is_used_again(make, eventually):
    pool = make(10)
    used = set()
    for _ in range(50):
        used.add(await pool.call(threading.get_ident))
        await eventually(lambda: pool._free == len(pool._threads))  # it tells the result before it is idle
    assert len(used) == 1


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


# --- threads that wait ----------------------------------------------------------------------------------------------


def test_a_worker_that_waits_leaves_its_place_to_others_and_takes_it_again(make):
    pool = make(1)
    order, futures = [], [Future() for _ in range(20)]

    def job(index):
        if index + 1 < len(futures):
            pool.run(partial(job, index + 1))
            wait_in_thread(futures[index + 1])
        order.append(index)
        futures[index].set_result(None)

    pool.run(partial(job, 0))
    futures[0].result(WITHIN)
    assert order == list(reversed(range(20)))
    done = Future()
    pool.run(lambda: done.set_result(threading.active_count()))
    done.result(WITHIN)
    assert len(pool._threads) == 1


def test_a_result_that_is_a_timeout_is_raised_as_any_other(make):
    pool = make(1)
    late, seen = Future(), Future()

    def job():
        try:
            wait_in_thread(late)
        except TimeoutError as error:
            seen.set_result(error)

    pool.run(job)
    error = TimeoutError("its own")
    late.set_exception(error)
    assert seen.result(WITHIN) is error


def test_a_thread_of_no_pool_just_waits():
    future = Future()
    future.set_result(1)
    assert wait_in_thread(future) == 1
    with released_slot():
        pass


@pytest.mark.parametrize("limit", [1, 3])
def test_places_that_were_given_up_are_taken_again_and_no_thread_is_left_over(make, limit):
    pool, done = make(limit), []

    def job():
        with released_slot():
            time.sleep(0.001)
        done.append(None)

    for _ in range(60):
        pool.run(job)
    until(lambda: len(done) == 60 and len(pool._threads) <= limit)


def test_a_thread_that_cannot_be_started_leaves_the_job_to_others_or_raises(make, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    pool = make(2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.run(lambda: None)
    first, second, released = Future(), Future(), threading.Event()
    pool.run(lambda: first.set_result(released.wait(WITHIN)))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        pool.run(lambda: second.set_result(None))
    released.set()
    first.result(WITHIN)
    second.result(WITHIN)
