"""Neighbours whose event loop is blocked say so in their keepalives, and what they are blocked in reaches clients."""

import pytest

from tests.core.engine_harness import ID, Routed, chunk, only, sealed
from zmesh.core import wire
from zmesh.core.effects import Deliver, ReportDelay
from zmesh.core.limits import Limits, Rate
from zmesh.core.wire import Kind

BLOCKED = "its event loop has been blocked for 3 s in t:f (f.py:1)"
KEEPALIVE = wire.encode_keepalive(BLOCKED)
TEXT = f"node 'c': {BLOCKED}"
REQUEST = sealed(Kind.CHUNK, "c", "a", wire.encode_chunk(*chunk(target=1)))


@pytest.fixture
def between(subject):
    """Node `b` between `a`, link 1, and `c`, link 2."""
    subject.join(1, "a")
    subject.join(2, "c")
    subject.receive(1, *REQUEST)
    return subject


def noted(effects):
    """The UNREACHABLEs among effects."""
    return [effect.value for effect in effects if isinstance(effect, Routed) and effect.kind == Kind.UNREACHABLE]


def test_a_packet_for_a_blocked_neighbour_is_passed_on_and_its_source_learns_of_the_block(between):
    assert between.engine.fib.pass_on(1, REQUEST, 0.0) is not None
    assert between.receive(2, *KEEPALIVE) == []
    assert between.engine.fib.pass_on(1, REQUEST, 0.0) is None
    effects = between.receive(1, *REQUEST)
    assert only(effects, Kind.CHUNK)[0].link == 2
    assert noted(effects) == [wire.Unreachable(Kind.CHUNK, "blocked", "b", "c", (), 0.0, TEXT)]


def test_the_next_probe_ends_the_block(between):
    between.receive(2, *KEEPALIVE)
    between.hear(2, Kind.PROBE, wire.Probe(1.0, 0, 0, 0.0))
    assert between.engine.fib.pass_on(1, REQUEST, 0.0) is not None
    assert noted(between.receive(1, *REQUEST)) == []


def test_a_keepalive_without_a_text_says_nothing_of_a_block(between):
    between.receive(2, *wire.encode_keepalive())
    assert between.engine.fib.pass_on(1, REQUEST, 0.0) is not None


def test_what_is_sent_back_about_a_block_is_limited_as_other_errors_are(subject_of):
    between = subject_of(limits=Limits(error_frames=Rate(1, 2)))
    between.join(1, "a")
    between.join(2, "c")
    between.receive(2, *KEEPALIVE)
    effects = [effect for _ in range(9) for effect in between.receive(1, *REQUEST)]
    assert (len(only(effects, Kind.CHUNK)), len(noted(effects))) == (9, 2)


def test_a_link_that_is_gone_has_no_block(between):
    between.receive(2, *KEEPALIVE)
    between.link_down(2)
    between.engine.forwarding.set_blocked(2, BLOCKED)
    assert between.engine.forwarding.describe_block("c") == ""


@pytest.mark.parametrize("leaf", [False, True], ids=["node", "leaf"])
def test_the_error_of_a_request_that_times_out_names_the_block_of_the_neighbour(subject_of, leaf):
    subject = subject_of(leaf=leaf)
    subject.join(2, "c", dialled=leaf)
    subject.receive(2, *KEEPALIVE)
    subject.send("c", timeout=1.0)
    [end] = only(subject.run(1.0), Deliver)
    assert end.eof.reason == "timed_out"
    assert f"; {TEXT}" in end.eof.error


def test_a_long_text_is_cut():
    text = wire.decode_keepalive(wire.read_packet(wire.encode_keepalive("x" * 10_000)).body)
    assert text == "x" * wire.MAX_TEXT


def test_work_that_has_not_begun_is_reported_to_the_client_that_probes(linked):
    linked.receive(1, *sealed(Kind.CHUNK, "b", "a", wire.encode_chunk(*chunk())))
    handle = object()
    linked.engine.attach(ID, handle)
    probe = wire.encode_ack(1, 2, [(ID, False, 0, 0)])
    assert only(linked.receive(1, *sealed(Kind.ACK, "b", "a", probe)), ReportDelay) == [ReportDelay(ID, handle)]
    effects = linked.done(linked.engine.report_delay(ID, "t:f has not begun", linked.now))
    assert noted(effects) == [wire.Unreachable(Kind.ACK, "queued", "b", "b", (), 0.0, "t:f has not begun")]
