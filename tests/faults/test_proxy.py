"""The proxy that the other tests here put between nodes."""

import asyncio
import time

import pytest

from zmesh.testing import eventually
from zmesh.testing.proxy import IN_FLIGHT_BYTES, Proxy

BLOCK = bytes(range(256)) * 256


@pytest.fixture
async def echo():
    """A server that sends back what it gets; gives its URL, and how many connections it has."""

    class Server:
        url = ""
        open = 0

    async def talk(reader, writer):
        Server.open += 1
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except ConnectionError:
            pass
        finally:
            writer.close()
            Server.open -= 1

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    Server.url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield Server
    server.close()
    await eventually(lambda: not Server.open)
    await server.wait_closed()


@pytest.fixture
async def proxy(echo):
    before = asyncio.all_tasks()
    async with Proxy(echo.url) as proxy:
        yield proxy
    ours = before | {asyncio.current_task()}
    await eventually(lambda: asyncio.all_tasks() <= ours)


@pytest.fixture
async def dial(proxy):
    """Connects to the proxy: a reader and a writer."""
    writers = []

    async def connect():
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.transport.abort()


async def send_and_hear(reader, writer, data):
    writer.write(data)
    return await asyncio.wait_for(reader.readexactly(len(data)), 60)


async def test_bytes_pass_both_ways_untouched(proxy, dial):
    assert await send_and_hear(*await dial(), BLOCK * 4) == BLOCK * 4
    assert proxy.forth.passed == proxy.back.passed == 4 * len(BLOCK)
    assert proxy.connections == 1


async def test_an_end_of_file_passes_and_what_comes_after_it_on_the_other_lane_as_well(dial, echo):
    reader, writer = await dial()
    writer.write(BLOCK)
    writer.write_eof()
    assert await reader.read(-1) == BLOCK
    await eventually(lambda: not echo.open)


async def test_a_delay_holds_in_each_direction_and_keeps_the_order(proxy, dial):
    ends = await dial()
    await send_and_hear(*ends, b"warm")
    proxy.slow(delay=0.05)
    started = time.monotonic()
    assert await send_and_hear(*ends, BLOCK) == BLOCK
    assert time.monotonic() - started >= 0.1


async def test_a_throttled_lane_lets_no_more_through_than_its_rate(proxy, dial):
    ends = await dial()
    await send_and_hear(*ends, b"warm")
    proxy.forth.rate = 2_000_000
    started = time.monotonic()
    assert await send_and_hear(*ends, BLOCK * 8) == BLOCK * 8
    assert time.monotonic() - started >= 8 * len(BLOCK) / 2_000_000 - 0.02


async def test_two_connections_share_the_rate_of_a_lane(proxy, dial):
    first, second = await dial(), await dial()
    proxy.forth.rate = 2_000_000
    started = time.monotonic()
    await asyncio.gather(send_and_hear(*first, BLOCK * 4), send_and_hear(*second, BLOCK * 4))
    assert time.monotonic() - started >= 8 * len(BLOCK) / 2_000_000 - 0.02


async def test_a_reader_that_does_not_read_stops_the_writer(proxy, dial):
    proxy.back.freeze()
    _, writer = await dial()
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 4 * IN_FLIGHT_BYTES:
            writer.write(BLOCK)
            await asyncio.wait_for(writer.drain(), 0.5)
            sent += len(BLOCK)
    assert proxy.back.passed == 0


@pytest.mark.parametrize("reset", [True, False])
async def test_a_cut_ends_both_sides_and_new_connections_can_be_made(proxy, dial, echo, reset):
    reader, writer = await dial()
    await send_and_hear(reader, writer, b"there")
    proxy.cut(reset=reset)
    if reset:
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
    else:
        assert await reader.read(1) == b""
    await eventually(lambda: not echo.open)
    assert await send_and_hear(*await dial(), b"again") == b"again"


async def test_a_hole_accepts_and_swallows_and_resets_what_lacks_bytes_when_it_heals(proxy, dial):
    reader, writer = await dial()
    untouched = await dial()
    await send_and_hear(*untouched, b"before")
    proxy.swallow()
    late = await dial()
    for each in (writer, late[1]):
        each.write(BLOCK)
    await eventually(lambda: proxy.forth.swallowed == 2 * len(BLOCK))
    assert proxy.forth.passed == len(b"before")
    proxy.heal()
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    assert await send_and_hear(*untouched, b"after") == b"after"


async def test_a_half_open_connection_is_dead_in_one_direction_only(proxy, dial):
    reader, writer = await dial()
    proxy.back.dead = True
    writer.write(BLOCK)
    await eventually(lambda: proxy.back.swallowed == len(BLOCK))
    assert proxy.forth.passed == len(BLOCK)
    proxy.heal()
    with pytest.raises(ConnectionResetError):
        await reader.read(1)


async def test_a_frozen_proxy_lets_nothing_pass_and_loses_nothing(proxy, dial):
    reader, writer = await dial()
    await send_and_hear(reader, writer, b"before")
    proxy.freeze()
    writer.write(BLOCK)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    proxy.heal()
    assert await asyncio.wait_for(reader.readexactly(len(BLOCK)), 60) == BLOCK


async def test_one_bit_is_turned_over_once_where_it_was_asked_for(proxy, dial):
    ends = await dial()
    proxy.forth.flip(after=70_000)
    spoilt = await send_and_hear(*ends, BLOCK * 2)
    assert [i for i, (sent, got) in enumerate(zip(BLOCK * 2, spoilt, strict=True)) if sent != got] == [70_000]
    assert spoilt[70_000] ^ (BLOCK * 2)[70_000] == 0x10
    assert await send_and_hear(*ends, BLOCK) == BLOCK


async def test_a_proxy_that_refuses_resets_new_connections_until_it_heals(proxy, dial, echo):
    proxy.refusing = True
    reader, _ = await dial()
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    proxy.heal()
    assert await send_and_hear(*await dial(), b"again") == b"again"
    assert proxy.connections == 2


async def test_a_target_that_is_not_there_resets_who_dials(unused_port):
    async with Proxy(f"tcp://127.0.0.1:{unused_port}") as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()


async def test_a_proxy_opens_again_on_the_same_port_and_closes_twice(echo):
    proxy = Proxy(echo.url)
    await proxy.open()
    url = proxy.url
    await proxy.close()
    await proxy.close()
    await proxy.open()
    assert proxy.url == url
    await proxy.close()


async def test_a_proxy_that_is_aimed_anew_leads_new_connections_there_and_keeps_the_old_ones(proxy, dial, echo):
    before = await dial()
    assert await send_and_hear(*before, b"before") == b"before"

    async def shout(reader, writer):
        writer.write((await reader.readexactly(6)).upper())
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    proxy.aim(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert await send_and_hear(*await dial(), b"beyond") == b"BEYOND"
    assert await send_and_hear(*before, b"before") == b"before"
    server.close()
    await server.wait_closed()
