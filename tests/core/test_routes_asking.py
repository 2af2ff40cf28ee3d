"""How a node asks for newer sequence numbers, and answers and passes on such questions."""

import itertools

import pytest

from tests.core.entries import asked, entry, hear, request, retraction, told
from zmesh.core.routes import (
    LISTEN,
    MAX_SEQNO_LEAP,
    REQUEST_AGAIN,
    REQUEST_AGAIN_MAX,
    REQUEST_HOP,
    REQUEST_MEMORY,
    REQUEST_PATIENCE,
)
from zmesh.core.wire import Entry

AGAIN = REQUEST_AGAIN + REQUEST_HOP


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
    assert pauses[:3] == pytest.approx([AGAIN, 2 * AGAIN, 4 * AGAIN])
    assert max(pauses) == pytest.approx(REQUEST_AGAIN_MAX)


def test_a_node_whose_best_route_is_not_feasible_asks_after_some_patience(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=200))
    hear(routes, 1, entry(metric=900, excess=850), now=5.0)
    assert routes.get("z").link == 1
    assert asked(routes, 5.0) == []
    hear(routes, 3, entry(metric=300), now=5.01)
    assert asked(routes, 5.0 + REQUEST_PATIENCE) == [(2, request(6))]
    again = 5.0 + REQUEST_PATIENCE + AGAIN
    assert asked(routes, again) == [(2, request(6)), (3, request(6)), (1, request(6))]


def test_who_is_far_from_the_destination_waits_longer_before_it_asks_again(routes):
    hear(routes, 1, entry(metric=50, hops=40))
    hear(routes, 2, entry(metric=500, hops=50))
    hear(routes, 1, retraction(), now=5.0)
    assert asked(routes, 5.0) == [(2, request(6))]
    assert asked(routes, 5.0 + REQUEST_AGAIN + 49 * REQUEST_HOP) == []
    assert asked(routes, 5.0 + REQUEST_AGAIN + 50 * REQUEST_HOP) == [(2, request(6))]


def test_what_is_better_still_when_an_answer_has_come_is_asked_for_as_if_for_the_first_time(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=200))
    hear(routes, 3, entry(metric=160))
    hear(routes, 1, entry(metric=900), now=5.0)
    assert asked(routes, 5.0 + REQUEST_PATIENCE) == [(3, request(6))]
    hear(routes, 2, entry(metric=200, seqno=6), now=6.0)
    assert routes.get("z").link == 2
    assert asked(routes, 6.0 + REQUEST_PATIENCE) == [(3, request(6))]
    hear(routes, 2, entry(metric=180, seqno=6), now=6.1)
    assert asked(routes, 6.1 + REQUEST_PATIENCE) == [(3, request(6))]


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
    assert asked(routes, 5.0 + AGAIN) == [(2, request(6)), (3, request(6))]


def test_the_destination_answers_who_asks_and_nobody_else(routes):
    routes.request(1, request(101, "a"), 5.0)
    assert (routes.seqno, routes.next_deadline(), routes.telling.urgent) == (101, 5.0, True)
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


def test_a_question_is_passed_on_again_when_the_route_has_changed(routes):
    hear(routes, 1, entry())
    routes.request(2, request(8, hops_left=4), 5.0)
    routes.request(3, request(7, hops_left=9), 5.0)
    assert asked(routes, 5.0) == [(1, request(8, hops_left=3)), (1, request(7, hops_left=8))]
    hear(routes, 3, entry(metric=5), now=5.1)
    assert asked(routes, 5.1) == [(3, request(8, hops_left=3))]
    hear(routes, 3, entry(metric=4), now=5.1)
    assert asked(routes, 5.1) == []
    hear(routes, 2, entry(metric=3), now=5.2)  # it is the one that asked
    assert asked(routes, 5.2) == [(2, request(7, hops_left=8))]


def test_a_question_that_has_gone_as_far_as_it_may_is_not_passed_on_again(routes):
    hear(routes, 1, entry())
    routes.request(2, request(8, hops_left=1), 5.0)
    hear(routes, 3, entry(metric=5), now=5.1)
    assert asked(routes, 5.1) == []


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


@pytest.mark.parametrize("first", [2, 3])
def test_an_answer_goes_back_the_way_that_the_question_came(routes, first):
    """Also to one who has asked twice: in a grid of 1,024 nodes the lower number once took the place of the higher."""
    hear(routes, 1, entry())
    routes.flush(1.0)
    routes.request(first, request(9), 5.0)
    routes.request(2, request(8), 5.0)
    routes.requests(5.0)
    hear(routes, 1, entry(seqno=8), now=5.1)
    assert told(routes, 5.1) == [([2], 0, [Entry("z", 9, 8, 110, 2)])]
    hear(routes, 1, entry(seqno=9), now=5.2)
    assert told(routes, 5.2) == [([first], 0, [Entry("z", 9, 9, 110, 2)])]
    hear(routes, 1, entry(seqno=10), now=5.3)
    assert told(routes, 5.3) == []


def test_who_asks_for_many_numbers_gets_the_lowest_and_the_highest(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    for seqno in (10, 7, 8, 12, 9, 12):
        routes.request(2, request(seqno), 5.0)
    assert [waiting.seqno for waiting in routes._askers["z"][2]] == [7, 12]
    routes.requests(5.0)
    hear(routes, 1, entry(seqno=8), now=5.1)
    assert told(routes, 5.1) == [([2], 0, [Entry("z", 9, 8, 110, 2)])]
    hear(routes, 1, entry(seqno=10), now=5.2)
    assert told(routes, 5.2) == []
    hear(routes, 1, entry(seqno=12), now=5.3)
    assert told(routes, 5.3) == [([2], 0, [Entry("z", 9, 12, 110, 2)])]
    assert not routes._askers


def test_an_answer_does_not_go_to_the_one_that_it_came_from(routes):
    hear(routes, 1, entry())
    hear(routes, 2, entry(metric=20))
    routes.flush(1.0)
    routes.request(2, request(8), 5.0)
    routes.requests(5.0)
    hear(routes, 2, entry(metric=5, seqno=8), now=5.1)
    assert told(routes, 5.1) == [([1, 3], 0, [Entry("z", 9, 8, 105, 2)]), ([2], 0, [retraction()])]


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
    assert told(routes, 5.0) == [([2, 3], 0, [retraction()])]


def test_a_number_that_is_known_here_is_asked_for_before_a_newer_one(routes):
    """The neighbour with the cheaper offer may have only missed it."""
    hear(routes, 1, entry(metric=50, seqno=6))
    hear(routes, 2, entry(metric=40, seqno=5), now=5.0)
    assert asked(routes, 5.0 + REQUEST_PATIENCE) == [(2, request(6))]
    again = 5.0 + REQUEST_PATIENCE + AGAIN
    assert asked(routes, again) == [(2, request(6)), (1, request(6))]  # the destination may be far
    assert asked(routes, again + 2 * AGAIN) == [(2, request(7)), (1, request(7))]


def test_a_number_that_grew_meanwhile_is_asked_for_soon_of_the_one_that_lags_now(routes):
    """Seed 1 of a thousand nodes at random waited for the third of its tries, with a number that was enough no more."""
    hear(routes, 1, entry(metric=50, seqno=6))
    hear(routes, 2, entry(metric=40, seqno=5), now=5.0)
    assert asked(routes, 5.0 + REQUEST_PATIENCE) == [(2, request(6))]
    hear(routes, 1, entry(metric=50, seqno=8), now=5.1)
    hear(routes, 2, entry(metric=40, seqno=6), now=5.12)
    assert routes.get("z").link == 1
    assert asked(routes, 5.1 + REQUEST_PATIENCE) == [(2, request(8))]


def test_a_route_that_is_feasible_asks_nothing_ahead_however_late_it_came(routes):
    hear(routes, 1, entry(metric=200))
    hear(routes, 2, entry(metric=900, seqno=7))
    hear(routes, 1, retraction(), now=5.0)
    assert routes.get("z").link == 2
    hear(routes, 3, entry(metric=100, seqno=7), now=5.1)
    assert asked(routes, 100.0) == []


def test_who_waits_for_an_answer_for_ever_is_found(routes):
    hear(routes, 1, entry())
    routes.request(2, request(8), 5.0)
    routes._listening.cancel("z")
    with pytest.raises(AssertionError, match="nothing will forget"):
        routes.check()
