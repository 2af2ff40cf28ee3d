"""Certificates between two engines, as frames."""

from zmesh.core import wire
from zmesh.core.engine import Engine
from zmesh.core.routing.certificates import Certificates
from zmesh.core.timers import Alarm, WallClock
from zmesh.core.wire import Kind
from zmesh.testing.authority import DAY, TestAuthority
from zmesh.testing.simulator import Simulator

NOW = 1_800_000_000


CHAIN = ("a", "b", "c")


def test_every_node_has_the_certificate_of_every_other(sim):
    for id, node in sim.nodes.items():
        for other in sim.nodes:
            assert node.engine.routing.certified(other).identity.id == other, (id, other)
    assert {node.engine.identity(other).id for node in sim.nodes.values() for other in sim.nodes} == set(sim.nodes)


def test_a_certificate_crosses_a_link_once(sim):
    seen = []
    sim.tap = lambda frames: seen.append(wire.decode_packet(frames).kind)
    sim.nodes["b"].do(sim.nodes["b"].engine.describe(["x:y"], sim.nodes["b"].now))
    sim.run(20.0)
    assert Kind.RECORD in seen
    assert Kind.CERTIFICATE not in seen
    assert Kind.CERTIFICATE_REQUEST not in seen


def test_the_identity_of_an_address_is_that_of_its_node(sim):
    engine = sim.nodes["a"].engine
    assert engine.identity("cli@c") == engine.identity("c")
    assert engine.identity("nobody") is None
    assert Engine("a", 1, now=0.0).identity("a") is None


def test_tags_of_certificates_and_of_nodes_themselves_are_distinguished():
    authority = TestAuthority(1, begins=NOW - DAY)
    sim = Simulator(3)
    sim.chain("a", "b", epoch=float(NOW), credentials=lambda id: authority.credentials(id, tags=("gpu",)))
    sim.nodes["b"].do(sim.nodes["b"].engine.describe(["x:y"], sim.nodes["b"].now, ("lab",)))
    assert sim.settle()
    assert sim.nodes["a"].engine.tags() == {"a": (("gpu",), ()), "b": (("gpu",), ("lab",))}


def test_a_leaf_with_a_certificate_of_its_own_is_known_to_the_node_that_it_is_attached_to_alone():
    authority = TestAuthority(1, begins=NOW - DAY)
    sim = Simulator(5)
    sim.chain("a", "b", epoch=float(NOW), credentials=authority.credentials)
    sim.add("ada.1", epoch=float(NOW), leaf=True, credentials=lambda id: authority.credentials("ada", tags=("ops",)))
    sim.connect("ada.1", "a")
    for id in ("cli", "vm.1"):
        sim.add(id, epoch=float(NOW), leaf=True)
        sim.connect(id, "a").local = True
    assert sim.settle()
    sim.run(3.0)
    a, b = (sim.nodes[id].engine for id in "ab")
    assert (a.identity("ada.1@a").id, a.identity("ada.1@a").tags) == ("ada", ("ops",))
    assert b.identity("ada.1@a") is None
    assert b.identity("vm.1@a") is None
    assert a.identity("vm.1@a") == a.identity("cli@a") == b.identity("cli@a") == a.identity("a")
    assert a.identity("a").id == "a"
    outcome = sim.nodes["ada.1"].send("b", b"hello")
    sim.run(2.0)
    assert outcome.replies == [b"hello"]


def test_a_leaf_with_a_certificate_of_its_own_has_more_than_that_for_its_id():
    authority = TestAuthority(1, begins=NOW - DAY)
    sim = Simulator(5)
    (hub,) = sim.add("a", epoch=float(NOW), credentials=authority.credentials)
    sim.add("ada", epoch=float(NOW), leaf=True, credentials=authority.credentials)
    sim.connect("ada", "a")
    sim.run(5.0)
    assert not hub.engine.links()
    assert any("a dot, and more: ada.1" in report.detail for report in hub.reports)


def test_two_live_nodes_of_one_id_are_detected_although_their_keys_differ():
    authority = TestAuthority(1, begins=NOW - DAY)
    sim = Simulator(5)
    sim.chain("a", "b", "c", epoch=float(NOW), credentials=authority.credentials)
    assert sim.settle()
    twin = sim.add("twin", epoch=float(NOW), credentials=lambda id: authority.credentials("a"))[0]
    twin.engine = Engine("a", 77, now=twin.now, epoch=float(NOW), credentials=authority.credentials("a"))
    sim.connect("twin", "c")
    sim.run(30.0)
    reports = [report for report in sim.nodes["c"].reports if report.event == "duplicate_id"]
    assert reports


def test_a_certificate_may_prove_that_another_node_has_this_nodes_id():
    authority = TestAuthority(1, begins=NOW - DAY)
    sim = Simulator(5)
    sim.chain("a", "b", epoch=float(NOW), credentials=authority.credentials)
    assert sim.settle()
    node, now = sim.nodes["a"], sim.now
    engine, other = node.engine, authority.credentials("a")
    signer = Certificates(other, WallClock(float(NOW)), Alarm())
    (link,) = engine.links()
    for step in range(1, 5):
        record = signer.sign(wire.Record("a", 5, engine.routing.record("a").serial + 9, (), (), b""))
        node.do(engine.receive(link.id, wire.encode_records([wire.encode(record)]), now))
        if step == 4:
            break
        node.do(engine.receive(link.id, *wire.encode_certificates([other.own.data]), now))
        engine.routing._certificates._known.pop(other.own.digest, None)
        now += 40.0
        node.do(engine.resume(40.0, now))
        node.do(engine.tick(now))
    assert not engine.routing.is_contested
    node.do(engine.receive(link.id, *wire.encode_certificates([other.own.data]), now))
    assert engine.routing.is_contested
    assert engine.delivery.client.contested
