"""What a process has in memory for all its nodes, in a fork of it."""

import asyncio
import json
import os
import threading
import traceback
import warnings
from collections import Counter

import pytest

from tests.waiting import WITHIN
from zmesh.payloads import spool
from zmesh.runtime.forks import ProcessOrigin
from zmesh.runtime.interrupts import raise_lost_interrupts
from zmesh.runtime.message_ids import new_message_id
from zmesh.runtime.thread_pool import ThreadPool
from zmesh.transport.context import shared


@pytest.fixture
def child():
    """`child(function)` is what the function returns in a fork of this process, by way of JSON."""

    def run(function):
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking where there are threads, as is meant here
            pid = os.fork()
        if pid == 0:
            try:
                os.write(writer, json.dumps(function()).encode())
            except BaseException:
                os.write(writer, json.dumps(traceback.format_exc()).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader) as answer:
            said = answer.read()
        os.waitpid(pid, 0)
        return json.loads(said)

    return run


@pytest.fixture
def held():
    """`held(lock)`: another thread holds the lock until the test is over."""
    over = threading.Event()
    threads = []

    def hold(lock):
        locked = threading.Event()

        def run():
            with lock:
                locked.set()
                over.wait()

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        locked.wait()

    yield hold
    over.set()
    for thread in threads:
        thread.join()


def test_what_was_made_before_a_fork_knows_that_it_is_not_of_the_child(child):
    origin = ProcessOrigin()
    assert origin.is_here
    assert child(lambda: [origin.is_here, ProcessOrigin().is_here, origin.pid, ProcessOrigin().pid == os.getpid()]) == [
        False,
        True,
        os.getpid(),
        True,
    ]
    assert origin.is_here


def test_a_fork_gives_no_message_id_that_its_parent_gives(child):
    new_message_id()
    theirs = child(lambda: [new_message_id().hex() for _ in range(1000)])
    ours = [new_message_id().hex() for _ in range(1000)]
    assert len({*ours, *theirs}) == 2000


def test_a_fork_does_not_count_the_payloads_of_its_parent(child, held):
    before = spool.memory.charge(1000)
    held(spool.memory._lock)

    def count():
        at_first = spool.memory.charge(10)
        spool.memory.release(1000)  # a payload of the parent's is collected as garbage
        return [at_first, spool.memory.charge(10), spool.memory.charge(10)]

    assert child(count) == [10, 10, 20]
    spool.memory._lock = threading.Lock()
    spool.memory.release(1000)
    assert spool.memory.charge(0) == before - 1000


def test_threads_that_were_there_before_a_fork_start_anew_in_the_child(child, held):
    threads = ThreadPool(1, "test")

    async def work():
        return await threads.call(lambda: "done")

    try:
        assert asyncio.run(work()) == "done"
        held(threads._lock)
        assert child(lambda: asyncio.run(work())) == "done"
    finally:
        threads._lock = threading.Lock()
        threads.close()
        threads.join(WITHIN)


def test_a_fork_makes_a_zeromq_context_of_its_own(child):
    async def use():
        context = shared.acquire()
        try:
            return [shared.users, id(context)]
        finally:
            await shared.release()

    async def hold():
        context = shared.acquire()
        try:
            users = shared.users
            assert child(lambda: asyncio.run(use())[0]) == 1
            assert shared.users == users
            assert not context.closed
        finally:
            await shared.release()

    asyncio.run(hold())


def test_ctrl_c_in_a_fork_is_not_given_to_the_loop_of_the_parent(child, monkeypatch):
    told = Counter()
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: told.update(["before"]))

    class Loses:
        def __del__(self):
            raise KeyboardInterrupt

    class Loop:
        def call_soon_threadsafe(self, *arguments):
            told.update(["loop"])

    def lose():
        Loses()
        return dict(told)

    with raise_lost_interrupts(Loop()):
        assert lose() == {"loop": 1}
        assert child(lose) == {"loop": 1, "before": 1}
    assert told == {"loop": 1}
