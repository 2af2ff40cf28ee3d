"""What is asked of whom and when, and who waits for the answer."""

import itertools

import pytest

from tests.core.routing.route_rows import request
from zmesh.core.routing.seqno_requests import (
    AGAIN,
    AGAIN_MAX,
    LISTEN,
    MEMORY,
    NEAR_HOPS,
    NEAR_ROUNDS,
    NEAR_TRIES,
    PATIENCE,
    Asking,
)


@pytest.fixture
def asking(alarm):
    return Asking(alarm)


def ask(asking, now, offers=(1, 2), below=(5, 150)):
    """Ask for all that is due; returns the questions, as (link, question)."""
    for destination in asking.due(now):
        asking.ask(destination, below, list(offers), now)
    return taken(asking)


def taken(asking):
    questions = [(link, question) for link, questions in asking.take().items() for question in questions]
    asking.check(set(asking.wants))
    return questions


# --- what this node wants -----------------------------------------------------------------------------------------


def test_what_is_wanted_at_once_is_due_at_once_and_all_else_after_some_patience(asking):
    asking.want("z", 1, 5.0, at_once=True)
    asking.want("y", 1, 5.0, at_once=False)
    assert asking.next_deadline() == 5.0
    assert ask(asking, 5.0) == [(1, request())]
    assert ask(asking, 5.0 + PATIENCE) == [(1, request(destination="y"))]
    assert set(asking.wants) == {"y", "z"}


def test_what_was_to_wait_is_due_at_once_when_it_is_wanted_at_once(asking):
    asking.want("z", 1, 5.0, at_once=False)
    asking.want("z", 1, 5.01, at_once=True)
    asking.want("z", 1, 5.01, at_once=False)
    assert ask(asking, 5.01) == [(1, request())]


def test_who_has_to_ask_from_the_first_try_on_again_and_again_asks_for_a_new_number(asking):
    """Else two nodes whose distances shrink in turn would come down to zero in steps of one or two."""
    asking.want("z", 1, 0.0, at_once=True)
    asked = []
    for now in range(NEAR_ROUNDS + 2):
        ((_, question),) = ask(asking, now + PATIENCE)
        asked.append(question.distance)
        asking.want_anew("z", float(now + 1))
        asking.want_anew("z", float(now + 1))
    assert asked == [150] * NEAR_ROUNDS + [0, 0]
    asking.want_anew("z", 20.0, newer=True)
    ((_, question),) = ask(asking, 20.0 + PATIENCE)
    assert question.distance == 150


def test_the_cheapest_is_asked_first_and_later_all_after_pauses_that_double_up_to_a_bound(asking):
    asking.want("z", 1, 0.0, at_once=True)
    times, now = [], 0.0
    while now < 60:
        questions = ask(asking, now)
        times += [now] * bool(questions)
        assert [link for link, _ in questions] in ([], [1] if len(times) == 1 else [1, 2])
        asking.expire(now)
        now = asking.next_deadline()
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[:3] == pytest.approx([AGAIN, 2 * AGAIN, 4 * AGAIN])
    assert max(pauses) == pytest.approx(AGAIN_MAX)


def test_after_some_tries_a_newer_number_is_asked_for(asking):
    asking.want("z", 1, 0.0, at_once=True)
    distances = [ask(asking, 100.0 * number)[0][1].distance for number in range(NEAR_TRIES + 2)]
    assert distances == [150] * NEAR_TRIES + [0, 0]


def test_what_is_wanted_no_more_is_not_asked_for(asking):
    asking.want("z", 1, 5.0, at_once=False)
    asking.content("z")
    assert ask(asking, 100.0) == []
    assert not asking.wants


def test_when_another_way_is_the_cheapest_it_is_asked_soon_as_if_for_the_first_time(asking):
    """In a grid of 484 nodes the neighbour that was asked became feasible, and dearer than one that was not asked."""
    asking.want("z", 1, 5.0, at_once=True)
    assert ask(asking, 5.0) == [(1, request())]
    asking.want("z", 1, 5.1, at_once=False)
    assert ask(asking, 5.1 + PATIENCE) == []
    asking.want("z", 2, 5.2, at_once=False)
    assert ask(asking, 5.2) == []
    assert ask(asking, 5.2 + PATIENCE, offers=(2, 1)) == [(2, request())]


def test_what_is_wanted_anew_is_asked_for_soon_as_if_for_the_first_time(asking):
    asking.want("z", 1, 5.0, at_once=True)
    ask(asking, 5.0)
    asking.want_anew("z", 5.1)
    assert ask(asking, 5.1 + PATIENCE, below=(6, 90)) == [(1, request(6, 90))]
    asking.want_anew("y", 5.2)
    assert set(asking.wants) == {"z"}


# --- what neighbours want -----------------------------------------------------------------------------------------


def test_what_is_passed_on_asks_for_one_less_and_goes_one_hop_less_far(asking):
    asking.pass_on(request(), [1, 2], 5.0)
    assert taken(asking) == [(1, request(5, 149, hops_left=254)), (2, request(5, 149, hops_left=254))]
    asking.pass_on(request(5, 1), [1], 5.0)
    asking.pass_on(request(6, 0), [1], 5.0)
    assert [(question.seqno, question.distance) for _, question in taken(asking)] == [(5, 0), (6, 0)]


def test_what_nobody_near_has_answered_is_passed_on_as_a_question_for_a_newer_number(asking):
    """Where half a mesh was lost, each asked all along the same way for a little less, one after the other."""
    question, distances = request(), []
    for _ in range(NEAR_HOPS + 1):
        asking.pass_on(question, [1], 5.0)
        ((_, question),) = taken(asking)
        distances.append(question.distance)
    assert distances == [150 - hops for hops in range(1, NEAR_HOPS + 1)] + [0]


def test_the_same_is_passed_on_once_in_a_while(asking):
    for _ in range(3):
        asking.pass_on(request(), [1], 5.0)
        asking.pass_on(request(), [1, 2], 5.0)
    assert [link for link, _ in taken(asking)] == [1, 2]
    asking.expire(5.0 + MEMORY)
    asking.pass_on(request(), [1], 5.0 + MEMORY)
    assert len(taken(asking)) == 1


def test_a_question_goes_as_far_as_its_hops_allow(asking):
    for hops_left in (0, 1):
        asking.pass_on(request(hops_left=hops_left), [1], 5.0)
        asking.remember(2, request(hops_left=hops_left), 5.0)
        asking.pass_on_again("z", 1, 5.0)
    assert not asking.questions
    assert taken(asking) == []


def test_who_asks_for_many_things_waits_for_the_least_and_the_most(asking):
    for seqno, distance in ((5, 90), (5, 200), (6, 80), (5, 100), (6, 0), (5, 200)):
        asking.remember(2, request(seqno, distance), 5.0)
    asking.remember(3, request(6, 10), 5.0)
    assert asking.answered("z", lambda question: question.is_met_by(5, 150)) == [2]
    assert asking.answered("z", lambda question: question.is_met_by(6, 5)) == [3]
    assert asking.is_waited_for("z")
    assert asking.answered("z", lambda question: question.is_met_by(7, 500)) == [2]
    assert not asking.is_waited_for("z")


def test_nobody_waits_for_ever(asking):
    asking.remember(2, request(), 5.0)
    asking.expire(5.0 + LISTEN - 0.001)
    assert asking.is_waited_for("z")
    asking.expire(5.0 + LISTEN)
    assert not asking.is_waited_for("z")
    assert asking.next_deadline() is None


def test_the_most_demanding_question_is_passed_on_again_when_the_route_leads_elsewhere(asking):
    asking.remember(2, request(5, 150, hops_left=4), 5.0)
    asking.remember(3, request(5, 90), 5.0)
    for link, expected in ((1, request(5, 89, hops_left=254)), (3, request(5, 0, hops_left=3))):
        asking.pass_on_again("z", link, 5.1)
        assert taken(asking) == [(link, expected)]
    asking.pass_on_again("y", 1, 5.1)
    assert taken(asking) == []


def test_what_was_to_be_asked_on_a_link_that_is_down_is_not_asked(asking):
    asking.pass_on(request(), [1, 2], 5.0)
    asking.link_down(1)
    asking.link_down(9)
    assert set(asking.questions) == {2}
    assert [link for link, _ in taken(asking)] == [2]
    assert not asking.questions


@pytest.mark.parametrize(
    ("seqno", "distance", "met"),
    [(5, 149, True), (5, 150, False), (4, 1, False), (6, 9999, True)],
)
def test_a_question_is_met_by_a_smaller_distance_or_a_higher_number(seqno, distance, met):
    assert request(5, 150).is_met_by(seqno, distance) is met


# --- what check finds ---------------------------------------------------------------------------------------------


def test_what_nothing_will_ask_for_is_found(asking):
    with pytest.raises(AssertionError, match="nothing will ask for"):
        asking.check({"z"})
    asking.want("z", 1, 5.0, at_once=False)
    with pytest.raises(AssertionError, match="nothing will ask for"):
        asking.check(set())
    asking.due(100.0)
    with pytest.raises(AssertionError, match="nothing will ask for"):
        asking.check({"z"})


def test_who_waits_for_an_answer_for_ever_is_found(asking):
    asking.remember(2, request(), 5.0)
    asking._listening.cancel("z")
    with pytest.raises(AssertionError, match="nothing will forget"):
        asking.check(set())
