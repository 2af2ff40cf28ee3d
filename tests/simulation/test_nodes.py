"""The simulator's nodes do what a real node does with effects."""

from zmesh.core.effects import Report
from zmesh.core.limits import Limits
from zmesh.core.message import Eof
from zmesh.testing.simulator import Simulator


def pair():
    sim = Simulator()
    left, right = sim.chain("left", "right")
    assert sim.settle()
    sim.run(1.0)
    return sim, left, right


def test_frames_sent_by_work_while_nothing_is_pending_leave_before_the_call_returns():
    sim, left, right = pair()
    sent = []

    def work(node, job):
        before = sim.frames
        node.reply(job, b"at once", eof=Eof())
        sent.append(sim.frames - before)

    right.plugin = work
    outcome = left.send("right", b"x")
    assert sim.run_until(lambda: outcome.eof is not None, 1)
    assert sent == [1]


def test_effects_that_arise_meanwhile_come_after_those_that_wait():
    _sim, left, _right = pair()
    heard = []
    note = left.sim.note

    def listen(node, report):
        heard.append(report.event)
        if report.event == "first":
            node.do([Report("third")])
        note(node, report)

    left.sim.note = listen
    left.do([Report("first"), Report("second")])
    assert heard == ["first", "second", "third"]


def test_a_frame_that_arises_meanwhile_overtakes_nothing_that_waits():
    sim, left, right = pair()
    order = []
    sim.tap = lambda frames: order.append("frame")
    note = sim.note

    def listen(node, report):
        if report.event in ("first", "second"):
            order.append(report.event)
        if report.event == "first":
            node.do([*node.engine.link_ready(next(iter(node.wires)), node.now)])
            node.send("right", b"x")
        note(node, report)

    sim.note = listen
    left.do([Report("first"), Report("second")])
    assert order[:3] == ["first", "second", "frame"]
    assert right.alive


def test_a_full_link_is_full_for_what_arises_meanwhile_too():
    sim, left, right = pair()
    (wire,) = sim.wires
    wire.room = 1
    outcomes = [left.send("right", b"%d" % number) for number in range(10)]
    assert left.full
    assert sim.run_until(lambda: all(outcome.eof for outcome in outcomes), 5)
    assert all(right.runs[outcome.message_id] == 1 for outcome in outcomes)


def test_a_node_that_was_given_limits_keeps_them_over_a_restart():
    sim = Simulator()
    (left,) = sim.add("left")
    (right,) = sim.add("right", limits=Limits(services=1))
    sim.connect("left", "right")
    assert sim.settle()
    for _ in range(2):
        right.plugin = lambda node, job: None
        outcomes = [left.send("right", b"x", timeout=5.0) for _ in range(3)]
        sim.run(1.0)
        assert [outcome.eof.reason if outcome.eof else "open" for outcome in outcomes] == ["open", *["overloaded"] * 2]
        sim.run(10.0)
        right.restart()
        assert sim.settle()
