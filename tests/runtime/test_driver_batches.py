"""Which packets the driver holds back, to let them leave in one message, and when they go."""

import asyncio
import time

import pytest

from zmesh.core import wire
from zmesh.core.effects import Report, Transmit
from zmesh.core.engine import Engine
from zmesh.core.wire import Kind
from zmesh.runtime import Driver
from zmesh.runtime import driver as driver_module

A, C = 1, 2


class Links:
    """The links of a node: what was sent, as the packets of each message. Those in `full` take nothing."""

    def __init__(self):
        self.sent = []
        self.full = set()

    def send(self, link, frames):
        if link in self.full:
            return False
        packet = wire.read_packet(frames)
        packets = wire.decode_batch(packet.body) if packet.kind == Kind.BATCH else [frames]
        self.sent.append((link, [name_of(each) for each in packets]))
        return True

    def settle(self):
        """Nothing was swallowed."""

    def is_full(self, link):
        return link in self.full


def packet(name, kind=Kind.CHUNK):
    return wire.encode_packet(kind, "far", "node", name.encode(), b"")


def name_of(frames):
    packet = wire.read_packet(frames)
    return packet.head.decode() if packet.kind == Kind.CHUNK else Kind(packet.kind).name


@pytest.fixture
def links():
    return Links()


@pytest.fixture
async def driver(links, monkeypatch):
    """The driver of a node with two links; nothing has been sent on them yet, and what is held back waits for long."""
    monkeypatch.setattr(driver_module, "HELD_FOR", 3600.0)
    engine = Engine("b", 1, now=time.monotonic())
    driver = Driver(engine, 1.0, lambda report: None)
    for link, node in ((A, "a"), (C, "c")):
        engine.link_up(link, time.monotonic(), dialled=False)
        hello = wire.Hello(node, 1, 0.0, False, 9, 0, extensions={wire.BATCHES: b""})
        engine.receive(link, wire.encode_link(Kind.HELLO, hello), time.monotonic())
    driver.start(links)
    yield driver
    driver.close()


def transmit(driver, *names, link=A):
    driver.perform([Transmit(link, packet(name)) for name in names])


async def test_a_single_packet_goes_at_once(driver, links):
    transmit(driver, "x")
    assert links.sent == [(A, ["x"])]


async def test_the_packets_of_one_stimulus_leave_in_one_message_for_each_link(driver, links):
    driver.perform([Transmit(link, packet(name)) for link, name in [(A, "x"), (C, "y"), (A, "z")]])
    assert links.sent == [(A, ["x", "z"]), (C, ["y"])]


async def test_what_follows_before_anything_has_come_leaves_at_the_next_turn_of_the_loop(driver, links):
    for name in "wxyz":
        transmit(driver, name)
    assert links.sent == [(A, ["w"])]
    await asyncio.sleep(0)
    assert links.sent == [(A, ["w"]), (A, ["x", "y", "z"])]


async def test_what_is_sent_while_more_messages_wait_leaves_when_they_were_read(driver, links):
    driver.on_burst()
    transmit(driver, "x")
    transmit(driver, "y")
    assert links.sent == []
    driver.on_burst_end()
    assert links.sent == [(A, ["x", "y"])]


async def test_the_order_on_a_link_stays(driver, links):
    driver.on_burst()
    transmit(driver, "x")
    driver.perform([Transmit(A, wire.encode_link(Kind.ASK))])
    transmit(driver, "y")
    driver.on_burst_end()
    assert links.sent == [(A, ["x"]), (A, ["ASK"]), (A, ["y"])]


async def test_a_full_link_gives_all_packets_of_a_batch_back_in_order(driver, links):
    links.full = {A}
    transmit(driver, "x", "y", "z")
    links.full = set()
    driver.on_link_ready(A)
    assert [name for _, names in links.sent for name in names] == ["x", "y", "z"]


async def test_a_full_link_gives_back_what_was_held_for_it_when_a_burst_ends(driver, links):
    driver.on_burst()
    links.full = {A}
    transmit(driver, "x")
    transmit(driver, "y")
    driver.on_burst_end()
    links.full = set()
    driver.on_link_ready(A)
    await asyncio.sleep(0)
    assert [name for _, names in links.sent for name in names] == ["x", "y"]


async def test_what_has_waited_for_long_goes_before_another_packet_waits(driver, links, monkeypatch):
    monkeypatch.setattr(driver_module, "HELD_FOR", 0.0)
    driver.on_burst()
    for name in "xyz":
        transmit(driver, name)
        before = time.monotonic()
        while time.monotonic() == before:
            pass
    assert links.sent == [(A, ["x"]), (A, ["y"])]
    driver.on_burst_end()
    assert links.sent[-1] == (A, ["z"])


async def test_packets_that_only_pass_through_leave_together_too(driver, links):
    engine, now = driver.engine, time.monotonic()
    engine.receive(C, wire.encode_update(wire.Update(0, 1, [wire.Entry("c", 1, 1, 0, 0)])), now)
    engine.receive(C, wire.encode_link(Kind.ECHO, wire.Echo(now)), now)
    for number in range(4):
        if number == 2:  # the first makes the source known
            driver.on_burst()
        driver.on_frames(A, list(wire.encode_packet(Kind.CHUNK, "c", "a", str(number).encode(), b"")))
    driver.on_burst_end()
    assert links.sent[-1] == (C, ["2", "3"])


async def test_nothing_waits_for_a_neighbour_that_takes_no_batches(driver, links):
    driver.engine.batches.links.discard(A)
    transmit(driver, "x", "y")
    assert links.sent == [(A, ["x"]), (A, ["y"])]


async def test_reports_between_packets_are_noted(driver, links):
    driver.perform([Transmit(A, packet("x")), Report("expired"), Transmit(A, packet("y"))])
    assert links.sent == [(A, ["x", "y"])]
