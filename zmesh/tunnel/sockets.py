"""A connection through the mesh as a connected socket, for libraries and programs that take one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from zmesh.runtime import close_in_child
from zmesh.tunnel.relay import Relay

Connect = Callable[[Callable[[], asyncio.Protocol]], Awaitable[object]]


async def connected_socket(connect: Connect) -> socket.socket:
    """A socket that leads to the remote end that `connect` connects a protocol to. Raises what that raises.

    It is one end of a TCP connection within this machine, so that a reset is one for its reader, too. That connection
    ends when the one through the mesh does.
    """
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as undo:
        ours, theirs = await _pair(undo)
        relay = Relay()
        undo.callback(relay.abort)
        await loop.create_connection(lambda: relay.near, sock=ours)
        await connect(lambda: relay.far)
        undo.pop_all()
    theirs.setblocking(True)
    return theirs


async def _pair(undo: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two sockets that are connected to each other, and not to a third one that has found the port."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        ours = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        ours.setblocking(False)
        await loop.sock_connect(ours, server.getsockname())
        while True:
            theirs, address = await loop.sock_accept(server)
            undo.callback(theirs.close)
            if address == ours.getsockname():
                break
    close_in_child(ours)
    for sock in (ours, theirs):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs
