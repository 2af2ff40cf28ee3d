"""Peers behind a SOCKS5 proxy, which here is one of the tests' own."""

import asyncio
import contextlib
import os
import socket

import pytest

from tests.transport.transport_handler import downs, joined
from zmesh.errors import AddressError
from zmesh.testing import eventually
from zmesh.transport import parse_url
from zmesh.transport.address import Proxy
from zmesh.transport.dial_status import DialFailure, DialState
from zmesh.transport.resolver import Address


class Proxied:
    """A SOCKS5 server for one connection after another; all names lead to 127.0.0.1."""

    def __init__(self, user=None, password=None):
        self.credentials = None if user is None else (user, password)
        self.asked = []
        self.reply = 0
        self.says = None
        self._tasks = set()
        self._writers = []

    async def open(self):
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self):
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self):
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _connected(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self._writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.transport.abort()

    async def _serve(self, reader, writer):
        if self.says is not None:
            writer.write(self.says)
            await writer.drain()
            await reader.read()
            return
        version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        method = 0 if self.credentials is None else 2
        if version != 5 or method not in methods:
            writer.write(b"\x05\xff")
            await writer.drain()
            return
        writer.write(bytes([5, method]))
        if method == 2:
            assert await reader.readexactly(1) == b"\x01"
            user = await reader.readexactly((await reader.readexactly(1))[0])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            right = (user.decode(), password.decode()) == self.credentials
            writer.write(b"\x01\x00" if right else b"\x01\x01")
            if not right:
                await writer.drain()
                return
        assert await reader.readexactly(3) == b"\x05\x01\x00"
        match (await reader.readexactly(1))[0]:
            case 1:
                host = socket.inet_ntop(socket.AF_INET, await reader.readexactly(4))
            case 3:
                host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
            case 4:
                host = socket.inet_ntop(socket.AF_INET6, await reader.readexactly(16))
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append((host, port))
        if self.reply:
            writer.write(bytes([5, self.reply, 0, 1]) + bytes(6))
            await writer.drain()
            return
        there, back = await asyncio.open_connection("127.0.0.1", port)
        self._writers.append(back)
        writer.write(b"\x05\x00\x00\x03\x03hub\x00\x00")
        both = asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))
        await both

    async def _pass_on(self, reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.transport.close()


@pytest.fixture
async def proxy():
    """Starts proxies: `await proxy()`, with a user and a password or without."""
    proxies = []

    async def start(*credentials):
        proxies.append(await Proxied(*credentials).open())
        return proxies[-1]

    yield start
    for each in proxies:
        await each.close()


async def through(proxy, transports, listener, host="hub.behind.it", credentials=""):
    """A transport that dials the listener by way of the proxy, and the URL."""
    port = listener.listen("tcp://127.0.0.1:*").rpartition(":")[2]
    dialler = transports(lambda name: pytest.fail(f"{name} is the proxy's to resolve"))
    dialler.dial(f"tcp://{host}:{port}?proxy=socks5://{credentials}127.0.0.1:{proxy.port}")
    return dialler, int(port)


@pytest.mark.parametrize(
    ("host", "name"),
    [("hub.behind.it", "hub.behind.it"), ("203.0.113.7", "203.0.113.7"), ("[2001:db8::7]", "2001:db8::7")],
)
async def test_a_peer_is_reached_through_a_proxy_which_resolves_its_name(proxy, transports, listener, host, name):
    server = await proxy()
    dialler, port = await through(server, transports, listener, host)
    await eventually(lambda: dialler.handler.links)
    assert server.asked == [(name, port)]
    body = os.urandom(200_000)
    dialler.send(dialler.handler.links[0], (b"route", b"head", body))
    dialler.settle()
    await eventually(lambda: listener.handler.frames)
    assert listener.handler.frames[0][1] == (b"route", b"head", body)
    listener.send(listener.handler.links[0], (b"route", b"back", body))
    listener.settle()
    await eventually(lambda: dialler.handler.frames)
    assert dialler.handler.frames[0][1] == (b"route", b"back", body)
    assert dialler.dials()[0].state is DialState.LINKED


async def test_the_name_of_the_proxy_is_resolved_here_and_its_addresses_take_their_turns(proxy, transports, listener):
    server = await proxy()
    port = listener.listen("tcp://127.0.0.1:*").rpartition(":")[2]
    addresses = {"proxy": [Address(socket.AF_INET, "127.0.0.2"), Address(socket.AF_INET, "127.0.0.1")]}
    dialler = transports(addresses.__getitem__)
    dialler.dial(f"tcp://hub:{port}?proxy=socks5://proxy:{server.port}")
    await eventually(lambda: dialler.handler.links)


async def test_a_proxy_gets_a_user_and_a_password(proxy, transports, listener):
    server = await proxy("me", "p:@ss w\u00f6rd")
    dialler, _ = await through(server, transports, listener, credentials="me:p%3A%40ss%20w%C3%B6rd@")
    await eventually(lambda: dialler.handler.links)
    assert dialler.dials()[0].url.endswith(f"?proxy=socks5://me:***@127.0.0.1:{server.port}"), "no password is shown"


async def test_a_link_through_a_proxy_that_is_lost_is_dialled_again(proxy, transports, listener):
    server = await proxy()
    dialler, _ = await through(server, transports, listener)
    await eventually(lambda: dialler.handler.links)
    server.cut()
    await eventually(lambda: downs(dialler) == 1 and dialler.handler.links)
    assert len(server.asked) == 2


@pytest.mark.parametrize("turns", range(4))
async def test_a_node_that_closes_when_it_has_just_lost_such_a_link_leaves_nothing(proxy, transports, listener, turns):
    """The task that dials is cancelled while it waits for what was sent to pass the proxy."""
    dialler, _ = await through(await proxy(), transports, listener)
    await eventually(lambda: dialler.handler.links)
    dialler.hang_up(dialler.handler.links[0], 60.0)
    for _ in range(turns):
        await asyncio.sleep(0)
    await dialler.close()


async def test_what_was_sent_just_before_closing_arrives_through_a_proxy(proxy, transports, listener):
    dialler, _ = await through(await proxy(), transports, listener)
    await eventually(lambda: dialler.handler.links)
    for number in range(50):
        assert dialler.send(dialler.handler.links[0], (b"%d" % number, b"", b""))
    await dialler.close()
    await eventually(lambda: len(listener.handler.frames) == 50)


REFUSALS = {
    1: (DialFailure.PROXY, "it failed"),
    2: (DialFailure.PROXY, "its rules don't allow that"),
    3: (DialFailure.NO_ROUTE, "the network is unreachable"),
    4: (DialFailure.NO_ROUTE, "the host is unreachable"),
    5: (DialFailure.REFUSED, "connection refused"),
    6: (DialFailure.TIMED_OUT, "the connection timed out"),
    77: (DialFailure.PROXY, "it failed with 77"),
}


@pytest.mark.parametrize("reply", REFUSALS)
async def test_what_a_proxy_refuses_is_reported_and_dialled_again_and_ends_no_process(
    proxy, transports, listener, reply
):
    """With ZMQ_SOCKS_PROXY libzmq 4.3.5 would abort as soon as the socket is closed."""
    server = await proxy()
    server.reply = reply
    dialler, _ = await through(server, transports, listener)
    await eventually(lambda: len(dialler.handler.failures) >= 2)
    failure, text = REFUSALS[reply]
    assert dialler.dials()[0].failure is failure
    assert dialler.handler.failures[0][1] == f"its proxy 127.0.0.1:{server.port}: {text}"
    server.reply = 0
    await eventually(lambda: dialler.handler.links)


@pytest.mark.parametrize(
    ("says", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it is no SOCKS5 server"),
        (b"\x05\xff", "it wants a user and a password, or others"),
        (b"", "no answer"),
    ],
)
async def test_a_proxy_that_is_none_is_reported(proxy, transports, listener, monkeypatch, says, text):
    if not says:
        monkeypatch.setattr("zmesh.transport.socks.PROXY_WITHIN", 0.3)
    server = await proxy()
    server.says = says
    dialler, _ = await through(server, transports, listener)
    await eventually(lambda: dialler.handler.failures)
    assert dialler.handler.failures[0][1] == f"its proxy 127.0.0.1:{server.port}: {text}"


async def test_a_proxy_that_does_not_take_the_password_is_reported(proxy, transports, listener):
    server = await proxy("me", "right")
    dialler, _ = await through(server, transports, listener, credentials="me:wrong@")
    await eventually(lambda: dialler.handler.failures)
    assert dialler.handler.failures[0][1].endswith(": it does not take the user and password")
    assert "wrong" not in str(dialler.handler.failures)


async def test_a_proxy_that_is_not_there_is_reported(transports, free_port):
    dialler = transports()
    dialler.dial(f"tcp://hub:7323?proxy=socks5://127.0.0.1:{free_port}")
    await eventually(lambda: dialler.handler.failures)
    assert dialler.handler.failures[0][1] == f"its proxy 127.0.0.1:{free_port}: connection refused"
    assert dialler.dials()[0].failure is DialFailure.REFUSED


async def test_closing_does_not_wait_for_a_proxy_that_keeps_silent(proxy, transports, listener):
    server = await proxy()
    server.says = b""
    dialler, _ = await through(server, transports, listener)
    await eventually(lambda: server._writers)
    await dialler.close()
    assert dialler.handler.failures == []


# --- URLs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "proxy"),
    [
        ("proxy=socks5://host:1081", Proxy("host", 1081)),
        ("proxy=socks5://host", Proxy("host", 1080)),
        ("proxy=socks5://[::1]:9050/&cost=7", Proxy("::1", 9050)),
        ("cost=7&proxy=socks5://u:p%40@h:1", Proxy("h", 1, "u", "p@")),
        ("proxy=socks5://u@h:1", Proxy("h", 1, "u", "")),
    ],
)
def test_a_url_may_name_a_proxy(query, proxy):
    target = parse_url(f"tcp://hub:7323?{query}")
    assert (target.proxy, target.host, target.port) == (proxy, "hub", 7323)
    assert target.cost == (7 if "cost" in query else 100)


@pytest.mark.parametrize(
    "proxy",
    ["", "host:1080", "http://host:1080", "socks4://host:1", "socks5://", "socks5://host:99999", "socks5://host:1/path",
     "socks5://:secret@host:1", f"socks5://{'u' * 256}:secret@host:1", f"socks5://u:secret{'p' * 256}@host:1"],
)  # fmt: skip
async def test_a_bad_proxy_is_refused_without_its_password(transports, proxy):
    with pytest.raises(AddressError, match="prox") as raised:
        transports().dial(f"tcp://hub:7323?proxy={proxy}")
    assert "secret" not in str(raised.value)


async def test_only_tcp_peers_go_through_a_proxy(transports, tmp_path):
    with pytest.raises(AddressError, match="only TCP goes through a proxy"):
        transports().dial(f"ipc://{tmp_path}/s?proxy=socks5://host:1")
    with pytest.raises(AddressError, match="a proxy is for peers that are dialled"):
        transports().listen("tcp://127.0.0.1:*?proxy=socks5://host:1")


async def test_links_beside_a_proxy_do_without_it(proxy, transports, listener):
    server = await proxy()
    await joined(transports(), listener, "tcp://127.0.0.1:*")
    assert server.asked == []
