import pytest

from zmesh.core.routing.serials import HIGHEST, MAX_LEAD_MS, ceiling
from zmesh.core.wire import U63

YEAR = 366 * 86400


@pytest.mark.parametrize("epoch", [0.0, 1.8e9, -5.0, 1e300])
def test_a_node_can_use_a_higher_number_than_the_highest_that_is_accepted(epoch):
    assert ceiling(epoch, 0.0) < U63
    assert ceiling(epoch, 0.001) >= ceiling(epoch, 0.0)


def test_the_ceiling_follows_the_clock_and_leaves_room_above_what_was_accepted():
    assert ceiling(0.0, 0.0) == MAX_LEAD_MS
    assert ceiling(1000.0, 2.0) == 1_002_000 + MAX_LEAD_MS
    assert ceiling(1e300, 0.0) == HIGHEST


def test_clocks_that_differ_by_centuries_still_accept_each_other():
    for here in (0, 60 * YEAR):
        for there in (0, 60 * YEAR, 400 * YEAR):
            assert 1000 * there <= ceiling(here, 0.0)


def test_a_clock_that_is_not_a_number_of_use_does_no_harm():
    assert ceiling(-1e300, 0.0) == MAX_LEAD_MS
