"""The greeting of ZMTP: which security mechanism a peer speaks, as it says before anything else (ZeroMQ RFC 23).

libzmq says so as well, but not where the other end has reset the connection before it was read.
"""

from __future__ import annotations

import asyncio
import contextlib

from zmesh.transport.dial_status import DialError
from zmesh.transport.happy_eyeballs import Candidate, connect_first

NULL, CURVE = b"NULL", b"CURVE"
SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
MAJOR = b"\x03"
GREETING_BYTES = 64
_MECHANISM = slice(12, 32)


async def spoken_mechanism(candidate: Candidate, within: float) -> bytes:
    """The mechanism that a peer names in its greeting, without zeros; b"" if it names none within so many seconds.

    The own greeting is left unfinished, so that the other end has nothing to refuse yet.
    """
    greeting = bytearray()
    with contextlib.suppress(OSError, TimeoutError, DialError):
        _, sock = await connect_first([candidate], within)
        with sock:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(within):
                await loop.sock_sendall(sock, SIGNATURE + MAJOR)
                while len(greeting) < GREETING_BYTES:
                    data = await loop.sock_recv(sock, GREETING_BYTES - len(greeting))
                    if not data:
                        break
                    greeting += data
    return read_mechanism(bytes(greeting))


def read_mechanism(greeting: bytes) -> bytes:
    """The mechanism in a greeting; b"" if it is none, or not complete."""
    if len(greeting) < GREETING_BYTES or greeting[:1] != SIGNATURE[:1] or greeting[9:11] != SIGNATURE[9:] + MAJOR:
        return b""
    return greeting[_MECHANISM].rstrip(b"\0")
