"""Resets of requests and replies, and the codes that they carry."""

import threading

import pytest

import zmesh
from tests.mesh.both_ways import REPLIES, offer, pause
from zmesh.testing import Mesh, eventually


@pytest.fixture
async def mesh():
    """Nodes `a`, `b` and `c` in a row, over TCP."""
    async with Mesh.chain("a", "b", "c", tcp=True) as mesh:
        yield mesh


# --- resets -----------------------------------------------------------------------------------------------------------


async def test_a_reset_of_the_client_reaches_an_async_directive_with_its_code(mesh):
    seen = []

    async def work(work):
        try:
            while await work.read():
                yield b"got it"
        finally:
            seen.append(work.reset_code)

    offer(mesh, work)
    async with mesh["a"].stream("c", "c:work", "x", writable=True) as stream:
        await anext(stream)
        error = await stream.reset(77)
        assert isinstance(error, zmesh.Cancelled)
        with pytest.raises(zmesh.Cancelled) as raised:
            await stream.write("y")
    assert [*seen, error.reset_code, raised.value.reset_code] == [77, 77, 77]


async def test_a_reset_of_the_client_reaches_a_thread_with_its_code(mesh):
    seen, begun = [], threading.Event()

    def work(work):
        begun.set()
        try:
            for _ in work:
                pass
        except zmesh.Cancelled as error:
            seen.append((error.reset_code, work.reset_code))
            raise

    offer(mesh, work)
    async with mesh["a"].stream("c", "c:work", "x", writable=True) as stream:
        await eventually(begun.is_set)
        await stream.reset(2**32 - 1)
        await eventually(lambda: seen)
    assert seen == [(2**32 - 1, 2**32 - 1)]


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
async def test_a_reset_of_the_directive_reaches_the_client_with_its_code(mesh, plain):
    async def work(work):
        await work.read()
        work.reset(9, "I have heard enough")

    def plain_work(work):
        work.payload.read1()
        work.reset(9, "I have heard enough")

    offer(mesh, plain_work if plain else work)
    async with mesh["a"].stream("c", "c:work", "x", writable=True) as stream:
        with pytest.raises(zmesh.Cancelled, match="node 'c': I have heard enough") as raised:
            await anext(stream)
        assert raised.value.reset_code == 9
        with pytest.raises(zmesh.Cancelled) as raised:
            await stream.write("y")
        assert raised.value.reset_code == 9


async def test_a_reset_of_the_directive_reaches_a_client_that_only_writes(mesh):
    async def work(work):
        for _ in range(REPLIES):
            yield bytes(60_000)
        work.reset(4)

    offer(mesh, work)
    async with mesh["a"].stream("c", "c:work", writable=True, buffered=False) as stream:
        await anext(stream)
        await eventually(lambda: stream.ended)
        with pytest.raises(zmesh.Cancelled) as raised:
            await stream.write("y")
        assert raised.value.reset_code == 4


async def test_a_write_just_after_a_reset_says_that_it_was_here(mesh):
    offer(mesh, pause)
    async with mesh["a"].stream("c", "c:work", "x", writable=True) as stream:
        await eventually(lambda: len(mesh["c"].node.serving) == 1)
        stream.reset(3)
        with pytest.raises(zmesh.Cancelled, match="was cancelled here") as raised:
            await stream.write("y")
        assert raised.value.reset_code == 3


@pytest.mark.parametrize("code", [-1, 2**32])
async def test_a_code_out_of_range_is_refused(mesh, code):
    async with mesh["a"].stream("c", "echo:stream", writable=True) as stream:
        with pytest.raises(zmesh.ConfigError, match="from 0 to 4294967295"):
            stream.reset(code)
        with pytest.raises(TypeError):
            stream.reset("1")
