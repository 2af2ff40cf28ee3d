"""Requests that are written while their replies come: order, half-close, back-pressure, and early ends."""

import asyncio
import contextlib
import tracemalloc

import pytest

import zmesh
from tests.mesh.both_ways import REPLIES, lines, offer, pause, pour, taken
from zmesh.core.delivery.flow_control import CHUNK_OVERHEAD, WINDOW
from zmesh.core.delivery.outbound import SEND_BUFFER
from zmesh.testing import Mesh, eventually

COUNT = 10_000


@pytest.fixture
async def mesh():
    """Nodes `a`, `b` and `c` in a row, over TCP."""
    async with Mesh.chain("a", "b", "c", tcp=True) as mesh:
        yield mesh


async def written(stream, count=COUNT):
    for number in range(count):
        await stream.write(b"%d\n" % number)
    await stream.end()


EXPECTED = [b"%d" % number for number in range(COUNT)]


# --- both ways at once -----------------------------------------------------------------------------------------------


async def test_10_000_small_messages_pass_each_way_at_once(mesh):
    heard = []

    async def chat(work):
        async def listen():
            heard.extend([piece async for piece in work])

        listening = asyncio.create_task(listen())
        for number in range(COUNT):
            yield b"%d\n" % number
        await listening

    offer(mesh, chat)
    async with mesh["a"].stream("c", "c:work", writable=True) as stream:
        writing = asyncio.create_task(written(stream))
        assert lines(await taken(stream)) == EXPECTED
        await writing
    assert lines(heard) == EXPECTED
    assert len(heard) < COUNT // 10, "small writes share chunks"


async def test_a_plain_function_chats_in_its_thread(mesh):
    def chat(work):
        first = work.payload.read1(3)
        yield first
        yield from work

    offer(mesh, chat)
    async with mesh["a"].stream("c", "c:work", "greeting ", writable=True) as stream:
        assert (await anext(stream)).payload.readall() == b"gre"
        assert (await anext(stream)).payload.readall() == b"eting "
        for word in ("one", "two"):
            await stream.write(word)
            assert (await anext(stream)).payload.text() == word
        await stream.end()
        assert await taken(stream) == []


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
async def test_an_isolated_directive_chats_in_its_process(mesh, plain):
    mesh["c"].register("c:work", spell if plain else spell_async, stream=True, isolate=True)
    async with mesh["a"].stream("c", "c:work", writable=True) as stream:
        for word in (b"one", b"two"):
            await stream.write(word)
            assert (await anext(stream)).payload.readall() == word.upper()
        await stream.write(b"reset")
        with pytest.raises(zmesh.Cancelled) as raised:
            await anext(stream)
        assert raised.value.reset_code == 5


def spell(work):
    while piece := work.payload.read1():
        if piece == b"reset":
            work.reset(5)
        yield piece.upper()


async def spell_async(work):
    while piece := await work.read():
        if piece == b"reset":
            work.reset(5)
        yield piece.upper()


async def test_the_first_of_several_writes_goes_out_at_once_and_the_others_together(mesh):
    pieces, go_on = [], asyncio.Event()

    async def gather(work):
        async for piece in work:
            pieces.append(piece)
        await go_on.wait()
        return len(pieces)

    offer(mesh, gather)
    async with mesh["a"].stream("c", "c:work", writable=True) as stream:
        await eventually(lambda: len(mesh["c"].node.serving) == 1)
        before = mesh["a"].node.engine.stats()["waiting_bytes"]
        for number in range(10):
            await stream.write(b"%d" % number)
        assert mesh["a"].node.engine.stats()["waiting_bytes"] == before + 1, "the others wait for the end of the turn"
        await stream.end()
        go_on.set()
        await taken(stream)
    assert pieces == [b"0", b"123456789"]


async def test_a_payload_that_is_given_goes_before_what_is_written(mesh):
    async def source():
        for number in range(3):
            await asyncio.sleep(0)
            yield b"%d " % number

    for payload in (b"0 1 2 ", source()):
        async with mesh["a"].stream("c", "echo:echo", payload, writable=True) as stream:
            await stream.write("three ")
            await stream.end()
            assert await taken(stream) == [b"0 1 2 three "]


async def test_a_write_of_any_size_arrives_whole(mesh):
    data = bytes(range(256)) * 20_000
    async with mesh["a"].stream("c", "digest:sha256", writable=True) as stream:
        await stream.write(data)
        await stream.write(bytearray(data))
        await stream.write(b"")
        await stream.end()
        (digest,) = await taken(stream)
    assert digest == (await mesh["a"].request("c", "digest:sha256", data + data)).readall()


# --- half-close -------------------------------------------------------------------------------------------------------


async def test_a_client_that_has_ended_its_payload_still_takes_replies(mesh):
    async def late(work):
        read = [piece async for piece in work]
        assert await work.read() == b""
        yield b"".join(read)
        yield b"more"

    offer(mesh, late)
    async with mesh["a"].stream("c", "c:work", writable=True) as stream:
        await stream.write("all")
        await stream.end()
        await stream.end()
        assert await taken(stream) == [b"all", b"more"]
        with pytest.raises(RuntimeError, match="after `end`"):
            await stream.write("more")


async def test_a_server_that_ends_first_ends_the_writing_of_its_client(mesh):
    async def early(work):
        yield await work.read()

    offer(mesh, early)
    async with mesh["a"].stream("c", "c:work", "begin", writable=True) as stream:
        assert await taken(stream) == [b"begin"]
        with pytest.raises(zmesh.StreamClosed, match="the work at node 'c' has ended") as raised:
            await stream.write("more")
        assert (raised.value.node, raised.value.message_id) == ("c", stream.message_id)
        await stream.end()
    assert stream.final.code == 0


async def test_a_directive_that_reads_nothing_ends_a_writer_that_waits(mesh):
    async def deaf(work):
        await go_on.wait()

    go_on = asyncio.Event()
    offer(mesh, deaf)
    async with mesh["a"].stream("c", "c:work", writable=True) as stream:
        writing = asyncio.create_task(pour(stream))
        await eventually(lambda: mesh["a"].node.engine.stats()["waiting_bytes"] >= 200_000)
        assert not writing.done()
        go_on.set()
        with pytest.raises(zmesh.StreamClosed):
            await writing
        assert await taken(stream) == []


async def test_a_directive_that_closes_its_payload_has_the_writer_stop_and_goes_on_replying(mesh):
    async def picky(work):
        await work.read()
        work.payload.close()
        await go_on.wait()
        yield b"still here"

    go_on = asyncio.Event()
    offer(mesh, picky)
    async with mesh["a"].stream("c", "c:work", "x", writable=True) as stream:
        with pytest.raises(zmesh.StreamClosed, match="its replies can still be taken"):
            await pour(stream)
        go_on.set()
        assert await taken(stream) == [b"still here"]


async def test_a_writer_hears_of_the_end_behind_replies_that_it_does_not_take(mesh):
    async def chatty(work):
        for _ in range(REPLIES):
            yield bytes(60_000)

    offer(mesh, chatty)
    async with mesh["a"].stream("c", "c:work", writable=True, buffered=False) as stream:
        taking = await anext(stream)
        with pytest.raises(zmesh.StreamClosed):
            await pour(stream)
        size = len(taking.payload)
    assert size


# --- ends that nobody asked for -------------------------------------------------------------------------------------


async def test_leaving_the_block_cancels_work_that_waits_in_read(mesh):
    ended = []

    async def work(work):
        try:
            while await work.read():
                pass
        except asyncio.CancelledError:
            ended.append(work.cancelled)
            raise

    offer(mesh, work)
    async with mesh["a"].stream("c", "c:work", "x", writable=True):
        await eventually(lambda: len(mesh["c"].node.serving) == 1)
    assert ended == [True]
    assert len(mesh["c"].node.serving) == 0


async def test_a_write_that_is_cancelled_while_it_waits_has_written_nothing(mesh):
    pieces, go_on = [], asyncio.Event()

    async def work(work):
        await go_on.wait()
        async for piece in work:
            pieces.append(piece)

    offer(mesh, work)
    size = 0
    async with mesh["a"].stream("c", "c:work", writable=True) as stream:
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.2):
                    await stream.write(b"x" * 100_000)
                size += 100_000
        go_on.set()
        await stream.write(b"end")
        await stream.end()
        await taken(stream)
    assert b"".join(pieces) == b"x" * size + b"end"


async def test_writers_at_both_ends_that_never_read_hold_up_nobody_else(mesh):
    async def work(work):
        while True:
            yield bytes(60_000)

    offer(mesh, work)
    async with mesh["a"].stream("c", "c:work", writable=True, buffered=False, timeout=5.0) as stream:
        await anext(stream)
        writing = asyncio.create_task(pour(stream))
        assert (await mesh["a"].request("c", "echo:echo", b"beside it")).readall() == b"beside it"
        with pytest.raises((zmesh.TimedOut, zmesh.StreamClosed)):
            await writing
    await eventually(lambda: len(mesh["c"].node.serving) == 0)


async def test_readers_at_both_ends_wait_until_the_time_is_up(mesh):
    async def work(work):
        while await work.read():
            yield b"never"

    offer(mesh, work)
    async with mesh["a"].stream("c", "c:work", writable=True, timeout=0.3) as stream:
        with pytest.raises(zmesh.TimedOut):
            await anext(stream)
    await eventually(lambda: len(mesh["c"].node.serving) == 0)


@pytest.mark.parametrize("size", [1, 60_000])
async def test_memory_stays_flat_with_a_reader_that_does_not_read(mesh, size):
    async def work(work):
        await asyncio.Event().wait()

    offer(mesh, work)
    async with mesh["a"].stream("c", "c:work", writable=True) as stream:
        writing = asyncio.create_task(fill(stream, size))
        await eventually(lambda: mesh["a"].node.engine.stats()["waiting_bytes"] > 200_000)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(20):
                await mesh["a"].request("c", "echo:echo", b"beside it")
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert not writing.done()
        assert after - before < 4 * 2**20
        assert mesh["a"].node.engine.stats()["waiting_bytes"] <= 2 * 2**20
        writing.cancel()


async def fill(stream, size):
    while True:
        await stream.write(bytes(size))


async def test_small_replies_that_nobody_takes_are_no_more_than_the_window(mesh):
    given = []

    async def work(work):
        while True:
            yield b"x"
            given.append(1)

    offer(mesh, work)
    async with mesh["a"].stream("c", "c:work", buffered=False) as stream:
        await anext(stream)
        most = (WINDOW + SEND_BUFFER) // (CHUNK_OVERHEAD + 1)
        await eventually(lambda: len(given) >= most)
        await mesh["a"].request("c", "echo:echo", b"beside it")
        assert len(given) < most + 10


# --- how it is opened -------------------------------------------------------------------------------------------------


async def test_only_a_stream_that_was_opened_for_it_can_be_written_to(mesh):
    async with mesh["a"].stream("c", "echo:echo", "x") as stream:
        with pytest.raises(RuntimeError, match="writable=True"):
            await stream.write("y")
        with pytest.raises(RuntimeError, match="writable=True"):
            await stream.end()
        assert await taken(stream) == [b"x"]
    with pytest.raises(RuntimeError, match="inside of the block"):
        await mesh["a"].stream("c", "echo:echo", writable=True).write("y")


async def test_what_is_no_bytes_is_refused_and_the_request_goes_on(mesh):
    async with mesh["a"].stream("c", "echo:stream", writable=True) as stream:
        with pytest.raises(TypeError):
            await stream.write(7)
        await stream.write(memoryview(b"seven"))
        assert (await anext(stream)).payload.readall() == b"seven"


async def test_a_node_writes_to_itself(mesh):
    async with mesh["a"].stream("a", "echo:stream", writable=True) as stream:
        for word in ("one", "two"):
            await stream.write(word)
            assert (await anext(stream)).payload.text() == word
        await stream.end()
        assert await taken(stream) == []


async def test_a_request_that_can_not_be_reached_ends_its_writer(mesh):
    async with mesh["a"].stream("nowhere", "echo:stream", writable=True, route_timeout=0.3) as stream:
        with pytest.raises(zmesh.Unreachable):
            await pour(stream)


async def test_closing_the_node_ends_its_writers():
    async with Mesh.chain("a", "b") as mesh:
        mesh["b"].register("b:pause", pause, stream=True)
        stream = mesh["a"].stream("b", "b:pause", writable=True).send()
        writing = asyncio.create_task(pour(stream))
        await eventually(lambda: mesh["a"].node.engine.stats()["waiting_bytes"] > 100_000)
    with pytest.raises(zmesh.Cancelled):
        await writing
