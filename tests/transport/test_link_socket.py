"""Frames on a link: they pass whole, unchanged and in order, and a full link says so."""

import asyncio
import os
import time

import pytest
import zmq

from tests.transport.transport_handler import FRAMES, RecordingHandler, joined
from zmesh.testing import eventually
from zmesh.transport import link_socket
from zmesh.transport.link_socket import BATCH, BATCH_SECONDS
from zmesh.transport.listener import RETRY_LAST


async def test_a_link_is_reported_at_both_ends_and_frames_pass_both_ways(listener, dialler, url):
    here, there = await joined(dialler, listener, url)
    assert listener.handler.frames == [(there, FRAMES)]
    assert listener.send(there, (b"r", b"", b""))
    listener.settle()
    await eventually(lambda: dialler.handler.frames)
    assert dialler.handler.frames == [(here, (b"r", b"", b""))]
    assert dialler.handler.events[0][:3] == ("up", here, True)
    assert listener.handler.events[0][:3] == ("up", there, False)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 16 * 1024 - 1, 16 * 1024, 64 * 1024, 256 * 1024])
async def test_frames_of_any_size_pass_unchanged(listener, dialler, url, size):
    here, there = await joined(dialler, listener, url)
    frames = (b"route", bytes(size), os.urandom(size))
    dialler.send(here, frames)
    dialler.settle()
    await eventually(lambda: len(listener.handler.frames) == 2)
    assert listener.handler.frames[1] == (there, frames)


async def test_frames_come_in_the_order_in_which_they_were_sent_and_none_is_lost(listener, dialler, url):
    here, _ = await joined(dialler, listener, url)
    sent = 0
    while sent < 20_000:
        if dialler.send(here, (b"%d" % sent, b"", bytes(sent % 300))):
            sent += 1
        else:
            dialler.settle()
            await eventually(lambda: not dialler.is_full(here), timeout=60)
    dialler.settle()
    await eventually(lambda: len(listener.handler.frames) == 20_001)
    assert [int(frames[0]) for _, frames in listener.handler.frames[1:]] == list(range(20_000))


async def test_a_link_that_is_full_says_so_and_says_when_it_has_room_again(listener, dialler, wire):
    slow = await wire(listener.listen("tcp://127.0.0.1:*"))
    dialler.dial(slow.url)
    await eventually(lambda: dialler.handler.links)
    (here,) = dialler.handler.links
    assert dialler.send(here, FRAMES)
    dialler.settle()
    await eventually(lambda: listener.handler.links)  # which takes no more than so many bytes before it has a link
    slow.freeze()
    sent = 1
    body = bytes(64 * 1024)
    while dialler.send(here, (b"%d" % sent, b"", body)):
        sent += 1
        dialler.settle()
        await asyncio.sleep(0)
        assert sent < 5_000
    assert dialler.is_full(here)
    assert not dialler.send(here, FRAMES), "as long as it is full"
    assert dialler.handler.ready == []
    slow.thaw()
    await eventually(lambda: dialler.handler.ready)
    assert not dialler.is_full(here)
    await eventually(lambda: len(listener.handler.frames) == sent)


@pytest.mark.parametrize("seconds", [0.0, 2 * BATCH_SECONDS])
@pytest.mark.parametrize("end", ["dialler", "listener"])
async def test_a_socket_that_has_ever_more_messages_gives_others_their_turn(
    listener, dialler, url, monkeypatch, end, seconds
):
    """After BATCH messages, or BATCH_SECONDS with those that take long."""
    here, there = await joined(dialler, listener, url)
    busy = dialler.links[here] if end == "dialler" else listener.links[there]
    count = 0

    def read():
        nonlocal count
        count += 1
        assert count <= 20 * BATCH, "nobody else has had a turn"
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass

    with monkeypatch.context() as patch:
        patch.setattr(link_socket, "BATCH_SECONDS", BATCH_SECONDS if seconds else 3600.0)
        patch.setattr(busy, "_read", read)
        patch.setattr(busy, "_events", lambda: zmq.POLLIN)
        busy.drain()
        for turn in range(1, 11):
            assert turn <= count <= turn * (2 if seconds else BATCH)
            await asyncio.sleep(0)  # one iteration of the loop, in which others had their turn
        assert busy.handler.bursts == 0, "as many have ended as have begun"
    dialler.send(here, FRAMES)
    dialler.settle()
    await eventually(lambda: len(listener.handler.frames) == 2)


class Eager(RecordingHandler):
    """Sends one frame whenever a link is said to have room, and counts those that it had none for."""

    tries = 0

    def on_link_ready(self, link):
        super().on_link_ready(link)
        self.tries += not self.transport.send(link, FRAMES)


async def fill(transport, link):
    """Send until the link is full and stays so; how many frames went out."""
    sent = 0
    while not transport.is_full(link):
        while transport.send(link, (b"", b"", bytes(64 * 1024))):
            sent += 1
            transport.settle()
            await asyncio.sleep(0)
        for _ in range(50):  # the last of it goes into the system's buffers
            await asyncio.sleep(0.001)
    return sent


@pytest.mark.parametrize("full_end", ["dialler", "listener"])
async def test_a_link_that_stays_full_is_tried_at_growing_intervals(transports, wire, full_end):
    """The socket of a dialler knows, and one of a listener has to try; each try was 1 ms after the one before."""
    dialler, listener = transports(), transports()
    full = dialler if full_end == "dialler" else listener
    eager = Eager()
    eager.transport, full.handler = full, eager
    line = await wire(listener.listen("tcp://127.0.0.1:*"))
    dialler.dial(line.url)
    await eventually(lambda: dialler.handler.links)
    dialler.send(dialler.handler.links[0], FRAMES)
    await eventually(lambda: listener.handler.links)
    line.freeze()
    (link,) = full.handler.links
    await fill(full, link)
    before, now = eager.tries, asyncio.get_running_loop().time
    start = now()
    while now() < start + 0.5:
        full.send(link, FRAMES)
        full.settle()
        await asyncio.sleep(0.001)
    assert eager.tries - before <= (0 if full is dialler else 25 + (now() - start) / RETRY_LAST)
    line.thaw()
    await eventually(lambda: not full.is_full(link))


async def test_a_link_that_is_full_only_because_much_is_sent_is_tried_as_soon_as_it_has_room(transports):
    """Its signal comes before the shortest pause has passed, nearly always: pauses never grow."""
    dialler, listener = transports(), transports()
    eager = Eager()
    eager.transport, listener.handler = listener, eager
    _, there = await joined(dialler, listener, "tcp://127.0.0.1:*")
    port = listener.links[there]
    for number in range(20_000):
        while not listener.send(there, (b"%d" % number, b"", b"")):
            listener.settle()
            await asyncio.sleep(0)
    listener.settle()
    await eventually(lambda: len(dialler.handler.frames) >= 20_000)
    assert port._pauses == {}


@pytest.mark.parametrize("parts", [[b""], [b"a"], [b"a", b"b"], [b"a", b"b", b"c", b"d"], [b"x"] * 100])
async def test_messages_of_another_shape_are_handed_over_in_few_parts(listener, parts, zmq_socket):
    """How many parts there should be is the engine's business; but nobody can fill our memory with them."""
    sock = zmq_socket("DEALER", listener.listen("tcp://127.0.0.1:*"))
    sock.send_multipart(parts)
    await eventually(lambda: listener.handler.frames)
    assert listener.handler.frames[0][1] == tuple(parts[: len(listener.handler.frames[0][1])])
    assert len(listener.handler.frames[0][1]) == min(len(parts), 5) or len(listener.handler.frames[0][1]) == 4
