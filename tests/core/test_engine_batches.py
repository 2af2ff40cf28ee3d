"""Batches, as the engine takes them in: each packet as if it had come by itself."""

import pytest

from tests.core.engine_harness import Subject, chunk, events, only, sealed
from zmesh.core import wire
from zmesh.core.effects import Deliver, HangUp, Report, Transmit
from zmesh.core.neighbours.links import MAX_STRIKES, State
from zmesh.core.wire import FLAG_FIRST, FLAG_LAST, Entry, Kind

TAKES = {wire.BATCHES: b""}


def request(number, to="b", source="a"):
    head = chunk(number=number)._replace(message_id=bytes([number]) * 16)
    return sealed(Kind.CHUNK, to, source, wire.encode(head), b"body")


def batch(*packets):
    return wire.encode_batch(list(packets))


def delivered(effects):
    return [effect.stream.message_id[0] for effect in only(effects, Deliver)]


class Raw(Subject):
    """An engine under test whose frames stay as they are."""

    def read(self, effect):
        return effect


@pytest.fixture
def subject():
    """Node `b` between `a` (link 1) and `c` (link 2), which leads to `far`."""
    subject = Raw()
    subject.join(1, "a")
    subject.join(2, "c")
    subject.advertise(2, Entry("far", 1, 1, 100, 1))
    return subject


def test_each_packet_of_a_batch_is_taken_in_as_if_it_had_come_by_itself(subject):
    effects = subject.receive(1, *batch(request(1), request(2), request(3)))
    assert delivered(effects) == [1, 2, 3]


def test_packets_that_only_pass_through_leave_in_their_order(subject):
    subject.receive(1, *request(9, "far"))  # whose addresses are known from now on
    effects = subject.receive(1, *batch(request(1, "far"), request(2), request(3, "far")))
    passed = [wire.decode_chunk(wire.read_packet(each.frames).head) for each in only(effects, Transmit)]
    assert [head.message_id[0] for head in passed] == [1, 3]
    assert {each.link for each in only(effects, Transmit)} == {2}
    assert delivered(effects) == [2]


def test_a_packet_that_can_not_be_read_spoils_none_of_the_others(subject):
    bad = (request(2)[0][:3] + b"\x09" + request(2)[0][4:-1] + b"?",)
    effects = subject.receive(1, *batch(request(1), bad, request(3)))
    assert delivered(effects) == [1, 3]
    assert events(effects) == ["frame_dropped"]


def test_a_link_that_is_closed_amid_a_batch_is_read_no_further(subject):
    garbage = (b"\x02\x10\xff" + bytes(20),)
    effects = subject.receive(1, *batch(request(1), *[garbage] * MAX_STRIKES, request(2)))
    assert delivered(effects) == [1]
    assert only(effects, HangUp)


def test_a_batch_that_is_no_batch_counts_against_the_link(subject):
    effects = subject.receive(1, *wire.encode_packet(Kind.BATCH, "", "", b"", b"garbage"))
    assert events(effects) == ["frame_dropped"]
    assert subject.engine.neighbours.get(1).strikes == 1


def test_a_suspect_link_is_trusted_again_when_a_batch_comes(subject):
    while not subject.engine.neighbours.get(1).suspect:
        subject.run(0.5)
        subject.keep_alive(2)
    assert delivered(subject.receive(1, *batch(request(1), request(2)))) == [1, 2]
    assert not subject.engine.neighbours.get(1).suspect


def test_a_batch_on_a_link_that_is_not_up_is_answered_as_its_packets_are(subject):
    subject.link_up(5)
    effects = subject.receive(5, *batch(request(1), request(2)))
    assert [wire.read_packet(each.frames).kind for each in only(effects, Transmit)] == [Kind.ASK, Kind.ASK]
    assert only(effects, Report) == [Report("frame_dropped", None, 5, "not_greeted")] * 2


def test_a_leaf_may_send_its_own_packets_in_a_batch_and_no_others(subject):
    subject.join(7, "leaf", leaf=True)
    effects = subject.receive(7, *batch(request(1, source="leaf@b"), request(2, source="a")))
    assert delivered(effects) == [1]


@pytest.mark.parametrize("leaf", [True, False])
def test_a_neighbour_gets_batches_if_its_greeting_says_that_it_takes_them(subject, leaf):
    for link, extensions in ((7, TAKES), (8, {})):
        subject.link_up(link)
        hello = wire.Hello(f"n{link}", 1, 0.0, leaf, 9, 0, extensions=extensions)
        subject.hear(link, Kind.HELLO, hello)
        assert subject.engine.neighbours.get(link).state is State.UP
    assert subject.engine.batches.links == {7}
    subject.link_down(7)
    assert subject.engine.batches.links == set()


def test_the_parts_of_a_stream_in_a_batch_are_delivered_in_order(subject):
    parts = [(0, FLAG_FIRST), (1, 0), (2, FLAG_LAST)]
    heads = [wire.encode(chunk(sequence, flags)) for sequence, flags in parts]
    packets = [sealed(Kind.CHUNK, "b", "a", head, bytes([number])) for number, head in enumerate(heads)]
    effects = subject.receive(1, *batch(*packets))
    assert [effect.body for effect in only(effects, Deliver)] == [b"\0", b"\1", b"\2"]
    assert [effect.last for effect in only(effects, Deliver)] == [False, False, True]
