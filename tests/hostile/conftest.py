"""What the tests of hostile members share: a node under attack, members that attack it, and honest ones beside them.

The node under attack runs in a process of its own, so that its memory can be measured. All others live in the process
of the test, each with a link of its own to it.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

import zmesh
from tests.hostile.honesty import Pings
from tests.hostile.victim import Victim
from zmesh.testing.member import Member


@pytest.fixture
def victim() -> Iterator[Callable[..., Victim]]:
    """Starts the node under attack: `victim(limits={...}, max_work=...)`, by its Limits and the settings of Config."""
    started: list[Victim] = []

    def start(**settings: Any) -> Victim:
        started.append(Victim(**settings))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest_asyncio.fixture
async def member() -> AsyncIterator[Callable[..., Any]]:
    """Hostile members: `await member(victim)` is one that has greeted it; `await it.leave()` ends it early."""
    async with AsyncExitStack() as stack:

        async def join(victim: Victim, node: str = "mallory", **options: Any) -> Member:
            return await stack.enter_async_context(Member(node, victim.url, **options))

        yield join


@pytest_asyncio.fixture
async def honest() -> AsyncIterator[Callable[..., Any]]:
    """Honest members: `await honest(victim)` is the Controller of a node that is linked to it."""
    async with AsyncExitStack() as stack:

        async def join(victim: Victim, node: str = "honest", **settings: Any) -> zmesh.Controller:
            mesh = zmesh.Controller(zmesh.Config(node_id=node, peers=[victim.url], **settings))
            return await stack.enter_async_context(mesh)

        yield join


@pytest_asyncio.fixture
async def pings(honest: Callable[..., Any]) -> AsyncIterator[Callable[..., Any]]:
    """Pings of the victim by an honest member: `await pings(victim)` are Pings that go on until the test ends."""
    async with AsyncExitStack() as stack:

        async def start(victim: Victim, **settings: Any) -> Pings:
            return await stack.enter_async_context(Pings(await honest(victim, **settings), "victim"))

        yield start
