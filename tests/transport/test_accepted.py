"""Connections that a listener has accepted and that never greet: how many, how long, how much, and their end."""

import asyncio
import contextlib
import os
import resource
import socket
import time

import pytest

from tests.transport.transport_handler import FRAMES, joined
from tests.waiting import WITHIN
from zmesh.core import wire
from zmesh.testing import Mesh, eventually
from zmesh.transport.accepted import AcceptedConnection, AcceptedConnections
from zmesh.transport.resolver import Address

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
HANDSHAKE = GREETING + b"\x04" + bytes([len(READY)]) + READY
PART = b"\x03" + (64 * 1024).to_bytes(8, "big") + bytes(64 * 1024)
"""A part of 64 KiB with more to follow."""
MANY = 1_000_000
"""Sweeps, more than any test takes."""


def one_of_frames(parts):
    """A whole message of short parts."""
    flags = [b"\x01"] * (len(parts) - 1) + [b"\x00"]
    return b"".join(flag + bytes([len(part)]) + part for flag, part in zip(flags, parts, strict=True))


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Sweeps follow quickly upon each other, and nobody is late who is not meant to be, on however busy a machine."""
    monkeypatch.setattr("zmesh.transport.accepted.SWEEP", 0.02)
    monkeypatch.setattr("zmesh.transport.accepted.GREET_WITHIN", MANY)
    monkeypatch.setattr("zmesh.transport.accepted.HUNG_UP_WITHIN", MANY)


@pytest.fixture
async def strangers(listener):
    """Plain connections to the listener: `await strangers(b"what they say")`."""
    host, port = listener.listen("tcp://127.0.0.1:*").removeprefix("tcp://").split(":")
    writers = []

    async def connect(data=b""):
        reader, writer = await shake_hands(host, port) if data else await asyncio.open_connection(host, int(port))
        writers.append(writer)
        writer.write(data.removeprefix(HANDSHAKE))
        return reader, writer

    yield connect
    for writer in writers:
        writer.transport.abort()


async def shake_hands(host, port):
    """A connection on which the handshake of ZMTP is done."""
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(HANDSHAKE)
    await reader.readuntil(b"ROUTER")  # whoever says more before that is hung up on by libzmq
    return reader, writer


def table(listener):
    return next(iter(listener._listeners.values()))._accepted


def only(listener):
    """The one connection that it has."""
    (connection,) = table(listener)._connections.values()
    return connection


async def ended(reader):
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            pass


# --- those who do not greet -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", HANDSHAKE, HANDSHAKE + PART * 3], ids=["nothing", "handshake", "half a message"])
async def test_a_connection_over_which_no_message_comes_is_ended(listener, strangers, monkeypatch, data):
    monkeypatch.setattr("zmesh.transport.accepted.GREET_WITHIN", MANY if data else 5)
    reader, _ = await strangers(data)
    if data:  # libzmq's handshake may take longer than a few sweeps
        await eventually(lambda: table(listener).unproven == 1)
        only(listener).left -= MANY - 5
    await asyncio.wait_for(ended(reader), WITHIN)
    await eventually(lambda: len(table(listener)) == 0)
    assert listener.handler.shut == ["no greeting came"]
    assert listener.handler.links == []


async def test_a_link_stays_however_long_it_is_silent(listener, dialler):
    here, there = await joined(dialler, listener, "tcp://127.0.0.1:*")
    only(listener).left = 2
    listener.on_established(there)
    await asyncio.sleep(0.3)
    assert (len(table(listener)), table(listener).unproven) == (1, 0)
    dialler.send(here, FRAMES)
    dialler.settle()
    await eventually(lambda: len(listener.handler.frames) == 2)
    assert listener.handler.links == [there]
    assert listener.handler.shut == []


async def test_one_connection_too_many_costs_the_oldest_that_has_not_greeted_its_place(
    listener, dialler, strangers, monkeypatch
):
    monkeypatch.setattr("zmesh.transport.accepted.MAX_UNPROVEN", 3)
    dialler.dial(listener.listening[0])
    await eventually(lambda: dialler.handler.links)
    dialler.send(dialler.handler.links[0], FRAMES)
    await eventually(lambda: listener.handler.links)
    listener.on_established(listener.handler.links[0])
    kept = [await strangers(HANDSHAKE) for _ in range(3)]
    await eventually(lambda: len(table(listener)) == 4)
    assert listener.handler.shut == []
    kept.append(await strangers(HANDSHAKE))
    await asyncio.wait_for(ended(kept.pop(0)[0]), WITHIN)
    await eventually(lambda: len(table(listener)) == 4)
    assert listener.handler.shut == ["too many connections without a link"]
    assert all(not reader.at_eof() for reader, _ in kept)
    assert len(listener.handler.links) == 1


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the system does not tell how many bytes came")
async def test_bytes_before_a_greeting_are_bounded(listener, strangers, monkeypatch):
    monkeypatch.setattr("zmesh.transport.accepted.MAX_UNPROVEN_BYTES", 1024 * 1024)
    reader, writer = await strangers(HANDSHAKE)
    while not listener.handler.shut:  # not `drain`: a closed window may hold it long after the other end is gone
        if writer.transport.get_write_buffer_size() < len(PART):
            writer.write(PART)
        await asyncio.sleep(0)
    await asyncio.wait_for(ended(reader), WITHIN)
    assert listener.handler.shut == ["too many bytes before a link"]


async def test_a_loop_that_was_blocked_ends_nobody_who_has_greeted_meanwhile(listener, zmq_socket, monkeypatch):
    """Sweeps count, not time: the loop stands still for longer than they take, and they are many afterwards."""
    monkeypatch.setattr("zmesh.transport.accepted.SWEEP", 0.005)
    monkeypatch.setattr("zmesh.transport.accepted.GREET_WITHIN", 200)
    url = listener.listen("tcp://127.0.0.1:*")
    peer = zmq_socket("DEALER", url)
    await eventually(lambda: table(listener).unproven == 1)
    peer.send_multipart(FRAMES)
    time.sleep(1.1)  # noqa: ASYNC251
    await eventually(lambda: listener.handler.links)
    await asyncio.sleep(0.1)
    assert listener.handler.shut == []
    assert len(table(listener)) == 1


# --- those that are hung up on --------------------------------------------------------------------------------------


async def test_a_connection_that_was_hung_up_on_is_ended(listener, strangers):
    reader, writer = await strangers(HANDSHAKE + one_of_frames([b"a", b"b", b"c"]))
    await eventually(lambda: listener.handler.links)
    listener.on_established(listener.handler.links[0])
    assert table(listener).unproven == 0
    listener.send(listener.handler.links[0], (b"last", b"", b"word"))
    listener.hang_up(listener.handler.links[0], 0.0)
    writer.write(one_of_frames([b"d", b"e", b"f"]))
    await asyncio.wait_for(reader.readuntil(b"last"), WITHIN)  # what was sent before goes out
    await eventually(lambda: listener.handler.lost)
    assert listener.handler.shut == []
    only(listener).left -= MANY - 3
    await asyncio.wait_for(ended(reader), WITHIN)
    await eventually(lambda: len(table(listener)) == 0)
    assert listener.handler.shut == ["it was hung up on"]
    assert listener.handler.lost == [(None, "hung_up")]
    assert len(listener.handler.frames) == 1


async def test_who_ends_a_connection_himself_is_not_ended_again(listener, dialler):
    here, there = await joined(dialler, listener, "tcp://127.0.0.1:*")
    listener.hang_up(there, 0.0)
    listener.handler.links.remove(there)
    dialler.hang_up(here, 60.0)
    dialler.handler.links.remove(here)
    await eventually(lambda: len(table(listener)) == 0)
    assert listener.handler.shut == []


@pytest.mark.parametrize("who", ["the listener", "the dialler"])
async def test_the_end_of_a_link_is_no_stranger_and_that_of_a_silent_connection_is(listener, dialler, strangers, who):
    here, there = await joined(dialler, listener, "tcp://127.0.0.1:*")
    if who == "the listener":
        listener.hang_up(there, 0.0)
        listener.handler.links.remove(there)
    dialler.hang_up(here, 60.0)
    dialler.handler.links.remove(here)
    await eventually(lambda: not any(len(each._accepted) for each in listener._listeners.values()))
    assert listener.handler.strangers == []
    _, writer = await strangers()
    writer.close()
    await eventually(lambda: [code for code, _ in listener.handler.strangers] == ["no_handshake"])


@pytest.mark.parametrize("host", ["127.0.0.1", "two-addresses"])
async def test_the_plain_connection_of_a_dialler_is_no_stranger(listener, transports, free_port, host, monkeypatch):
    """A dialler makes one to a peer that was not there at first, and to each that has several addresses."""
    monkeypatch.setattr("zmesh.transport.accepted.HELD_FOR", MANY)
    dialler = transports(lambda name: [Address(socket.AF_INET, "127.0.0.2"), Address(socket.AF_INET, "127.0.0.1")])
    dialler.dial(f"tcp://{host}:{free_port}")
    await eventually(lambda: len(dialler.handler.failures) >= 2)
    listener.listen(f"tcp://127.0.0.1:{free_port}")
    await eventually(lambda: dialler.handler.links)
    dialler.send(dialler.handler.links[0], FRAMES)
    dialler.settle()
    await eventually(lambda: listener.handler.links)
    monkeypatch.setattr("zmesh.transport.accepted.HELD_FOR", 5)
    for each in table(listener)._held:
        each.left = 1
    with socket.create_connection(("127.0.0.1", free_port), source_address=("127.0.0.9", 0)):
        await eventually(lambda: len(table(listener)) == 2)
    reported = listener.handler.strangers
    await eventually(lambda: any("127.0.0.9" in text for _, text in reported))
    assert len(reported) == 1


async def test_a_neighbour_whose_message_never_ends_is_ended_and_costs_no_more_than_it_could_send_meanwhile(
    reports, monkeypatch
):
    """Its multipart message is kept by libzmq until it is whole, and keeps all else that it says back: it is silent."""
    monkeypatch.setattr("zmesh.transport.accepted.HUNG_UP_WITHIN", 10)
    async with Mesh.chain("hub", heartbeat=0.1, tcp=True) as mesh:
        hub = mesh["hub"]
        seen = reports(hub.node)
        host, port = hub.listening[0].removeprefix("tcp://").split(":")
        reader, writer = await shake_hands(host, port)
        hello = wire.encode_link(wire.Kind.HELLO, wire.Hello("evil", 7, time.time(), False, 1, 0))
        writer.write(one_of_frames([bytes(frame) for frame in hello]))
        await eventually(lambda: [report for report in seen if report.event == "link_up"])
        writer.write(PART)
        await asyncio.wait_for(ended(reader), WITHIN)
        await eventually(lambda: len(hub.node.engine.neighbours) == 0)
        writer.transport.abort()
        assert hub.node.telemetry.counts["connection_shut"] == 1


# --- nothing else is ended ------------------------------------------------------------------------------------------


class Pair:
    """A TCP connection to a listening socket: `accepted` is the end whose descriptor a monitor would tell."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
            self.other = socket.create_connection(("127.0.0.1", self.port))
            self.accepted, _ = server.accept()
        self.other.settimeout(0.2)

    def is_alive(self):
        try:
            return self.other.recv(1) != b""
        except TimeoutError:
            return True
        except ConnectionError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.accepted.close()
        self.other.close()


@pytest.fixture
def pair():
    with Pair() as made:
        yield made


@pytest.fixture
def accepted(pair, monkeypatch):
    """A table with the pair's connection in it; a second one is one too many."""
    monkeypatch.setattr("zmesh.transport.accepted.MAX_UNPROVEN", 0)
    made = []

    def make(refresh=lambda: None, is_known=lambda id: True, port=pair.port):
        shut = []
        loop = asyncio.get_running_loop()
        made.append(AcceptedConnections(loop, port, lambda: refresh(made[-1]), is_known, shut.append, print))
        return made[-1], shut

    yield make
    for each in made:
        each.close()
        each.close()


async def test_the_connection_itself_is_ended(pair, accepted):
    each, shut = accepted(refresh=lambda table: None)
    each.on_accepted(pair.accepted.fileno())
    assert not pair.is_alive()
    assert len(shut) == 1
    each.on_disconnected(pair.accepted.fileno())
    assert len(each) == 0


async def test_a_descriptor_that_was_given_to_another_connection_meanwhile_is_left_alone(pair, accepted):
    """libzmq has closed the one in question, and the monitor has said so, after the decision to end it was made."""
    descriptor = pair.accepted.fileno()
    each, shut = accepted(refresh=lambda table: table.on_disconnected(descriptor))
    each.on_accepted(descriptor)
    assert pair.is_alive()
    assert shut == []


async def test_a_newer_connection_of_the_same_descriptor_is_left_alone(pair, accepted, monkeypatch):
    descriptor = pair.accepted.fileno()

    def refresh(table):
        monkeypatch.setattr("zmesh.transport.accepted.MAX_UNPROVEN", 1)
        table.on_disconnected(descriptor)
        table.on_accepted(descriptor)

    each, shut = accepted(refresh)
    each.on_accepted(descriptor)
    assert pair.is_alive()
    assert shut == []


async def test_what_is_no_connection_of_this_listener_is_left_alone(pair, accepted):
    each, shut = accepted(refresh=lambda table: None, port=pair.port + 1)
    each.on_accepted(pair.accepted.fileno())
    assert pair.is_alive()
    each.on_accepted(each._blank)
    ours, others = socket.socketpair()
    with ours, others:
        each.on_accepted(ours.fileno())
        others.settimeout(0.05)
        with pytest.raises(TimeoutError):
            others.recv(1)
    each.on_accepted(9999)  # closed already
    assert shut == []


async def test_a_connection_whose_link_was_another_one_is_left_alone(pair, accepted, monkeypatch):
    """A message that was read late was taken for one of the connection that has its descriptor now."""
    monkeypatch.setattr("zmesh.transport.accepted.MAX_UNPROVEN", 10)
    monkeypatch.setattr("zmesh.transport.accepted.HUNG_UP_WITHIN", 1)
    each, shut = accepted(refresh=lambda table: None, is_known=lambda id: False)
    descriptor = pair.accepted.fileno()
    each.on_accepted(descriptor)
    connection = each.greet(descriptor)
    each.hang_up(descriptor, connection, b"routing id of the late message")
    await eventually(lambda: each.unproven == 0)
    assert pair.is_alive()
    assert shut == []


async def test_a_connection_whose_link_is_gone_while_it_is_there_has_to_greet_again(pair, accepted, monkeypatch):
    monkeypatch.setattr("zmesh.transport.accepted.MAX_UNPROVEN", 10)
    monkeypatch.setattr("zmesh.transport.accepted.GREET_WITHIN", 3)
    each, shut = accepted(refresh=lambda table: None)
    each.on_accepted(pair.accepted.fileno())
    connection = each.greet(pair.accepted.fileno())
    each.forget(pair.accepted.fileno(), connection)
    assert each.unproven == 1
    await eventually(lambda: shut == ["no greeting came"])
    assert not pair.is_alive()


async def test_no_descriptor_is_left_and_none_is_inherited(pair, accepted):
    each, _ = accepted(refresh=lambda table: None)
    each.on_accepted(pair.accepted.fileno())
    assert not any(os.get_inheritable(descriptor) for descriptor in (each._blank, each._duplicate))
    each.close()
    each.on_accepted(pair.accepted.fileno())
    assert each.unproven == 0


@pytest.mark.parametrize("unproven", [0, 1])
async def test_a_limit_below_the_numbers_in_use_leaves_connections_alone(pair, accepted, monkeypatch, unproven):
    """It may be set while a process runs (prlimit(2)); dup2(2) fails then. Neither one too many nor a sweep raises."""
    monkeypatch.setattr("zmesh.transport.accepted.MAX_UNPROVEN", unproven)
    each, shut = accepted(refresh=lambda table: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (each._duplicate, hard))
    try:
        each.on_accepted(pair.accepted.fileno())
        each._sweep()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert shut == []
    assert pair.is_alive()
    monkeypatch.setattr("zmesh.transport.accepted.MAX_UNPROVEN", 0)
    each.on_accepted(pair.accepted.fileno())
    assert len(shut) == 1
    assert not pair.is_alive()


# --- connections without a handshake --------------------------------------------------------------------------------


@pytest.fixture
async def reporting():
    """A table, and the addresses that it has reported."""
    silent = []
    loop = asyncio.get_running_loop()
    made = AcceptedConnections(loop, 0, lambda: None, lambda id: True, lambda reason: None, silent.append)
    yield made, silent
    made.close()


async def test_a_connection_that_greets_accounts_for_one_without_a_handshake_from_its_network(reporting):
    each, silent = reporting
    for address in ("10.0.0.7", "127.0.0.1", "127.0.0.1"):
        each.hold(AcceptedConnection(address))
    with Pair() as dialled:
        each.on_accepted(dialled.accepted.fileno())
        each.greet(dialled.accepted.fileno())
        each.on_disconnected(dialled.accepted.fileno())
    await eventually(lambda: len(silent) == 2)
    assert silent == ["10.0.0.7", "127.0.0.1"]


async def test_a_connection_that_greets_accounts_for_one_whose_end_is_seen_later(reporting):
    each, silent = reporting
    with Pair() as plain, Pair() as dialled, Pair() as later:
        for pair in (plain, dialled, later):
            each.on_accepted(pair.accepted.fileno())
        each.greet(dialled.accepted.fileno())
        for pair in (plain, later):
            each.hold(each.on_disconnected(pair.accepted.fileno()))
    await eventually(lambda: silent)
    assert silent == ["127.0.0.1"]


async def test_of_a_flood_of_connections_without_a_handshake_the_oldest_are_reported_at_once(reporting, monkeypatch):
    monkeypatch.setattr("zmesh.transport.accepted.MAX_HELD", 2)
    each, silent = reporting
    for number in range(5):
        each.hold(AcceptedConnection(f"10.0.0.{number}"))
    assert silent == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]
