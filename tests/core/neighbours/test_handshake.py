"""Who may be a neighbour, as the engine acts on it."""

import pytest

from tests.core.engine_harness import Said, chunk, events, only
from zmesh.core import wire
from zmesh.core.effects import HangUp, Report, Transmit
from zmesh.core.neighbours.handshake import REDIAL_REFUSED
from zmesh.core.neighbours.links import MAX_STRIKES, OPENING, SILENCE, State
from zmesh.core.wire import FULL_BEGIN, FULL_END, INFINITY, Entry, Kind

# --- how a link opens ---------------------------------------------------------------------------------------------

FOR_VERSION_1 = "of version 1"


def hello_of_b(session, answers):
    return wire.Hello("b", 2, 1000.0, False, session, answers, extensions={wire.BATCHES: b""})


def test_who_dials_greets_and_who_listens_waits(subject):
    assert subject.link_up(1, dialled=True) == [
        Said(1, Kind.HELLO, hello_of_b(1, 0)),
    ]
    assert subject.link_up(2, dialled=False) == []


def test_a_connection_is_entered_once(subject):
    subject.link_up(1, dialled=True)
    assert subject.link_up(1, dialled=True) == []


def test_a_greeting_is_answered_and_the_link_is_up(subject):
    subject.link_up(1)
    subject.now = 0.5
    effects = subject.greet(1, "a", session=9)
    assert effects == [
        Said(1, Kind.HELLO, hello_of_b(1, 9)),
        Report("link_up", "a", 1),
        Said(1, Kind.UPDATE, wire.Update(FULL_BEGIN | FULL_END, 1, [Entry("b", 2, 100, 0, 0)])),
        Said(1, Kind.RECORD, [wire.Record("b", 2, 100, (), (), b"", 1000.0)]),
        Said(1, Kind.PROBE, wire.Probe(0.5, subject.engine.routing.sent(1), subject.engine.routing.digest, 0.5)),
    ]


def test_an_answer_to_ones_own_greeting_opens_the_link_without_another(subject):
    subject.link_up(1, dialled=True)
    effects = subject.greet(1, "a", answers=1)
    assert [effect.kind for effect in effects if isinstance(effect, Said)] == [Kind.UPDATE, Kind.RECORD, Kind.PROBE]
    assert events(effects) == ["link_up"]


def test_a_link_carries_routes_once_its_first_probe_is_answered_at_the_cost_measured_then(subject):
    subject.link_up(1)
    subject.greet(1, "a")
    assert events(subject.advertise(1, Entry("a", 1, 1, 0, 0), Entry("z", 9, 5, 10, 1))) == []
    assert subject.engine.nodes() == {"b"}
    subject.now = 0.2
    effects = subject.hear(1, Kind.ECHO, wire.Echo(0.0))
    assert events(effects) == ["node_joined", "route_changed"] * 2
    assert {to: route.metric for to, route in subject.engine.routing.routes().items()} == {"a": 250, "z": 260}
    assert subject.engine.routing.distance("z") == (5, 260)
    assert [said.value[0].neighbours for said in only(effects, Kind.RECORD)] == [(("a", 250),)]


def test_the_answer_to_a_greeting_is_a_round_trip(subject):
    subject.link_up(1, dialled=True)
    subject.now = 0.2
    effects = subject.greet(1, "a")
    assert [said.value[0].neighbours for said in only(effects, Kind.RECORD)] == [(("a", 250),)]
    subject.advertise(1, Entry("a", 1, 1, 0, 0))
    assert subject.engine.routing.route("a").metric == 250


def test_an_answer_to_a_repeated_hello_gives_no_round_trip_time(subject):
    subject.link_up(1, dialled=True)
    assert len(only(subject.run(1.5), Kind.HELLO)) == 2  # one of them for a node of version 1
    subject.greet(1, "a")
    subject.advertise(1, Entry("a", 1, 1, 0, 0))
    assert (subject.engine.neighbours.get(1).rtt, subject.engine.nodes()) == (None, {"b"})


def test_an_answer_to_an_earlier_greeting_is_not_taken(subject):
    subject.link_up(7, dialled=True)
    assert subject.greet(7, "a", answers=6) == [Report("frame_dropped", None, 7, "unexpected: HELLO")]
    assert subject.engine.neighbours.get(7).state is State.OPENING


def test_a_link_that_is_up_is_not_opened_again(linked):
    assert linked.greet(1, "z") == [Report("frame_dropped", "a", 1, "unexpected: HELLO")]
    assert linked.engine.neighbours.get(1).node == "a"


def test_a_dialler_that_greets_again_has_not_heard_the_answer_and_gets_another(linked):
    assert linked.greet(1, "a") == [Said(1, Kind.HELLO, hello_of_b(1, 9))]
    linked.join(2, "c", dialled=True)
    assert linked.greet(2, "c", answers=2) == []


def test_a_dialler_greets_every_heartbeat_until_it_is_answered_or_held(subject):
    subject.link_up(1, dialled=True)
    assert [effect.kind for effect in subject.run(2.5) if effect.value != FOR_VERSION_1] == [Kind.HELLO, Kind.HELLO]
    subject.join(2, "a", incarnation=5)
    subject.greet(1, "a", incarnation=6, answers=1)
    assert subject.engine.neighbours.get(1).state is State.QUARANTINED
    assert [effect for effect in only(subject.run(2.5), Kind.HELLO) if effect.link == 1] == []


@pytest.mark.parametrize("kind", [Kind.PROBE, Kind.ECHO, Kind.UPDATE, Kind.RECORD, Kind.GOODBYE, Kind.RESEND])
def test_a_listener_that_hears_anything_but_a_greeting_asks_who_that_is(subject, kind):
    subject.link_up(1)
    assert subject.hear(1, kind) == [Said(1, Kind.ASK, None), Report("frame_dropped", None, 1, "not_greeted")]
    subject.link_up(2, dialled=True)
    assert subject.hear(2, kind) == [Report("frame_dropped", None, 2, "not_greeted")]


def test_a_listener_that_gets_a_strangers_message_drops_it_and_asks_who_that_is(subject):
    subject.link_up(1)
    subject.link_up(2, dialled=True)
    assert subject.arrive(1, Kind.CHUNK, chunk()) == [
        Said(1, Kind.ASK, None),
        Report("frame_dropped", None, 1, "not_greeted"),
    ]
    assert subject.arrive(2, Kind.CHUNK, chunk()) == [Report("frame_dropped", None, 2, "not_greeted")]


def test_who_is_asked_greets_again(subject):
    effects = subject.link_up(1, dialled=True)
    assert subject.hear(1, Kind.ASK) == [*effects, Said(1, Kind.HELLO, FOR_VERSION_1)]
    assert subject.hear(1, Kind.ASK) == effects


def test_who_is_asked_on_a_link_that_is_up_opens_a_new_one(subject):
    subject.join(1, dialled=True)
    effects = subject.hear(1, Kind.ASK)
    assert HangUp(1, "the other end knows us no more", 0.0) in effects
    assert Report("link_lost", "a", 1, "the other end knows us no more") in effects


def test_a_listener_is_not_asked(linked):
    assert linked.hear(1, Kind.ASK) == [Report("frame_dropped", "a", 1, "unexpected: ASK")]


def test_what_comes_on_an_unknown_link_is_not_heard(subject):
    dropped = Report("frame_dropped", None, 99, "link_gone")
    assert subject.hear(99, Kind.ASK) == [dropped]
    assert subject.receive(99, b"garbage") == [dropped]


# --- who is refused -----------------------------------------------------------------------------------------------


def refused(link, reason, text, *reports, started=0.0):
    """What happens when a link is refused."""
    return [
        Said(link, Kind.REFUSE, wire.Refuse(reason, text, started)),
        *[
            Report(event, node, link, f"we refuse: {text}", text=reason if event == "link_refused" else "")
            for event, node in reports
        ],
        HangUp(link, text, REDIAL_REFUSED),
    ]


def test_a_node_of_this_nodes_name_is_refused(subject):
    subject.link_up(1)
    text = "the id 'b' is taken by the node at this end (another node)"
    assert subject.greet(1, "b", started=1001.0) == refused(
        1, "own_id", text, ("link_refused", None), ("duplicate_id", "b"), started=1000.0
    )
    assert len(subject.engine.neighbours) == 0


def test_a_node_that_dials_itself_is_no_second_node(subject):
    subject.link_up(1)
    text = "the id 'b' is taken by the node at this end (this node itself)"
    assert subject.greet(1, "b", 2, started=1000.0) == refused(
        1, "itself", text, ("link_refused", None), started=1000.0
    )
    assert subject.engine.routing.record("b").refused == ()
    subject.link_up(2, dialled=True)
    assert events(subject.hear(2, Kind.REFUSE, wire.Refuse("itself", text, 1000.0))) == ["link_refused"]


def test_two_leaves_are_of_no_use_to_each_other(subject_of):
    subject = subject_of(leaf=True)
    subject.link_up(1)
    text = "both ends are ephemeral, and neither forwards"
    assert subject.greet(1, "a", leaf=True) == refused(1, "leaf", text, ("link_refused", None))


TEXT_1 = "protocol version 1 is not 2 to 2, which this node speaks"


def test_version_1_is_refused_in_version_1_with_both_versions(subject):
    subject.link_up(1)
    route = wire.encode((1, int(Kind.HELLO), 255, "", ""))
    effects = subject.engine.receive(1, (route, b"whatever that version says", b""), 0.0)
    assert effects == [
        Transmit(1, wire.refuse_version1(TEXT_1)),
        Report("link_refused", None, 1, f"we refuse: {TEXT_1}", text="version"),
        HangUp(1, TEXT_1, REDIAL_REFUSED),
    ]
    assert len(subject.engine.neighbours) == 0


def test_a_refusal_of_version_1_is_understood(subject):
    subject.link_up(1, dialled=True)
    text = "protocol version 2 is not 1, which we speak"
    assert subject.receive(1, *wire.refuse_version1(text)) == [
        Report("link_refused", None, 1, f"they refuse: {text}", text="version"),
        HangUp(1, text, REDIAL_REFUSED),
    ]
    assert len(subject.engine.neighbours) == 0


def test_a_hello_for_nodes_of_version_1_means_nothing_to_others(subject):
    subject.link_up(1)
    assert subject.receive(1, *wire.hello_for_version1(wire.VERSION)) == []
    assert subject.greet(1, "a")
    assert subject.engine.neighbours.get(1).state is State.UP
    assert subject.receive(1, *wire.hello_for_version1(wire.VERSION)) == []
    strike = subject.receive(1, *wire.hello_for_version1(1))
    assert strike == [Report("frame_dropped", "a", 1, "version: protocol version 1")]


@pytest.mark.parametrize(("lowest", "highest"), [(3, 5), (1, 1)])
def test_versions_that_have_none_in_common_are_refused_by_both_ranges(subject, lowest, highest):
    subject.link_up(1)
    hello = wire.Hello("a", 1, 0.0, False, 9, 0, lowest, highest)
    text = f"protocol versions {lowest} to {highest} are not 2 to 2, which this node speaks"
    assert subject.hear(1, Kind.HELLO, hello) == refused(1, "version", text, ("link_refused", None))


@pytest.mark.parametrize(("lowest", "highest"), [(2, 2), (1, 9), (2, 3)])
def test_the_highest_common_version_is_spoken(subject, lowest, highest):
    subject.link_up(1)
    subject.hear(1, Kind.HELLO, wire.Hello("a", 1, 0.0, False, 9, 0, lowest, highest))
    link = subject.engine.neighbours.get(1)
    assert (link.state, link.version) == (State.UP, wire.VERSION)


def test_an_unknown_extension_of_a_hello_is_ignored_and_a_critical_one_refuses_it(subject):
    subject.link_up(1)
    head = wire.Hello("a", 1, 0.0, False, 9, 0, extensions={wire.CRITICAL + 9: b""})
    (dropped,) = subject.hear(1, Kind.HELLO, head)
    assert dropped.detail == "unknown_extension: the extension 137 is critical, and unknown here"
    subject.hear(1, Kind.HELLO, head._replace(extensions={wire.CRITICAL - 1: b"later"}))
    assert subject.engine.neighbours.get(1).state is State.UP


def test_a_refusal_is_reported_at_the_refused_end_and_redialled_after_a_pause(subject):
    subject.link_up(1, dialled=True)
    assert subject.hear(1, Kind.REFUSE, wire.Refuse("own_id", "taken")) == [
        Report("link_refused", None, 1, "they refuse: taken", text="own_id"),
        Report("duplicate_id", "b", 1, "they refuse: taken"),
        HangUp(1, "taken", REDIAL_REFUSED),
        Report("id_taken", "b", 1, "taken"),
    ]
    assert len(subject.engine.neighbours) == 0


def test_a_link_that_was_up_may_be_refused(linked):
    effects = linked.hear(1, Kind.REFUSE, wire.Refuse("version", "too old"))
    assert events(effects) == ["link_refused", "link_lost", "node_left"]


# --- who does not greet -------------------------------------------------------------------------------------------


def test_a_peer_that_was_dialled_and_does_not_greet_is_reported(subject):
    subject.link_up(1, dialled=True, where="at tcp://hub:1")
    reports = only(subject.run(OPENING), Report)
    assert reports == [Report("link_not_greeted", None, 1, "no greeting for 5 s", text="at tcp://hub:1")]


def test_a_peer_that_ends_the_connection_before_it_greets_is_reported(subject):
    subject.link_up(1, dialled=True, where="at tcp://hub:1")
    assert only(subject.link_down(1), Report) == [Report("link_not_greeted", None, 1, "closed", text="at tcp://hub:1")]


def test_a_peer_that_sends_garbage_in_place_of_a_greeting_is_reported(subject):
    subject.link_up(1, dialled=True)
    found = [event for _ in range(MAX_STRIKES) for event in events(subject.receive(1, b"garbage"))]
    assert found[-1] == "link_not_greeted"


def test_who_dials_and_does_not_greet_is_not_reported(subject):
    subject.link_up(1)
    assert events(subject.run(OPENING)) == []


# --- two nodes of one name ----------------------------------------------------------------------------------------


def test_another_incarnation_of_a_live_neighbour_is_held_and_the_old_one_is_probed(linked):
    linked.link_up(2)
    effects = linked.greet(2, "a", incarnation=7)
    assert effects[0] == Report("link_quarantined", "a", 2, "another incarnation of it may still be alive")
    assert [(effect.link, effect.kind) for effect in effects[1:]] == [(1, Kind.PROBE)]
    assert linked.greet(2, "a", incarnation=7) == []
    assert linked.arrive(2, Kind.CHUNK, chunk()) == [Report("frame_dropped", None, 2, "not_greeted")]
    assert linked.hear(2, Kind.PROBE, wire.Probe(0.0, 0, 0, 0.0)) == [Report("frame_dropped", None, 2, "not_greeted")]


def test_the_second_of_one_name_is_refused_when_the_first_proves_alive(linked):
    linked.link_up(2)
    linked.greet(2, "a", incarnation=7)
    effects = []
    for _ in range(9):
        effects += linked.run(0.5)
        linked.keep_alive(1)
    text = "another node called 'a' is alive in the mesh, linked to b"
    assert [effect for effect in effects if effect in refused(2, "duplicate_id", text)] == refused(
        2, "duplicate_id", text
    )
    assert Report("duplicate_id", "a", 2, f"we refuse: {text}") in effects
    assert [link.id for link in linked.engine.neighbours.to("a")] == [1]


def test_a_restarted_neighbour_replaces_its_old_self_when_that_is_silent(linked):
    linked.link_up(2)
    linked.greet(2, "a", incarnation=7)
    effects = linked.run(SILENCE + 0.5)
    reports = [(report.event, report.link) for report in only(effects, Report)]
    assert reports.index(("link_lost", 1)) < reports.index(("link_up", 2))
    assert [link.incarnation for link in linked.engine.neighbours.to("a")] == [7]


def test_a_restarted_neighbour_replaces_its_old_self_when_that_link_is_gone(linked):
    linked.link_up(2)
    linked.greet(2, "a", incarnation=7)
    effects = linked.link_down(1)
    assert events(effects) == ["link_lost", "node_left", "link_up"]
    assert only(effects, Kind.HELLO) == [Said(2, Kind.HELLO, hello_of_b(2, 9))]


def test_a_node_that_is_alive_elsewhere_in_the_mesh_is_held_until_its_route_is_gone(linked):
    linked.advertise(1, Entry("c", 5, 1, 10, 1))
    linked.link_up(2)
    assert events(linked.greet(2, "c", incarnation=6)) == ["link_quarantined"]
    effects = linked.advertise(1, Entry("c", 0, 0, INFINITY, 0))
    assert events(effects) == ["node_left", "link_up"]


def test_a_node_that_stays_alive_elsewhere_in_the_mesh_is_refused(linked):
    linked.advertise(1, Entry("c", 5, 1, 10, 1))
    linked.link_up(2)
    linked.greet(2, "c", incarnation=6)
    effects = []
    for _ in range(9):
        effects += linked.run(0.5)
        linked.keep_alive(1)
    assert "duplicate_id" in events(effects)
    assert linked.engine.neighbours.get(2) is None


def test_of_two_held_links_one_comes_up_and_the_other_stays_held(linked):
    for link, incarnation in ((2, 7), (3, 8)):
        linked.link_up(link)
        linked.greet(link, "a", incarnation)
    effects = linked.link_down(1)
    assert [report.link for report in only(effects, Report) if report.event == "link_up"] == [2]
    assert [link.id for link in linked.engine.neighbours if link.state is State.QUARANTINED] == [3]


def test_a_tick_that_comes_late_does_not_hang_up_on_the_new_link_with_the_old(linked):
    linked.link_up(2)
    linked.greet(2, "a", incarnation=7)
    linked.now += 10.0
    effects = linked.tick()
    assert [effect.link for effect in only(effects, HangUp)] == [1]
    assert [link.id for link in linked.engine.neighbours.to("a")] == [2]


def test_a_neighbour_can_not_be_a_leaf_and_a_node_at_once(linked):
    linked.link_up(2)
    assert events(linked.greet(2, "a", incarnation=1, leaf=True)) == ["link_quarantined"]


def test_a_leaf_may_have_the_name_of_a_node_elsewhere_in_the_mesh(linked):
    linked.advertise(1, Entry("c", 5, 1, 10, 1))
    assert events(linked.join(2, "c", incarnation=6, leaf=True)) == ["link_up"]


# --- which of the two nodes closes ----------------------------------------------------------------------------------

OWN = 1000.0
"""When the node under test was started."""


@pytest.mark.parametrize("reason", ["own_id", "duplicate_id"])
@pytest.mark.parametrize(("other", "taken"), [(0.0, True), (OWN - 1, True), (OWN, True), (OWN + 1, False)])
def test_a_node_that_is_refused_closes_unless_the_other_was_started_later(subject, reason, other, taken):
    subject.link_up(1, dialled=True)
    effects = subject.hear(1, Kind.REFUSE, wire.Refuse(reason, "taken", other))
    assert ("id_taken" in events(effects)) is taken
    assert "duplicate_id" in events(effects)


@pytest.mark.parametrize("reason", ["version", "leaf", "itself"])
def test_a_node_that_is_refused_for_another_reason_keeps_its_name(subject, reason):
    subject.link_up(1, dialled=True)
    assert events(subject.hear(1, Kind.REFUSE, wire.Refuse(reason, "no", 0.0))) == ["link_refused"]


@pytest.mark.parametrize(("other", "taken"), [(OWN - 1, True), (OWN, False), (OWN + 1, False)])
def test_a_node_that_refuses_its_own_id_closes_if_the_other_was_started_earlier(subject, other, taken):
    subject.link_up(1)
    assert ("id_taken" in events(subject.greet(1, "b", started=other))) is taken


def test_a_refusal_holds_the_start_time_of_the_neighbour_with_that_id(linked):
    linked.join(2, "c", started=7.0)
    linked.link_up(3)
    linked.greet(3, "c", incarnation=6, started=8.0)
    effects = []
    for _ in range(9):
        effects += linked.run(0.5)
        linked.keep_alive(1, 2)
    (said,) = only(effects, Kind.REFUSE)
    assert said.value == wire.Refuse("duplicate_id", "another node called 'c' is alive in the mesh, linked to b", 7.0)


@pytest.mark.parametrize("known", [True, False])
def test_a_refusal_holds_the_place_and_start_time_of_the_other_node_if_known(linked, known):
    linked.advertise(1, Entry("c", 5, 1, 10, 1))
    if known:
        record = wire.Record("c", 5, 1, (), (("a", 100),), b"", 7.0)
        linked.receive(1, *wire.encode_records([wire.encode(record)]))
    linked.link_up(2)
    linked.greet(2, "c", incarnation=6)
    effects = []
    for _ in range(9):
        effects += linked.run(0.5)
        linked.keep_alive(1)
    (said,) = only(effects, Kind.REFUSE)
    where, started = (", linked to a", 7.0) if known else ("", 0.0)
    assert said.value == wire.Refuse("duplicate_id", f"another node called 'c' is alive in the mesh{where}", started)
