"""Time-outs that say that work has not begun, over several hops, with loss, cuts and restarts; and floods of them."""

import pytest

from zmesh.core import wire
from zmesh.core.limits import Limits, Rate
from zmesh.core.message import Eof, MessageId
from zmesh.core.wire import Kind
from zmesh.testing.simliar import DELAYS, Liar
from zmesh.testing.simnode import NOT_BEGUN
from zmesh.testing.simulator import Simulator

WAITS = f"node 'd': work:never {NOT_BEGUN}"


def never(node, job):
    """Work that waits for its turn, and does not get it."""


def row(seed, **options):
    """Four nodes in a row, the last of which begins no work."""
    sim = Simulator(seed)
    sim.chain("a", "b", "c", "d", **options)
    sim.nodes["d"].plugin = never
    assert sim.settle()
    return sim


def ended(sim, *outcomes, limit=60.0):
    assert sim.run_until(lambda: all(outcome.eof is not None for outcome in outcomes), limit)
    return [outcome.eof for outcome in outcomes]


def test_a_time_out_says_over_three_hops_that_the_work_has_not_begun():
    sim = row(1)
    (eof,) = ended(sim, sim.nodes["a"].send("d", b"x", "work:never", timeout=5.0))
    assert eof.reason == "timed_out"
    assert eof.error == f"no final reply from 'd' within 5 s; the request had reached 'd'; {WAITS}"


@pytest.mark.parametrize("loss", [0.05, 0.2])
def test_with_loss_most_time_outs_say_so_and_none_says_anything_else(loss):
    said = 0
    for seed in range(20):
        sim = row(seed)
        for each in sim.wires:
            each.loss = loss
        asked = [sim.nodes["a"].send("d", b"x", "work:never", timeout=5.0) for _ in range(5)]
        for eof in ended(sim, *asked):
            assert eof.reason in ("timed_out", "unreachable"), eof
            said += WAITS in eof.error
    assert said > 30


@pytest.mark.parametrize("what", ["forwarder", "link", "server"])
def test_what_breaks_and_comes_back_meanwhile_leaves_no_wrong_reason(what):
    for seed in range(10):
        sim = row(seed, heartbeat=0.2)
        outcome = sim.nodes["a"].send("d", b"x", "work:never", timeout=20.0)
        sim.run(1.0)
        if what == "forwarder":
            sim.nodes["c"].restart()
        elif what == "link":
            sim.wires[1].cut()
        else:
            sim.nodes["d"].restart()
            sim.nodes["d"].plugin = never
        (eof,) = ended(sim, outcome)
        if what == "server":
            assert (eof.reason, NOT_BEGUN in eof.error) == ("node_restarted", False)
        else:
            assert (eof.reason, WAITS in eof.error) == ("timed_out", True), eof


def test_work_that_begins_after_its_client_was_said_to_wait_is_not_said_to_wait_at_the_end():
    sim = row(3)
    jobs = []
    sim.nodes["d"].plugin = lambda node, job: jobs.append(job)
    outcome = sim.nodes["a"].send("d", b"x", "work:slow", timeout=5.0)
    sim.run(4.5)
    sim.nodes["d"].reply(jobs[0], b"at last", 1)
    (eof,) = ended(sim, outcome)
    assert (outcome.replies, eof.reason) == ([b"at last"], "timed_out")
    assert NOT_BEGUN not in eof.error


def test_a_flood_of_probes_is_answered_as_often_as_the_limit_says_and_spoils_nothing():
    sim = row(5, limits=Limits(reported_delays=Rate(1, 3)))
    a, d = sim.nodes["a"], sim.nodes["d"]
    outcome = a.send("d", b"x", "work:never", timeout=30.0)
    sim.run(1.0)
    target = a.engine.routing.record("d").incarnation
    head = wire.encode(wire.Ack(a.engine.incarnation, target, (wire.AckItem(outcome.message_id, False, 0, 0),)))
    (link,) = [route.link for to, route in a.engine.routing.routes().items() if to == "d"]
    sent = []
    transmit = d.transmit

    def counted(link, frames):
        if wire.decode_packet(frames).kind == Kind.UNREACHABLE:
            sent.append(sim.now)
        return transmit(link, frames)

    d.transmit = counted
    d.batches = False
    for _ in range(1000):
        a.transmit(link, wire.encode_packet(Kind.ACK, "d", "a", head, b""))
    sim.run(1.0)
    assert 3 <= len(sent) <= 5
    d.plugin = lambda node, job: node.reply(job, b"well", eof=Eof())
    (eof,) = ended(sim, a.send("d", b"x", timeout=30.0))
    assert eof.reason == ""


@pytest.mark.parametrize("reason", DELAYS)
@pytest.mark.parametrize("settled", [-1e9, 0.0, 1e17])
def test_a_liar_on_the_way_that_speaks_of_delays_changes_no_route_and_ends_nothing(reason, settled):
    sim = row(7)
    a, b = sim.nodes["a"], sim.nodes["b"]
    outcome = a.send("d", b"x", "work:never", timeout=10.0)
    other = a.send("c", b"beside")
    sim.run(0.5)
    number = MessageId(outcome.message_id)
    ack = wire.encode(wire.Ack(a.engine.incarnation, 1, (wire.AckItem(number, True, 0, 0),)))
    note = wire.encode(wire.Unreachable(Kind.ACK, reason, "d", "d", (), settled, "x" * wire.MAX_TEXT))
    (link,) = [each.id for each in b.engine.links() if each.node == "a"]
    for _ in range(2000):
        b.transmit(link, wire.encode_packet(Kind.UNREACHABLE, "a", "d", note, ack))
    sim.run(1.0)
    assert not a.engine.is_lost(number)
    assert [report for report in a.reports if report.event == "unreachable"] == []
    (eof, beside) = ended(sim, outcome, other)
    assert (eof.reason, beside.reason) == ("timed_out", "")
    assert len(eof.error) < 2 * wire.MAX_TEXT


def test_a_member_that_lies_about_delays_spoils_no_request_that_does_not_pass_it():
    for seed in range(10):
        sim = Simulator(seed)
        sim.add("a", "b", "c")
        sim.nodes["liar"] = Liar(sim, "liar", {}, frozenset({"delays"}), seed)
        for dialler, listener in (("b", "a"), ("c", "b"), ("liar", "b")):
            sim.connect(dialler, listener)
        assert sim.settle()
        asked = [sim.nodes["a"].send("c", b"%d" % number) for number in range(20)]
        asked += [sim.nodes["a"].send("liar", b"x", timeout=5.0)]
        assert [eof.reason for eof in ended(sim, *asked)][:20] == [""] * 20
