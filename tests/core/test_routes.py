import itertools
import random

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmesh.core.routes import (
    COALESCE,
    KEEP_DISTANCE,
    LISTEN,
    MAX_SEQNO_LEAP,
    REQUEST_AGAIN,
    REQUEST_AGAIN_MAX,
    REQUEST_MEMORY,
    REQUEST_PATIENCE,
    Change,
    Routes,
    Selected,
)
from zmesh.core.timers import Alarm
from zmesh.core.wire import FULL_BEGIN, FULL_END, INFINITY, MAX_ENTRIES, MAX_HOPS, MAX_TTL, Entry, SeqnoRequest


def entry(destination="z", metric=10, seqno=5, hops=1, incarnation=9):
    return Entry(destination, incarnation, seqno, metric, hops)


def retraction(destination="z"):
    return Entry(destination, 0, 0, INFINITY, 0)


OWN = Entry("a", 1, 100, 0, 0)


@pytest.fixture
def routes(alarm):
    """The routes of node `a`, with links 1, 2 and 3 of cost 100 on which all was told."""
    routes = Routes("a", 1, 100, alarm)
    for link in (1, 2, 3):
        routes.link_up(link, 100, 0.0)
    routes.flush(0.0)
    return routes


def hear(routes, link, *entries, now=0.0, full=0, number=1):
    """Take in what a neighbour tells, and choose."""
    routes.update(link, full, number, [tuple(entry) for entry in entries])
    changes = routes.select(now)
    routes.check()
    return changes


# --- choosing -----------------------------------------------------------------------------------------------------


def test_the_other_ways_are_told_the_cheapest_first_and_whether_they_are_feasible(routes):
    hear(routes, 1, entry(metric=10))
    hear(routes, 2, entry(metric=150))
    hear(routes, 3, entry(metric=40))
    assert routes.others("z") == [(3, 140, True), (2, 250, False)]
    hear(routes, 1, retraction(), retraction("y"))
    assert routes.others("y") == []


def test_a_route_is_taken_up_with_the_cost_of_the_link_added(routes):
    selected = Selected(1, incarnation=9, seqno=5, metric=110, hops=2, since=3.0)
    assert hear(routes, 1, entry(), now=3.0) == [Change("z", None, selected)]
    assert (routes.get("z"), routes.table()) == (selected, {"z": selected})
    assert routes.distance("z") == (5, 110)
    assert routes.changed_at == 3.0
    assert not routes.dirty


def test_the_cheapest_of_several_routes_is_taken(routes):
    hear(routes, 1, entry(metric=50))
    (change,) = hear(routes, 2, entry(metric=40), now=1.0)
    assert (change.before.link, change.after.link, change.after.metric) == (1, 2, 140)
    assert hear(routes, 3, entry(metric=45)) == []


def test_of_two_equal_routes_the_one_in_use_stays(routes):
    hear(routes, 2, entry(metric=50), now=1.0)
    assert hear(routes, 1, entry(metric=50), now=2.0) == []
    assert (routes.get("z").link, routes.get("z").since) == (2, 1.0)


def test_what_is_heard_again_changes_nothing(routes):
    hear(routes, 1, entry())
    assert hear(routes, 1, entry()) == []


def test_a_node_has_no_route_to_itself(routes):
    assert hear(routes, 1, entry("a", 0, 1000)) == []
    assert routes.get("a") is None
    assert hear(routes, 1, retraction("a")) == []
    assert routes.table() == {}


def test_a_change_of_metric_alone_is_a_change_but_moves_no_path(routes):
    hear(routes, 1, entry(metric=50), now=1.0)
    (change,) = hear(routes, 1, entry(metric=60), now=2.0)
    assert (change.before.metric, change.after.metric) == (150, 160)
    assert routes.changed_at == 1.0


def test_an_infinite_metric_is_no_route(routes):
    assert hear(routes, 1, retraction()) == []
    assert hear(routes, 1, entry(metric=INFINITY - 100)) == []
    assert routes.get("z") is None
    assert hear(routes, 1, entry(metric=INFINITY - 101)) != []
    assert routes.get("z").metric == INFINITY - 1


def test_a_route_of_too_many_hops_is_none(routes):
    assert hear(routes, 1, entry(hops=MAX_HOPS)) == []
    assert hear(routes, 1, entry(hops=MAX_HOPS - 1)) != []
    assert routes.get("z").hops == MAX_HOPS


# --- feasibility --------------------------------------------------------------------------------------------------


def test_a_route_that_was_taken_back_is_replaced_by_a_feasible_one(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=60))
    (change,) = hear(routes, 1, retraction())
    assert (change.before.link, change.after.link) == (1, 2)
    assert routes.distance("z") == (5, 150)


@pytest.mark.parametrize(
    ("metric", "seqno", "feasible"), [(149, 5, True), (150, 5, False), (1, 4, False), (999, 6, True)]
)
def test_a_route_is_feasible_if_it_is_newer_or_strictly_nearer(routes, metric, seqno, feasible):
    hear(routes, 1, entry(metric=50))
    hear(routes, 1, retraction())
    assert routes.distance("z") == (5, 150)
    assert bool(hear(routes, 2, entry(metric=metric, seqno=seqno))) is feasible


def test_a_next_hop_keeps_its_place_when_its_metric_grows(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 1, entry(metric=5000))
    assert routes.get("z").metric == 5100
    assert routes.distance("z") == (5, 150)


def test_the_feasibility_distance_shrinks_with_the_metric_and_starts_over_with_the_sequence_number(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 1, entry(metric=20))
    assert routes.distance("z") == (5, 120)
    hear(routes, 1, entry(metric=70, seqno=6))
    assert routes.distance("z") == (6, 170)


def test_a_route_by_way_of_oneself_is_never_feasible(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=250, hops=3))
    (change,) = hear(routes, 1, retraction())
    assert change.after is None


# --- links --------------------------------------------------------------------------------------------------------


def test_the_routes_over_a_link_go_down_with_it(routes):
    hear(routes, 1, entry("y"), entry("z"), entry("a"))
    hear(routes, 2, entry("z", metric=50))
    routes.link_down(1)
    routes.link_down(1)
    assert routes.dirty
    changes = {change.destination: change.after for change in routes.select(1.0)}
    assert changes["y"] is None
    assert changes["z"].link == 2
    routes.check()


def test_a_change_of_a_links_cost_changes_the_routes_over_it(routes):
    hear(routes, 1, entry("y", metric=10), entry("z", metric=10))
    hear(routes, 2, entry("z", metric=20))
    routes.set_cost(1, 500)
    changes = {change.destination: change.after for change in routes.select(1.0)}
    assert changes["y"].metric == 510
    assert (changes["z"].link, changes["z"].metric) == (2, 120)
    routes.set_cost(1, 500)
    routes.set_cost(99, 500)
    assert not routes.dirty


def test_a_route_that_a_dearer_link_makes_infinite_is_none_until_the_link_is_cheaper_again(routes):
    hear(routes, 1, entry(metric=INFINITY - 101))
    for cost, reached in ((250, False), (100, True)):
        routes.set_cost(1, cost)
        routes.select(1.0)
        assert (routes.get("z") is not None) is reached
        routes.check()


def test_what_comes_on_an_unknown_link_is_not_heard(routes):
    assert hear(routes, 99, entry()) == []
    assert (routes.sent(99), routes.received(99)) == (0, 0)
    routes.resend(99, 0.0)
    assert routes.next_deadline() is None


# --- telling ------------------------------------------------------------------------------------------------------

ALL = FULL_BEGIN | FULL_END


def told(routes, now):
    """What is told at that time: to whom, which part of a whole table it is, and what."""
    return [(telling.links, telling.full, sorted(telling.entries)) for telling in routes.flush(now)]


def test_a_new_neighbour_is_told_the_whole_table_at_once(routes):
    hear(routes, 1, entry("y"), entry("z"))
    routes.flush(1.0)
    routes.link_up(4, 100, 2.0)
    assert (routes.next_deadline(), routes.urgent) == (2.0, True)
    assert told(routes, 2.0) == [([4], ALL, [OWN, Entry("y", 9, 5, 110, 2), Entry("z", 9, 5, 110, 2)])]


def test_a_change_is_told_to_all_after_a_moment(routes, alarm):
    hear(routes, 1, entry("y"), now=5.0)
    hear(routes, 1, entry("z"), now=5.004)
    assert alarm.soonest <= routes.next_deadline() == 5.0 + COALESCE
    assert told(routes, 5.0) == []
    news = [Entry("y", 9, 5, 110, 2), Entry("z", 9, 5, 110, 2)]
    assert told(routes, 5.0 + COALESCE) == [([1, 2, 3], 0, news)]
    assert told(routes, 6.0) == []


def test_much_news_is_told_in_parts_that_all_count(routes):
    hear(routes, 1, *(entry(f"n{number}") for number in range(MAX_ENTRIES + 1)))
    assert [(telling.links, len(telling.entries)) for telling in routes.flush(1.0)] == [
        ([1, 2, 3], MAX_ENTRIES), ([1, 2, 3], 1)
    ]  # fmt: skip
    assert [routes.sent(link) for link in (1, 2, 3)] == [3, 3, 3]


def test_a_newer_number_alone_is_told_to_nobody(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    assert hear(routes, 1, entry(seqno=6), now=2.0) == []
    assert routes.get("z").seqno == 6
    assert told(routes, 3.0) == []
    routes.resend(2, 4.0)
    assert told(routes, 4.0) == [([2], ALL, [OWN, Entry("z", 9, 6, 110, 2)])]


def test_what_was_told_and_changed_back_before_its_time_is_not_told_again(routes):
    hear(routes, 1, entry(metric=50))
    routes.flush(1.0)
    hear(routes, 1, entry(metric=60), now=2.0)
    hear(routes, 1, entry(metric=50), now=2.001)
    assert told(routes, 3.0) == []


def test_a_route_that_came_and_went_before_its_time_is_not_told_at_all(routes):
    hear(routes, 1, entry(), now=2.0)
    hear(routes, 1, retraction(), now=2.001)
    assert told(routes, 3.0) == []


def test_a_lost_route_is_taken_back(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    hear(routes, 1, retraction(), now=2.0)
    assert told(routes, 3.0) == [([1, 2, 3], 0, [retraction()])]


def test_a_neighbour_that_asks_is_told_the_whole_table_again(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    routes.resend(2, 2.0)
    assert told(routes, 2.0) == [([2], ALL, [OWN, Entry("z", 9, 5, 110, 2)])]


def test_news_goes_to_the_others_while_one_is_told_the_whole_table(routes):
    hear(routes, 1, entry())
    routes.resend(2, 0.5)
    row = Entry("z", 9, 5, 110, 2)
    assert told(routes, 0.5) == [([1, 3], 0, [row]), ([2], ALL, [OWN, row])]


def test_a_node_without_neighbours_tells_nobody():
    routes = Routes("a", 1, 100, Alarm())
    routes.link_up(1, 100, 0.0)
    hear(routes, 1, entry())
    routes.link_down(1)
    routes.select(1.0)
    assert routes.flush(9.0) == []


def test_what_was_sent_and_what_was_received_are_counted_alike(routes):
    other = Routes("b", 2, 1, Alarm())
    other.link_up(7, 100, 0.0)
    routes.resend(1, 0.0)
    for now, change in [(0.0, entry("y")), (1.0, entry("z")), (2.0, entry("y", metric=30)), (3.0, retraction("z"))]:
        hear(routes, 2, change, now=now)
        for telling in routes.flush(now + COALESCE):
            if 1 in telling.links:
                hear(other, 7, *telling.entries, full=telling.full, number=telling.number)
        assert routes.sent(1) == other.received(7) != 0
    hear(routes, 2, entry("y", metric=20), now=4.0)
    routes.flush(5.0)  # and this is lost
    assert routes.sent(1) != other.received(7)


# --- whole tables -------------------------------------------------------------------------------------------------


def test_a_whole_table_replaces_all_that_was_heard_before(routes):
    hear(routes, 1, entry("x"), entry("y"), entry("z"))
    hear(routes, 1, entry("y"), full=FULL_BEGIN, number=8)
    assert set(routes.table()) == {"x", "y", "z"}
    hear(routes, 1, entry("w"), full=FULL_END, number=9)
    assert set(routes.table()) == {"w", "y"}
    assert routes.received(1) == 9


def test_a_whole_table_may_come_in_one_piece_and_be_empty(routes):
    hear(routes, 1, entry("x"))
    hear(routes, 1, full=ALL)
    assert routes.table() == {}


def test_the_end_of_a_table_whose_beginning_was_lost_takes_nothing_back(routes):
    hear(routes, 1, entry("x"))
    hear(routes, 1, entry("y"), full=FULL_END)
    assert set(routes.table()) == {"x", "y"}


def test_a_large_table_goes_out_in_parts(routes):
    hear(routes, 1, *(entry(f"n{number}") for number in range(2 * MAX_ENTRIES)))
    routes.flush(1.0)
    routes.resend(2, 2.0)
    parts = routes.flush(2.0)
    assert [(telling.full, len(telling.entries)) for telling in parts] == [
        (FULL_BEGIN, MAX_ENTRIES), (0, MAX_ENTRIES), (FULL_END, 1)
    ]  # fmt: skip
    assert [telling.number for telling in parts] == [4, 5, 6]


# --- sequence numbers ---------------------------------------------------------------------------------------------


def request(seqno=6, destination="z", hops_left=MAX_TTL):
    return SeqnoRequest(destination, seqno, hops_left)


def asked(routes, now):
    """The questions at that time, as (link, question)."""
    return [(link, question) for link, questions in routes.requests(now).items() for question in questions]


def test_a_node_without_a_feasible_route_asks_at_once_for_a_newer_number(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=500))
    assert asked(routes, 0.0) == []
    routes.flush(1.0)
    hear(routes, 1, retraction(), now=5.0)
    assert routes.next_deadline() == 5.0
    assert asked(routes, 5.0) == [(2, request(6))]
    (change,) = hear(routes, 2, entry(metric=500, seqno=6), now=6.0)
    assert change.after.metric == 600
    assert asked(routes, 1000.0) == []


def test_it_asks_again_after_a_pause_that_doubles_up_to_a_bound(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=500))
    hear(routes, 1, retraction())
    times, now = [], 0.0
    while now < 60:
        times += [now] * len(asked(routes, now))
        routes.expire(now)
        routes.flush(now)
        now = routes.next_deadline()
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[:3] == pytest.approx([REQUEST_AGAIN, 2 * REQUEST_AGAIN, 4 * REQUEST_AGAIN])
    assert max(pauses) == pytest.approx(REQUEST_AGAIN_MAX)


def test_a_node_whose_best_route_is_not_feasible_asks_after_some_patience(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=200))
    hear(routes, 1, entry(metric=900), now=5.0)
    assert routes.get("z").link == 1
    assert asked(routes, 5.0) == []
    hear(routes, 3, entry(metric=300), now=5.01)
    assert asked(routes, 5.0 + REQUEST_PATIENCE) == [(2, request(6))]
    again = 5.0 + REQUEST_PATIENCE + REQUEST_AGAIN
    assert asked(routes, again) == [(2, request(6)), (3, request(6)), (1, request(6))]


def test_it_does_not_ask_when_the_better_route_is_gone_before(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=200))
    hear(routes, 1, entry(metric=900), now=5.0)
    hear(routes, 1, entry(metric=60), now=5.01)
    assert asked(routes, 100.0) == []


def test_a_starving_node_that_hears_of_one_more_route_it_can_not_use_waits_its_turn(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=500))
    hear(routes, 1, retraction(), now=5.0)
    assert asked(routes, 5.0) == [(2, request(6))]
    hear(routes, 3, entry(metric=600), now=5.1)
    assert asked(routes, 5.1) == []
    assert asked(routes, 5.0 + REQUEST_AGAIN) == [(2, request(6)), (3, request(6))]


def test_the_destination_answers_who_asks_and_nobody_else(routes):
    routes.request(1, request(101, "a"), 5.0)
    assert (routes.seqno, routes.next_deadline(), routes.urgent) == (101, 5.0, True)
    own = Entry("a", 1, 101, 0, 0)
    assert told(routes, 5.0) == [([1], 0, [own])]
    routes.request(2, request(101, "a"), 6.0)
    routes.request(3, request(7, "a"), 6.0)
    assert told(routes, 6.0) == [([2], 0, [own]), ([3], 0, [own])]
    assert routes.seqno == 101


def test_the_destination_does_not_answer_what_is_absurd(routes):
    routes.request(1, request(100 + MAX_SEQNO_LEAP + 1, "a"), 5.0)
    assert routes.seqno == 100
    assert routes.next_deadline() is None


def test_the_destination_leaps_as_far_as_it_may(routes):
    routes.request(1, request(100 + MAX_SEQNO_LEAP, "a"), 5.0)
    assert routes.seqno == 100 + MAX_SEQNO_LEAP


def test_a_node_whose_own_number_is_new_enough_tells_it_again(routes):
    hear(routes, 1, entry(seqno=7))
    routes.flush(1.0)
    routes.request(2, request(7), 5.0)
    assert asked(routes, 5.0) == []
    assert told(routes, 6.0) == [([2], 0, [Entry("z", 9, 7, 110, 2)])]


def test_nothing_is_told_to_the_one_that_the_route_goes_over(routes):
    hear(routes, 1, entry(seqno=7))
    routes.flush(1.0)
    routes.request(1, request(7), 5.0)
    routes.request(99, request(7), 5.0)
    assert asked(routes, 5.0) == []
    assert routes.flush(6.0) == []


def test_a_question_is_passed_on_along_the_route_once_in_a_while(routes):
    hear(routes, 1, entry())
    hear(routes, 2, entry(metric=20))
    routes.request(3, request(8, hops_left=4), 5.0)
    routes.request(2, request(8, hops_left=4), 5.0)
    assert asked(routes, 5.0) == [(1, request(8, hops_left=3))]
    routes.expire(5.0 + REQUEST_MEMORY)
    routes.request(2, request(8, hops_left=4), 5.0 + REQUEST_MEMORY)
    assert asked(routes, 6.0) == [(1, request(8, hops_left=3))]


def test_a_question_that_comes_from_the_next_hop_is_passed_on_to_the_others(routes):
    hear(routes, 1, entry())
    hear(routes, 2, entry(metric=20))
    hear(routes, 3, entry(metric=30))
    routes.request(1, request(8, hops_left=4), 5.0)
    assert asked(routes, 5.0) == [(2, request(8, hops_left=3)), (3, request(8, hops_left=3))]


def test_a_question_about_an_unknown_node_goes_nowhere(routes):
    routes.request(1, request(8, "nobody"), 5.0)
    assert asked(routes, 5.0) == []


def test_a_question_goes_as_far_as_its_hops_allow(routes):
    hear(routes, 1, entry())
    routes.request(2, request(8, hops_left=0), 5.0)
    routes.request(2, request(8, hops_left=1), 5.0)
    assert asked(routes, 5.0) == []
    routes.request(2, request(8, hops_left=2), 5.0)
    assert asked(routes, 5.0) == [(1, request(8, hops_left=1))]


def test_an_answer_goes_back_the_way_that_the_question_came(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    routes.request(2, request(8), 5.0)
    routes.request(3, request(9), 5.0)
    routes.requests(5.0)
    hear(routes, 1, entry(seqno=8), now=5.1)
    assert told(routes, 5.1) == [([2], 0, [Entry("z", 9, 8, 110, 2)])]
    hear(routes, 1, entry(seqno=9), now=5.2)
    assert told(routes, 5.2) == [([3], 0, [Entry("z", 9, 9, 110, 2)])]
    hear(routes, 1, entry(seqno=10), now=5.3)
    assert told(routes, 5.3) == []


def test_an_answer_does_not_go_to_the_one_that_it_came_from(routes):
    hear(routes, 1, entry())
    hear(routes, 2, entry(metric=20))
    routes.flush(1.0)
    routes.request(2, request(8), 5.0)
    routes.requests(5.0)
    hear(routes, 2, entry(metric=5, seqno=8), now=5.1)
    assert told(routes, 5.1) == []


def test_an_answer_that_is_long_in_coming_is_passed_on_to_nobody(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    routes.request(2, request(8), 5.0)
    routes.requests(5.0)
    routes.expire(5.0 + LISTEN)
    hear(routes, 1, entry(seqno=8), now=6.0 + LISTEN)
    assert told(routes, 9.0) == []


def test_an_answer_for_a_link_that_is_gone_goes_nowhere(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    routes.request(2, request(8), 5.0)
    routes.request(3, request(101, "a"), 5.0)
    routes.requests(5.0)
    routes.link_down(2)
    routes.link_down(3)
    hear(routes, 1, entry(seqno=8), now=5.1)
    assert told(routes, 5.1) == []


def test_what_is_gone_when_it_is_to_be_told_is_not_told(routes):
    hear(routes, 1, entry(seqno=7))
    routes.flush(1.0)
    routes.request(2, request(7), 5.0)
    hear(routes, 1, retraction(), now=5.0)
    assert told(routes, 5.0) == [([1, 2, 3], 0, [retraction()])]


def test_a_number_that_is_known_here_is_asked_for_before_a_newer_one(routes):
    """The neighbour with the cheaper offer may have only missed it."""
    hear(routes, 1, entry(metric=50, seqno=6))
    hear(routes, 2, entry(metric=40, seqno=5), now=5.0)
    assert asked(routes, 5.0 + REQUEST_PATIENCE) == [(2, request(6))]
    again = 5.0 + REQUEST_PATIENCE + REQUEST_AGAIN
    assert asked(routes, again) == [(2, request(6)), (1, request(6))]  # the destination may be far
    assert asked(routes, again + 2 * REQUEST_AGAIN) == [(2, request(7)), (1, request(7))]


def test_a_number_that_grew_meanwhile_is_asked_for_soon_of_the_one_that_lags_now(routes):
    """Seed 1 of a thousand nodes at random waited for the third of its tries, with a number that was enough no more."""
    hear(routes, 1, entry(metric=50, seqno=6))
    hear(routes, 2, entry(metric=40, seqno=5), now=5.0)
    assert asked(routes, 5.0 + REQUEST_PATIENCE) == [(2, request(6))]
    hear(routes, 1, entry(metric=50, seqno=8), now=5.1)
    hear(routes, 2, entry(metric=40, seqno=6), now=5.12)
    assert routes.get("z").link == 1
    assert asked(routes, 5.1 + REQUEST_PATIENCE) == [(2, request(8))]


# --- forgetting ---------------------------------------------------------------------------------------------------


def test_a_feasibility_distance_is_kept_for_a_while_after_the_route_is_gone(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 1, retraction(), now=10.0)
    routes.expire(10.0 + KEEP_DISTANCE - 0.001)
    assert routes.distance("z") == (5, 150)
    routes.expire(10.0 + KEEP_DISTANCE)
    assert routes.distance("z") is None
    routes.check()


def test_a_route_that_was_not_feasible_is_taken_when_the_distance_is_forgotten(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=500))
    hear(routes, 1, retraction(), now=10.0)
    routes.expire(10.0 + KEEP_DISTANCE)
    (change,) = routes.select(10.0 + KEEP_DISTANCE)
    assert change.after.metric == 600
    routes.check()


def test_a_distance_is_kept_as_long_as_there_is_a_route(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 1, retraction(), now=10.0)
    hear(routes, 1, entry(metric=50, seqno=6), now=20.0)
    routes.expire(10.0 + KEEP_DISTANCE)
    assert routes.distance("z") == (6, 150)


# --- many nodes ---------------------------------------------------------------------------------------------------


class Net:
    """Several nodes' routes, and between them FIFO links whose messages arrive whenever the test lets them."""

    def __init__(self, names):
        self.now = 0.0
        self.lives = dict.fromkeys(names, 0)
        self.nodes = {}
        self.ends = {}
        self.up = set()
        self.costs = {}
        self.ways = {}
        self.count = 0
        for name in names:
            self.start(name)

    def start(self, name, seqno=None):
        """A new life for a node that has no links."""
        self.lives[name] += 1
        seqno = int(self.now * 1000) + 1 if seqno is None else seqno
        self.nodes[name] = Routes(name, self.lives[name], seqno, Alarm())

    def connect(self, a, b, cost, back=None):
        self.count += 1
        link = self.count
        self.ends[link] = (a, b)
        self.up.add(link)
        for here, there, price in ((a, b, cost), (b, a, cost if back is None else back)):
            self.costs[link, here] = price
            self.ways[link, there] = []
            self.nodes[here].link_up(link, price, self.now)
        return link

    def set_cost(self, link, name, cost):
        self.costs[link, name] = cost
        self.nodes[name].set_cost(link, cost)
        self.work(name)

    def cut(self, link):
        ends = self.ends[link]
        self.up.remove(link)
        for name in ends:
            del self.ways[link, name], self.costs[link, name]
        for name in ends:
            self.nodes[name].link_down(link)
            self.work(name)

    def other(self, link, name):
        a, b = self.ends[link]
        return b if name == a else a

    def work(self, name, *, timely=False):
        """What the engine does after an event."""
        node = self.nodes[name]
        if timely:
            node.expire(self.now)
        if node.dirty or node.urgent or timely:
            node.select(self.now)
            for telling in node.flush(self.now):
                for link in telling.links:
                    self.say(link, name, telling)
            for link, questions in node.requests(self.now).items():
                for question in questions:
                    self.say(link, name, question)
        self.check()

    def say(self, link, name, message):
        if link in self.up:
            self.ways[link, self.other(link, name)].append(message)

    def deliver(self, link, name):
        message = self.ways[link, name].pop(0)
        if isinstance(message, SeqnoRequest):
            self.nodes[name].request(link, message, self.now)
        else:
            self.nodes[name].update(link, *message[1:])
        self.work(name)

    def pass_time(self, until):
        """Have every node do what is due until then."""
        while True:
            due = [(when, name) for name, node in self.nodes.items() if (when := node.next_deadline()) is not None]
            if not due or min(due)[0] > until:
                break
            when, name = min(due)
            self.now = max(self.now, when)
            self.work(name, timely=True)
            assert (self.nodes[name].next_deadline() or until + 1) > self.now
        self.now = until

    def deliver_all(self):
        while waiting := [way for way, messages in self.ways.items() if messages]:
            for way in waiting:
                self.deliver(*way)

    def heal(self):
        """Have sent again what differs, as the counts in the probes do."""
        differ = False
        for link in self.up:
            for here, there in itertools.permutations(self.ends[link]):
                if self.nodes[here].sent(link) != self.nodes[there].received(link):
                    self.nodes[here].resend(link, self.now)
                    differ = True
        return differ

    def settle(self):
        """Let everything be told, and what was lost be told again."""
        quiet = 0
        for _ in range(200):
            self.pass_time(self.now + 0.5)
            self.deliver_all()
            quiet = 0 if self.heal() or any(self.ways.values()) else quiet + 1
            if quiet > 20:
                return
        raise AssertionError("the routes never settle")

    def graph(self):
        graph = networkx.DiGraph()
        graph.add_nodes_from(self.nodes)
        for (link, name), cost in self.costs.items():
            other = self.other(link, name)
            if cost < graph.get_edge_data(name, other, {"weight": cost + 1})["weight"]:
                graph.add_edge(name, other, weight=cost)
        return graph

    def check(self):
        """No circle and falling distances along every path, whatever is under way."""
        for name, node in self.nodes.items():
            if not node.dirty:
                node.check()
            for destination, selected in node.table().items():
                following = self.other(selected.link, name)
                seqno, metric = node.distance(destination)
                if following == destination or selected.link not in self.up:
                    continue
                distance = self.nodes[following].distance(destination)
                assert distance is not None
                assert (-distance[0], distance[1]) < (-seqno, metric), (name, following, destination)
        for destination in self.nodes:
            for name in self.nodes:
                seen = set()
                while name != destination:
                    assert name not in seen, f"a circle on the way to {destination}: {seen}"
                    seen.add(name)
                    selected = self.nodes[name].get(destination)
                    if selected is None or selected.link not in self.up:
                        break
                    name = self.other(selected.link, name)

    def assert_shortest(self):
        graph = self.graph()
        for name, node in self.nodes.items():
            lengths = networkx.single_source_dijkstra_path_length(graph, name)
            del lengths[name]
            assert {to: selected.metric for to, selected in node.table().items()} == lengths
            for to, selected in node.table().items():
                assert selected.incarnation == self.lives[to]


def random_net(rng):
    """A few nodes and some links between them; not all need be connected."""
    net = Net([f"n{i}" for i in range(rng.randint(2, 6))])
    for _ in range(rng.randint(1, 10)):
        a, b = rng.sample(list(net.nodes), 2)
        net.connect(a, b, rng.choice([1, 50, 100, 100, 250]), rng.choice([None, None, 100, 400]))
    return net


@given(st.integers(0, 1 << 32))
def test_every_route_is_the_shortest_once_the_table_has_settled(seed):
    net = random_net(random.Random(seed))
    net.settle()
    net.assert_shortest()


def disturb(net, rng):
    """One thing that may happen to a mesh."""
    links = sorted(net.up)
    match rng.randrange(9):
        case 0 | 1 | 2:
            waiting = [way for way, messages in net.ways.items() if messages]
            for way in rng.sample(waiting, min(len(waiting), rng.randint(1, 4))):
                net.deliver(*way)
        case 3 | 4:
            net.pass_time(net.now + rng.choice([0.001, 0.02, 0.3]))
        case 5:
            a, b = rng.sample(list(net.nodes), 2)
            net.connect(a, b, rng.choice([1, 50, 100, 250]))
        case 6 if links:
            net.cut(rng.choice(links))
        case 7 if links:
            link = rng.choice(links)
            net.set_cost(link, rng.choice(net.ends[link]), rng.choice([1, 50, 100, 250, 1000]))
        case 8 if rng.random() < 0.3:
            name = rng.choice(list(net.nodes))
            for link in [link for link in links if name in net.ends[link]]:
                net.cut(link)
            net.start(name, rng.choice([None, None, 1]))


@settings(max_examples=settings().max_examples // 2)
@given(st.integers(0, 1 << 32))
def test_no_route_is_ever_a_circle_while_the_mesh_changes(seed):
    rng = random.Random(seed)
    net = random_net(rng)
    for _ in range(60):
        disturb(net, rng)
        if rng.random() < 0.1 and (waiting := [messages for messages in net.ways.values() if messages]):
            messages = rng.choice(waiting)
            messages.pop(rng.randrange(len(messages)))
    net.settle()
    net.assert_shortest()


def test_a_destination_out_of_reach_is_given_up_without_counting_to_infinity():
    net = Net("abcd")
    for a, b in ("ab", "bc", "ca", "cd"):
        net.connect(a, b, 100)
    net.settle()
    before = net.now
    net.cut(4)
    net.settle()
    assert all("d" not in net.nodes[name].table() for name in "abc")
    assert all((node.distance("d") or (0, 0))[1] <= 300 for node in net.nodes.values())
    assert net.now - before < 15


# --- what check finds ---------------------------------------------------------------------------------------------


def test_a_route_that_waits_to_be_chosen_is_found(routes):
    routes.update(1, 0, 1, [tuple(entry())])
    with pytest.raises(AssertionError, match="wait to be chosen"):
        routes.check()


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (Selected(1, 9, 5, 111, 2, 0.0), "not what the neighbour told"),
        (Selected(1, 9, 6, 110, 2, 0.0), "not what the neighbour told"),
        (Selected(2, 9, 5, 110, 2, 0.0), "that no neighbour told"),
        (Selected(99, 9, 5, 110, 2, 0.0), "that no neighbour told"),
    ],
)
def test_a_route_that_no_neighbour_told_so_is_found(routes, broken, text):
    hear(routes, 1, entry())
    routes._selected["z"] = broken
    with pytest.raises(AssertionError, match=text):
        routes.check()


@pytest.mark.parametrize("distance", [(5, 111), (6, 50)])
def test_a_route_past_its_feasibility_distance_is_found(routes, distance):
    hear(routes, 1, entry())
    routes._distances["z"] = distance
    with pytest.raises(AssertionError, match="past its feasibility distance"):
        routes.check()


def test_a_distance_that_nothing_will_drop_is_found(routes):
    routes._distances["y"] = (1, 1)
    with pytest.raises(AssertionError, match="nothing will drop"):
        routes.check()


def test_a_better_route_that_nothing_will_ask_for_is_found(routes):
    hear(routes, 1, entry(metric=50))
    routes._neighbours[2].heard["z"] = tuple(entry(metric=1))
    with pytest.raises(AssertionError, match="nothing will ask for"):
        routes.check()


def test_who_waits_for_an_answer_for_ever_is_found(routes):
    hear(routes, 1, entry())
    routes.request(2, request(8), 5.0)
    routes._listening.cancel("z")
    with pytest.raises(AssertionError, match="nothing will forget"):
        routes.check()
