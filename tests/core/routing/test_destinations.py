"""The states of a destination, against the tables in the docstring of its module."""

import pytest

from zmesh.core.routing.destinations import (
    ADVERTISED,
    HELD_DOWN,
    NOT_STARVED,
    PENDING,
    REQUESTED,
    RETRACTING,
    WAITING,
    Destination,
    is_known,
)
from zmesh.core.routing.selected_route import SelectedRoute

ROUTE = SelectedRoute(1, incarnation=9, seqno=5, metric=110, hops=2, since=3.0)


@pytest.fixture
def destination():
    return Destination("z")


# --- advertising --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [ADVERTISED, PENDING, HELD_DOWN, RETRACTING])
@pytest.mark.parametrize(("selected", "after"), [(ROUTE, PENDING), (None, RETRACTING)])
def test_a_change_is_pending_and_a_lost_route_retracting_in_every_state(destination, state, selected, after):
    destination.advertising, destination.selected = state, selected
    assert destination.changed() is after
    assert destination.advertising is after


@pytest.mark.parametrize("state", [ADVERTISED, PENDING, HELD_DOWN, RETRACTING])
@pytest.mark.parametrize("selected", [ROUTE, None])
def test_a_provisional_change_is_held_down_in_every_state(destination, state, selected):
    destination.advertising, destination.selected = state, selected
    destination.held_down()
    assert destination.advertising is HELD_DOWN
    destination.check()


@pytest.mark.parametrize("state", [PENDING, HELD_DOWN, RETRACTING])
def test_an_update_advertises_the_selected_route_and_returns_the_one_before(destination, state):
    destination.advertising, destination.selected = state, ROUTE
    assert destination.advertise() is None
    destination.selected = None
    destination.changed()
    assert destination.advertise() == ROUTE
    assert (destination.advertising, destination.advertised) == (ADVERTISED, None)
    destination.check()


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({"seqno": 6, "since": 9.0, "excess": 7}, True),
        ({"link": 2}, False),
        ({"incarnation": 8}, False),
        ({"metric": 111}, False),
        ({"hops": 3}, False),
    ],
)
def test_neighbours_need_no_update_of_a_seqno_alone(change, known):
    assert is_known(ROUTE, ROUTE._replace(**change)) is known
    assert is_known(None, None)
    assert not is_known(None, ROUTE)
    assert not is_known(ROUTE, None)


# --- starvation ---------------------------------------------------------------------------------------------------


def test_a_starved_destination_waits_until_a_request_is_sent(destination):
    assert destination.starve(1)
    assert (destination.starvation, destination.is_starved) == (WAITING, True)
    assert destination.requested(1) == 1
    assert destination.starvation is REQUESTED
    assert not destination.starve(1)
    assert destination.requested(1) == 2
    destination.check()


def test_a_request_waits_again_when_another_link_is_the_cheapest(destination):
    destination.starve(1)
    destination.requested(1)
    assert destination.starve(2)
    assert (destination.starvation, destination.tries, destination.rounds) == (WAITING, 0, 1)


def test_rounds_count_those_in_which_a_request_was_sent_until_there_is_a_newer_seqno(destination):
    destination.starve(1)
    destination.restart(newer=False)
    assert destination.rounds == 1
    destination.requested(1)
    destination.restart(newer=False)
    assert (destination.starvation, destination.rounds) == (WAITING, 2)
    destination.restart(newer=True)
    assert destination.rounds == 1


def test_a_satisfied_destination_begins_with_the_first_round_when_it_is_starved_again(destination):
    destination.starve(1)
    destination.requested(1)
    destination.restart(newer=False)
    destination.satisfied()
    assert destination.starvation is NOT_STARVED
    destination.check()
    assert destination.starve(1)
    assert destination.rounds == 1


# --- the distance -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distance", "after", "newer"),
    [(None, (5, 110), False), ((5, 100), (5, 100), False), ((5, 120), (5, 110), False), ((4, 1), (5, 110), True)],
)
def test_the_distance_follows_a_smaller_metric_or_a_newer_seqno(destination, distance, after, newer):
    destination.distance = distance
    assert destination.shrink_distance(ROUTE) is newer
    assert destination.distance == after


# --- check --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"selected": ROUTE}, "not to be advertised"),
        ({"advertised": ROUTE}, "not to be advertised"),
        ({"advertised": ROUTE, "selected": ROUTE, "advertising": RETRACTING}, "wrong kind"),
        ({"advertised": ROUTE, "advertising": PENDING}, "wrong kind"),
        ({"starvation": REQUESTED}, "not counted"),
        ({"starvation": WAITING, "tries": 1}, "not counted"),
    ],
)
def test_check_finds_a_state_that_contradicts_the_routes(destination, fields, text):
    destination.check()
    for name, value in fields.items():
        setattr(destination, name, value)
    with pytest.raises(AssertionError, match=text):
        destination.check()
