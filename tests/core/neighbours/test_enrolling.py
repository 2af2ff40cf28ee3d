"""Leaves without a certificate that enrol, and leaves that share one."""

import pytest

from tests.core.neighbours.test_authentication import CHANNEL, NOW, End, exchange, meet, up
from zmesh.core import wire
from zmesh.core.effects import Deliver
from zmesh.core.limits import Limits
from zmesh.core.message import RequestHeader
from zmesh.core.neighbours.authentication import ENROL_WITHIN
from zmesh.core.neighbours.neighbours import MAX_ENROLLING
from zmesh.core.wire import Kind
from zmesh.testing.authority import DAY, TestAuthority

HEADER = RequestHeader("zmesh:enrol", 1.0, None)
ID = bytes(15) + b"\x01"


@pytest.fixture
def hub():
    return End("hub", TestAuthority(1, begins=NOW - DAY).credentials("hub"))


def newcomer(name="new", incarnation=1):
    end = End(name, leaf=True, incarnation=incarnation)
    end.engine = type(end.engine)(name, incarnation, now=0.0, epoch=NOW, leaf=True, enrolling=True)
    return end


def dropped(end):
    return [report.detail for report in end.log if report.event == "frame_dropped"]


def test_a_leaf_that_enrols_is_linked_without_a_certificate(hub):
    new = newcomer()
    meet(new, hub)
    assert up(hub, new) == [True, True]
    assert hub.link.enrolling
    assert hub.engine.is_enrolling("new@hub")
    assert not hub.engine.is_enrolling("new")
    assert not hub.engine.is_enrolling("new@other")
    hub.engine.check()


def test_what_it_sends_to_this_node_is_delivered_and_answered(hub):
    new = newcomer()
    meet(new, hub)
    delivered = []
    do, hub.do = hub.do, lambda effects: (do(effects), delivered.extend(effects))
    new.do(new.engine.send(ID, "hub", HEADER, b"token", 0.0))
    exchange(new, hub)
    (delivered,) = [effect for effect in delivered if isinstance(effect, Deliver)]
    assert (delivered.peer, delivered.header.directive, delivered.body) == ("new@hub", "zmesh:enrol", b"token")


def test_what_it_sends_to_another_node_is_dropped(hub):
    new = newcomer()
    meet(new, hub)
    new.do(new.engine.send(ID, "edge", HEADER, b"", 0.0))
    exchange(new, hub)
    assert dropped(hub) == ["enrolling"]


def test_it_may_send_few_frames_and_small_ones(hub):
    new = newcomer()
    meet(new, hub)
    large = wire.encode_packet(Kind.CHUNK, "hub", "new@hub", b"", bytes(MAX_ENROLLING))
    hub.do(hub.engine.receive(1, large, 0.0))
    assert f"{sum(map(len, large))} bytes from a node that enrols, where 8192 are allowed" in dropped(hub)[0]
    frame = wire.encode_packet(Kind.CHUNK, "edge", "new@hub", b"", b"")
    for _ in range(300):
        hub.do(hub.engine.receive(1, frame, 0.0))
    counts = [detail.partition(":")[0] for detail in dropped(hub)]
    assert counts.count("rate_limited") >= 200
    assert counts.count("enrolling") <= Limits().greetings.burst


def test_so_many_enrol_at_a_time(hub):
    hub.engine = type(hub.engine)(
        "hub", 1, now=0.0, epoch=NOW, credentials=hub.engine.credentials, limits=Limits(enrolling=1)
    )
    meet(newcomer(), hub)
    second = newcomer("second")
    second.do(second.engine.link_up(1, 0.0, dialled=True, channel=CHANNEL))
    hub.do(hub.engine.link_up(2, 0.0, dialled=False, channel=CHANNEL))
    hub.do(hub.engine.receive(2, second.sent[0], 0.0))
    assert "1 nodes enrol at 'hub' already; try again in a minute" in hub.texts()[0]


def test_one_that_does_not_enrol_in_time_is_refused(hub):
    meet(newcomer(), hub)
    hub.do(hub.engine.receive(1, wire.encode_link(Kind.PROBE, wire.Probe(0.0, 0, 0, 0.0)), ENROL_WITHIN))
    hub.do(hub.engine.trust_changed(ENROL_WITHIN))
    assert up(hub) == [True]
    hub.do(hub.engine.trust_changed(ENROL_WITHIN + 1))
    assert hub.link is None
    assert "node 'new' has not enrolled within 60 s" in hub.texts()[0]


def test_a_node_that_is_no_leaf_or_that_listens_can_not_enrol(hub):
    new = newcomer()
    meet(hub, new)  # it is the hub that dials
    assert up(hub) == [False]
    assert "shows no certificate" in hub.texts()[0]


def test_without_an_identity_a_node_takes_a_leaf_that_enrols_as_any_other():
    plain, new = End("hub"), newcomer()
    meet(new, plain)
    assert up(plain, new) == [True, True]
    assert not plain.engine.is_enrolling("new@hub")


def test_leaves_of_one_person_share_a_certificate(hub):
    authority = TestAuthority(1, begins=NOW - DAY)
    ada = authority.credentials("ada")
    leaf = End("ada.4f2a", ada, leaf=True)
    meet(leaf, hub)
    assert up(hub, leaf) == [True, True]
    assert hub.link.certified.identity.id == "ada"
    hub.do(hub.engine.trust_changed(1.0))
    assert up(hub) == [True]


@pytest.mark.parametrize(("name", "leaf"), [("ada.4f2a", False), ("adam", True), ("ada", True)])
def test_no_other_name_is_that_of_a_certificate(hub, name, leaf):
    ada = TestAuthority(1, begins=NOW - DAY).credentials("ada")
    end = End(name, ada, leaf=leaf)
    meet(end, hub)
    assert up(hub) == [False]


def test_a_leaf_over_the_nodes_own_socket_is_local(hub):
    leaf = End("cli", leaf=True)
    leaf.do(leaf.engine.link_up(1, 0.0, dialled=True, local=True))
    hub.do(hub.engine.link_up(1, 0.0, dialled=False, local=True))
    exchange(leaf, hub)
    assert up(hub, leaf) == [True, True]
    assert [hub.engine.is_local(address) for address in ("cli@hub", "cli", "cli@other", "hub")] == [
        True,
        False,
        False,
        False,
    ]
