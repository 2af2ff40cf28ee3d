"""Who dials: until somebody answers who speaks the protocol, and again when the link is lost."""

import asyncio

import pytest

from tests.mesh.transport.ears import FRAMES, downs, joined
from zmesh.testing import eventually

# --- links that are lost --------------------------------------------------------------------------------------------


async def test_a_link_is_lost_at_both_ends_when_the_connection_breaks_and_is_dialled_again(listener, dialler, wire):
    line = await wire(listener.listen("tcp://127.0.0.1:*"))
    dialler.dial(line.url)
    for round in range(1, 4):
        await eventually(lambda round=round: len(dialler.handler.links) == 1 and line.connections == round)
        dialler.send(dialler.handler.links[0], FRAMES)
        dialler.settle()
        await eventually(lambda: len(listener.handler.links) == 1)
        line.cut()
        await eventually(lambda round=round: downs(dialler) == downs(listener) == round)
    numbers = [event[1] for event in dialler.handler.events if event[0] == "up"]
    assert len(numbers) == len(set(numbers)), "no number is used twice"


async def test_a_link_that_is_hung_up_is_closed_and_dialled_again_after_the_pause(listener, dialler, url):
    here, _ = await joined(dialler, listener, url)
    started = asyncio.get_running_loop().time()
    dialler.hang_up(here, 0.2)
    dialler.handler.links.remove(here)
    await eventually(lambda: dialler.handler.links)
    assert asyncio.get_running_loop().time() - started >= 0.2
    assert dialler.handler.links != [here]


# --- peers that are not there yet -----------------------------------------------------------------------------------


async def test_a_peer_that_is_not_there_is_dialled_until_it_is(dialler, listener, free_port):
    url = f"tcp://127.0.0.1:{free_port}"
    dialler.dial(url)
    await eventually(lambda: len(dialler.handler.failures) >= 3)
    assert set(dialler.handler.failures) == {(url, "nothing answers there")}
    listener.listen(url)
    await eventually(lambda: dialler.handler.links)


async def test_an_ipc_peer_that_is_not_there_is_dialled_until_it_is(dialler, listener, tmp_path):
    url = f"ipc://{tmp_path}/later"
    dialler.dial(url)
    await eventually(lambda: dialler.handler.failures)
    listener.listen(url)
    await eventually(lambda: dialler.handler.links)


async def test_an_inproc_peer_may_come_later(dialler, listener, tmp_path):
    dialler.dial(f"inproc://{tmp_path.name}")
    listener.listen(f"inproc://{tmp_path.name}")
    await eventually(lambda: dialler.handler.links)
    dialler.send(dialler.handler.links[0], FRAMES)
    await eventually(lambda: listener.handler.frames)


# --- servers of another kind ----------------------------------------------------------------------------------------

PAGE = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nno\n"
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00"


async def closes_at_once(reader, writer):
    pass


async def closes_after_the_greeting(reader, writer):
    await reader.read(10)


async def sends_a_page_and_closes(reader, writer):
    await reader.read(10)
    writer.write(PAGE)
    await writer.drain()


async def sends_a_page_and_waits(reader, writer):
    writer.write(PAGE)
    await reader.read()
    await asyncio.Event().wait()


async def sends_a_banner_and_waits(reader, writer):
    writer.write(b"SSH-2.0-Strange_1.0\r\n")
    await asyncio.Event().wait()


async def says_nothing(reader, writer):
    await asyncio.Event().wait()


async def wants_a_password(reader, writer):
    writer.write(GREETING + b"PLAIN".ljust(20, b"\0") + b"\1" + bytes(31))
    await asyncio.Event().wait()


async def greets_and_sends_garbage(reader, writer):
    writer.write(GREETING + b"NULL".ljust(20, b"\0") + bytes(32))
    await reader.read(64)
    writer.write(b"\xee" * 1000)
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "talk",
    [
        closes_at_once,
        closes_after_the_greeting,
        sends_a_page_and_closes,
        sends_a_page_and_waits,
        sends_a_banner_and_waits,
        says_nothing,
        wants_a_password,
        greets_and_sends_garbage,
    ],
)
async def test_a_server_of_another_kind_is_told_and_dialled_until_there_is_a_node(
    dialler, listener, server, monkeypatch, talk
):
    for name in ("port.HANDSHAKE_MS", "dialler.CONNECT_MS", "dialler.REDIAL_LAST_MS"):
        monkeypatch.setattr(f"zmesh.transport.{name}", 200)
    url = await server(talk)
    dialler.dial(url)
    await eventually(lambda: dialler.handler.failures, timeout=60)
    assert dialler.handler.failures[0][0] == url
    assert dialler.handler.failures[0][1] in (
        "what answers there does not speak ZeroMQ",
        "the connection was closed while it was being set up",
    )
    assert dialler.handler.links == []
    await server(None)
    listener.listen(url)
    await eventually(lambda: dialler.handler.links, timeout=60)


READY = b"\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"ROUTER"


async def test_a_peer_that_breaks_the_protocol_later_is_dialled_again_as_well(dialler, listener, server, monkeypatch):
    for name in ("port.HANDSHAKE_MS", "dialler.CONNECT_MS", "dialler.REDIAL_LAST_MS"):
        monkeypatch.setattr(f"zmesh.transport.{name}", 200)
    broken = asyncio.Event()

    async def breaks(reader, writer):
        writer.write(GREETING + b"NULL".ljust(20, b"\0") + bytes(32) + b"\x04" + bytes([len(READY)]) + READY)
        await reader.read(64)
        await broken.wait()
        writer.write(b"\x02" + (1 << 40).to_bytes(8, "big"))  # a frame that is far too large
        await asyncio.Event().wait()

    url = await server(breaks)
    dialler.dial(url)
    await eventually(lambda: dialler.handler.links, timeout=60)
    broken.set()
    await eventually(lambda: downs(dialler) >= 1, timeout=60)
    await server(None)
    listener.listen(url)
    await eventually(lambda: dialler.handler.links, timeout=60)
    dialler.send(dialler.handler.links[0], FRAMES)
    await eventually(lambda: listener.handler.frames)
