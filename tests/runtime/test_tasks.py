"""Time limits whose errors say what was known when they were over, and tasks that nobody asks any more."""

import asyncio
import gc

import pytest

from zmesh.runtime import abandon, described_timeout


async def test_what_is_known_is_taken_down_before_the_block_is_cancelled():
    known = "it waits"
    with pytest.raises(TimeoutError, match="it waits"):
        async with described_timeout(0.01, lambda: known):
            try:
                await asyncio.Event().wait()
            finally:
                known = "it was cancelled"


async def test_a_block_that_ends_in_time_is_not_described():
    described = []
    async with described_timeout(0.01, lambda: described.append(1) or ""):
        pass
    async with described_timeout(None, lambda: described.append(1) or ""):
        later = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.01, later.set_result, None)  # due after the first limit
        await later
    assert described == []


async def test_a_time_out_of_the_block_itself_stays_what_it_is():
    with pytest.raises(TimeoutError, match="another"):
        async with described_timeout(60, lambda: "known"):
            raise TimeoutError("another")


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_of_a_task_that_was_abandoned_nothing_is_printed(turns):
    """Whether it has begun, has failed already or has not."""
    printed = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: printed.append(context))

    async def fails():
        await asyncio.sleep(0)
        raise OSError("refused")

    task = loop.create_task(fails())
    for _ in range(turns):
        await asyncio.sleep(0)
    abandon(task)
    del task
    await asyncio.sleep(0)
    gc.collect()
    assert printed == []
