"""Routing through the engine: updates, records and seqno requests."""

import pytest

from tests.core.engine_harness import Said, only, record
from zmesh.core import wire
from zmesh.core.effects import Deliver, Report
from zmesh.core.routing.advertisements import COALESCE
from zmesh.core.routing.duplicates import CONTEST_TIMEOUT, STARTUP
from zmesh.core.routing.records import COALESCE as RECORDS_GATHERED
from zmesh.core.routing.records import KEEP_GONE
from zmesh.core.routing.routes import SELECTED_AT_ONCE
from zmesh.core.wire import FULL_BEGIN, FULL_END, INFINITY, MAX_ENTRIES, Entry, Kind

# --- alarms -------------------------------------------------------------------------------------------------------


def test_a_deadline_that_no_alarm_goes_off_for_is_noticed(linked):
    linked.engine.check()
    linked.engine.alarm.soonest = linked.engine.next_deadline() + 1
    with pytest.raises(AssertionError, match="goes off too late"):
        linked.engine.check()


# --- routes -------------------------------------------------------------------------------------------------------


def test_an_advertised_route_is_reported_and_advertised_on(subject):
    subject.join(1, "a")
    subject.join(2, "c")
    subject.run(0.1)
    subject.now = 0.2
    assert subject.advertise(1, Entry("z", 9, 1, 50, 1)) == [
        Report("node_joined", "z"),
        Report("route_changed", "z", 1, "metric 150, 2 hops"),
        Said(2, Kind.UPDATE, wire.Update(0, 0, [Entry("z", 9, 1, 150, 2)])),
    ]
    assert subject.run(COALESCE) == []
    assert subject.engine.nodes() == {"a", "b", "c", "z"}
    assert subject.engine.settled(5.2) == pytest.approx(5.0)


def test_a_better_metric_over_the_same_link_is_not_worth_a_report(linked):
    linked.advertise(1, Entry("z", 9, 1, 50, 1))
    assert linked.advertise(1, Entry("z", 9, 1, 40, 1)) == []


def test_a_whole_table_in_parts_replaces_the_one_before(linked):
    linked.advertise(1, Entry("y", 9, 1, 50, 1), Entry("z", 9, 1, 50, 1))
    linked.advertise(1, Entry("a", 1, 1, 0, 0), full=FULL_BEGIN)
    effects = linked.advertise(1, Entry("z", 9, 1, 50, 1), full=FULL_END)
    assert effects == [Report("node_left", "y")]


def test_the_routes_of_a_large_frame_are_selected_in_parts_at_once_after_it(linked):
    """Frames of other neighbours get their turn in between."""
    entries = [Entry(f"n{number}", 9, 1, 50, 1) for number in range(2 * SELECTED_AT_ONCE + 1)]
    rounds = [linked.advertise(1, *entries)]
    while linked.engine.next_deadline() == linked.now:
        rounds.append(linked.done(linked.engine.tick(linked.now)))
    joined = [sum(isinstance(each, Report) and each.event == "node_joined" for each in effects) for effects in rounds]
    assert joined == [SELECTED_AT_ONCE, SELECTED_AT_ONCE, 1]


def test_a_large_table_goes_out_in_parts(linked):
    entries = [Entry(f"n{number}", 9, 1, 50, 1) for number in range(MAX_ENTRIES)]
    linked.advertise(1, *entries)
    linked.tick()
    effects = linked.join(2, "c", route=False)
    updates = [effect.value for effect in only(effects, Kind.UPDATE) if effect.link == 2]
    assert [(update.full, len(update.entries)) for update in updates] == [(FULL_BEGIN, MAX_ENTRIES), (FULL_END, 2)]


def test_a_starving_node_asks_its_neighbours_for_a_smaller_distance(subject):
    subject.join(1, "a")
    subject.join(2, "c")
    subject.advertise(1, Entry("z", 9, 1, 50, 1))
    subject.advertise(2, Entry("z", 9, 1, 5000, 1))
    effects = subject.link_down(1)
    assert only(effects, Kind.SEQNO_REQUEST) == [Said(2, Kind.SEQNO_REQUEST, [wire.SeqnoRequest("z", 1, 150, 255)])]


def test_a_node_that_is_asked_for_a_newer_number_gives_it(linked):
    assert linked.hear(1, Kind.SEQNO_REQUEST, [wire.SeqnoRequest("b", 102, 0, 9)]) == [
        Said(1, Kind.UPDATE, wire.Update(0, 0, [Entry("b", 2, 103, 0, 0)]))
    ]


def test_a_neighbour_that_may_have_lost_its_number_is_asked_for_a_newer_one_with_the_greeting(linked):
    ask = Said(2, Kind.SEQNO_REQUEST, [wire.SeqnoRequest("a", 1, 0, 1)])
    linked.link_down(1)
    effects = linked.join(2, "a", incarnation=8)
    assert [effect.kind for effect in only(effects, *Kind)][:2] == [Kind.HELLO, Kind.SEQNO_REQUEST]
    assert ask in effects
    linked.advertise(2, Entry("a", 8, 2, 0, 0))
    assert linked.engine.routing.route("a").incarnation == 8
    assert only(linked.join(3, "new"), Kind.SEQNO_REQUEST) == []


def test_a_neighbour_whose_incarnation_is_known_gets_no_ask(linked):
    assert only(linked.join(2, "a", route=False), Kind.SEQNO_REQUEST) == []  # by its route
    linked.link_down(2)
    linked.receive(1, *wire.encode_records([wire.encode(wire.Record("a", 1, 5, (), (), b""))]))
    linked.link_down(1)
    assert only(linked.join(3, "a"), Kind.SEQNO_REQUEST) == []  # by its record


def test_a_node_that_comes_back_has_joined_again_and_one_whose_path_changes_has_not(linked):
    linked.join(2, "c")
    events = []
    for link, metric in ((1, 50), (1, INFINITY), (1, 50), (2, 20)):
        effects = linked.advertise(link, Entry("z", 9, 1, metric, 1))
        events += [effect.event for effect in only(effects, Report)]
    assert events == [
        "node_joined", "route_changed", "node_left", "node_joined", "route_changed", "route_changed"
    ]  # fmt: skip


# --- records ------------------------------------------------------------------------------------------------------


def test_a_record_is_passed_on_once(subject):
    subject.join(1, "a")
    subject.join(2, "d")
    subject.advertise(1, Entry("c", 9, 1, 50, 1), Entry("e", 9, 1, 50, 1))
    subject.run(0.1)
    frames = wire.encode_records([wire.encode(record()), wire.encode(record("e"))])
    assert subject.receive(1, *frames) == []
    assert subject.run(RECORDS_GATHERED) == [Said(2, Kind.RECORD, [record(), record("e")])]
    assert subject.receive(1, *wire.encode_records([wire.encode(record(serial=6))])) == []


def outbid(subject, name, mine, *, rounds=6, incarnation=9):
    """Reports when another incarnation sends records of an id again and again, each with a higher serial."""
    reports = []
    for _ in range(rounds):
        serial = subject.engine.routing.record(name).serial + 1
        neighbours = (("far", 100), *((f"n{number}", 100) for number in range(4)))
        blob = wire.encode(wire.Record(name, incarnation, serial, (), neighbours, b""))
        reports += only(subject.receive(1, *wire.encode_records([blob])), Report)
        if mine is None:
            reports += only(subject.run(2.0), Report)
            subject.keep_alive(1)
        else:
            blob = wire.encode(wire.Record(name, mine, serial + 1, (), (), b""))
            reports += only(subject.receive(1, *wire.encode_records([blob])), Report)
    return [report for report in reports if report.event == "duplicate_id"]


def test_two_nodes_of_one_name_that_are_far_away_are_found_out(linked):
    linked.receive(1, *wire.encode_records([wire.encode(record("x"))]))
    text = "two nodes called 'x' are alive, one linked to far, n0, n1, n2, ..., one without a link; one of the two"
    (report,) = outbid(linked, "x", 5)
    assert (report.node, report.detail[: len(text)]) == ("x", text)
    assert linked.engine.routing.duplicates() == {"x"}


def test_another_node_of_this_one_s_name_is_found_out_however_far_away_it_is(linked):
    (report,) = outbid(linked, "b", None)
    assert report.node == "b"
    assert report.detail == (
        "another node called 'b' is alive in the mesh, linked to far, n0, n1, n2, ...; "
        "one of the two must get another id"
    )


def test_the_calls_of_a_node_whose_name_is_taken_end_and_say_why(linked):
    linked.send("a", id=b"1" * 16)
    outbid(linked, "b", None)
    linked.send("a", id=b"2" * 16)
    ends = []
    for _ in range(400):
        ends += [piece.eof for piece in only(linked.run(0.1), Deliver)]
        linked.keep_alive(1)
    assert [eof.reason for eof in ends] == ["unreachable", "unreachable"]
    assert "another node is called 'b' as well" in ends[0].error


def test_a_name_is_one_s_own_again_when_the_other_has_been_silent_for_long(linked):
    outbid(linked, "b", None)
    assert linked.engine.delivery.client.contested
    for _ in range(200):
        linked.run(1.0)
        linked.keep_alive(1)
    assert linked.engine.routing.duplicates() == set()
    assert not linked.engine.delivery.client.contested


def test_the_record_of_a_node_that_stays_out_of_reach_is_forgotten(subject):
    subject.join(1)
    subject.receive(1, *wire.encode_records([wire.encode(record())]))
    subject.link_down(1)
    assert Report("node_forgotten", "c") in subject.run(KEEP_GONE + 1)
    assert subject.engine.routing.record("c") is None


def test_a_node_advertises_its_directives(linked):
    assert linked.done(linked.engine.describe(["x:y"], linked.now)) == []
    (said,) = only(linked.run(RECORDS_GATHERED), Kind.RECORD)
    assert said.value[0].capabilities == ("x:y",)


def test_a_directive_whose_name_is_no_valid_text_is_advertised_with_a_replacement_character(linked):
    linked.done(linked.engine.describe(["x:\udce9"], linked.now))
    (said,) = only(linked.run(RECORDS_GATHERED), Kind.RECORD)
    assert said.value[0].capabilities == ("x:?",)


def test_a_node_with_too_many_directives_advertises_as_many_as_fit(linked):
    linked.engine.describe([f"x:y{number}" for number in range(wire.MAX_CAPABILITIES + 1)], linked.now)
    assert only(linked.run(RECORDS_GATHERED), Kind.RECORD)


# --- nodes that were refused because their name is taken ----------------------------------------------------------


def own_refused(linked):
    """Whom the node's own record says that it has refused."""
    return linked.engine.routing.record("b").refused


def hear_of_refused(linked, *refused, serial=5):
    """The neighbour says in its record that it has refused these; what is reported of it."""
    blob = wire.encode(wire.Record("a", 1, serial, (), (), b"", 0.0, refused))
    return only(linked.receive(1, *wire.encode_records([blob])), Report)


def test_a_refused_node_is_advertised_to_the_mesh_for_a_while(linked):
    linked.link_up(2, where="from 10.0.0.7")
    linked.greet(2, "b", incarnation=7, started=2000.0)
    assert own_refused(linked) == (wire.Refused("b", 7, 2000.0, "from 10.0.0.7"),)
    (said,) = only(linked.run(RECORDS_GATHERED), Kind.RECORD)
    assert said.value[0].refused == own_refused(linked)
    linked.link_up(3, where="from 10.0.0.7")
    linked.greet(3, "b", incarnation=7, started=2000.0)
    assert only(linked.run(RECORDS_GATHERED), Kind.RECORD) == []
    for _ in range(int(2 * CONTEST_TIMEOUT)):
        linked.run(0.5)
        linked.keep_alive(1)
    assert own_refused(linked) == ()


def test_a_leaf_whose_id_is_taken_is_not_advertised(linked):
    linked.join(2, "cli", incarnation=5, leaf=True)
    linked.link_up(3)
    linked.greet(3, "cli", incarnation=6, leaf=True)
    for _ in range(9):
        linked.run(0.5)
        linked.keep_alive(1, 2)
    assert linked.engine.neighbours.get(3) is None
    assert own_refused(linked) == ()


def test_what_a_record_says_of_a_refused_node_is_reported_once(linked):
    refused = wire.Refused("x", 7, 2000.0, "from 10.0.0.7")
    text = "a second node called 'x' has tried to join at 'a' from 10.0.0.7 and was refused; "
    (report,) = hear_of_refused(linked, refused)
    assert (report.event, report.node) == ("duplicate_id", "x")
    assert report.detail == f"{text}one of the two must get another id"
    assert hear_of_refused(linked, refused, serial=6) == []
    assert hear_of_refused(linked, refused, serial=6) == []


@pytest.mark.parametrize(("started", "incarnation", "taken"), [(999.0, 7, True), (1000.0, 1, True), (1000.0, 7, False)])
def test_the_later_of_two_nodes_with_one_id_closes_while_it_is_fresh(linked, started, incarnation, taken):
    found = [report.event for report in hear_of_refused(linked, wire.Refused("b", incarnation, started, ""))]
    assert found == ["duplicate_id", *(["id_taken"] if taken else [])]


def test_a_node_that_has_run_for_a_while_closes_for_no_record(linked):
    for _ in range(int(2 * STARTUP)):
        linked.run(0.5)
        linked.keep_alive(1)
    assert [report.event for report in hear_of_refused(linked, wire.Refused("b", 7, 1.0, ""))] == ["duplicate_id"]


def test_who_was_refused_itself_knows_already(linked):
    assert hear_of_refused(linked, wire.Refused("b", 2, 1000.0, "")) == []


def test_the_later_of_two_nodes_that_raise_each_others_serial_closes(linked):
    effects = []
    for _ in range(6):
        serial = linked.engine.routing.record("b").serial + 1
        blob = wire.encode(wire.Record("b", 9, serial, (), (("far", 100),), b"", 999.0))
        effects += linked.receive(1, *wire.encode_records([blob])) + linked.run(2.0)
        linked.keep_alive(1)
    assert [report.event for report in only(effects, Report) if report.event in ("duplicate_id", "id_taken")] == [
        "duplicate_id", "id_taken"
    ]  # fmt: skip
