"""A disk that is slow, or stands still: it holds up the payloads that lie on it, and nothing else."""

import asyncio
import threading

import pytest

import zmesh
from zmesh.core.delivery.congestion import MAX_WINDOW
from zmesh.errors import ExchangeError
from zmesh.payloads import buffered as arriving
from zmesh.payloads.spool import Spool
from zmesh.testing import Mesh, eventually

WITHIN = 60.0
LARGE = 20_000_000


@pytest.fixture
def disk(monkeypatch):
    """`disk.clear()` makes every access to a file wait; `disk.threads` are those that have had one."""
    flowing = threading.Event()
    flowing.set()
    flowing.threads = set()
    flowing.waiting = 0

    def slowed(method):
        def access(self, *arguments):
            flowing.threads.add(threading.get_ident())
            flowing.waiting += 1
            assert flowing.wait(WITHIN)
            flowing.waiting -= 1
            return method(self, *arguments)

        return access

    for name in ["__init__", "write", "read"]:
        monkeypatch.setattr(Spool, name, slowed(getattr(Spool, name)))
    yield flowing
    flowing.set()


@pytest.fixture
async def mesh(disk):
    async with Mesh.chain("a", "b", tcp=True) as mesh:

        async def give(work):
            return b"y" * LARGE

        async def several(work):
            yield b"first"
            yield b"y" * LARGE
            yield b"third"

        async def size(work):
            count = 0
            async for chunk in work.payload:
                count += len(chunk)
            return str(count)

        async def back(work):
            return work.payload

        for function in (give, several, size, back):
            mesh["b"].register(f"b:{function.__name__}", function)
        yield mesh


@pytest.mark.parametrize("way", ["request", "reply", "both"])
async def test_a_disk_that_stands_still_holds_up_its_payload_and_nothing_else(mesh, disk, way):
    disk.clear()
    directive = {"request": "b:size", "reply": "b:give", "both": "b:back"}[way]
    request = asyncio.ensure_future(whole(mesh["a"], directive, b"" if way == "reply" else b"x" * LARGE))
    await eventually(lambda: disk.waiting, timeout=WITHIN)
    for _ in range(3):
        for one, other in ["ab", "ba"]:
            assert (await mesh[one].ping_once(other, timeout=WITHIN)).node == other
    assert not request.done()
    disk.set()
    assert await request in (b"%d" % LARGE, b"y" * LARGE, b"x" * LARGE)
    assert threading.get_ident() not in disk.threads


async def whole(controller, directive, payload):
    """The reply as bytes, read piece by piece."""
    reply = await controller.request("b", directive, payload, timeout=WITHIN)
    return b"".join([chunk async for chunk in reply])


async def test_the_sender_is_held_up_by_a_disk_that_stands_still(mesh, disk):
    disk.clear()
    sent = 0

    async def pieces():
        nonlocal sent
        for _ in range(100):
            yield b"x" * 1_000_000
            sent += 1_000_000

    request = asyncio.ensure_future(whole(mesh["a"], "b:size", pieces()))
    await eventually(lambda: disk.waiting, timeout=WITHIN)
    await mesh["a"].ping_once("b", timeout=WITHIN)
    await asyncio.sleep(0.3)  # nothing could be waited for: more must not come
    assert sent <= arriving.SPOOL_AFTER + MAX_WINDOW + 8_000_000
    disk.set()
    assert await request == b"100000000"


async def test_replies_behind_one_that_is_being_written_come_after_it_and_so_does_the_end(mesh, disk):
    disk.clear()
    sizes = []

    async def read():
        async for reply in mesh["a"].stream("b", "b:several", timeout=WITHIN).send():
            sizes.append(len(reply.payload))

    reading = asyncio.ensure_future(read())
    await eventually(lambda: disk.waiting and sizes, timeout=WITHIN)
    await mesh["a"].ping_once("b", timeout=WITHIN)
    assert sizes == [5]
    disk.set()
    await reading
    assert sizes == [5, LARGE, 5]


@pytest.mark.parametrize("how", ["cancelled", "node closed"])
async def test_an_exchange_ends_though_its_reply_is_still_being_written(mesh, disk, how):
    request = mesh["a"].stream("b", "b:give", timeout=WITHIN).send()
    disk.clear()
    await eventually(lambda: disk.waiting, timeout=WITHIN)
    if how == "cancelled":
        assert isinstance(await request.cancel(), (zmesh.Cancelled, type(None)))
    else:
        closing = asyncio.ensure_future(mesh.remove("a"))
        await eventually(lambda: request.ended, timeout=WITHIN)
        disk.set()
        await closing
    assert request.ended
    disk.set()


@pytest.mark.parametrize("at", [1, 5, 15])
@pytest.mark.parametrize("directive", ["size", "give"])
async def test_a_disk_that_is_full_ends_the_exchange(mesh, monkeypatch, directive, at):
    count = 0

    def write(self, data):
        nonlocal count
        count += 1
        if count >= at:
            raise OSError(28, "No space left on device")
        self.size += len(data)

    monkeypatch.setattr(Spool, "write", write)
    payload = b"x" * LARGE if directive == "size" else b""
    with pytest.raises(ExchangeError, match="No space left on device"):
        await mesh["a"].request("b", f"b:{directive}", payload, timeout=WITHIN)
    await mesh["a"].ping_once("b", timeout=WITHIN)
    await eventually(lambda: not len(mesh["b"].node.serving))


async def test_where_no_thread_can_be_started_a_large_payload_is_refused(mesh, monkeypatch):
    def refuse(thread):
        if thread.name.startswith("zmesh-disk"):
            raise RuntimeError("can't start new thread")
        start(thread)

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(ExchangeError, match="it can't be written to a file: can't start new thread"):
        await mesh["a"].request("b", "b:size", b"x" * LARGE, timeout=WITHIN)
    with pytest.raises(ExchangeError, match="it can't be written to a file: can't start new thread"):
        await mesh["a"].request("b", "b:give", timeout=WITHIN)
