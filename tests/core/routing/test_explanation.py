"""Why a node uses the route that it uses, or has none."""

import pytest

from tests.core.routing.test_routing import Links, update
from zmesh.core.routing import Loss, Offer, OfferState, Routing
from zmesh.core.routing.destinations import Advertising, Starvation
from zmesh.core.timers import Alarm
from zmesh.core.wire import INFINITY, Record


class Three(Links):
    """Links 1 to 4, to `b`, `c`, `d` and `b` once more."""

    def neighbour(self, id):
        return {1: "b", 2: "c", 3: "d", 4: "b"}.get(id)


@pytest.fixture
def routing():
    routing = Routing("a", 7, 100, Three(), lambda report: None, Alarm(), now=0.0, epoch=1000.0)
    for link, node in ((1, "b"), (2, "c"), (3, "d")):
        routing.link_up(link, node, 100, 0.0)
    return routing


def test_of_several_offers_the_cheapest_feasible_one_is_selected_and_the_next_one_follows(routing):
    update(routing, 1, ("z", 9, 5, 10, 1, 0), now=1.0)
    update(routing, 2, ("z", 9, 5, 50, 2, 0), now=1.0)
    found = routing.explain("z")
    best = Offer(1, "b", OfferState.SELECTED, 5, 10, 10, 100, 110, 2)
    other = Offer(2, "c", OfferState.FEASIBLE, 5, 50, 50, 100, 150, 3)
    assert found.offers == (best, other)
    assert (found.following, found.silent, found.distance) == (other, ("d",), (5, 110))
    assert (found.selected, found.refused, found.loss) == (routing.route("z"), False, None)
    assert (found.starvation, found.advertising) == (Starvation.NONE, Advertising.PENDING)


def test_a_route_past_the_feasibility_distance_is_unfeasible_and_does_not_follow(routing):
    update(routing, 1, ("z", 9, 5, 10, 1, 0), now=1.0)
    update(routing, 2, ("z", 9, 5, 200, 3, 0), now=1.0)  # the neighbour's distance, 200, is above 110
    update(routing, 3, ("z", 9, 5, 200, 3, 150), now=1.0)  # that of this one is 50: its metric has grown since
    found = routing.explain("z")
    assert [(offer.neighbour, offer.state, offer.distance) for offer in found.offers] == [
        ("b", OfferState.SELECTED, 10),
        ("d", OfferState.FEASIBLE, 50),
        ("c", OfferState.UNFEASIBLE, 200),
    ]
    assert found.following == found.offers[1]
    update(routing, 3, ("z", 0, 0, INFINITY, 0, 0), now=2.0)
    assert routing.explain("z").following is None
    update(routing, 1, ("z", 0, 0, INFINITY, 0, 0), now=2.0)
    found = routing.explain("z")
    assert (found.selected, found.starvation) == (None, Starvation.WAITING)
    assert [offer.state for offer in found.offers] == [OfferState.UNFEASIBLE]
    assert found.silent == ("b", "d")


def test_an_offer_over_a_link_without_a_cost_is_unusable(routing):
    routing.link_up(4, "b", INFINITY, 0.0)
    update(routing, 4, ("z", 9, 5, 10, 1, 0), now=1.0)
    found = routing.explain("z")
    assert [(offer.link, offer.state, offer.metric) for offer in found.offers] == [(4, OfferState.UNUSABLE, INFINITY)]
    assert (found.selected, found.following, found.silent) == (None, None, ("b", "c", "d"))


def test_a_lost_route_is_explained_by_what_it_was_and_who_heard_the_node_last(routing):
    update(routing, 1, ("y", 9, 5, 0, 0, 0), ("z", 9, 5, 10, 1, 0), now=1.0)
    record = Record("z", 9, 1, (), (("c", 100),), b"")
    routing.on_records(1, [(record, b"z")], 1.0)
    update(routing, 2, ("c", 3, 1, 0, 0, 0), now=2.0)
    update(routing, 1, ("z", 0, 0, INFINITY, 0, 0), now=3.0)
    assert routing.explain("z").loss == Loss(3.0, "b", 110, 2, "c")
    routing.link_down(1, 4.0)
    routing.select(4.0)
    assert routing.explain("y").loss == Loss(4.0, "b", 100, 1, "a")
    assert routing.losses() == {"z": Loss(3.0, "b", 110, 2, "c"), "y": Loss(4.0, "b", 100, 1, "a")}


def test_of_a_node_that_was_never_known_there_is_nothing_to_say(routing):
    found = routing.explain("nobody")
    assert (found.selected, found.distance, found.offers, found.loss) == (None, None, (), None)
    assert found.silent == ("b", "c", "d")
    assert (found.starvation, found.advertising) == (Starvation.NONE, Advertising.ADVERTISED)


def test_a_link_that_was_never_up_is_down_without_a_trace(routing):
    routing.link_down(9, 1.0)
    assert routing.explain("z").silent == ("b", "c", "d")
