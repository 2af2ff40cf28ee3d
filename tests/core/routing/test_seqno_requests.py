"""What is asked of whom and when, and who waits for the answer."""

import itertools

import pytest

from tests.core.routing.route_rows import request
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


def ask(requests, now, offers=(1, 2), below=(5, 150)):
    """Ask for all that is due; returns the questions, as (link, question)."""
    for destination in requests.due(now):
        requests.originate(destination, below, list(offers), now)
    return taken(requests)


def taken(requests):
    questions = [(link, question) for link, questions in requests.take().items() for question in questions]
    requests.check(set(requests.starved))
    return questions


# --- what this node wants -----------------------------------------------------------------------------------------


def test_what_is_wanted_at_once_is_due_at_once_and_all_else_after_some_patience(requests):
    requests.starve("z", 1, 5.0, immediately=True)
    requests.starve("y", 1, 5.0, immediately=False)
    assert requests.next_deadline() == 5.0
    assert ask(requests, 5.0) == [(1, request())]
    assert ask(requests, 5.0 + REQUEST_DELAY) == [(1, request(destination="y"))]
    assert set(requests.starved) == {"y", "z"}


def test_what_was_to_wait_is_due_at_once_when_it_is_wanted_at_once(requests):
    requests.starve("z", 1, 5.0, immediately=False)
    requests.starve("z", 1, 5.01, immediately=True)
    requests.starve("z", 1, 5.01, immediately=False)
    assert ask(requests, 5.01) == [(1, request())]


def test_who_has_to_ask_from_the_first_try_on_again_and_again_asks_for_a_new_number(requests):
    """Else two nodes whose distances shrink in turn would come down to zero in steps of one or two."""
    requests.starve("z", 1, 0.0, immediately=True)
    asked = []
    for now in range(NEAR_ROUNDS + 2):
        ((_, question),) = ask(requests, now + REQUEST_DELAY)
        asked.append(question.distance)
        requests.restart("z", float(now + 1))
        requests.restart("z", float(now + 1))
    assert asked == [150] * NEAR_ROUNDS + [0, 0]
    requests.restart("z", 20.0, newer=True)
    ((_, question),) = ask(requests, 20.0 + REQUEST_DELAY)
    assert question.distance == 150


def test_the_cheapest_is_asked_first_and_later_all_after_pauses_that_double_up_to_a_bound(requests):
    requests.starve("z", 1, 0.0, immediately=True)
    times, now = [], 0.0
    while now < 60:
        questions = ask(requests, now)
        times += [now] * bool(questions)
        assert [link for link, _ in questions] in ([], [1] if len(times) == 1 else [1, 2])
        requests.expire(now)
        now = requests.next_deadline()
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[:3] == pytest.approx([RETRY_INITIAL, 2 * RETRY_INITIAL, 4 * RETRY_INITIAL])
    assert max(pauses) == pytest.approx(RETRY_MAX)


def test_after_some_tries_a_newer_number_is_asked_for(requests):
    requests.starve("z", 1, 0.0, immediately=True)
    distances = [ask(requests, 100.0 * number)[0][1].distance for number in range(NEAR_TRIES + 2)]
    assert distances == [150] * NEAR_TRIES + [0, 0]


def test_what_is_wanted_no_more_is_not_asked_for(requests):
    requests.starve("z", 1, 5.0, immediately=False)
    requests.satisfied("z")
    assert ask(requests, 100.0) == []
    assert not requests.starved


def test_when_another_way_is_the_cheapest_it_is_asked_soon_as_if_for_the_first_time(requests):
    """In a grid of 484 nodes the neighbour that was asked became feasible, and dearer than one that was not asked."""
    requests.starve("z", 1, 5.0, immediately=True)
    assert ask(requests, 5.0) == [(1, request())]
    requests.starve("z", 1, 5.1, immediately=False)
    assert ask(requests, 5.1 + REQUEST_DELAY) == []
    requests.starve("z", 2, 5.2, immediately=False)
    assert ask(requests, 5.2) == []
    assert ask(requests, 5.2 + REQUEST_DELAY, offers=(2, 1)) == [(2, request())]


def test_what_is_wanted_anew_is_asked_for_soon_as_if_for_the_first_time(requests):
    requests.starve("z", 1, 5.0, immediately=True)
    ask(requests, 5.0)
    requests.restart("z", 5.1)
    assert ask(requests, 5.1 + REQUEST_DELAY, below=(6, 90)) == [(1, request(6, 90))]
    requests.restart("y", 5.2)
    assert set(requests.starved) == {"z"}


# --- what neighbours want -----------------------------------------------------------------------------------------


def test_what_is_passed_on_asks_for_one_less_and_goes_one_hop_less_far(requests):
    requests.forward(request(), [1, 2], 5.0)
    assert taken(requests) == [(1, request(5, 149, hops_left=254)), (2, request(5, 149, hops_left=254))]
    requests.forward(request(5, 1), [1], 5.0)
    requests.forward(request(6, 0), [1], 5.0)
    assert [(question.seqno, question.distance) for _, question in taken(requests)] == [(5, 0), (6, 0)]


def test_what_nobody_near_has_answered_is_passed_on_as_a_question_for_a_newer_number(requests):
    """Where half a mesh was lost, each asked all along the same way for a little less, one after the other."""
    question, distances = request(), []
    for _ in range(NEAR_HOPS + 1):
        requests.forward(question, [1], 5.0)
        ((_, question),) = taken(requests)
        distances.append(question.distance)
    assert distances == [150 - hops for hops in range(1, NEAR_HOPS + 1)] + [0]


def test_the_same_is_passed_on_once_in_a_while(requests):
    for _ in range(3):
        requests.forward(request(), [1], 5.0)
        requests.forward(request(), [1, 2], 5.0)
    assert [link for link, _ in taken(requests)] == [1, 2]
    requests.expire(5.0 + SUPPRESSION)
    requests.forward(request(), [1], 5.0 + SUPPRESSION)
    assert len(taken(requests)) == 1


def test_a_question_goes_as_far_as_its_hops_allow(requests):
    for hops_left in (0, 1):
        requests.forward(request(hops_left=hops_left), [1], 5.0)
        requests.add_requester(2, request(hops_left=hops_left), 5.0)
        requests.reforward("z", 1, 5.0)
    assert not requests.outgoing
    assert taken(requests) == []


def test_who_asks_for_many_things_waits_for_the_least_and_the_most(requests):
    for seqno, distance in ((5, 90), (5, 200), (6, 80), (5, 100), (6, 0), (5, 200)):
        requests.add_requester(2, request(seqno, distance), 5.0)
    requests.add_requester(3, request(6, 10), 5.0)
    assert requests.answer("z", lambda question: question.is_met_by(5, 150)) == [2]
    assert requests.answer("z", lambda question: question.is_met_by(6, 5)) == [3]
    assert requests.has_requesters("z")
    assert requests.answer("z", lambda question: question.is_met_by(7, 500)) == [2]
    assert not requests.has_requesters("z")


def test_nobody_waits_for_ever(requests):
    requests.add_requester(2, request(), 5.0)
    requests.expire(5.0 + REQUESTER_TIMEOUT - 0.001)
    assert requests.has_requesters("z")
    requests.expire(5.0 + REQUESTER_TIMEOUT)
    assert not requests.has_requesters("z")
    assert requests.next_deadline() is None


def test_the_most_demanding_question_is_passed_on_again_when_the_route_leads_elsewhere(requests):
    requests.add_requester(2, request(5, 150, hops_left=4), 5.0)
    requests.add_requester(3, request(5, 90), 5.0)
    for link, expected in ((1, request(5, 89, hops_left=254)), (3, request(5, 0, hops_left=3))):
        requests.reforward("z", link, 5.1)
        assert taken(requests) == [(link, expected)]
    requests.reforward("y", 1, 5.1)
    assert taken(requests) == []


def test_what_was_to_be_asked_on_a_link_that_is_down_is_not_asked(requests):
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
def test_a_question_is_met_by_a_smaller_distance_or_a_higher_number(seqno, distance, met):
    assert request(5, 150).is_met_by(seqno, distance) is met


# --- what check finds ---------------------------------------------------------------------------------------------


def test_what_nothing_will_ask_for_is_found(requests):
    with pytest.raises(AssertionError, match="nothing will ask for"):
        requests.check({"z"})
    requests.starve("z", 1, 5.0, immediately=False)
    with pytest.raises(AssertionError, match="nothing will ask for"):
        requests.check(set())
    requests.due(100.0)
    with pytest.raises(AssertionError, match="nothing will ask for"):
        requests.check({"z"})


def test_who_waits_for_an_answer_for_ever_is_found(requests):
    requests.add_requester(2, request(), 5.0)
    requests._requester_timeouts.cancel("z")
    with pytest.raises(AssertionError, match="nothing will forget"):
        requests.check(set())
