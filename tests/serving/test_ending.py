"""How work ends that does not end by itself: cancelled, past its deadline, or closed with the node."""

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.payloads.kinds import KINDS, async_generator, coroutine, every_kind, function, generator
from tests.waiting import WITHIN
from zmesh.payloads.payload import Payload
from zmesh.payloads.source import Source
from zmesh.payloads.streamed import StreamedPayload
from zmesh.serving import runner as runner_module
from zmesh.serving.directives import Directives
from zmesh.serving.runner import Runner
from zmesh.serving.work import Work

FOREVER = 60.0


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("zmesh")]


# --- cancelling ---------------------------------------------------------------------------------------------------


async def test_a_coroutine_is_cancelled_where_it_waits(bench):
    async def wait(work):
        try:
            await asyncio.sleep(FOREVER)
        finally:
            seen.append(work.cancelled)

    seen = []
    message_id = bench.start("test:it", function=wait)
    await asyncio.sleep(0)
    bench.runner.cancel(message_id)
    bench.runner.cancel(message_id)
    exchange = await bench.end(message_id)
    assert (exchange.reason, exchange.error) == ("cancelled", "test:it was cancelled")
    assert seen == [True]


async def test_a_coroutine_may_take_its_time_to_clean_up(bench):
    cleaned = asyncio.Event()

    async def wait(work):
        try:
            await asyncio.sleep(FOREVER)
        finally:
            await cleaned.wait()

    message_id = bench.start("test:it", function=wait)
    await asyncio.sleep(0)
    for _ in range(3):
        bench.runner.cancel(message_id)
        await asyncio.sleep(0)
    assert not bench.sink[message_id].finished
    assert len(bench.runner.active()) == 1
    cleaned.set()
    assert (await bench.end(message_id)).reason == "cancelled"


@every_kind
async def test_work_that_is_cancelled_as_soon_as_it_is_started_ends_once(bench, kind):
    message_id = bench.start("test:it", function=kind)
    bench.runner.cancel(message_id)
    exchange = await bench.end(message_id)
    # where tasks start eagerly, what never waits is over before anybody can cancel it
    assert exchange.reason == ("cancelled" if sys.version_info < (3, 12) or kind in (function, generator) else None)
    assert bench.runner.active() == []


async def test_a_coroutine_may_cancel_itself_in_its_first_step(bench):
    async def cancel_me(work):
        bench.runner.cancel(work.message_id)
        await asyncio.sleep(FOREVER)

    assert (await bench.call("test:it", function=cancel_me)).reason == "cancelled"


async def test_what_a_cancelled_work_still_returns_is_thrown_away(bench, eventually):
    class Returned(Source):
        async def read(self, limit):
            raise AssertionError("nobody wants it")

        def close(self):
            closed.append(True)

    async def stubborn(work):
        try:
            await asyncio.sleep(FOREVER)
        except asyncio.CancelledError:
            return Returned()

    def slow(work):
        begun.set()
        while not work.cancelled:
            pause.wait(0.001)
        return Returned()

    closed = []
    begun, pause = threading.Event(), threading.Event()
    for kind in (stubborn, slow):
        message_id = bench.start(f"test:{kind.__name__}", function=kind)
        await asyncio.sleep(0)
        await eventually(lambda kind=kind: kind is stubborn or begun.is_set())  # else it never runs
        bench.runner.cancel(message_id)
        exchange = await bench.end(message_id)
        assert exchange.reason == "cancelled"
        assert exchange.replies == []
    assert closed == [True, True]


async def test_a_task_that_somebody_else_cancels_ends_as_cancelled(bench):
    async def wait(work):
        tasks.append(asyncio.current_task())
        await asyncio.sleep(FOREVER)

    tasks = []
    message_id = bench.start("test:it", function=wait)
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert (await bench.end(message_id)).reason == "cancelled"


async def test_an_async_generator_is_closed_when_it_is_cancelled(bench, eventually):
    async def values(work):
        try:
            yield b"first"
            await asyncio.sleep(FOREVER)
        finally:
            await asyncio.sleep(0)
            closed.append(where)

    closed = []
    for where in ("waiting itself", "waiting for room"):
        bench.sink.room.set() if where == "waiting itself" else bench.sink.room.clear()
        message_id = bench.start(f"test:{where[-4:]}", function=values)
        exchange = bench.sink[message_id]
        await eventually(lambda exchange=exchange: exchange.replies or exchange.handing_over)
        bench.runner.cancel(message_id)
        assert (await bench.end(message_id)).reason == "cancelled"
    assert closed == ["waiting itself", "waiting for room"]


async def test_a_thread_sees_that_it_is_cancelled(bench, eventually):
    def poll(work):
        started.set()
        while True:
            work.raise_if_cancelled()
            pause.wait(0.001)

    started, pause = threading.Event(), threading.Event()
    message_id = bench.start("test:it", function=poll)
    await eventually(started.is_set)
    assert bench.sink[message_id].finished is False
    bench.runner.cancel(message_id)
    exchange = await bench.end(message_id)
    assert (exchange.reason, exchange.error) == ("cancelled", "test:it was cancelled")


async def test_a_thread_that_waits_for_room_is_released_when_it_is_cancelled(bench, eventually):
    def values(work):
        try:
            yield b"first"
            yield b"second"
        except GeneratorExit:
            closed.append(True)
            raise

    closed = []
    bench.sink.room.clear()
    message_id = bench.start("test:it", function=values)
    await eventually(lambda: bench.sink[message_id].handing_over)
    bench.runner.cancel(message_id)
    exchange = await bench.end(message_id)
    assert exchange.reason == "cancelled"
    assert exchange.replies == []
    assert closed == [True]


@pytest.mark.parametrize("kind", [async_generator, generator])
async def test_work_that_is_cancelled_by_its_own_reply_ends(bench, kind):
    async def reply(message_id, payload):
        bench.runner.cancel(message_id)
        await asyncio.sleep(FOREVER)

    bench.sink.reply = reply
    assert (await bench.call("test:it", function=kind)).reason == "cancelled"


async def test_a_thread_that_waits_for_a_chunk_is_released_when_it_is_cancelled(bench, eventually):
    def read(work):
        started.set()
        return work.payload.read()

    started = threading.Event()
    message_id = bench.start("test:it", StreamedPayload(), function=read, stream=True)
    await eventually(started.is_set)
    bench.runner.cancel(message_id)
    assert (await bench.end(message_id)).reason == "cancelled"


async def test_a_generator_that_ignores_its_closing_ends_as_cancelled_all_the_same(bench, eventually):
    def stubborn(work):
        try:
            while True:
                yield b"again"
        except GeneratorExit:
            yield b"once more"

    message_id = bench.start("test:it", function=stubborn)
    await eventually(lambda: bench.sink[message_id].replies)
    bench.runner.cancel(message_id)
    assert (await bench.end(message_id)).reason == "cancelled"


async def test_work_that_waits_for_a_thread_is_cancelled_at_once_and_never_runs(benches, eventually):
    bench = benches(max_workers=1)
    release = threading.Event()
    ran = []

    def block(work):
        ran.append(work.message_id)
        release.wait(FOREVER)

    first, second, third = (bench.start("test:it", function=block), bench.start("test:it"), bench.start("test:it"))
    await eventually(lambda: ran)
    bench.runner.cancel(second)
    assert bench.sink[second].finished
    assert [work["id"] for work in bench.runner.active()] == [int(first, 16), int(third, 16)]
    release.set()
    assert (await bench.end(third)).reason is None
    assert ran == [first, third]
    assert (await bench.end(second)).reason == "cancelled"


async def test_no_more_threads_run_than_are_allowed(benches, eventually):
    bench = benches(max_workers=3)
    release = threading.Event()
    running = []

    def block(work):
        running.append(threading.current_thread().name)
        release.wait(FOREVER)

    ids = [bench.start("test:it", function=block), *(bench.start("test:it") for _ in range(9))]
    await eventually(lambda: len(running) == 3)
    assert len(threads()) == 3
    release.set()
    for message_id in ids:
        assert (await bench.end(message_id)).reason is None
    assert len(set(running)) == 3


async def test_cancelling_what_is_unknown_or_over_is_harmless(bench):
    bench.runner.cancel("0" * 32)
    message_id = bench.start("test:it", function=coroutine)
    assert (await bench.end(message_id)).reason is None
    bench.runner.cancel(message_id)


@every_kind
async def test_the_deadline_stops_the_work(bench, kind):
    async def as_coroutine(work):
        await asyncio.sleep(FOREVER)

    def as_function(work):
        while not work.cancelled:
            pause.wait(0.001)

    async def as_async_generator(work):
        yield b"first"
        await asyncio.sleep(FOREVER)

    def as_generator(work):
        while True:
            yield b"again"

    pause = threading.Event()
    slow = dict(zip(KINDS, [as_coroutine, as_function, as_async_generator, as_generator], strict=True))
    deadline = asyncio.get_running_loop().time() + 0.02
    exchange = await bench.call("test:it", function=slow[kind], deadline=deadline)
    assert (exchange.reason, exchange.error) == ("timed_out", "test:it did not end before its deadline")


async def test_a_deadline_that_is_not_reached_changes_nothing(bench):
    deadline = asyncio.get_running_loop().time() + FOREVER
    assert (await bench.call("test:it", b"ab", function=function, deadline=deadline)).replies == [b"ba"]


# --- closing ------------------------------------------------------------------------------------------------------


async def test_closing_cancels_everything_and_leaves_no_task_and_no_thread(bench, eventually):
    async def as_coroutine(work):
        await asyncio.sleep(FOREVER)

    def as_function(work):
        started.set()
        while not work.cancelled:
            pause.wait(0.001)

    async def as_async_generator(work):
        yield b"first"
        await asyncio.sleep(FOREVER)

    def as_generator(work):
        while True:
            yield b"again"

    started, pause = threading.Event(), threading.Event()
    kinds = (as_coroutine, as_function, as_async_generator, as_generator)
    ids = [bench.start(f"test:{kind.__name__}", function=kind) for kind in kinds]
    await eventually(started.is_set)
    await bench.runner.close()
    assert [bench.sink[message_id].reason for message_id in ids] == ["cancelled"] * 4
    assert bench.runner.active() == []
    assert threads() == []
    assert len(asyncio.all_tasks()) == 1
    await bench.runner.close()


async def test_closing_twice_at_a_time_ends_both_times(bench):
    async def slow_to_end(work):
        try:
            await asyncio.sleep(FOREVER)
        finally:
            await asyncio.sleep(0.01)

    bench.start("test:it", function=slow_to_end)
    await asyncio.sleep(0)
    async with asyncio.timeout(WITHIN):
        await asyncio.gather(bench.runner.close(), bench.runner.close())


async def test_a_closed_table_takes_no_more_work(bench):
    bench.directives.register("test:it", coroutine)
    await bench.runner.close()
    exchange = await bench.call("test:it")
    assert (exchange.reason, exchange.error) == (
        "cancelled",
        "the node is closing; send it again when it is back, or to another",
    )


async def test_what_does_not_end_is_named_finished_and_left_behind(bench, monkeypatch, caplog, eventually):
    monkeypatch.setattr(runner_module, "CLOSE_WITHIN", 0.05)
    begun, release, released = threading.Event(), threading.Event(), asyncio.Event()

    def deaf(work):
        begun.set()
        release.wait(FOREVER)
        return b"too late"

    async def stubborn(work):
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                pass

    ids = [bench.start("test:deaf", function=deaf), bench.start("test:stubborn", function=stubborn)]
    await eventually(begun.is_set)
    await asyncio.sleep(0)
    await bench.runner.close()
    assert [bench.sink[message_id].reason for message_id in ids] == ["cancelled", "cancelled"]
    assert "test:deaf for ctl did not end" in caplog.text
    assert "in the thread zmesh-work-1" in caplog.text
    assert "test:stubborn for ctl did not end" in caplog.text
    release.set()
    released.set()
    await eventually(lambda: not threads())


def test_a_thread_left_behind_does_not_keep_the_program_from_ending():
    program = """
import asyncio, time
from zmesh.serving import runner
from zmesh.serving import runner as runner_module
from zmesh.serving.directives import Directives
from zmesh.payloads.payload import Payload
from zmesh.serving.work import Work

class Request:
    def finish(self, body=None, *, reason=None, error=None, reset_code=None):
        print(reason)

async def main():
    runner.CLOSE_WITHIN = 0.05
    directives = Directives()
    directives.register("test:deaf", lambda work: time.sleep(600))
    table = runner.Runner(directives, max_workers=1, max_work=1)
    table.start(Work("0" * 32, "test:deaf", "ctl", {}, Payload(), {}), Request())
    while not any(running.thread for running in table._active.values()):
        await asyncio.sleep(0)
    await table.close()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=WITHIN, check=True)
    assert done.stdout == "cancelled\n"


def test_a_loop_that_ends_without_closing_harms_nothing(eventually):
    release = threading.Event()

    class Request:
        async def reply(self, body):
            await asyncio.sleep(FOREVER)

        def finish(self, body=None, *, reason=None, error=None, reset_code=None):
            ended.append(reason)

    def late(work):
        started.set()
        release.wait(FOREVER)
        yield b"nobody hears this"

    async def main():
        directives = Directives()
        directives.register("test:late", late)
        directives.register("test:wait", wait)
        runner = Runner(directives, max_workers=1, max_work=10)
        runner.start(Work("0" * 32, "test:late", "ctl", {}, Payload(), {}), Request())
        runner.start(Work("1" * 32, "test:wait", "ctl", {}, Payload(), {}), Request())
        await eventually(started.is_set)
        return runner

    async def wait(work):
        await asyncio.sleep(FOREVER)

    ended, started = [], threading.Event()
    runner = asyncio.run(main())
    assert ended == ["cancelled"]
    release.set()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(runner._threads.close).result()
        assert pool.submit(runner._threads.join, 5.0).result() == []


async def test_plugins_with_a_close_are_closed_with_the_node_and_one_that_fails_is_logged(bench, install, caplog):
    install("closing", {"closing_one.py": CLOSING, "closing_two.py": CLOSING}, {"zmesh.plugins": CLOSING_POINTS})
    bench.directives.discover()
    assert (await bench.call("one:act")).replies == [b"acted"]
    import closing_one
    import closing_two

    closing_one.fail = True
    await bench.runner.close()
    assert (closing_one.closed, closing_two.closed) == (1, 1)
    assert "failed to close" in caplog.text


CLOSING = """
from zmesh.serving.directives import directive

closed, fail = 0, False

@directive
async def act(work):
    return "acted"

async def close():
    global closed
    closed += 1
    if fail:
        raise ValueError("broken")
"""
CLOSING_POINTS = ["one = closing_one", "two = closing_two"]
