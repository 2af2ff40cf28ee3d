"""The one ZeroMQ context of the process, there as long as any transport is open."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress

import zmq

MAX_SOCKETS = 32_768
KEPT_BYTES = 8 * 1024 * 1024

Context = zmq.Context[zmq.Socket[bytes]]


class _Shared:
    """The context and how many transports use it; those of different threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: Context | None = None
        self.users = 0
        self._kept: list[Context] = []
        os.register_at_fork(after_in_child=self._in_child)

    def acquire(self) -> Context:
        """The context, made by its first user; give it back with `release`. Raises ZMQError."""
        with self._lock:
            if self._context is None:
                self._context = Context()
                self._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
                _keep_freed_memory()
            self.users += 1
            return self._context

    async def release(self, can_end: bool = True) -> None:
        """Give it back. The last user terminates it, which takes until all is sent, and ZMQ_LINGER_MS at most.

        `can_end` False: a socket is open that can't be closed any more, so that ending it would take for ever.
        """
        context = self._give_back(can_end)
        if context is not None:
            await _end(context)

    def release_now(self, can_end: bool = True) -> None:
        """Give it back without a loop; the last one blocks until the context has ended, for ZMQ_LINGER_MS at most."""
        context = self._give_back(can_end)
        if context is not None:
            context.term()

    def _give_back(self, can_end: bool) -> Context | None:
        """The context, if it is to be ended now."""
        with self._lock:
            self.users -= 1
            if self.users or self._context is None:
                return None
            context, self._context = self._context, None
            if can_end:
                return context
            self._kept.append(context)
            return None

    def _in_child(self) -> None:
        """A context can be neither used nor ended in a fork, where its threads are not; the child makes one of its own.

        That of the parent is kept, since collecting it as garbage would be to end it.
        """
        self._lock = threading.Lock()
        if self._context is not None:
            self._kept.append(self._context)
        self._context, self.users = None, 0


def _keep_freed_memory() -> None:
    """Have the C library keep the memory of messages that are done, for those that follow.

    glibc gives the end of its heap back to the system as soon as 128 KiB of it are free, which is the case after every
    other chunk of a transfer, and pays for it in page faults with the next: a quarter of all processor time. One block
    that was large enough to be mapped by itself, and is freed, moves that limit to twice its size for good (mallopt(3),
    M_MMAP_THRESHOLD). Other C libraries do not mind.
    """
    bytes(KEPT_BYTES)


async def _end(context: Context) -> None:
    """Terminate a context in a thread of our own; that of the loop's executor would stay for as long as the loop."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def terminate() -> None:
        context.term()
        with suppress(RuntimeError):  # the loop is closed: there is no waiter
            loop.call_soon_threadsafe(ended.set)

    thread = threading.Thread(target=terminate, name="zmesh context")
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending (3.12), and with it whatever else this loop may have had to do
        terminate()
        return
    await ended.wait()
    thread.join()


shared = _Shared()


def open_transports() -> int:
    """How many transports of this process hold the ZeroMQ context; 0 when all are closed."""
    return shared.users


def libzmq_version() -> str:
    """The version of libzmq, such as `4.3.5`."""
    return zmq.zmq_version()
