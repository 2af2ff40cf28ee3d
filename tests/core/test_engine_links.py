"""How the engine sees to its links: how they end, and what it does about a suspect one."""

from tests.core.engine_harness import ID, Said, chunk, events, only
from zmesh.core import wire
from zmesh.core.delivery.flow_control import WINDOW
from zmesh.core.effects import HangUp, Report
from zmesh.core.neighbours.links import OPENING, SILENCE, SUSPECT_AFTER, SUSPECT_COST
from zmesh.core.wire import Entry, Kind

# --- how a link ends ----------------------------------------------------------------------------------------------


def test_a_neighbour_that_leaves_is_gone_at_once(linked):
    linked.advertise(1, Entry("c", 5, 1, 10, 1))
    effects = linked.hear(1, Kind.GOODBYE, wire.Goodbye("leaving"))
    assert effects[:2] == [HangUp(1, "leaving", 0.0), Report("link_lost", "a", 1, "they left: leaving")]
    assert {report.node for report in only(effects, Report) if report.event == "node_left"} == {"a", "c"}
    assert linked.engine.nodes() == {"b"}


def test_a_link_that_the_transport_knows_to_be_down_is_lost(linked):
    assert linked.link_down(1, "reset by peer")[0] == Report("link_lost", "a", 1, "reset by peer")
    assert linked.link_down(1, "reset by peer") == []


def test_a_connection_that_never_opened_is_lost_without_a_report(subject):
    subject.link_up(1)
    assert subject.link_down(1) == []
    assert len(subject.engine.neighbours) == 0


def test_a_link_keeps_the_keys_of_its_encrypted_connection(subject):
    subject.link_up(1, channel=bytes(range(64)))
    subject.link_up(2)
    assert [link.channel for link in subject.engine.neighbours] == [bytes(range(64)), b""]


def test_a_silent_neighbour_is_hung_up_on(linked):
    effects = linked.run(SILENCE + 0.1)
    assert HangUp(1, "silent", 0.0) in effects
    assert Report("link_lost", "a", 1, "silent for 3 s") in effects


def test_routes_leave_a_link_that_is_silent_for_two_heartbeats_and_return_when_it_is_heard(linked):
    linked.join(2, "c")
    linked.advertise(2, Entry("a", 1, 1, 50, 1))
    route = linked.engine.routing.route
    assert (route("a").link, route("a").metric) == (1, 100)
    silent_since = linked.now
    while linked.now < silent_since + SUSPECT_AFTER - 0.1:
        linked.run(0.1)
        linked.keep_alive(2)
    assert route("a").link == 1
    assert Report("link_suspect", "a", 1, "silent for 2 s") in linked.run(0.2)
    assert (route("a").link, route("a").metric) == (2, 150)
    linked.keep_alive(1)
    assert (route("a").link, route("a").metric) == (1, 100)
    linked.keep_alive(1)  # what was trusted already is not trusted anew
    assert "link_lost" not in events(linked.run(SUSPECT_AFTER - 0.1))


def test_a_suspect_link_is_used_if_it_is_the_only_next_hop(linked):
    linked.run(SUSPECT_AFTER + 0.1)
    assert linked.engine.routing.route("a").metric == 100 + SUSPECT_COST
    assert only(linked.send(), Kind.CHUNK) != []


def test_the_last_frame_on_a_suspect_link_may_be_a_goodbye(linked):
    linked.run(SUSPECT_AFTER + 0.1)
    assert "link_lost" in events(linked.hear(1, Kind.GOODBYE, wire.Goodbye("leaving")))


def test_a_connection_without_a_greeting_is_hung_up_on(subject):
    subject.link_up(1)
    assert subject.run(OPENING) == [HangUp(1, "no greeting", 0.0)]
    assert subject.engine.next_deadline() is None


def test_of_two_links_to_one_neighbour_one_stands_by(subject):
    subject.join(1)
    subject.join(2)
    assert events(subject.link_down(1)) == ["link_lost", "route_changed"]
    assert subject.engine.nodes() == {"a", "b"}


def test_a_node_that_closes_says_goodbye_on_every_link(subject):
    subject.join(1, "a")
    subject.join(2, "c", leaf=True)
    subject.link_up(3)
    effects = subject.done(subject.engine.close(subject.now, "done"))
    assert effects == [Said(link, Kind.GOODBYE, wire.Goodbye("done")) for link in (1, 2)]
    assert subject.link_up(4, dialled=True) == []
    assert subject.engine.neighbours.get(4) is None


def test_a_node_that_closes_acknowledges_what_has_come_first(linked):
    linked.send("a")
    linked.arrive(1, Kind.CHUNK, chunk(request=False, flags=wire.FLAG_EOF))
    ack, goodbye = linked.done(linked.engine.close(linked.now))
    assert (ack.kind, ack.to, goodbye.kind) == (Kind.ACK, "a", Kind.GOODBYE)
    assert ack.value.acks == (wire.AckItem(ID, False, 1, WINDOW),)


def test_a_link_that_is_hung_up_gets_a_goodbye_with_the_reason(subject):
    subject.join(1, "a")
    subject.join(2, "c")
    effects = subject.done(subject.engine.hang_up(1, "no peer any more", subject.now))
    assert effects[:2] == [Said(1, Kind.GOODBYE, wire.Goodbye("no peer any more")), HangUp(1, "no peer any more", 0.0)]
    assert "link_lost" in events(effects)
    assert subject.engine.nodes() == {"b", "c"}
    assert subject.done(subject.engine.hang_up(1, "no peer any more", subject.now)) == []


def test_a_link_that_is_not_up_is_hung_up_without_a_word(subject):
    subject.link_up(1)
    assert subject.done(subject.engine.hang_up(1, "not wanted", subject.now)) == [HangUp(1, "not wanted", 0.0)]


# --- suspicion ----------------------------------------------------------------------------------------------------


def test_a_suspect_link_is_probed_or_asked(linked):
    (probe,) = linked.done(linked.engine.probe(1, linked.now))
    assert (probe.link, probe.kind) == (1, Kind.PROBE)
    linked.link_up(2, dialled=False)
    assert linked.done(linked.engine.probe(2, linked.now)) == [Said(2, Kind.ASK, None)]
    assert linked.done(linked.engine.probe(3, linked.now)) == []
