"""Whether a socket has input or room (ZMQ_EVENTS), which is asked for every batch of messages and after every send.

pyzmq makes an enum of the option's number in each call and takes twice as long as libzmq itself. So `zmq_getsockopt` is
called by ctypes, from the very library that pyzmq uses; where that can't be found, by pyzmq.
"""

from __future__ import annotations

import ctypes
import errno
import sys
from collections.abc import Callable
from functools import partial
from typing import cast

import zmq

EVENTS = int(zmq.EVENTS)


def _find_getsockopt() -> Callable[..., int] | None:
    """`zmq_getsockopt` of the libzmq that pyzmq's extension module is linked with."""
    extension = sys.modules.get(zmq.backend.Socket.__module__)
    try:
        # PyDLL keeps the interpreter's lock for the short call; `[...]` gives a function that no other code shares.
        function = ctypes.PyDLL(getattr(extension, "__file__", ""))["zmq_getsockopt"]
    except (OSError, AttributeError, TypeError):
        return None
    function.restype = ctypes.c_int
    return function


_getsockopt = _find_getsockopt()


def events_reader(sock: zmq.Socket[bytes], getsockopt: Callable[..., int] | None = _getsockopt) -> Callable[[], int]:
    """A function that reads ZMQ_EVENTS of a socket, to be called only while that is open. It raises ZMQError."""
    if getsockopt is None:
        return cast("Callable[[], int]", partial(zmq.backend.Socket.get, sock, EVENTS))
    handle, option = ctypes.c_void_p(sock.underlying), ctypes.c_int(EVENTS)
    found, size = ctypes.c_int(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    value_at, size_at = ctypes.byref(found), ctypes.byref(size)

    def read() -> int:
        while getsockopt(handle, option, value_at, size_at):
            if zmq.zmq_errno() != errno.EINTR:
                raise zmq.ZMQError
        return found.value

    return read
