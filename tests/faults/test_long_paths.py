"""Transfers over a path that is long, narrow, or shared; `python -m benchmarks.paths --check` measures their rate."""

import asyncio
import hashlib
import time

import pytest

from zmesh.core.delivery.congestion import CHUNK, MAX_WINDOW, MIN_CHUNK
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


async def wait_for(request):
    return (await request.only_payload()).text()


@pytest.fixture
async def path():
    """Nodes `a` and `b` with a proxy between them, and the proxy."""
    async with Mesh("a", "b", tcp=True) as mesh, Proxy(mesh["b"].listening[0]) as proxy:
        mesh["b"].register("test:hash", hash_it, stream=True)
        mesh["a"].add_peer(proxy.url)
        await mesh.settle()
        yield mesh, proxy


@pytest.mark.parametrize("delay", [0.025, 0.05], ids=["50 ms there and back", "50 ms each way"])
async def test_a_transfer_over_a_long_path_arrives_whole_and_fills_no_queue(path, delay):
    mesh, proxy = path
    proxy.slow(delay=delay, rate=RATE)
    count = 120  # 31 MB
    answer = await mesh["a"].request("b", "test:hash", pieces(count), timeout=300)
    assert answer.text() == digest_of(count)
    assert mesh["a"].node.telemetry.counts["frame_dropped:queue_full"] == 0


async def test_replies_over_a_long_path_arrive_whole(path):
    mesh, proxy = path
    count = 60

    async def give(work):
        async for piece in pieces(count):
            yield piece

    mesh["b"].register("test:give", give)
    proxy.slow(delay=0.025, rate=RATE)
    size = 0
    async for reply in mesh["a"].stream("b", "test:give", timeout=300).send():
        size += len(reply.payload)
    assert size == count * PIECE


@pytest.mark.parametrize(
    ("rate", "delay", "count", "longest"),
    [(RATE, 0.025, 200, CHUNK), (RATE / 20, 0.005, 30, MIN_CHUNK)],
    ids=["200 Mbit/s", "10 Mbit/s"],
)
async def test_pings_are_answered_while_a_transfer_fills_a_slow_path(path, rate, delay, count, longest):
    mesh, proxy = path
    proxy.slow(delay=delay, rate=rate)
    transfer = asyncio.ensure_future(mesh["a"].request("b", "test:hash", pieces(count), timeout=300))
    answered = 0
    sizes = []
    while not transfer.done():
        await mesh["a"].ping_once("b", timeout=300)
        answered += 1
        calls = mesh["a"].node.engine.delivery._sender.exchanges.with_address(None)
        sizes.append(max((len(chunk.body) for call in calls for chunk in call.outbound.unacked.values()), default=0))
    assert (await transfer).text() == digest_of(count)
    assert answered > 3
    sent = sorted(size for size in sizes[len(sizes) // 2 :] if size)  # none is on its way while a slow machine reads
    assert 0 < sent[len(sent) // 2] <= longest


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

    request = mesh["a"].stream("b", "test:later", count(), timeout=300).send()
    before = -1
    while given != before:  # until the sender is given no more for a while
        before = given
        for _ in range(10):
            await mesh["a"].ping_once("b")
    assert 0 < given <= 4 * 1024 * 1024
    wait.set()
    await request.only_payload()
    assert sum(read) == given == 160 * PIECE


async def test_many_transfers_over_a_narrow_path_lose_nothing_and_share_it(path):
    """When the first one is through, no other has had less than a quarter of its share."""
    mesh, proxy = path
    proxy.slow(delay=0.01, rate=RATE)
    count, transfers = 24, 12
    read = [0] * transfers
    when_first_ended = []

    async def hash_and_count(work):
        whole = hashlib.sha256()
        number = None
        async for chunk in work.payload:
            if number is None:
                number, chunk = chunk[0], chunk[1:]
            whole.update(chunk)
            read[number] += len(chunk)
        when_first_ended.append(min(read))
        return whole.hexdigest()

    async def numbered(number):
        yield bytes((number,))
        async for piece in pieces(count):
            yield piece

    mesh["b"].register("test:count", hash_and_count, stream=True)
    requests = [
        mesh["a"].stream("b", "test:count", numbered(number), timeout=300).send() for number in range(transfers)
    ]
    answers = await asyncio.gather(*(wait_for(request) for request in requests))
    assert set(answers) == {digest_of(count)}
    assert read == [count * PIECE] * transfers
    assert when_first_ended[0] > count * PIECE / 4


async def test_a_window_is_never_wider_than_the_largest(path):
    mesh, proxy = path
    proxy.slow(delay=0.2, rate=10 * RATE)
    widest = 0

    async def watched(count):
        nonlocal widest
        async for piece in pieces(count):
            calls = mesh["a"].node.engine.delivery._sender.exchanges.with_address(None)
            widest = max([widest, *(call.outbound.in_flight for call in calls)])
            yield piece

    began = time.monotonic()
    answer = await mesh["a"].request("b", "test:hash", watched(300), timeout=300)
    held = 300 * PIECE / (time.monotonic() - began) * 0.4  # by the path, on the average: less on a slow machine
    assert answer.text() == digest_of(300)
    assert min(4 * 1024 * 1024, held) < widest <= MAX_WINDOW
