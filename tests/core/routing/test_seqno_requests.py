"""Outstanding seqno requests: of this node, and of neighbours that wait for an answer."""

import itertools

import pytest

from tests.core.routing.route_rows import request
from zmesh.core.routing.destinations import Destination
from zmesh.core.routing.seqno_requests import (
    NEAR_HOPS,
    NEAR_ROUNDS,
    NEAR_TRIES,
    REQUEST_DELAY,
    REQUESTER_TIMEOUT,
    RETRY_INITIAL,
    RETRY_MAX,
    SUPPRESSION,
    SeqnoRequests,
)


@pytest.fixture
def requests(alarm):
    return SeqnoRequests(alarm)


@pytest.fixture
def z():
    return destination("z")


def destination(name):
    """A destination with the feasibility distance (5, 150)."""
    one = Destination(name)
    one.distance = (5, 150)
    return one


def originate(requests, now, offers=(1, 2)):
    """Originate all requests that are due; returns them as (link, request)."""
    for one in requests.due(now):
        requests.originate(one, list(offers), now)
    return taken(requests)


def taken(requests):
    sent = [(link, each) for link, some in requests.take().items() for each in some]
    requests.check(requests._due, {one.id for one in requests._due})
    return sent


# --- requests of this node ----------------------------------------------------------------------------------------


def test_a_request_is_due_immediately_or_after_the_request_delay(requests, z):
    requests.starve(z, 1, 5.0, immediately=True)
    requests.starve(destination("y"), 1, 5.0, immediately=False)
    assert requests.next_deadline() == 5.0
    assert originate(requests, 5.0) == [(1, request())]
    assert originate(requests, 5.0 + REQUEST_DELAY) == [(1, request(destination="y"))]
    assert {one.id for one in requests._due} == {"y", "z"}


def test_a_delayed_request_is_due_immediately_once_that_is_asked_for(requests, z):
    requests.starve(z, 1, 5.0, immediately=False)
    requests.starve(z, 1, 5.01, immediately=True)
    requests.starve(z, 1, 5.01, immediately=False)
    assert originate(requests, 5.01) == [(1, request())]


def test_after_some_rounds_a_newer_seqno_is_requested(requests, z):
    """Else two nodes whose distances shrink in turn would come down to zero in steps of one or two."""
    requests.starve(z, 1, 0.0, immediately=True)
    distances = []
    for now in range(NEAR_ROUNDS + 2):
        ((_, sent),) = originate(requests, now + REQUEST_DELAY)
        distances.append(sent.distance)
        requests.restart(z, float(now + 1))
        requests.restart(z, float(now + 1))
    assert distances == [150] * NEAR_ROUNDS + [0, 0]
    requests.restart(z, 20.0, newer=True)
    ((_, sent),) = originate(requests, 20.0 + REQUEST_DELAY)
    assert sent.distance == 150


def test_the_cheapest_offer_is_requested_first_and_later_all_with_exponential_backoff(requests, z):
    requests.starve(z, 1, 0.0, immediately=True)
    times, now = [], 0.0
    while now < 60:
        sent = originate(requests, now)
        times += [now] * bool(sent)
        assert [link for link, _ in sent] in ([], [1] if len(times) == 1 else [1, 2])
        requests.expire(now)
        now = requests.next_deadline()
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[:3] == pytest.approx([RETRY_INITIAL, 2 * RETRY_INITIAL, 4 * RETRY_INITIAL])
    assert max(pauses) == pytest.approx(RETRY_MAX)


def test_after_some_tries_a_newer_seqno_is_requested(requests, z):
    requests.starve(z, 1, 0.0, immediately=True)
    distances = [originate(requests, 100.0 * number)[0][1].distance for number in range(NEAR_TRIES + 2)]
    assert distances == [150] * NEAR_TRIES + [0, 0]


def test_nothing_is_requested_for_a_destination_that_is_satisfied(requests, z):
    requests.starve(z, 1, 5.0, immediately=False)
    requests.satisfied(z)
    assert originate(requests, 100.0) == []
    assert not z.is_starved


def test_a_round_begins_anew_when_another_offer_is_the_cheapest(requests, z):
    """In a grid of 484 nodes the neighbour that got the request became feasible, and costlier than another one."""
    requests.starve(z, 1, 5.0, immediately=True)
    assert originate(requests, 5.0) == [(1, request())]
    requests.starve(z, 1, 5.1, immediately=False)
    assert originate(requests, 5.1 + REQUEST_DELAY) == []
    requests.starve(z, 2, 5.2, immediately=False)
    assert originate(requests, 5.2) == []
    assert originate(requests, 5.2 + REQUEST_DELAY, offers=(2, 1)) == [(2, request())]


def test_a_round_that_is_restarted_begins_with_a_request_to_the_cheapest(requests, z):
    requests.starve(z, 1, 5.0, immediately=True)
    originate(requests, 5.0)
    z.distance = (6, 90)
    requests.restart(z, 5.1)
    assert originate(requests, 5.1 + REQUEST_DELAY) == [(1, request(6, 90))]
    requests.restart(destination("y"), 5.2)
    assert [one.id for one in requests._due] == ["z"]


# --- requests of neighbours ---------------------------------------------------------------------------------------


def test_a_forwarded_request_is_for_one_less_and_travels_one_hop_less(requests):
    requests.forward(request(), [1, 2], 5.0)
    assert taken(requests) == [(1, request(5, 149, hops_left=254)), (2, request(5, 149, hops_left=254))]
    requests.forward(request(5, 1), [1], 5.0)
    requests.forward(request(6, 0), [1], 5.0)
    assert [(each.seqno, each.distance) for _, each in taken(requests)] == [(5, 0), (6, 0)]


def test_a_request_that_no_near_node_has_answered_is_forwarded_as_one_for_a_newer_seqno(requests):
    """Where half a mesh was lost, all requested a little less along the same path, one after the other."""
    each, distances = request(), []
    for _ in range(NEAR_HOPS + 1):
        requests.forward(each, [1], 5.0)
        ((_, each),) = taken(requests)
        distances.append(each.distance)
    assert distances == [150 - hops for hops in range(1, NEAR_HOPS + 1)] + [0]


def test_the_same_request_is_forwarded_once_within_the_suppression_time(requests):
    for _ in range(3):
        requests.forward(request(), [1], 5.0)
        requests.forward(request(), [1, 2], 5.0)
    assert [link for link, _ in taken(requests)] == [1, 2]
    requests.expire(5.0 + SUPPRESSION)
    requests.forward(request(), [1], 5.0 + SUPPRESSION)
    assert len(taken(requests)) == 1


def test_a_request_travels_no_more_hops_than_it_may(requests):
    for hops_left in (0, 1):
        requests.forward(request(hops_left=hops_left), [1], 5.0)
        requests.add_requester(2, request(hops_left=hops_left), 5.0)
        requests.reforward("z", 1, 5.0)
    assert not requests.outgoing
    assert taken(requests) == []


def test_of_the_requests_of_a_neighbour_the_least_and_the_most_demanding_are_kept(requests):
    for seqno, distance in ((5, 90), (5, 200), (6, 80), (5, 100), (6, 0), (5, 200)):
        requests.add_requester(2, request(seqno, distance), 5.0)
    requests.add_requester(3, request(6, 10), 5.0)
    assert requests.answer("z", lambda each: each.is_met_by(5, 150)) == [2]
    assert requests.answer("z", lambda each: each.is_met_by(6, 5)) == [3]
    assert requests.has_requesters("z")
    assert requests.answer("z", lambda each: each.is_met_by(7, 500)) == [2]
    assert not requests.has_requesters("z")


def test_a_requester_is_dropped_after_its_timeout(requests):
    requests.add_requester(2, request(), 5.0)
    requests.expire(5.0 + REQUESTER_TIMEOUT - 0.001)
    assert requests.has_requesters("z")
    requests.expire(5.0 + REQUESTER_TIMEOUT)
    assert not requests.has_requesters("z")
    assert requests.next_deadline() is None


def test_the_most_demanding_request_is_forwarded_again_along_a_new_route(requests):
    requests.add_requester(2, request(5, 150, hops_left=4), 5.0)
    requests.add_requester(3, request(5, 90), 5.0)
    for link, expected in ((1, request(5, 89, hops_left=254)), (3, request(5, 0, hops_left=3))):
        requests.reforward("z", link, 5.1)
        assert taken(requests) == [(link, expected)]
    requests.reforward("y", 1, 5.1)
    assert taken(requests) == []


def test_no_request_is_sent_on_a_link_that_is_down(requests):
    requests.forward(request(), [1, 2], 5.0)
    requests.link_down(1)
    requests.link_down(9)
    assert set(requests.outgoing) == {2}
    assert [link for link, _ in taken(requests)] == [2]
    assert not requests.outgoing


@pytest.mark.parametrize(
    ("seqno", "distance", "met"),
    [(5, 149, True), (5, 150, False), (4, 1, False), (6, 9999, True)],
)
def test_a_request_is_met_by_a_smaller_distance_or_a_higher_number(seqno, distance, met):
    assert request(5, 150).is_met_by(seqno, distance) is met


# --- check ----------------------------------------------------------------------------------------------------------


def test_check_finds_a_blocked_route_that_is_not_requested(requests, z):
    with pytest.raises(AssertionError, match="without a request"):
        requests.check([z], {"z"})
    requests.starve(z, 1, 5.0, immediately=False)
    requests.check([z], {"z"})
    with pytest.raises(AssertionError, match="without a request"):
        requests.check([z], set())
    requests.due(100.0)
    with pytest.raises(AssertionError, match="without a request"):
        requests.check([z], {"z"})


def test_check_finds_a_requester_without_a_timeout(requests):
    requests.add_requester(2, request(), 5.0)
    requests._requester_timeouts.cancel("z")
    with pytest.raises(AssertionError, match="without a timeout"):
        requests.check([], set())
