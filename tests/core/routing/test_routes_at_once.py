"""How many routes one stimulus selects: a frame, or a change of a link's cost, may make any number of them dirty."""

import pytest

from tests.core.routing.route_rows import entry, hear, request, retraction, select_all
from zmesh.core.routing.routes import SELECTED_AT_ONCE, Routes
from zmesh.core.wire import INFINITY

COUNT = 2 * SELECTED_AT_ONCE + 5


@pytest.fixture
def routes(alarm):
    """The routes of node `a`, with links 1 and 2 to neighbours."""
    routes = Routes("a", 1, 100, alarm)
    for link in (1, 2):
        routes.link_up(link, 100, 0.0, f"neighbour-{link}")
    routes.flush(0.0)
    return routes


def rows(count=COUNT, **options):
    return [tuple(entry(f"n-{number}", **options)) for number in range(count)]


def select(routes, now):
    """What one stimulus selects."""
    changes = routes.select(now)
    routes.check()
    return [change.destination for change in changes]


def test_a_frame_has_so_many_routes_selected_at_once_and_the_others_follow_in_order(routes, alarm):
    routes.update(1, 0, 1, rows())
    names = [row[0] for row in rows()]
    assert sorted(select(routes, 1.0)) == sorted(names[:SELECTED_AT_ONCE])
    assert (routes.next_deadline(), alarm.soonest) == (1.0, 1.0)
    routes.update(2, 0, 1, [tuple(entry("late"))])
    assert sorted(select(routes, 1.1)) == sorted(names[SELECTED_AT_ONCE : 2 * SELECTED_AT_ONCE])
    assert sorted(select(routes, 1.2)) == sorted([*names[2 * SELECTED_AT_ONCE :], "late"])
    routes.flush(1.2)
    assert routes.next_deadline() is None


def test_a_link_whose_cost_moves_has_so_many_routes_selected_at_once(routes):
    hear(routes, 1, *rows())
    hear(routes, 2, *rows(metric=5000))
    routes.set_cost(1, INFINITY)
    assert len(select(routes, 2.0)) == SELECTED_AT_ONCE
    assert len(select_all(routes, 2.0)) == COUNT - SELECTED_AT_ONCE
    assert {selected.link for selected in routes.table().values()} <= {2}


def test_all_routes_over_a_link_that_is_down_are_selected_at_once_and_others_wait(routes):
    """Packets would be sent on a link that is gone."""
    hear(routes, 1, *rows())
    routes.update(2, 0, 1, [tuple(entry(f"other-{number}")) for number in range(COUNT)])
    routes.link_down(1)
    lost = {row[0] for row in rows()}
    selected = select(routes, 3.0)
    assert lost <= set(selected)
    assert len(selected) == COUNT + SELECTED_AT_ONCE
    assert routes.dirty


def test_a_route_whose_retraction_waits_is_gone_with_its_link(routes):
    hear(routes, 1, *rows())
    routes.update(1, 0, 1, [tuple(retraction(row[0])) for row in rows()])
    select(routes, 3.0)
    routes.link_down(1)
    select(routes, 3.0)
    assert routes.table() == {}


def test_a_better_route_whose_selection_waits_is_forgotten_with_its_link(routes):
    hear(routes, 1, *rows(metric=5000))
    routes.update(2, 0, 1, rows(metric=50))
    select(routes, 3.0)
    routes.link_down(2)
    select_all(routes, 3.0)
    assert {selected.link for selected in routes.table().values()} == {1}


def test_a_seqno_request_for_a_route_whose_retraction_waits_is_not_answered_with_it(routes):
    hear(routes, 1, *rows(seqno=5))
    routes.flush(2.0)
    routes.update(1, 0, 1, [tuple(retraction(row[0])) for row in rows()])
    select(routes, 3.0)
    (name, *_) = routes.dirty
    routes.request(2, request(5, 1, name), 3.0)
    select_all(routes, 3.0)
    assert routes.get(name) is None


def test_check_finds_dirty_destinations_that_no_stimulus_would_select(routes):
    routes.update(1, 0, 1, rows())
    with pytest.raises(AssertionError, match="dirty"):
        routes.check()


def test_a_request_that_is_due_while_the_only_offer_is_retracted_waits_for_the_selection(routes):
    hear(routes, 1, *rows(metric=100))
    routes.flush(1.0)
    routes.update(2, 0, 1, rows(metric=5000))
    routes.update(1, 0, 1, [tuple(retraction(row[0])) for row in rows()])
    select_all(routes, 2.0)
    routes.update(2, 0, 1, [tuple(retraction(row[0])) for row in rows()])
    select(routes, 3.0)
    requested = [request.destination for requests in routes.requests(3.0).values() for request in requests]
    assert routes.dirty
    assert not set(requested) & set(routes.dirty)
    select_all(routes, 3.0)
    assert routes.requests(60.0) == {}
