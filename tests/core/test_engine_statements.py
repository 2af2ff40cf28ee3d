"""Statements of authorities between engines, as frames."""

from tests.core.engine_harness import NOW
from zmesh.core import wire
from zmesh.core.engine import Engine
from zmesh.core.wire import Kind
from zmesh.testing.authority import DAY, TestAuthority

CHAIN = ("a", "b", "c")


def tell(node, authority, subject, reason=""):
    authority.states[node.id].trust.revoke(authority.revoke(subject, NOW, reason))
    node.do(node.engine.trust_changed(node.now))


def known(sim):
    return [len(node.engine.credentials.trust.revocations) for node in sim.nodes.values()]


def test_a_revocation_reaches_all_nodes_and_is_reported(sim, authority):
    tell(sim.nodes["a"], authority, "edge", "stolen")
    assert sim.run_until(lambda: known(sim) == [1, 1, 1], 1.0)
    reports = [report for report in sim.nodes["c"].reports if report.event == "trust_changed"]
    assert [(report.node, report.detail) for report in reports] == [("b", "edge was revoked (stolen)")]


def test_what_was_lost_on_the_way_is_requested(sim, authority):
    for each in sim.wires:
        each.loss = 1.0
    tell(sim.nodes["a"], authority, "edge")
    sim.run(0.1)
    for each in sim.wires:
        each.loss = 0.0
    assert known(sim) == [1, 0, 0]
    assert sim.run_until(lambda: known(sim) == [1, 1, 1], 4.0)


def test_a_forged_statement_is_reported_and_not_flooded(sim, authority):
    stranger = TestAuthority(9, begins=NOW - DAY)
    node = sim.nodes["b"]
    (link, *_) = node.engine.links()
    data = b"r" + stranger.revoke("c", NOW).encode()
    node.do(node.engine.receive(link.id, *wire.encode_statements([data, data]), node.now))
    sim.run(3.0)
    assert known(sim) == [0, 0, 0]
    reports = [report for report in node.reports if report.event == "record_refused"]
    assert [report.detail.partition(" ")[0] for report in reports] == ["authority"] or "authority" in str(reports)
    assert len(sim.nodes["c"].engine.links()) == 1


def test_a_node_without_an_identity_has_no_statements():
    engine = Engine("a", 1, now=0.0)
    assert engine.routing.statements_digest == 0
    assert engine.routing.resend_statements(1) == 0
    assert engine.routing.on_statements(1, [b"x"], 0.0) is False


def test_a_neighbour_that_asks_gets_all_statements(sim, authority):
    tell(sim.nodes["a"], authority, "edge")
    sim.run(1.0)
    seen = []
    sim.tap = lambda frames: seen.append(wire.decode_packet(frames))
    node = sim.nodes["b"]
    (link, *_) = node.engine.links()
    node.do(node.engine.receive(link.id, wire.encode_link(Kind.RESEND, wire.Resend(False, False, True)), node.now))
    assert [wire.decode_statements(packet.head) for packet in seen if packet.kind == Kind.STATEMENT] == [
        [b"r" + authority.revoke("edge", NOW).encode()]
    ]
