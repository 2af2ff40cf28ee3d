"""No reference cycles in what a request is made of: it is freed when it is over, and not by the garbage collector."""

import gc

import pytest

from zmesh.testing import Mesh, eventually

COUNT = 20


async def ask(mesh):
    assert (await mesh.request("b", "t:echo", b"x")).readall() == b"x"


async def iterate(mesh):
    async with mesh.stream("b", "t:echo", b"x") as replies:
        async for reply in replies:
            assert reply.payload.readall() == b"x"


async def send(mesh):
    await mesh.send(b"x", "b", "t:echo", expect_response=False)


async def hand_over(mesh):
    ends = []
    mesh.send(b"x", "b", "t:echo", lambda message: ends.append(message.eof))
    await eventually(lambda: ends == [False, True])


@pytest.fixture
async def chain():
    async with Mesh.chain("a", "b") as mesh:
        yield mesh


@pytest.mark.parametrize("way", [ask, iterate, send, hand_over])
async def test_a_request_that_is_over_is_no_garbage(chain, way):
    async def echo(work):
        return work.payload.readall()

    chain["b"].register("t:echo", echo)
    await way(chain["a"])
    gc.collect()
    gc.freeze()  # what was there before, such as a node of another test that is still being taken down
    gc.disable()
    try:
        for _ in range(COUNT):
            await way(chain["a"])
        await eventually(lambda: not len(chain["a"].node.engine.delivery.client))
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = {type(each).__name__ for each in gc.garbage if type(each).__module__.startswith("zmesh")}
    finally:
        gc.set_debug(0)
        gc.enable()
        gc.unfreeze()
        gc.garbage.clear()
    assert not found
