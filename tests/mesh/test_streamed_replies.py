"""Replies that are handed over while they arrive."""

import asyncio

import pytest

import zmesh
from tests.waiting import nothing_is_kept
from zmesh.core.delivery.congestion import MAX_WINDOW
from zmesh.testing import Mesh

MEGABYTE = 1 << 20


@pytest.fixture
async def chain():
    async with Mesh.chain("a", "b", "z", tcp=True) as mesh:
        yield mesh


async def test_a_streamed_reply_is_there_before_its_end_and_slows_its_sender(chain):
    sent = 0

    async def pieces():
        nonlocal sent
        while sent < 40 * MEGABYTE:
            sent += 50_000
            yield bytes(50_000)

    async def one_big_reply(work):
        return pieces()

    chain["z"].register("z:big", one_big_reply)
    async for reply in chain["a"].stream("z", "z:big", buffered=False).send():
        size = len(await anext(reply.payload))
        await chain["a"].ping_once("z")
        assert sent < MAX_WINDOW + 8 * MEGABYTE
        async for chunk in reply.payload:
            size += len(chunk)
        assert size == sent


async def test_a_streamed_reply_that_is_not_read_to_its_end_is_skipped(chain):
    async def several(work):
        for number in range(4):
            yield bytes([number]) * (3 * MEGABYTE)
        yield b"small"
        yield b""

    chain["z"].register("z:several", several)
    firsts = []
    async for reply in chain["a"].stream("z", "z:several", buffered=False).send():
        async for chunk in reply.payload:
            firsts.append(chunk[:1])
            break
    assert firsts == [b"\x00", b"\x01", b"\x02", b"\x03", b"s"]
    replies = chain["a"].stream("z", "z:several").send()
    assert [len(reply.payload) async for reply in replies] == [3 * MEGABYTE] * 4 + [5, 0]


async def test_a_streamed_reply_whose_sender_fails_raises_where_it_is_read(chain):
    async def breaks():
        yield bytes(200_000)
        raise OSError("the disk is gone")

    async def one_reply(work):
        return breaks()

    chain["z"].register("z:breaks", one_reply)
    with pytest.raises(zmesh.RemoteError, match="node 'z': OSError: the disk is gone"):
        async for reply in chain["a"].stream("z", "z:breaks", buffered=False).send():
            async for _ in reply.payload:
                pass


async def test_a_stream_is_not_awaited_and_its_replies_are_taken_inside_of_its_block(chain):
    replies = chain["a"].stream("z", "echo:echo", b"x")
    with pytest.raises(TypeError):
        await replies
    with pytest.raises(RuntimeError, match="inside of the block of `async with mesh.stream"):
        await anext(replies)
    async with replies:
        assert [reply.payload.text() async for reply in replies] == ["x"]
    with pytest.raises(RuntimeError, match="a stream is entered once"):
        await replies.__aenter__()
    await nothing_is_kept(chain)


async def test_a_stream_that_is_never_entered_sends_nothing(chain):
    async def waits(work):
        await asyncio.Event().wait()

    chain["z"].register("z:waits", waits)
    replies = chain["a"].stream("z", "z:waits")
    assert await replies.cancel() is None
    assert await replies.finished() is None
    assert chain["a"].stats().requests == 0
    await chain["a"].request("z", "echo:echo", b"x")
    assert chain["z"].node.serving.runner.active() == []


async def test_leaving_a_streamed_reply_unread_cancels_its_work(chain):
    ended = []

    async def endless():
        try:
            while True:
                yield bytes(50_000)
        finally:
            ended.append("source")

    async def one_reply(work):
        return endless()

    chain["z"].register("z:endless", one_reply)
    async with chain["a"].stream("z", "z:endless", buffered=False) as request, asyncio.timeout(60):
        async for reply in request:
            await anext(reply.payload)
            break
    with pytest.raises(ValueError, match="the request was cancelled"):
        await anext(reply.payload)
    await nothing_is_kept(chain)
    assert ended == ["source"]
