"""What a peer speaks is found out where its connection was reset before ZeroMQ had read it."""

import asyncio
import contextlib
import socket
import struct

import pytest

from zmesh.testing import eventually
from zmesh.transport.curve import KeyPair, key_to_text
from zmesh.transport.dial_status import DialFailure
from zmesh.transport.greeting import GREETING_BYTES, MAJOR, SIGNATURE, read_mechanism, spoken_mechanism
from zmesh.transport.happy_eyeballs import Candidate

RESET = struct.pack("ii", 1, 0)


def greeting(mechanism):
    return SIGNATURE + MAJOR + b"\0" + mechanism.ljust(20, b"\0") + bytes(32)


@contextlib.asynccontextmanager
async def resetting(port, answer):
    """A listener that resets each connection on which all of a greeting has come, and greets the others with that."""

    async def serve(reader, writer):
        beginning = await reader.read(11)
        if len(beginning) == 11:
            with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(0.3):
                    await reader.readexactly(1)
                    beginning = b""
        else:
            beginning = b""
        if beginning:
            writer.write(answer)
            await writer.drain()
            writer.close()
        else:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", port):
        yield f"tcp://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("mechanism", "key", "failure"),
    [
        (b"CURVE", False, DialFailure.ENCRYPTED),
        (b"NULL", True, DialFailure.PLAINTEXT),
        (b"NULL", False, None),
        (b"CURVE", True, DialFailure.WRONG_KEY),
    ],
)
async def test_a_connection_that_is_reset_early_is_explained(dialler, free_port, mechanism, key, failure):
    async with resetting(free_port, greeting(mechanism)) as url:
        dialler.dial(f"{url}?key={key_to_text(KeyPair.generate().public)}" if key else url)
        await eventually(lambda: dialler.handler.failures)
        (dial,) = dialler.dials()
        assert dial.failure is failure or (failure is None and dial.failure not in (DialFailure.ENCRYPTED, None))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(64), greeting(b"CURVE")[:63]])
async def test_one_that_does_not_greet_says_nothing(free_port, answer):
    candidate = Candidate(socket.AF_INET, ("127.0.0.1", free_port), "")
    assert await spoken_mechanism(candidate, 2.0) == b"", "nothing listens there"
    async with resetting(free_port, answer):
        assert await spoken_mechanism(candidate, 2.0) == b""


def test_a_greeting_is_read():
    assert read_mechanism(greeting(b"CURVE")) == b"CURVE"
    assert read_mechanism(greeting(b"CURVE")[: GREETING_BYTES - 1]) == b""
    assert read_mechanism(b"\xff" + bytes(8) + b"\x7f\x01" + bytes(60)) == b"", "ZMTP 1 and 2 have none"
