"""Probes: whether a neighbour is there, and knows the same."""

import pytest

from tests.core.engine_harness import Said, events, only
from zmesh.core import wire
from zmesh.core.effects import Report
from zmesh.core.neighbours.links import RESEND_LAST, RESEND_RECORDS_AFTER, STEADY
from zmesh.core.routing.cost_damping import DELAY_INITIAL
from zmesh.core.wire import FULL_BEGIN, FULL_END, Entry, Kind


def test_a_probe_is_echoed_and_the_first_one_shows_that_the_link_is_in_step(linked):
    routes, records = linked.engine.routing.received(1), linked.engine.routing.digest
    probe = wire.Probe(5.5, routes, records, 1.0)
    assert linked.hear(1, Kind.PROBE, probe) == [
        Said(1, Kind.ECHO, wire.Echo(5.5)),
        Report("link_synced", "a", 1),
    ]
    assert linked.hear(1, Kind.PROBE, probe) == [Said(1, Kind.ECHO, wire.Echo(5.5))]


def test_routes_that_differ_are_asked_for_at_once_and_records_a_little_later(linked):
    routes, records = linked.engine.routing.received(1), linked.engine.routing.digest
    linked.hear(1, Kind.PROBE, wire.Probe(0.0, routes, records, 0.0))
    ask = [Said(1, Kind.ECHO, wire.Echo(0.0)), Said(1, Kind.RESEND, wire.Resend(True, False))]
    assert linked.hear(1, Kind.PROBE, wire.Probe(0.0, routes ^ 1, records, 0.0)) == ask
    differ = wire.Probe(0.0, routes, records ^ 1, 0.0)
    for _ in range(RESEND_RECORDS_AFTER - 1):
        assert only(linked.hear(1, Kind.PROBE, differ), Kind.RESEND) == []
    assert only(linked.hear(1, Kind.PROBE, differ), Kind.RESEND) == [Said(1, Kind.RESEND, wire.Resend(False, True))]
    linked.hear(1, Kind.PROBE, differ)
    linked.hear(1, Kind.PROBE, wire.Probe(0.0, routes, records, 0.0))
    assert only(linked.hear(1, Kind.PROBE, differ), Kind.RESEND) == []


@pytest.mark.parametrize("which", ["routes", "records"])
def test_a_difference_that_stays_is_asked_for_less_and_less_often(linked, which):
    """One side may refuse what the other has; then no number of whole tables makes them the same."""
    engine = linked.engine
    asked = []
    for number in range(1000):
        routes, records = engine.routing.received(1), engine.routing.digest
        probe = wire.Probe(0.0, routes ^ (which == "routes"), records ^ (which == "records"), 0.0)
        linked.now += 1.0
        if only(linked.hear(1, Kind.PROBE, probe), Kind.RESEND):
            asked.append(number)
    assert len(asked) <= 1000 / RESEND_LAST + 10
    assert asked[-1] - asked[-2] == RESEND_LAST


def test_a_difference_that_is_another_one_is_asked_for_as_soon_as_the_first(linked):
    routes, records = linked.engine.routing.received(1), linked.engine.routing.digest
    asked = []
    for number in range(40):
        probe = wire.Probe(0.0, routes, records ^ (1 + number // 20), 0.0)
        if only(linked.hear(1, Kind.PROBE, probe), Kind.RESEND):
            asked.append(number)
    assert asked == [1, 3, 5, 7, 9, 11, 15, 21, 23, 25, 27, 29, 31, 35]


@pytest.mark.parametrize(("routes", "records"), [(True, False), (False, True), (True, True), (False, False)])
def test_a_neighbour_that_sends_a_resend_gets_full_tables(linked, routes, records):
    number = linked.engine.routing.sent(1) + 1
    effects = linked.hear(1, Kind.RESEND, wire.Resend(routes, records)) + linked.run(0.0)
    table = wire.Update(FULL_BEGIN | FULL_END, number, [Entry("b", 2, 100, 0, 0)])
    assert only(effects, Kind.UPDATE) == [Said(1, Kind.UPDATE, table)] * routes
    assert [effect.value[0].node for effect in only(effects, Kind.RECORD)] == ["b"] * records


def test_an_echo_measures_the_link_and_a_slow_one_costs_more(subject):
    subject.join(1)
    subject.run(0.05)
    assert subject.engine.routing.route("a").metric == 100
    effects = []
    for _ in range(STEADY):
        subject.now += 0.5
        effects = subject.hear(1, Kind.ECHO, wire.Echo(subject.now - 0.2))
        assert events(effects) == []
    assert subject.engine.neighbours.get(1).cost == 250
    assert subject.engine.routing.route("a").metric == 250
    (record,) = only(effects, Kind.RECORD)
    assert record.value[0].neighbours == (("a", 250),)


def slower(subject, *links):
    """The last round trips on these links took 0.2 s, after faster ones."""
    for _ in range(STEADY):
        for link in links:
            subject.hear(link, Kind.ECHO, wire.Echo(subject.now - 0.2))


def test_a_cost_change_of_a_link_that_is_lost_before_the_update_is_not_advertised(subject):
    subject.join(1)
    subject.join(2, "c")
    subject.now = 0.5
    slower(subject, 1)
    slower(subject, 2)
    assert [subject.engine.neighbours.get(link).cost for link in (1, 2)] == [250, 250]
    assert [subject.engine.routing.route(node).metric for node in "ac"] == [250, 100]
    subject.link_down(2)
    assert only(subject.run(DELAY_INITIAL), Kind.UPDATE) == []


@pytest.mark.parametrize("token", [0.6, -3600.0, 1e17, -1e17])
def test_an_echo_of_what_was_never_sent_measures_nothing(subject, token):
    subject.link_up(1)
    subject.greet(1)
    subject.now = 0.5
    assert subject.hear(1, Kind.ECHO, wire.Echo(token)) == [Report("frame_dropped", "a", 1, "unexpected: ECHO")]
    assert subject.engine.neighbours.get(1).rtt is None


def test_the_cost_of_a_link_to_a_leaf_is_not_advertised(subject):
    subject.join(1, "cli", leaf=True)
    subject.now = 0.5
    assert subject.hear(1, Kind.ECHO, wire.Echo(0.0)) == []
    assert subject.engine.neighbours.get(1).cost == 250
