"""Strangers at the port of an encrypted node: nothing that they send is delivered or kept, and members don't notice.

How much later members' pings are answered is measured by `python -m benchmarks.security`; here they are answered.
"""

import asyncio
import contextlib
import os

import pytest
import zmq
from zmq.utils import z85

import zmesh
from tests.hostile.honesty import Pings
from tests.hostile.made_up import HEARTBEAT
from tests.hostile.victim import Victim
from zmesh.identity import State
from zmesh.testing import eventually
from zmesh.transport.curve import KeyPair, key_from_text

MEBIBYTE = 1 << 20
AT_ONCE = 50


def greeting(mechanism):
    """The greeting of a dialler (ZeroMQ RFC 23)."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x00" + mechanism.ljust(20, b"\0") + bytes(32)


READY = b"\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
COMMAND_READY = b"\x04" + bytes([len(READY)]) + READY
CURVE_HELLO = b"\x04\xc8\x05HELLO\x01\x00"

TALKS = {
    "raw TCP": (b"GET / HTTP/1.1\r\nHost: victim\r\n\r\n", "no_handshake"),
    "half a handshake": (greeting(b"CURVE") + CURVE_HELLO + bytes(100), "no_handshake"),
    "a HELLO of noise": (greeting(b"CURVE") + CURVE_HELLO + bytes(range(194)), "wrong_key"),
    "plaintext": (greeting(b"NULL") + COMMAND_READY + b"\x00\x05hello", "plaintext"),
}
"""What strangers say, and what they are counted as."""


@pytest.fixture
async def victim(identity, tmp_path):
    """A node with an identity, in a process of its own."""
    identity("victim", state=State(tmp_path / "victim"))
    made = await asyncio.to_thread(Victim, identity=str(tmp_path / "victim"), heartbeat=HEARTBEAT)
    yield made
    await asyncio.to_thread(made.close)


@pytest.fixture
async def pings(node, victim):
    """Pings of that node by another one of its mesh."""
    honest = await node("honest", victim.url, listen=[], heartbeat=HEARTBEAT)
    async with Pings(honest, "victim") as made:
        yield made


async def unharmed(victim, pings, before):
    """Pings are answered as ever, and the two nodes are all that there is."""
    await pings.more(20)
    assert pings.failed == []
    counts = await victim.until(lambda counts: counts["links"] == 1)
    assert counts["nodes"] == 2
    assert (await victim.reported()).get("link_lost", 0) == 0
    assert victim.memory("VmHWM") - before < 32 * MEBIBYTE


def port_of(victim):
    return int(victim.url.partition("?")[0].rpartition(":")[2])


async def talk(port, data, *, until_closed):
    """Connect, say something, and wait for the end of it or leave in the middle."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        await writer.drain()
        if until_closed:
            while await reader.read(65536):
                pass
    writer.transport.abort()


@pytest.mark.parametrize("kind", TALKS)
async def test_strangers_of_each_kind_are_ended_and_counted(victim, pings, kind):
    data, code = TALKS[kind]
    before = victim.memory("VmHWM")
    async with asyncio.timeout(90):
        await asyncio.gather(*(talk(port_of(victim), data, until_closed=True) for _ in range(AT_ONCE)))
    await victim.wait_reported(f"stranger_refused:{code}", AT_ONCE)
    await unharmed(victim, pings, before)


async def test_a_thousand_strangers_leave_nothing(victim, pings):
    before = victim.memory("VmHWM")
    talks = [data for data, _ in TALKS.values()]
    for _ in range(1000 // AT_ONCE):
        several = (talk(port_of(victim), talks[number % 4], until_closed=False) for number in range(AT_ONCE))
        await asyncio.gather(*several)
    await unharmed(victim, pings, before)
    reported = await victim.reported()
    assert sum(count for key, count in reported.items() if key.startswith("stranger_refused:")) <= 1000


async def test_a_message_that_never_ends_is_not_kept_from_who_does_not_know_the_key(victim, pings):
    """A plaintext listener keeps 100 MiB of the parts of one message; here the first of them ends the connection."""
    before = victim.memory("VmHWM")
    _, writer = await asyncio.open_connection("127.0.0.1", port_of(victim))
    writer.write(greeting(b"NULL") + COMMAND_READY)
    part = b"\x03" + (MEBIBYTE // 8).to_bytes(8, "big") + bytes(MEBIBYTE // 8)
    with pytest.raises(ConnectionError):
        for _ in range(800):
            writer.write(part)
            await writer.drain()
    writer.transport.abort()
    await victim.wait_reported("stranger_refused:plaintext")
    await unharmed(victim, pings, before)


@pytest.fixture
def curve_dealer(victim):
    """Makes sockets of ZeroMQ that are connected to the node with its key, and one of their own: `curve_dealer()`."""
    with contextlib.ExitStack() as stack:
        context = stack.enter_context(zmq.Context())

        def connect():
            sock = stack.enter_context(context.socket(zmq.DEALER))
            keys = KeyPair.generate()
            sock.linger, sock.reconnect_ivl = 0, 60_000
            sock.curve_serverkey = z85.encode(key_from_text(victim.url.partition("?key=")[2]))
            sock.curve_publickey, sock.curve_secretkey = z85.encode(keys.public), z85.encode(keys.secret)
            sock.connect(victim.url.partition("?")[0])
            return sock

        yield connect


async def test_a_message_that_never_ends_is_cut_short_from_who_knows_the_key(victim, pings, curve_dealer):
    """It gets through the handshake, and no further: there is no link until a HELLO."""
    before = victim.memory("VmHWM")
    stranger, part = curve_dealer(), bytes(64 * 1024)
    async with asyncio.timeout(60):
        while (await victim.reported()).get("connection_shut", 0) == 0:
            with contextlib.suppress(zmq.Again):
                for _ in range(100):
                    stranger.send(part, zmq.SNDMORE | zmq.DONTWAIT)
    await unharmed(victim, pings, before)


async def test_what_is_no_hello_is_not_delivered_over_an_encrypted_connection(victim, pings, curve_dealer):
    """Whoever knows the key is let through the handshake, and is hung up on."""
    before = victim.memory("VmHWM")
    for _ in range(20):
        curve_dealer().send(os.urandom(100))
    await victim.wait_reported("connection_shut", 20)
    await unharmed(victim, pings, before)


async def test_a_node_that_is_in_stays_while_connections_are_held_open(victim, pings):
    """Half a handshake each, more than one address may have: the oldest are ended, and members are none of them."""
    before = victim.memory("VmHWM")
    writers = []
    for _ in range(600 // AT_ONCE):
        opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port_of(victim)) for _ in range(AT_ONCE)))
        for _, writer in opened:
            writer.write(greeting(b"CURVE"))
            writers.append(writer)
    await victim.wait_reported("connection_shut")
    pings.since()
    await pings.more(20)
    assert pings.failed == []
    for writer in writers:
        writer.transport.abort()
    await unharmed(victim, pings, before)


async def test_a_plaintext_dialler_gets_nothing(victim, pings, node):
    before = victim.memory("VmHWM")
    lost = await node("lost", victim.url.partition("?")[0], identity_=None, listen=[])
    failures = []
    lost.watch(lambda event: failures.append(event.code) if isinstance(event, zmesh.DialFailed) else None)
    await victim.wait_reported("stranger_refused:plaintext")
    await eventually(lambda: "encrypted" in failures)
    assert set(failures) <= {"encrypted", "closed"}, "closed: it had no time to read what the other end takes"
    await unharmed(victim, pings, before)
