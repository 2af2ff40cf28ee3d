"""The same done for many nodes, so many at a time."""

import asyncio

import pytest

from zmesh.operate.bounded import Bounded


class Bench:
    """Counts what is under way; each ends when it is released."""

    def __init__(self):
        self.open = self.most = 0
        self.ended = []
        self.release = asyncio.Event()

    async def one(self, node):
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await self.release.wait()
            return node
        finally:
            self.open -= 1
            self.ended.append(node)


async def test_all_are_done_and_no_more_than_the_limit_at_a_time(eventually):
    bench = Bench()

    async def collect():
        return [each async for each in Bounded("abcdefgh", 3, bench.one)]

    collecting = asyncio.ensure_future(collect())
    await eventually(lambda: bench.open == 3)
    bench.release.set()
    assert sorted(await collecting) == list("abcdefgh")
    assert bench.most == 3


async def test_results_come_as_they_are_there(eventually):
    gates = {node: asyncio.Event() for node in "abc"}

    async def one(node):
        await gates[node].wait()
        return node

    found = Bounded("abc", 3, one)
    gates["b"].set()
    assert await anext(found) == "b"
    gates["a"].set()
    assert await anext(found) == "a"
    gates["c"].set()
    assert [each async for each in found] == ["c"]


async def test_leaving_it_early_cancels_what_is_under_way_and_begins_no_more(eventually):
    bench = Bench()
    async with Bounded("abcdef", 2, bench.one) as found:
        waiting = asyncio.ensure_future(anext(found))
        await eventually(lambda: bench.open == 2)
        waiting.cancel()
    assert bench.open == 0
    assert sorted(bench.ended) == ["a", "b"]
    with pytest.raises(StopAsyncIteration):
        await anext(found)


async def test_what_is_raised_ends_it(eventually):
    async def fails(node):
        raise ValueError(node)

    with pytest.raises(ValueError, match="a"):
        [each async for each in Bounded("ab", 1, fails)]
