"""When a node asks for a smaller distance, and how it answers who asks: also by shrinking its own."""

import pytest

from tests.core.routing.route_rows import advertised, asked, entry, hear, request, retraction
from zmesh.core.routing.seqno_requests import REQUEST_DELAY, REQUESTER_TIMEOUT, RETRY_INITIAL
from zmesh.core.wire import MAX_TTL, U63, Entry

# --- requests -----------------------------------------------------------------------------------------------------


def test_a_node_that_loses_a_route_with_its_link_requests_a_distance_below_its_own_at_once(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=500))
    assert asked(routes, 0.0) == []
    routes.flush(1.0)
    routes.link_down(1)
    routes.select(5.0)
    assert routes.next_deadline() == 5.0
    assert asked(routes, 5.0) == [(2, request(5, 150))]
    (change,) = hear(routes, 2, entry(metric=500, excess=351), now=6.0)
    assert (change.after.metric, change.after.excess) == (600, 450)
    assert asked(routes, 1000.0) == []


def test_after_a_retraction_a_request_waits_for_the_request_delay(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=500))
    hear(routes, 3, entry(metric=400))
    hear(routes, 1, retraction(), now=5.0)
    hear(routes, 3, retraction(), now=5.01)
    assert asked(routes, 5.01) == []
    assert asked(routes, 5.0 + REQUEST_DELAY) == [(2, request(5, 150))]


def test_no_request_is_sent_if_all_other_routes_are_retracted_within_the_request_delay(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=500))
    hear(routes, 1, retraction(), now=5.0)
    hear(routes, 2, retraction(), now=5.01)
    assert asked(routes, 5.0 + REQUEST_DELAY) == []


def test_a_better_route_that_is_not_feasible_is_requested_after_the_request_delay(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=200))
    hear(routes, 1, entry(metric=900, excess=850), now=5.0)
    assert routes.get("z").link == 1
    assert asked(routes, 5.0) == []
    hear(routes, 3, entry(metric=300), now=5.01)
    assert asked(routes, 5.0 + REQUEST_DELAY) == [(2, request(5, 150))]
    again = 5.0 + REQUEST_DELAY + RETRY_INITIAL
    assert asked(routes, again) == [(2, request(5, 150)), (3, request(5, 150)), (1, request(5, 150))]


def test_a_route_that_is_better_than_the_answer_is_requested_in_a_new_round(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=200))
    hear(routes, 3, entry(metric=160))
    hear(routes, 1, entry(metric=900, excess=850), now=5.0)
    assert asked(routes, 5.0 + REQUEST_DELAY) == [(3, request())]
    hear(routes, 2, entry(metric=200, seqno=6), now=6.0)
    assert routes.get("z").link == 2
    assert asked(routes, 6.0 + REQUEST_DELAY) == [(3, request(6, 300))]
    hear(routes, 2, entry(metric=180, seqno=6), now=6.1)
    assert asked(routes, 6.1 + REQUEST_DELAY) == [(3, request(6, 280))]


def test_no_request_is_sent_if_the_better_route_is_retracted_before(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=200))
    hear(routes, 1, entry(metric=900, excess=850), now=5.0)
    hear(routes, 1, entry(metric=60, excess=10), now=5.01)
    assert asked(routes, 100.0) == []


def test_a_feasible_route_needs_no_request_however_late_it_came(routes):
    hear(routes, 1, entry(metric=200))
    hear(routes, 2, entry(metric=900, seqno=7))
    hear(routes, 1, retraction(), now=5.0)
    assert routes.get("z").link == 2
    hear(routes, 3, entry(metric=100, seqno=7), now=5.1)
    assert asked(routes, 100.0) == []


# --- the destination answers --------------------------------------------------------------------------------------


def test_the_destination_answers_the_requester_alone(routes):
    routes.request(1, request(100, 0, "a"), 5.0)
    assert (routes.seqno, routes.next_deadline(), routes.advertiser.urgent) == (101, 5.0, True)
    own = Entry("a", 1, 101, 0, 0)
    assert advertised(routes, 5.0) == [([1], 0, [own])]
    routes.request(2, request(100, 0, "a"), 6.0)
    routes.request(3, request(7, 0, "a"), 6.0)
    assert advertised(routes, 6.0) == [([2], 0, [own]), ([3], 0, [own])]
    assert routes.seqno == 101


def test_the_destination_needs_no_newer_number_where_any_distance_but_0_will_do(routes):
    routes.request(1, request(100, 1, "a"), 5.0)
    assert advertised(routes, 5.0) == [([1], 0, [Entry("a", 1, 100, 0, 0)])]


@pytest.mark.parametrize("seqno", [5000, U63])
def test_the_destination_does_not_answer_a_request_that_is_too_far_ahead(routes, seqno):
    assert routes.request(1, request(seqno, 0, "a"), 5.0, 5000) == 0
    assert routes.seqno == 100
    assert routes.next_deadline() is None
    assert routes.refused == {(1, "seqno_ahead"): 1}


def test_the_destination_leaps_as_far_as_it_may(routes):
    routes.request(1, request(4999, 0, "a"), 5.0, 5000)
    assert routes.seqno == 5000


def test_the_destination_answers_with_its_own_seqno_whatever_the_clock_says(routes):
    routes.request(1, request(50, 0, "a"), 5.0, 60)
    assert routes.seqno == 100
    assert advertised(routes, 5.0) != []


# --- others answer ------------------------------------------------------------------------------------------------


def test_a_node_that_is_near_enough_advertises_its_distance_again(routes):
    hear(routes, 1, entry(seqno=7))
    routes.flush(1.0)
    for number, question in enumerate([request(6, 0), request(7, 111)]):
        routes.request(2, question, 5.0 + number)
        assert asked(routes, 5.0 + number) == []
        assert advertised(routes, 5.0 + number) == [([2], 0, [Entry("z", 9, 7, 110, 2)])]


def test_a_node_shrinks_its_distance_to_the_requested_one_if_that_is_above_its_next_hops(routes):
    hear(routes, 1, entry(metric=50))
    routes.flush(1.0)
    routes.request(2, request(5, 90), 5.0)
    assert (routes.distance("z"), routes.get("z").metric, routes.get("z").excess) == ((5, 89), 150, 61)
    assert asked(routes, 5.0) == []
    assert advertised(routes, 5.0) == [([2], 0, [Entry("z", 9, 5, 150, 2, 61)])]
    routes.check()
    routes.request(2, request(5, 80), 6.0)  # and again
    assert advertised(routes, 6.0) == [([2], 0, [Entry("z", 9, 5, 150, 2, 71)])]


@pytest.mark.parametrize(("distance", "fits"), [(52, True), (51, False), (1, False), (0, False)])
def test_a_request_that_does_not_fit_is_forwarded_to_the_next_hop(routes, distance, fits):
    hear(routes, 1, entry(metric=50))
    routes.flush(1.0)
    routes.request(2, request(5, distance), 5.0)
    onward = [] if fits else [(1, request(5, max(0, distance - 1), hops_left=MAX_TTL - 1))]
    assert (asked(routes, 5.0), routes.distance("z")) == (onward, (5, 51 if fits else 150))
    routes.check()


def test_a_node_shrinks_its_distance_when_its_next_hop_has_and_answers_then(routes):
    hear(routes, 1, entry(metric=50))
    routes.flush(1.0)
    routes.request(2, request(5, 40), 5.0)
    assert asked(routes, 5.0) == [(1, request(5, 39, hops_left=MAX_TTL - 1))]
    assert hear(routes, 1, entry(metric=50, excess=12), now=5.1) == []
    assert (routes.distance("z"), advertised(routes, 5.1)) == ((5, 39), [([2], 0, [Entry("z", 9, 5, 150, 2, 111)])])
    assert hear(routes, 1, entry(metric=50, excess=13), now=5.2) == []
    assert advertised(routes, 5.2) == []


def test_a_change_that_answers_a_request_is_advertised_with_the_shrunk_distance(routes):
    hear(routes, 1, entry(metric=50))
    routes.request(2, request(5, 40), 5.0)
    (change,) = hear(routes, 3, entry(metric=45, excess=25), now=5.1)
    assert change.after == routes.get("z")
    assert routes.distance("z") == (5, 39)


def test_a_node_that_has_shrunk_its_distance_requests_less_than_before(routes):
    """In a mesh of 400 nodes the answer to the first question came, was too little, and the next one took 0.4 s."""
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=200))
    hear(routes, 1, entry(metric=900, excess=850), now=5.0)
    assert asked(routes, 5.0 + REQUEST_DELAY) == [(2, request(5, 150))]
    routes.request(3, request(5, 90), 5.1)
    hear(routes, 2, entry(metric=200, excess=60), now=5.11)
    assert routes.get("z").link == 1
    assert asked(routes, 5.1 + REQUEST_DELAY) == [(2, request(5, 89))]


def test_no_answer_goes_to_the_next_hop_of_the_route(routes):
    hear(routes, 1, entry(seqno=7))
    routes.flush(1.0)
    routes.request(1, request(7), 5.0)
    routes.request(99, request(7), 5.0)
    assert asked(routes, 5.0) == []
    assert routes.flush(6.0) == []


# --- passing on ---------------------------------------------------------------------------------------------------


def test_a_question_is_passed_on_along_the_route(routes):
    hear(routes, 1, entry())
    hear(routes, 2, entry(metric=20))
    routes.request(3, request(7, 0, hops_left=4), 5.0)
    routes.request(2, request(7, 0, hops_left=4), 5.0)
    assert asked(routes, 5.0) == [(1, request(7, 0, hops_left=3))]


def test_a_question_is_passed_on_again_when_the_route_has_changed(routes):
    hear(routes, 1, entry())
    routes.request(2, request(8, 0, hops_left=4), 5.0)
    routes.request(3, request(7, 0, hops_left=9), 5.0)
    assert asked(routes, 5.0) == [(1, request(8, 0, hops_left=3)), (1, request(7, 0, hops_left=8))]
    hear(routes, 3, entry(metric=5), now=5.1)
    assert asked(routes, 5.1) == [(3, request(8, 0, hops_left=3))]
    hear(routes, 3, entry(metric=4), now=5.1)
    assert asked(routes, 5.1) == []
    hear(routes, 2, entry(metric=3), now=5.2)  # it is the one that asked
    assert asked(routes, 5.2) == [(2, request(7, 0, hops_left=8))]


def test_a_request_from_the_next_hop_is_forwarded_to_the_others(routes):
    hear(routes, 1, entry())
    hear(routes, 2, entry(metric=20))
    hear(routes, 3, entry(metric=30))
    routes.request(1, request(7, 0, hops_left=4), 5.0)
    assert asked(routes, 5.0) == [(2, request(7, 0, hops_left=3)), (3, request(7, 0, hops_left=3))]


def test_a_question_about_an_unknown_node_goes_nowhere_and_leaves_nothing_behind(routes):
    routes.request(1, request(8, 0, "nobody"), 5.0)
    assert asked(routes, 5.0) == []
    assert not routes.seqno_requests.has_requesters("nobody")
    assert routes.next_deadline() is None


@pytest.mark.parametrize("first", [2, 3])
def test_an_answer_returns_along_the_path_of_the_request(routes, first):
    """Also to one who has asked twice: in a grid of 1,024 nodes the lower number once took the place of the higher."""
    hear(routes, 1, entry())
    routes.flush(1.0)
    routes.request(first, request(8, 0), 5.0)
    routes.request(2, request(7, 0), 5.0)
    routes.requests(5.0)
    hear(routes, 1, entry(seqno=8), now=5.1)
    assert advertised(routes, 5.1) == [([2], 0, [Entry("z", 9, 8, 110, 2)])]
    hear(routes, 1, entry(seqno=9), now=5.2)
    assert advertised(routes, 5.2) == [([first], 0, [Entry("z", 9, 9, 110, 2)])]
    hear(routes, 1, entry(seqno=10), now=5.3)
    assert advertised(routes, 5.3) == []


def test_an_answer_does_not_go_to_the_one_that_it_came_from(routes):
    hear(routes, 1, entry())
    hear(routes, 2, entry(metric=20))
    routes.flush(1.0)
    routes.request(2, request(7, 0), 5.0)
    routes.requests(5.0)
    hear(routes, 2, entry(metric=5, seqno=8), now=5.1)
    assert advertised(routes, 5.1) == [([1, 3], 0, [Entry("z", 9, 8, 105, 2)]), ([2], 0, [retraction()])]


def test_an_answer_after_the_requester_timeout_is_not_passed_on(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    routes.request(2, request(7, 0), 5.0)
    routes.requests(5.0)
    routes.expire(5.0 + REQUESTER_TIMEOUT)
    hear(routes, 1, entry(seqno=8), now=6.0 + REQUESTER_TIMEOUT)
    assert advertised(routes, 9.0) == []


def test_an_answer_for_a_link_that_is_down_is_dropped(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    routes.request(2, request(7, 0), 5.0)
    routes.request(3, request(100, 0, "a"), 5.0)
    routes.requests(5.0)
    routes.link_down(2)
    routes.link_down(3)
    hear(routes, 1, entry(seqno=8), now=5.1)
    assert advertised(routes, 5.1) == []


def test_a_route_that_is_lost_before_it_answers_is_not_advertised(routes):
    hear(routes, 1, entry(seqno=7))
    routes.flush(1.0)
    routes.request(2, request(6, 0), 5.0)
    hear(routes, 1, retraction(), now=5.0)
    assert advertised(routes, 5.0) == [([2, 3], 0, [retraction()])]
