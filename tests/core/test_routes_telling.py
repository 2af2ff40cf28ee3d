"""What a node tells its neighbours of routes, and asks and answers about sequence numbers."""

import itertools

import pytest

from tests.core.entries import entry, hear, retraction
from zmesh.core.routes import (
    COALESCE,
    LISTEN,
    MAX_SEQNO_LEAP,
    REQUEST_AGAIN,
    REQUEST_AGAIN_MAX,
    REQUEST_MEMORY,
    REQUEST_PATIENCE,
    Routes,
)
from zmesh.core.timers import Alarm
from zmesh.core.wire import FULL_BEGIN, FULL_END, MAX_ENTRIES, MAX_TTL, Entry, SeqnoRequest

# --- telling ------------------------------------------------------------------------------------------------------

ALL = FULL_BEGIN | FULL_END
OWN = Entry("a", 1, 100, 0, 0)


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


def test_who_waits_for_an_answer_for_ever_is_found(routes):
    hear(routes, 1, entry())
    routes.request(2, request(8), 5.0)
    routes._listening.cancel("z")
    with pytest.raises(AssertionError, match="nothing will forget"):
        routes.check()
