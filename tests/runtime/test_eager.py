"""Coroutines that are started at once."""

import asyncio
import contextvars
import sys

import pytest

from zmesh.runtime.eager import EagerStarter, Wakeup

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


async def warm(starter: EagerStarter) -> None:
    """Let the starter have its spare task ready."""

    async def nothing() -> None:
        pass

    asyncio.get_running_loop().call_soon(starter.start, nothing(), "warm")
    for _ in range(3):
        await asyncio.sleep(0)


async def start(starter: EagerStarter, coroutine: object) -> asyncio.Task[None] | None:
    """Start it from a callback of the loop, where no task is the current one, as the transport does."""
    await warm(starter)
    loop = asyncio.get_running_loop()
    done: asyncio.Future[asyncio.Task[None] | None] = loop.create_future()

    def callback() -> None:
        try:
            done.set_result(starter.start(coroutine, "test"))  # type: ignore[arg-type]
        except ValueError as error:
            done.set_exception(error)

    loop.call_soon(callback)
    return await done


async def test_a_coroutine_that_never_waits_is_done_at_once_and_needs_no_task() -> None:
    starter = EagerStarter()
    ran: list[str] = []

    async def work() -> None:
        ran.append("ran")

    assert await start(starter, work()) is None
    assert await start(starter, work()) is None
    assert ran == ["ran", "ran"]
    starter.close()


async def test_a_coroutine_that_waits_goes_on_in_one_and_the_same_task_and_context() -> None:
    starter = EagerStarter()
    seen: list[object] = []

    async def work() -> None:
        variable.set("inside")
        seen.append(asyncio.current_task())
        for _ in range(3):
            await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(None, int)
        seen.append(asyncio.current_task())
        assert variable.get() == "inside"

    task = await start(starter, work())
    assert task is not None
    await task
    assert seen == [task, task]
    assert variable.get() == "outside"
    starter.close()


async def test_what_one_coroutine_sets_in_its_context_no_other_one_sees() -> None:
    starter = EagerStarter()
    seen: list[str] = []

    async def work() -> None:
        seen.append(variable.get())
        variable.set("inside")

    await start(starter, work())
    await start(starter, work())
    assert seen == ["outside", "outside"]
    starter.close()


async def test_a_time_out_that_is_entered_in_the_first_steps_works() -> None:
    starter = EagerStarter()
    ended: list[str] = []

    async def work() -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            ended.append("timed out")

    task = await start(starter, work())
    assert task is not None
    await task
    assert ended == ["timed out"]
    starter.close()


async def test_a_task_group_in_the_first_steps_is_cancelled_with_its_task() -> None:
    starter = EagerStarter()
    ended: list[str] = []

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("child")

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    task = await start(starter, work())
    assert task is not None
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["child"]
    starter.close()


async def test_a_task_that_is_cancelled_before_it_could_go_on_is_cancelled() -> None:
    starter = EagerStarter()
    loop = asyncio.get_running_loop()
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    tasks: list[asyncio.Task[None] | None] = []

    def callback() -> None:
        task = starter.start(work(), "test")
        tasks.append(task)
        assert task is not None
        task.cancel()

    await warm(starter)
    loop.call_soon(callback)
    await asyncio.sleep(0)
    (task,) = tasks
    assert task is not None
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cancelled"]
    starter.close()


async def test_what_is_raised_after_a_wait_is_the_exception_of_the_task() -> None:
    starter = EagerStarter()

    async def work() -> None:
        await asyncio.sleep(0)
        raise ValueError("late")

    task = await start(starter, work())
    assert task is not None
    with pytest.raises(ValueError, match="late"):
        await task
    starter.close()


async def test_nothing_is_left_when_the_starter_is_closed() -> None:
    starter = EagerStarter()

    async def work() -> None:
        pass

    await start(starter, work())
    starter.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_from_within_a_task_a_coroutine_is_started_as_a_task_of_its_own() -> None:
    starter = EagerStarter()
    ran: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0)
        ran.append("ran")

    task = starter.start(work(), "test")
    assert task is not None
    await task
    assert ran == ["ran"]
    starter.close()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="asyncio starts tasks eagerly by itself")
async def test_what_a_coroutine_waits_for_is_cancelled_with_it_from_its_first_wait_on() -> None:
    starter = EagerStarter()
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[None] = loop.create_future()

    async def work() -> None:
        await answer

    await warm(starter)

    def begin() -> None:
        task = starter.start(work(), "test")
        assert task is not None
        tasks.append(task)
        task.cancel()

    tasks: list[asyncio.Task[None]] = []
    loop.call_soon(begin)
    await asyncio.sleep(0)
    await asyncio.wait(tasks)
    assert tasks[0].cancelled()
    assert answer.cancelled()
    starter.close()


# --- waking ---------------------------------------------------------------------------------------------------------


async def test_a_task_goes_on_within_the_call_that_wakes_it() -> None:
    steps: list[str] = []
    wakeup = Wakeup()

    async def wait() -> None:
        steps.append("waits")
        await wakeup
        steps.append("woken")

    def wake() -> None:
        wakeup.wake()
        steps.append("called")
        wakeup.wake()  # it goes on already

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(wake)
    await task
    assert steps == ["waits", "woken", "called"]


async def test_a_task_that_another_one_wakes_goes_on_in_the_next_turn() -> None:
    wakeup = Wakeup()
    variable.set("outside")

    async def wait() -> str:
        variable.set("inside")
        await wakeup
        return variable.get()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    wakeup.wake()
    assert not task.done()
    assert await task == "inside"
    assert variable.get() == "outside"


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_a_task_that_waits_to_be_woken_can_be_cancelled(late: bool) -> None:
    wakeup = Wakeup()

    async def wait() -> None:
        await wakeup

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert wakeup.get_loop() is asyncio.get_running_loop()
    if late:
        wakeup.wake()
        assert not wakeup.cancel()
    task.cancel()
    wakeup.wake()
    await asyncio.wait((task,))
    assert task.cancelled()


async def test_nobody_is_woken_where_nobody_waits() -> None:
    wakeup = Wakeup()
    wakeup.wake()
    assert not wakeup.cancel()
