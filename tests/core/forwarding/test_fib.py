"""The FIB passes on what the engine would, and leaves everything else to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.engine_harness import Subject, sealed
from zmesh.core import wire
from zmesh.core.effects import Transmit
from zmesh.core.forwarding.fib import Fib
from zmesh.core.forwarding.queues import Queue
from zmesh.core.wire import HEADER_BYTES, MAX_BODY, MAX_HEAD, MAX_TTL, SINGLE_PART, Kind

ROUTED = [kind for kind in Kind if kind >= wire.FIRST_ROUTED]
ADDRESSES = ["a", "b", "c", "d", "far", "cli", "cli@b", "cli@c", "x@far", "b@a", "nobody", "a b", ""]


class Forwarder(Subject):
    """An engine under test whose frames stay as they are."""

    def read(self, effect):
        return effect


@pytest.fixture
def forwarder():
    return make_forwarder()


def make_forwarder():
    """Node `b` between `a` (link 1), `c` (link 2), which leads to `far`, and its leaf `cli` (link 3)."""
    forwarder = Forwarder()
    forwarder.join(1, "a")
    forwarder.join(2, "c")
    forwarder.join(3, "cli", leaf=True)
    forwarder.advertise(2, wire.Entry("far", 1, 1, 100, 1))
    assert forwarder.engine.routing.routes().keys() == {"a", "c", "far"}
    for source in ("a", "c", "far", "cli@a", "cli@b"):  # whose addresses are known from now on
        forwarder.receive(1 if source != "cli@b" else 3, *sealed(Kind.ACK, "far", source, b""))
    return forwarder


def passed(forwarder, frames, link=1, now=50.0):
    return forwarder.engine.fib.pass_on(link, frames, now)


@pytest.mark.parametrize("kind", ROUTED)
@pytest.mark.parametrize("size", [0, SINGLE_PART, MAX_BODY])
def test_a_packet_for_another_node_leaves_on_the_link_of_its_route_with_one_ttl_less(forwarder, kind, size):
    frames = sealed(kind, "far", "a", b"head", bytes(size), 9)
    link, onward = passed(forwarder, frames)
    assert (link, wire.read_packet(onward)) == (2, wire.read_packet(frames)._replace(ttl=8))
    assert onward[1:] == frames[1:]
    assert forwarder.engine.neighbours.get(1).heard == 50.0


@st.composite
def packets(draw):
    """Packets that are sound, nearly sound, or not at all."""
    kind, ttl = draw(st.sampled_from(list(Kind))), draw(st.sampled_from([0, 1, 2, MAX_TTL]))
    size = draw(st.sampled_from([0, 1, SINGLE_PART, MAX_BODY, MAX_BODY + 1]))
    head = bytes(draw(st.sampled_from([0, 1, 40, MAX_HEAD + 1])))
    to, of = draw(st.sampled_from(ADDRESSES)), draw(st.sampled_from(ADDRESSES))
    frames = list(wire.encode_packet(kind, to, of, head, bytes(size), ttl))
    change = draw(st.sampled_from(["none", "none", "byte", "cut", "more", "empty"]))
    if change == "byte":
        first = bytearray(frames[0])
        first[draw(st.integers(0, min(len(first), HEADER_BYTES + 4) - 1))] = draw(st.sampled_from([0, 1, 2, 3, 255]))
        frames[0] = bytes(first)
    elif change == "cut":
        frames[0] = frames[0][: draw(st.integers(0, min(len(frames[0]), 80)))]
    elif change == "more":
        frames += [b"more"] * draw(st.integers(1, 3))
    elif change == "empty":
        frames = []
    return frames


@given(packets(), st.sampled_from([1, 2, 3, 4]))
def test_whatever_comes_the_fib_passes_on_as_the_engine_would_or_leaves_it_to_the_engine(frames, link):
    forwarder = make_forwarder()
    quick = passed(forwarder, frames, link)
    effects = forwarder.engine.receive(link, frames, forwarder.now)
    forwarder.engine.check()
    assert quick is None or [Transmit(*quick)] == effects


def test_every_sound_packet_between_two_other_nodes_takes_the_fib(forwarder):
    for kind in ROUTED:
        for to, of, link in [("far", "a", 1), ("far", "cli@a", 1), ("a", "far", 2), ("c", "a", 1)]:
            assert passed(forwarder, sealed(kind, to, of, b""), link) is not None


@pytest.mark.parametrize(
    ("to", "of", "link", "ttl"),
    [
        ("b", "a", 1, 255),
        ("cli@b", "a", 1, 255),
        ("x@far", "a", 1, 255),
        ("nobody", "a", 1, 255),
        ("far", "a", 1, 1),
        ("far", "a", 1, 0),
        ("far", "b", 1, 255),
        ("far", "cli@b", 3, 255),
        ("far", "cli@b", 1, 255),
        ("far", "never-seen-before", 1, 255),
        ("far", "a", 77, 255),
    ],
)
def test_what_the_engine_has_to_look_at_is_left_to_it(forwarder, to, of, link, ttl):
    assert passed(forwarder, sealed(Kind.CHUNK, to, of, b"", b"", ttl), link) is None


def test_a_source_takes_the_fib_from_its_second_packet_on(forwarder):
    frames = sealed(Kind.CHUNK, "far", "new-here", b"")
    assert passed(forwarder, frames) is None
    (effect,) = forwarder.engine.receive(1, frames, forwarder.now)
    assert passed(forwarder, frames) == effect


def test_while_anything_waits_for_a_link_the_engine_decides_what_goes_first(forwarder):
    frames = sealed(Kind.CHUNK, "far", "a", b"")
    assert passed(forwarder, frames) is not None
    forwarder.done(forwarder.engine.link_full(2, frames, forwarder.now))
    assert passed(forwarder, frames) is None
    assert forwarder.receive(1, *frames) == []
    while forwarder.done(forwarder.engine.link_ready(2, forwarder.now)):
        pass
    assert passed(forwarder, frames) is not None


def test_a_frame_of_a_suspect_neighbour_shows_the_engine_that_it_is_alive(forwarder):
    frames = sealed(Kind.CHUNK, "far", "a", b"")
    forwarder.engine.neighbours.get(1).suspect = True
    assert passed(forwarder, frames) is None
    forwarder.receive(1, *frames)
    assert passed(forwarder, frames) is not None


def test_a_good_frame_after_a_bad_one_is_seen_by_the_engine(forwarder):
    forwarder.receive(1, b"garbage")
    frames = sealed(Kind.CHUNK, "far", "a", b"")
    assert passed(forwarder, frames) is None
    forwarder.receive(1, *frames)
    assert forwarder.engine.neighbours.get(1).strikes == 0
    assert passed(forwarder, frames) is not None


def test_a_lost_route_and_a_lost_link_are_out_of_the_fib_at_once(forwarder):
    frames = sealed(Kind.CHUNK, "far", "a", b"")
    forwarder.advertise(2, wire.Entry("far", 1, 1, wire.INFINITY, 1))
    assert passed(forwarder, frames) is None
    to_neighbour = sealed(Kind.CHUNK, "c", "a", b"")
    assert passed(forwarder, to_neighbour) is not None
    forwarder.link_down(2)
    assert passed(forwarder, to_neighbour) is None
    forwarder.link_down(1)
    assert passed(forwarder, sealed(Kind.CHUNK, "a", "c", b""), 1) is None


def test_a_leaf_has_an_empty_fib():
    leaf = Forwarder("l", leaf=True)
    leaf.join(1, "a", route=False)
    assert passed(leaf, sealed(Kind.CHUNK, "a", "c", b"")) is None


def test_a_table_that_is_not_that_of_the_routes_is_noticed():
    fib, queue = Fib("b"), Queue()
    fib.enter("c", 2, queue)
    fib.admit(2, None)
    fib.check({"c": 2}, {2: queue})
    for routes, queues, why in [
        ({}, {2: queue}, "not that of the selected routes"),
        ({"c": 2}, {2: Queue()}, "whose link is closed"),
    ]:
        with pytest.raises(AssertionError, match=why):
            fib.check(routes, queues)
    fib.remove("c")
    with pytest.raises(AssertionError, match="of a closed link"):
        fib.check({}, {})
    fib.close(2)
    fib.check({}, {})
