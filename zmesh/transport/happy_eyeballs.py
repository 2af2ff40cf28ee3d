"""Happy Eyeballs: of the addresses of a peer, the first that accepts a TCP connection (RFC 8305).

ZeroMQ reports only that a connection failed, and connects to one address. So where there are several, or where one has
failed, a plain connection is made first, which says why if it fails; ZeroMQ is then given an address that answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from zmesh.runtime import abandon
from zmesh.transport.dial_status import DialError, DialFailure, failed

STAGGER = 0.25
"""Seconds after which the next address is tried beside those that have not answered."""

_MOST_SPECIFIC = (
    DialFailure.REFUSED,
    DialFailure.CLOSED,
    DialFailure.RESOURCES,
    DialFailure.TIMED_OUT,
    DialFailure.OTHER,
)


class Candidate(NamedTuple):
    """An address to try: for `socket.connect`, and as ZeroMQ wants it."""

    family: int
    address: tuple[str, int] | tuple[str, int, int, int] | str
    endpoint: str


async def connect_first(candidates: Sequence[Candidate], within: float) -> tuple[Candidate, socket.socket]:
    """The first candidate that accepts a connection, and that connection, which is the caller's to close.

    Each has `within` seconds. Raises DialError with the most specific failure if none accepts one.
    """
    loop = asyncio.get_running_loop()
    waiting, failures = deque(candidates), [DialError(DialFailure.UNRESOLVED, "it has no address")]
    tries: dict[asyncio.Task[socket.socket], Candidate] = {}
    try:
        while waiting or tries:
            if waiting:
                candidate = waiting.popleft()
                tries[loop.create_task(_connect(candidate, within), name="zmesh connect")] = candidate
            pause = STAGGER if waiting else None
            done, _ = await asyncio.wait(tries, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    return tries.pop(task), task.result()
                del tries[task]
                failures.append(_failure(error))
    except GeneratorExit:  # the loop is closed, and nothing can be awaited
        while tries:
            abandon(tries.popitem()[0])
        raise
    finally:
        for task in tries:
            task.cancel()
        for rest in await asyncio.gather(*tries, return_exceptions=True) if tries else ():
            if isinstance(rest, socket.socket):
                rest.close()
    raise min(failures[1:] or failures, key=_rank)


async def _connect(candidate: Candidate, within: float) -> socket.socket:
    with contextlib.ExitStack() as unless_connected:
        sock = unless_connected.enter_context(socket.socket(candidate.family, socket.SOCK_STREAM))
        sock.setblocking(False)
        async with asyncio.timeout(within):
            await asyncio.get_running_loop().sock_connect(sock, candidate.address)
        unless_connected.pop_all()
    return sock


def _failure(error: BaseException) -> DialError:
    if isinstance(error, TimeoutError) and getattr(error, "errno", None) is None:
        return DialError(DialFailure.TIMED_OUT, "the connection timed out")
    if isinstance(error, OSError):
        return failed(error)
    return DialError(DialFailure.OTHER, f"{type(error).__name__}: {error}")


def _rank(failure: DialError) -> int:
    return _MOST_SPECIFIC.index(failure.failure) if failure.failure in _MOST_SPECIFIC else len(_MOST_SPECIFIC)
