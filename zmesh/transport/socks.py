"""Peers behind a SOCKS5 proxy (RFC 1928, RFC 1929), which resolves their names.

This module does the SOCKS handshake, and hands the connection to ZeroMQ through a Unix socket that only this
connection uses. libzmq has an option of its own (ZMQ_SOCKS_PROXY), which can't be used: 4.3.5 ends the whole process
when a socket is closed whose proxy was not there or has refused (it takes a descriptor out of its poller twice).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from typing import Self

from zmesh.transport.address import Proxy
from zmesh.transport.dial_status import DialError, DialFailure, failed
from zmesh.transport.lingering import ZMQ_LINGER_MS

PROXY_WITHIN = 10.0
CHUNK_BYTES = 256 * 1024
MAX_PATH = 100

_NO_PASSWORD = 0
_PASSWORD = 2
_REPLIES = {
    1: (DialFailure.PROXY, "it failed"),
    2: (DialFailure.PROXY, "its rules don't allow that"),
    3: (DialFailure.NO_ROUTE, "the network is unreachable"),
    4: (DialFailure.NO_ROUTE, "the host is unreachable"),
    5: (DialFailure.REFUSED, "connection refused"),
    6: (DialFailure.TIMED_OUT, "the connection timed out"),
    7: (DialFailure.PROXY, "it knows no such command"),
    8: (DialFailure.PROXY, "it knows no such kind of address"),
}


class SocksTunnel:
    """A connection to `host` and `port` through the proxy at the other end of `sock`, which becomes the tunnel's own.

    In its `async with`, what connects to `endpoint` talks to the peer. Raises DialError if the proxy does not connect.
    """

    def __init__(self, sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
        self._sock = sock
        self._proxy = proxy
        self._host = host
        self._port = port
        self._folder = ""
        self._pump: asyncio.Task[None] | None = None
        self._server: socket.socket | None = None

    @property
    def endpoint(self) -> str:
        """The endpoint that ZeroMQ connects to."""
        return f"ipc://{self._folder}/s"

    async def __aenter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.callback(self._close)
            try:
                async with asyncio.timeout(PROXY_WITHIN):
                    await self._handshake()
            except TimeoutError:
                raise self._failure(DialFailure.TIMED_OUT, "no answer") from None
            except OSError as error:
                raise self._failure(DialFailure.PROXY, failed(error).reason) from None
            self._listen()
            undo.pop_all()
        self._pump = asyncio.get_running_loop().create_task(self._serve(), name="zmesh tunnel")
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self._pump is not None and self._server is None:  # ZeroMQ still sends what its closed socket was given
                await asyncio.wait((self._pump,), timeout=ZMQ_LINGER_MS / 1000)
        finally:
            try:
                if self._pump is not None:
                    self._pump.cancel()
                    await asyncio.gather(self._pump, return_exceptions=True)
            finally:
                self._close()

    # -- the proxy -----------------------------------------------------------------------------------------------

    async def _handshake(self) -> None:
        proxy = self._proxy
        methods = bytes([_NO_PASSWORD] if proxy.user is None else [_NO_PASSWORD, _PASSWORD])
        await self._send(bytes([5, len(methods)]) + methods)
        version, method = await self._receive(2)
        if version != 5 or method not in methods:
            text = "it wants a user and a password, or others" if version == 5 else "it is no SOCKS5 server"
            raise self._failure(DialFailure.PROXY, text)
        if method == _PASSWORD:
            user, password = (proxy.user or "").encode(), proxy.password.encode()
            await self._send(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
            if (await self._receive(2))[1] != 0:
                raise self._failure(DialFailure.PROXY, "it does not take the user and password")
        await self._send(b"\x05\x01\x00" + _address(self._host) + self._port.to_bytes(2, "big"))
        version, reply, _, kind = await self._receive(4)
        if version != 5 or reply != 0:
            raise self._failure(*_REPLIES.get(reply, (DialFailure.PROXY, f"it failed with {reply}")))
        length = {1: 4, 4: 16}.get(kind) or (await self._receive(1))[0]
        await self._receive(length + 2)

    async def _send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await asyncio.get_running_loop().sock_recv(self._sock, size - len(data))
            if not more:
                raise self._failure(DialFailure.PROXY, "it closed the connection")
            data += more
        return data

    def _failure(self, failure: DialFailure, text: str) -> DialError:
        return DialError(failure, f"its proxy {self._proxy.host}:{self._proxy.port}: {text}")

    # -- the Unix socket -----------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="zmesh-")
        if len(self._folder.encode()) > MAX_PATH:
            os.rmdir(self._folder)
            self._folder = tempfile.mkdtemp(prefix="zmesh-", dir="/tmp")
        self._server = socket.socket(socket.AF_UNIX)
        self._server.setblocking(False)
        self._server.bind(f"{self._folder}/s")
        self._server.listen(1)

    async def _serve(self) -> None:
        """Take the one connection, and copy in both directions until one end closes."""
        server = self._server
        assert server is not None
        loop = asyncio.get_running_loop()
        inner, _ = await loop.sock_accept(server)
        with inner:
            self._stop_listening()
            directions = [loop.create_task(_pass_on(inner, self._sock)), loop.create_task(_pass_on(self._sock, inner))]
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for direction in directions:
                    direction.cancel()
                await asyncio.gather(*directions, return_exceptions=True)

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""

    def _close(self) -> None:
        self._stop_listening()
        self._sock.close()


async def _pass_on(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(source, CHUNK_BYTES):
            await loop.sock_sendall(target, data)


def _address(host: str) -> bytes:
    """A host as SOCKS5 has it; a name goes as it is, and the proxy resolves it."""
    for kind, family in ((1, socket.AF_INET), (4, socket.AF_INET6)):
        with contextlib.suppress(OSError, ValueError):
            return bytes([kind]) + socket.inet_pton(family, host)
    name = host.encode("idna") if not host.isascii() else host.encode()
    if len(name) > 255:
        raise DialError(DialFailure.UNRESOLVED, f"the name {host!r} is longer than 255 bytes")
    return bytes([3, len(name)]) + name
