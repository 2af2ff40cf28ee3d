"""The floor under zmesh: loops of asyncio and pyzmq that only move messages on.

A socket's descriptor is watched, and when it is ready the socket is drained and each message sent on, with pyzmq's
plain calls. There is no protocol, no await and no task for a message; what is left is what Python, pyzmq, libzmq and
the kernel cost for any program of this shape. `benchmarks.latency`, `peers` and `instructions` measure it beside zmesh.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import zmq

BATCH = 64


class Socket:
    """A DEALER that hands each message, as the list of its parts, to `on_message` when it comes."""

    def __init__(self, context: zmq.Context[Any], on_message: Callable[[list[bytes]], None]) -> None:
        self.socket = context.socket(zmq.DEALER, socket_class=zmq.Socket)
        self.socket.set_hwm(0)
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._draining = False
        self._fd = cast("int", self.socket.get(zmq.FD))

    def start(self) -> None:
        """Watch the descriptor, once the socket is bound or connected."""
        self._loop.add_reader(self._fd, self._drain)
        self._loop.call_soon(self._drain)

    def send(self, parts: list[bytes]) -> None:
        """Send a message."""
        if len(parts) == 1:
            self.socket.send(parts[0], zmq.DONTWAIT)
        else:
            self.socket.send_multipart(parts, zmq.DONTWAIT)
        if not self._draining and not self._scheduled and cast("int", self.socket.get(zmq.EVENTS)) & zmq.POLLIN:
            self._scheduled = True  # sending may have swallowed the signal of the descriptor
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._scheduled = False
        self._draining = True
        recv, on_message = self.socket.recv_multipart, self._on_message
        try:
            for _ in range(BATCH):
                on_message(recv(zmq.DONTWAIT))
        except zmq.Again:
            return
        finally:
            self._draining = False
        self._scheduled = True
        self._loop.call_soon(self._drain)

    def close(self) -> None:
        """Stop watching, and close the socket."""
        self._loop.remove_reader(self._fd)
        self.socket.close(0)


class Forwarder:
    """Two sockets, one bound and one connected, that pass all messages on to each other."""

    def __init__(self, context: zmq.Context[Any], bind: str, connect: str) -> None:
        self.front = Socket(context, lambda message: self.back.send(message))
        self.back = Socket(context, lambda message: self.front.send(message))
        self.front.socket.bind(bind)
        self.back.socket.connect(connect)
        self.front.start()
        self.back.start()

    def close(self) -> None:
        """Close both."""
        self.front.close()
        self.back.close()
