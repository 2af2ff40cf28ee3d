"""Leaves: the engine of one, and that of a node which one hangs on."""

import pytest

from tests.core.engine_harness import ID, REPLIES, REQUEST, Said, chunk, events, only, record
from zmesh.core import wire
from zmesh.core.delivery.flow_control import WINDOW
from zmesh.core.delivery.peers import ACK_DELAY, PROBE_LIMIT
from zmesh.core.effects import Abort, Report
from zmesh.core.wire import Entry, Kind
from zmesh.testing.simulator import Simulator


@pytest.fixture
def leaf(subject_of):
    """The leaf `b`, without any link."""
    return subject_of(leaf=True)


def test_a_leaf_advertises_nothing_and_attaches_to_its_first_neighbour(leaf):
    effects = leaf.join(1, dialled=True)
    assert [effect.kind for effect in effects if isinstance(effect, Said)] == [Kind.HELLO, Kind.PROBE]
    assert effects[0].value.leaf
    assert effects[-1] == Said(1, Kind.PROBE, wire.Probe(0.0, 0, 0, 0.0))
    assert leaf.engine.address == "b@a"
    assert leaf.join(2, "c", dialled=True)
    assert leaf.engine.address == "b@a"


def test_a_leaf_sends_what_it_has_when_it_finds_a_home(leaf):
    leaf.send("far")
    effects = leaf.join(1, dialled=True)
    (question,) = only(effects, Kind.ACK)
    assert question[:5] == (1, Kind.ACK, "far", "b@a", wire.Ack(2, 0, (wire.AckItem(*REQUEST, 0, PROBE_LIMIT),)))
    known = wire.Ack(7, 2, (wire.AckItem(*REPLIES, wire.CLOSED, 0),))
    (frame,) = only(leaf.arrive(1, Kind.ACK, known, to="b@a", of="far"), Kind.CHUNK)
    assert frame[:4] == (1, Kind.CHUNK, "far", "b@a")
    assert frame.value.target == 7


def test_a_leaf_that_loses_its_home_takes_the_next(leaf):
    leaf.join(1, "a", dialled=True)
    leaf.join(2, "c", dialled=True)
    leaf.send("far")
    assert only(leaf.link_down(2), Kind.CHUNK) == []
    leaf.join(3, "d", dialled=True)
    (question,) = only(leaf.link_down(1), Kind.ACK)
    assert question[:4] == (3, Kind.ACK, "far", "b@d")
    leaf.link_down(3)
    assert (leaf.engine.uplink, leaf.engine.address) == (None, "b")
    leaf.join(4, "a", dialled=True)
    assert leaf.engine.address == "b@a"


def test_a_leaf_whose_home_is_silent_goes_to_another_that_is_not_and_stays_there(leaf):
    leaf.join(1, "a", dialled=True)
    leaf.join(2, "c", dialled=True)
    leaf.send("far")
    for _ in range(3):
        leaf.run(0.5)
        leaf.keep_alive(2)
    assert leaf.engine.address == "b@a"
    (question, *_) = only(leaf.run(0.6), Kind.ACK)
    assert question[:4] == (2, Kind.ACK, "far", "b@c")
    leaf.keep_alive(1, 2)
    assert leaf.engine.address == "b@c"


def test_a_leaf_without_another_neighbour_keeps_its_uplink(leaf):
    leaf.join(1, "a", dialled=True)
    leaf.join(2, "c", dialled=True)
    assert events(leaf.run(2.5)) == ["link_suspect", "link_suspect"]
    assert leaf.engine.address == "b@a"


def test_a_leaf_takes_what_is_sent_to_its_address(leaf):
    leaf.join(1, dialled=True)
    (piece,) = leaf.arrive(1, Kind.CHUNK, chunk(), to="b@a")
    assert leaf.arrive(1, Kind.CHUNK, chunk(), to="b@former")[0].kind is Kind.ACK  # a copy
    assert piece.stream == REQUEST
    assert leaf.arrive(1, Kind.CHUNK, chunk(), to="b") == [Report("frame_dropped", "a", 1, "leaf_forwards_nothing")]


@pytest.mark.parametrize("kind", ["update", "record", "request", "probe"])
def test_a_leaf_takes_no_tables(leaf, kind):
    leaf.join(1, dialled=True)
    receive = {
        "update": lambda: leaf.advertise(1, Entry("z", 9, 1, 50, 1)),
        "record": lambda: leaf.receive(1, *wire.encode_records([wire.encode(record())])),
        "request": lambda: leaf.hear(1, Kind.SEQNO_REQUEST, [wire.SeqnoRequest("b", 499, 0, 9)]),
        "probe": lambda: only(leaf.hear(1, Kind.PROBE, wire.Probe(0.0, 1, 1, 0.0)), Kind.RESEND),
    }[kind]
    dropped = [] if kind == "probe" else [Report("frame_dropped", "a", 1, "leaf_has_no_tables")]
    assert receive() == dropped
    assert leaf.engine.nodes() == {"b"}
    assert leaf.done(leaf.engine.describe(["x:y"], 0.0)) == []


@pytest.mark.parametrize("kind", ["update", "record", "request", "probe"])
def test_updates_and_records_of_a_leaf_are_dropped(subject, kind):
    subject.join(1, "cli", leaf=True)
    receive = {
        "update": lambda: subject.advertise(1, Entry("z", 9, 1, 50, 1)),
        "record": lambda: subject.receive(1, *wire.encode_records([wire.encode(record())])),
        "request": lambda: subject.hear(1, Kind.SEQNO_REQUEST, [wire.SeqnoRequest("b", 499, 0, 9)]),
        "probe": lambda: only(subject.hear(1, Kind.PROBE, wire.Probe(0.0, 1, 1, 0.0)), Kind.RESEND),
    }[kind]
    dropped = [] if kind == "probe" else [Report("frame_dropped", "cli", 1, "leaf_has_no_tables")]
    assert receive() == dropped
    assert (subject.engine.nodes(), subject.engine.routing.seqno) == ({"b"}, 100)


def test_a_leaf_at_this_node_is_served_and_the_mesh_hears_nothing_of_it(subject):
    subject.join(1, "a")
    subject.run(0.1)
    effects = subject.join(2, "cli", leaf=True)
    assert {effect.link for effect in effects if isinstance(effect, Said)} == {2}
    assert Report("link_up", "cli", 2, "leaf") in effects
    (frame,) = subject.arrive(2, Kind.CHUNK, chunk(), of="cli@b", to="a")
    assert frame[:4] == (1, Kind.CHUNK, "a", "cli@b")
    (frame,) = subject.arrive(1, Kind.CHUNK, chunk(request=False), to="cli@b")
    assert frame[:4] == (2, Kind.CHUNK, "cli@b", "a")


@pytest.mark.parametrize("source", ["a", "cli", "cli@a", "other@b", "b"])
def test_a_leaf_speaks_for_itself_only(subject, source):
    subject.join(2, "cli", leaf=True)
    (report,) = subject.arrive(2, Kind.CHUNK, chunk(), of=source)
    assert report.detail == "garbage: a leaf speaks for another node"


def test_the_work_of_a_leaf_that_stays_away_is_stopped_and_that_of_one_that_returns_goes_on(subject):
    subject.join(1, "cli", leaf=True)
    subject.arrive(1, Kind.CHUNK, chunk(), of="cli@b")
    subject.run(ACK_DELAY)
    assert events(subject.link_down(1)) == ["link_lost"]
    assert only(subject.run(4.0), Abort) == []
    effects = subject.join(2, "cli", leaf=True)
    assert len(only(effects, Kind.ACK)) == 1
    subject.arrive(2, Kind.ACK, wire.Ack(1, 2, (wire.AckItem(*REPLIES, 0, WINDOW),)), of="cli@b")
    subject.link_down(2)
    assert only(subject.run(6.0), Abort) == [Abort(ID, "unreachable")]


def test_a_leaf_with_two_links_that_loses_one_is_still_there(subject):
    subject.join(1, "cli", leaf=True)
    subject.arrive(1, Kind.CHUNK, chunk(), of="cli@b")
    subject.join(2, "cli", leaf=True)
    subject.link_down(1)
    effects = []
    for _ in range(20):
        effects += subject.run(0.5)
        subject.keep_alive(2)
    assert only(effects, Abort) == []


@pytest.mark.parametrize("seconds", [2.0, 5.0, 20.0])
def test_a_request_of_a_leaf_waits_for_a_node_that_is_not_up_yet(seconds):
    sim = Simulator()
    sim.add("hub")
    (leaf,) = sim.add("cli", leaf=True)
    sim.connect("cli", "hub")
    sim.run(1.0)
    outcome = leaf.send("late", b"hello")
    sim.run(seconds)
    sim.add("late")
    sim.connect("late", "hub")
    assert sim.run_until(lambda: outcome.eof is not None, 15)
    assert outcome.replies == [b"hello"]


def test_a_request_of_a_leaf_is_not_run_again_by_a_node_that_restarts_quickly():
    sim = Simulator()
    (node,) = sim.add("a")
    (leaf,) = sim.add("cli", leaf=True)
    sim.connect("cli", "a")
    sim.run(1.0)
    node.plugin = lambda node, job: None
    outcome = leaf.send("a", b"work")
    assert sim.run_until(lambda: outcome.message_id in node.runs, 1)
    node.kill()
    sim.run(0.1)
    node.restart()
    sim.run(10.0)
    assert node.runs[outcome.message_id] == 1
    assert outcome.eof is not None
    assert outcome.eof.reason == "node_restarted"


def test_the_call_of_a_leaf_fails_when_the_recipient_has_restarted():
    sim = Simulator()
    _, far = sim.chain("hub", "far")
    (leaf,) = sim.add("cli", leaf=True)
    sim.connect("cli", "hub")
    assert sim.settle()
    far.plugin = lambda node, job: None
    outcome = leaf.send("far", b"work")
    sim.run(2.0)
    assert outcome.message_id in far.jobs
    far.restart()
    assert sim.run_until(lambda: outcome.eof is not None, 60)
    assert outcome.eof.reason == "node_restarted"


def test_the_work_of_a_leaf_that_has_restarted_under_its_name_is_stopped():
    sim = Simulator()
    _, far = sim.chain("hub", "far")
    (leaf,) = sim.add("cli", leaf=True)
    sim.connect("cli", "hub")
    assert sim.settle()
    jobs = []
    far.plugin = lambda node, job: jobs.append(job)
    leaf.send("far", b"work")
    assert sim.run_until(lambda: bool(jobs), 5)
    leaf.restart()
    assert sim.run_until(lambda: bool(jobs[0].aborted), 60)
