"""Sockets that are closed while the other end reads nothing: their connections are shut down before ZMQ_LINGER is over.

libzmq 4.3.5 would abort the process if such a connection were reset in the moment in which it is.
"""

import asyncio
import contextlib
import os
import socket

import pytest

from zmesh.testing import eventually
from zmesh.transport.lingering import LingeringConnections, inode_of

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big")
MESSAGE = b"\x01\x05route\x01\x04head\x00\x04body"
HALF_SENT = (b"route", b"head", bytes(64 * 1024 * 1024))
FOR_EVER_MS = 3_600_000


def handshake(kind):
    """What a socket of that kind says first (ZMTP 3.0)."""
    ready = READY + kind
    return GREETING + b"\x04" + bytes([len(ready)]) + ready


@pytest.fixture
def _zmq_lingers_for_ever(monkeypatch):
    monkeypatch.setattr("zmesh.transport.link_socket.ZMQ_LINGER_MS", FOR_EVER_MS)


@pytest.fixture
def deaf():
    """Sockets of ours, which read nothing unless they are asked to."""
    with contextlib.ExitStack() as closing:

        def make(family=socket.AF_INET):
            sock = closing.enter_context(socket.socket(family))
            sock.setblocking(False)
            return sock

        yield make


async def dialled(transport, deaf):
    """A link of that transport to a peer that reads nothing, on which a message is half sent; and the peer's end."""
    loop = asyncio.get_running_loop()
    server = deaf()
    server.bind(("127.0.0.1", 0))
    server.listen()
    transport.dial("tcp://{}:{}".format(*server.getsockname()))
    there, _ = await loop.sock_accept(server)
    there.setblocking(False)
    await loop.sock_sendall(there, handshake(b"ROUTER"))
    await eventually(lambda: transport.handler.links)
    (link,) = transport.handler.links
    assert transport.send(link, HALF_SENT)
    return link, there


async def received(sock):
    """How many bytes come until the end of a connection."""
    loop = asyncio.get_running_loop()
    count = 0
    with contextlib.suppress(ConnectionError):
        while data := await loop.sock_recv(sock, 1024 * 1024):
            count += len(data)
    return count


@pytest.mark.usefixtures("_zmq_lingers_for_ever")
async def test_a_link_that_was_hung_up_on(dialler, deaf):
    link, there = await dialled(dialler, deaf)
    with there:
        dialler.hang_up(link, 60.0)
        await eventually(lambda: not dialler.lingering)
        assert await received(there) < len(HALF_SENT[2])


@pytest.mark.usefixtures("_zmq_lingers_for_ever")
@pytest.mark.parametrize("at_once", [False, True])
async def test_a_link_of_a_node_that_is_closed(dialler, deaf, at_once):
    _, there = await dialled(dialler, deaf)
    with there:
        async with asyncio.timeout(60):
            if at_once:
                dialler.close_now()
            else:
                await dialler.close()
        assert await received(there) < len(HALF_SENT[2])


@pytest.mark.usefixtures("_zmq_lingers_for_ever")
@pytest.mark.parametrize("kind", ["tcp", "ipc"])
async def test_a_link_that_was_accepted(listener, deaf, tmp_path, kind):
    loop = asyncio.get_running_loop()
    url = listener.listen({"tcp": "tcp://127.0.0.1:*", "ipc": f"ipc://{tmp_path}/s"}[kind])
    if kind == "tcp":
        there = deaf()
        await loop.sock_connect(there, ("127.0.0.1", int(url.rpartition(":")[2])))
    else:
        there = deaf(socket.AF_UNIX)
        await loop.sock_connect(there, f"{tmp_path}/s")
    await loop.sock_sendall(there, handshake(b"DEALER"))
    said = b""
    while b"READY" not in said:
        said += await loop.sock_recv(there, 1)
    await loop.sock_sendall(there, MESSAGE)
    await eventually(lambda: listener.handler.links)
    assert listener.send(listener.handler.links[0], HALF_SENT)
    async with asyncio.timeout(60):
        await listener.close()
    assert await received(there) < len(HALF_SENT[2])


async def test_connections_that_have_sent_all_are_not_waited_for(listener, dialler, monkeypatch):
    monkeypatch.setattr("zmesh.transport.lingering.LINGER_MS", FOR_EVER_MS)
    dialler.dial(listener.listen("tcp://127.0.0.1:*"))
    await eventually(lambda: dialler.handler.links)
    async with asyncio.timeout(60):
        await dialler.close()
        await listener.close()


async def test_a_descriptor_that_is_anothers_by_now_is_left_alone(monkeypatch):
    monkeypatch.setattr("zmesh.transport.lingering.LINGER_MS", 0)
    lingering = LingeringConnections(asyncio.get_running_loop())
    with contextlib.ExitStack() as closing:
        gone, _, new, there = map(closing.enter_context, (*socket.socketpair(), *socket.socketpair()))
        lingering.add([(gone.fileno(), inode_of(gone.fileno()))])
        os.dup2(new.fileno(), gone.fileno())
        await lingering.ended()
        new.send(b"alive")
        assert there.recv(9) == b"alive"
        assert not lingering
