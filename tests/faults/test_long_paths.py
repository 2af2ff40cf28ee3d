"""Transfers over a path that is long, narrow, or shared, made of a proxy that delays and throttles."""

import asyncio
import hashlib
import time

import pytest

from zmesh.core.pace import MAX_WINDOW
from zmesh.testing import Mesh
from zmesh.testing.proxy import Proxy

RATE = 25e6
"""200 Mbit/s, in bytes a second."""
PIECE = 256 * 1024


async def pieces(count):
    for number in range(count):
        yield bytes((number % 251,)) * PIECE


def digest_of(count):
    whole = hashlib.sha256()
    for number in range(count):
        whole.update(bytes((number % 251,)) * PIECE)
    return whole.hexdigest()


async def hash_it(work):
    whole = hashlib.sha256()
    async for chunk in work.payload:
        whole.update(chunk)
    return whole.hexdigest()


@pytest.fixture
async def path():
    """Nodes `a` and `b` with a proxy between them, and the proxy."""
    async with Mesh("a", "b", tcp=True) as mesh, Proxy(mesh["b"].listening[0]) as proxy:
        mesh["b"].register("test:hash", hash_it, stream=True)
        mesh["a"].add_peer(proxy.url)
        await mesh.settle()
        yield mesh, proxy


@pytest.mark.parametrize("delay", [0.025, 0.05], ids=["50 ms there and back", "50 ms each way"])
async def test_one_transfer_fills_four_fifths_of_a_long_path(path, delay):
    mesh, proxy = path
    proxy.slow(delay=delay, rate=RATE)
    count = 240  # 63 MB
    started = time.monotonic()
    answer = await mesh["a"].request("b", "test:hash", pieces(count), timeout=30)
    took = time.monotonic() - started
    assert answer.text() == digest_of(count)
    assert count * PIECE / took > 0.8 * RATE
    assert mesh["a"].node.telemetry.counts["frame_dropped:queue_full"] == 0


async def test_replies_fill_a_long_path_as_well(path):
    mesh, proxy = path
    count = 120

    async def give(work):
        async for piece in pieces(count):
            yield piece

    mesh["b"].register("test:give", give)
    proxy.slow(delay=0.025, rate=RATE)
    started = time.monotonic()
    size = 0
    async for reply in mesh["a"].request("b", "test:give", timeout=30):
        size += len(reply.payload)
    assert size == count * PIECE
    assert size / (time.monotonic() - started) > 0.7 * RATE  # of which the start takes its share


async def test_a_ping_is_not_kept_waiting_by_a_transfer_over_a_long_path(path):
    mesh, proxy = path
    proxy.slow(delay=0.025, rate=RATE)
    idle = [(await mesh["a"].ping_once("b")).rtt for _ in range(5)]
    transfer = asyncio.ensure_future(mesh["a"].request("b", "test:hash", pieces(200), timeout=30))
    beside = []
    while not transfer.done():
        beside.append((await mesh["a"].ping_once("b", timeout=10)).rtt)
    await transfer
    assert len(beside) > 5
    assert max(beside) < 5 * max(idle)


async def test_a_reader_that_reads_nothing_stops_the_sender_at_one_window(path):
    mesh, proxy = path
    wait = asyncio.Event()
    read = []

    async def read_later(work):
        await wait.wait()
        async for chunk in work.payload:
            read.append(len(chunk))

    mesh["b"].register("test:later", read_later, stream=True)
    proxy.slow(delay=0.005)
    given = 0

    async def count():
        nonlocal given
        async for piece in pieces(160):
            given += PIECE
            yield piece

    request = mesh["a"].request("b", "test:later", count(), timeout=30)
    before = -1
    while given != before:  # until the sender is given no more for a while
        before = given
        for _ in range(10):
            await mesh["a"].ping_once("b")
    assert 0 < given <= 4 * 1024 * 1024
    wait.set()
    await request
    assert sum(read) == given == 160 * PIECE


async def test_many_transfers_over_a_narrow_path_lose_nothing_and_share_it(path):
    mesh, proxy = path
    proxy.slow(delay=0.01, rate=RATE)
    count, transfers = 8, 24
    started = time.monotonic()
    ends = []

    async def transfer():
        answer = await mesh["a"].request("b", "test:hash", pieces(count), timeout=50)
        ends.append(time.monotonic() - started)
        return answer.text()

    answers = await asyncio.gather(*(transfer() for _ in range(transfers)))
    assert set(answers) == {digest_of(count)}
    assert min(ends) > 0.3 * max(ends)
    assert max(ends) < 2.5 * transfers * count * PIECE / RATE


async def test_a_window_is_never_wider_than_the_largest(path):
    mesh, proxy = path
    proxy.slow(delay=0.2, rate=10 * RATE)
    widest = 0

    async def watched(count):
        nonlocal widest
        async for piece in pieces(count):
            calls = mesh["a"].node.engine.exchanges._sending.at(None)
            widest = max([widest, *(call.outbound.in_flight for call in calls)])
            yield piece

    answer = await mesh["a"].request("b", "test:hash", watched(300), timeout=50)
    assert answer.text() == digest_of(300)
    assert 4 * 1024 * 1024 < widest <= MAX_WINDOW
