import pytest

from tests.core.routing.route_rows import advertised, entry, hear, retraction
from zmesh.core.routing.destinations import Destination
from zmesh.core.routing.routes import KEEP_DISTANCE
from zmesh.core.routing.selected_route import RouteChange, SelectedRoute
from zmesh.core.wire import FULL_BEGIN, FULL_END, INFINITY, MAX_HOPS

# --- choosing -----------------------------------------------------------------------------------------------------


def test_other_routes_are_listed_the_cheapest_first_and_whether_they_are_feasible(routes):
    hear(routes, 1, entry(metric=10))
    hear(routes, 2, entry(metric=150))
    hear(routes, 3, entry(metric=40))
    assert routes.others("z") == [(3, 140, True), (2, 250, False)]
    hear(routes, 1, retraction(), retraction("y"))
    assert routes.others("y") == []


def test_a_route_is_taken_up_with_the_cost_of_the_link_added(routes):
    selected = SelectedRoute(1, incarnation=9, seqno=5, metric=110, hops=2, since=3.0)
    assert hear(routes, 1, entry(), now=3.0) == [RouteChange("z", None, selected)]
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


def test_an_update_that_is_repeated_changes_nothing(routes):
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


def test_rows_that_a_full_update_leaves_out_are_retracted_in_the_order_in_which_they_came(routes):
    names = [f"z{number}" for number in range(12)]
    hear(routes, 1, *(entry(name) for name in names))
    changes = hear(routes, 1, full=FULL_BEGIN | FULL_END)
    assert [change.destination for change in reversed(changes)] == names


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
    ("metric", "excess", "seqno", "feasible"),
    [
        (149, 0, 5, True), (150, 0, 5, False), (1, 0, 4, False), (999, 0, 6, True),
        (999, 850, 5, True), (999, 849, 5, False), (999, 850, 4, False),
    ],
)  # fmt: skip
def test_a_route_is_feasible_if_the_distance_of_the_neighbour_is_newer_or_strictly_smaller(
    routes, metric, excess, seqno, feasible
):
    hear(routes, 1, entry(metric=50))
    hear(routes, 1, retraction())
    assert routes.distance("z") == (5, 150)
    assert bool(hear(routes, 2, entry(metric=metric, seqno=seqno, excess=excess))) is feasible
    routes.link_up(4, 100, 1.0)
    hear(routes, 4, entry(metric=5, seqno=7), now=1.0)
    assert routes.others("z") == [(2, metric + 100, False)]


def test_the_excess_above_the_feasibility_distance_is_advertised(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 1, entry(metric=170, excess=120))
    assert (routes.get("z").excess, routes.distance("z")) == (120, (5, 150))
    hear(routes, 1, entry(metric=150, excess=100))
    assert (routes.get("z").excess, routes.distance("z")) == (100, (5, 150))
    assert advertised(routes, 1.0) == [([2, 3], 0, [entry(metric=250, hops=2, excess=100)])]
    hear(routes, 1, entry(metric=150, seqno=6))
    assert (routes.get("z").excess, routes.distance("z")) == (0, (6, 250))


def test_a_dearer_neighbour_is_taken_up_if_its_distance_is_still_below(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=900, excess=800))
    hear(routes, 1, retraction())
    assert (routes.get("z").link, routes.get("z").metric, routes.distance("z")) == (2, 1000, (5, 150))


def test_a_next_hop_keeps_its_place_when_its_metric_grows(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 1, entry(metric=5000, excess=4950))
    assert routes.get("z").metric == 5100
    assert routes.distance("z") == (5, 150)


def test_the_feasibility_distance_shrinks_with_the_metric_and_starts_over_with_the_sequence_number(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 1, entry(metric=20))
    assert routes.distance("z") == (5, 120)
    hear(routes, 1, entry(metric=70, seqno=6))
    assert routes.distance("z") == (6, 170)


def test_a_route_through_the_node_itself_is_never_feasible(routes):
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


def test_rows_of_a_link_that_costs_infinity_count_once_it_costs_less(routes):
    routes.set_cost(1, INFINITY)
    hear(routes, 2, entry(metric=500))
    assert hear(routes, 1, entry(), entry("y")) == []
    assert (set(routes.table()), routes.others("z")) == ({"z"}, [])
    routes.set_cost(1, 100)
    changes = {change.destination: change.after for change in routes.select(1.0)}
    assert {to: (after.link, after.metric) for to, after in changes.items()} == {"y": (1, 110), "z": (1, 110)}
    assert routes.others("z") == [(2, 600, False)]
    routes.check()


def test_an_update_on_an_unknown_link_is_ignored(routes):
    assert hear(routes, 99, entry()) == []
    assert (routes.sent(99), routes.received(99)) == (0, 0)
    routes.resend(99, 0.0)
    assert routes.next_deadline() is None


# --- forgetting ---------------------------------------------------------------------------------------------------


def test_a_feasibility_distance_is_kept_for_a_time_after_the_route_is_lost(routes):
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


# --- check --------------------------------------------------------------------------------------------------------


def test_check_finds_a_dirty_destination(routes):
    routes.update(1, 0, 1, [tuple(entry())])
    with pytest.raises(AssertionError, match="dirty after an event"):
        routes.check()


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (SelectedRoute(1, 9, 5, 111, 2, 0.0), "not what the neighbour has advertised"),
        (SelectedRoute(1, 9, 6, 110, 2, 0.0), "not what the neighbour has advertised"),
        (SelectedRoute(2, 9, 5, 110, 2, 0.0), "that no neighbour has advertised"),
        (SelectedRoute(99, 9, 5, 110, 2, 0.0), "that no neighbour has advertised"),
    ],
)
def test_check_finds_a_route_that_no_neighbour_has_advertised(routes, broken, text):
    hear(routes, 1, entry())
    routes._table["z"].selected = broken
    with pytest.raises(AssertionError, match=text):
        routes.check()


@pytest.mark.parametrize("distance", [(5, 111), (6, 50)])
def test_check_finds_a_route_past_its_feasibility_distance(routes, distance):
    hear(routes, 1, entry())
    routes._table["z"].distance = distance
    with pytest.raises(AssertionError, match="past its feasibility distance"):
        routes.check()


def test_check_finds_a_distance_without_a_timeout(routes):
    destination = routes._table["y"] = Destination("y")
    destination.distance = (1, 1)
    with pytest.raises(AssertionError, match="without a timeout"):
        routes.check()


def test_check_finds_a_destination_without_a_distance(routes):
    hear(routes, 1, entry())
    routes._table["z"].distance = None
    with pytest.raises(AssertionError, match="in the wrong table"):
        routes.check()


def test_check_finds_a_better_route_that_is_not_requested(routes):
    hear(routes, 1, entry(metric=50))
    routes._neighbours[2].rows["z"] = tuple(entry(metric=1))
    with pytest.raises(AssertionError, match="without a request"):
        routes.check()
