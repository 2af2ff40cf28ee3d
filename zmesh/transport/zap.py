"""ZAP handler of the process (ZeroMQ RFC 27): lets in who has done a CURVE handshake, and says with which key.

libzmq asks one endpoint of a context about each connection to an encrypted listener, before anything that came over it
can be read. A thread of its own answers, so that a blocked event loop keeps no other node of the process from being
linked to. It admits every CURVE key in the domain of an open transport: that the key was made by a member of the mesh
is for the HELLO to prove. What it adds is the connection's User-Id, the client's key, to which the HELLO is bound.

All fails closed. None is let in while there is no handler (ZMQ_ZAP_ENFORCE_DOMAIN), while it does not answer (libzmq
ends the connection after ZMQ_HANDSHAKE_IVL), or into a domain that is not open. A refusal is 300, after which libzmq's
own clients try again; at a 400 or 500 they would never do so, though the node may be open again a moment later.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import zmq

if TYPE_CHECKING:
    from zmesh.transport.context import Context

log = logging.getLogger(__name__)

ENDPOINT = "inproc://zeromq.zap.01"
STOP_WITHIN = 1.0
_FRAMES = 9
"""Routing id, delimiter, version, request id, domain, address, identity, mechanism, and the key of CURVE."""


class ZapHandler:
    """The handler of one process. Thread-safe; it runs as long as any domain is open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._domains: frozenset[bytes] = frozenset()
        self._numbers = itertools.count(1)
        self._thread: threading.Thread | None = None
        self._stop: zmq.Socket[bytes] | None = None
        self._inherited: list[object] = []
        os.register_at_fork(after_in_child=self._in_child)

    def open(self, context: Context) -> bytes:
        """Open a domain for the listeners of one transport, which is to be closed before the context is given back.

        Raises ZMQError or RuntimeError if the handler can't be started.
        """
        with self._lock:
            if self._thread is not None and not self._thread.is_alive():
                self._join()
            if self._thread is None:
                self._start(context)
            domain = f"zmesh-{next(self._numbers)}".encode()
            self._domains |= {domain}
            return domain

    def close(self, domain: bytes) -> bool:
        """Admit no more connections to that domain; the last one ends the handler.

        False if that could not be ended, as when the interpreter ends: then the context must not be terminated.
        """
        with self._lock:
            self._domains -= {domain}
            return bool(self._domains) or self._join()

    def _start(self, context: Context) -> None:
        """Bind the endpoint and start the thread. Raises ZMQError or RuntimeError, and then leaves nothing."""
        stopping = f"inproc://zmesh-zap-{next(self._numbers)}"
        with ExitStack() as unless_started:
            sockets: list[zmq.Socket[bytes]] = []
            for kind in (zmq.ROUTER, zmq.PAIR, zmq.PAIR):
                sockets.append(context.socket(kind, socket_class=zmq.Socket))
                unless_started.callback(sockets[-1].close, 0)
            requests, stopped, stop = sockets
            stopped.bind(stopping)
            stop.connect(stopping)
            requests.bind(ENDPOINT)
            thread = threading.Thread(target=self._serve, args=(requests, stopped), name="zmesh zap", daemon=True)
            thread.start()
            unless_started.pop_all()
        self._thread, self._stop = thread, stop

    def _join(self) -> bool:
        thread, stop = self._thread, self._stop
        if thread is None or stop is None:
            return True
        self._thread = self._stop = None
        with suppress(zmq.ZMQError):
            stop.send(b"", zmq.DONTWAIT)
        with suppress(RuntimeError):  # the interpreter is ending
            thread.join(STOP_WITHIN)
        stop.close(0)
        return not thread.is_alive()

    def _serve(self, requests: zmq.Socket[bytes], stopped: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(requests, zmq.POLLIN)
        poller.register(stopped, zmq.POLLIN)
        try:
            while True:
                ready = dict(poller.poll())
                if stopped in ready:
                    return
                reply = self._answer(requests.recv_multipart())
                if reply is not None:
                    with suppress(zmq.Again):
                        requests.send_multipart(reply, zmq.DONTWAIT)
        except zmq.ZMQError as error:
            log.error("nobody can link to encrypted listeners of this process: %s", error)
        finally:
            requests.close(0)
            stopped.close(0)

    def _answer(self, request: list[bytes]) -> list[bytes] | None:
        """The reply to a request; None to what is none, whose connection then ends by itself."""
        if len(request) < _FRAMES - 1 or request[2] != b"1.0":
            return None
        route, sequence, domain, mechanism, key = request[0], request[3], request[4], request[7], request[8:]
        admitted = domain in self._domains and mechanism == b"CURVE" and [len(part) for part in key] == [32]
        status, text, user = (b"200", b"OK", key[0].hex().encode()) if admitted else (b"300", b"not open", b"")
        return [route, b"", b"1.0", sequence, status, text, user, b""]

    def _in_child(self) -> None:
        """A fork has no such thread; its sockets are the parent's, and stay as they are."""
        self._lock = threading.Lock()
        self._inherited.append((self._thread, self._stop))
        self._domains, self._thread, self._stop = frozenset(), None, None


shared = ZapHandler()


def key_of(frame: zmq.Frame) -> bytes:
    """The CURVE key of the client that a frame came from, 32 bytes, as the handler has returned it to libzmq."""
    return bytes.fromhex(str(frame.get("User-Id")))
