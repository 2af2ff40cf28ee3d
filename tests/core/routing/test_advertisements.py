"""The advertisements of a node, as `Routes` has them sent."""

import pytest

from tests.core.routing.route_rows import advertised, asked, entry, hear, request, retraction
from zmesh.core.routing.advertisements import COALESCE, HOLD_DOWN
from zmesh.core.routing.routes import Routes
from zmesh.core.timers import Alarm
from zmesh.core.wire import FULL_BEGIN, FULL_END, MAX_ENTRIES, Entry

# --- advertising --------------------------------------------------------------------------------------------------

ALL = FULL_BEGIN | FULL_END
OWN = Entry("a", 1, 100, 0, 0)


def test_a_new_neighbour_gets_a_full_update_at_once(routes):
    hear(routes, 1, entry("y"), entry("z"))
    routes.flush(1.0)
    routes.link_up(4, 100, 2.0)
    assert (routes.next_deadline(), routes.advertiser.urgent) == (2.0, True)
    assert advertised(routes, 2.0) == [([4], ALL, [OWN, Entry("y", 9, 5, 110, 2), Entry("z", 9, 5, 110, 2)])]


def test_a_change_is_advertised_at_once_and_later_ones_are_coalesced(routes, alarm):
    hear(routes, 1, entry("x"), now=5.0)
    assert alarm.soonest <= routes.next_deadline() == 5.0
    assert advertised(routes, 5.0) == [([2, 3], 0, [Entry("x", 9, 5, 110, 2)])]
    hear(routes, 1, entry("y"), now=5.001)
    hear(routes, 1, entry("z"), now=5.004)
    assert alarm.soonest <= routes.next_deadline() == 5.0 + COALESCE
    assert advertised(routes, 5.004) == []
    news = [Entry("y", 9, 5, 110, 2), Entry("z", 9, 5, 110, 2)]
    assert advertised(routes, 5.0 + COALESCE) == [([2, 3], 0, news)]
    assert advertised(routes, 6.0) == []


def test_a_hub_with_many_links_coalesces_for_longer(routes):
    for link in range(4, 501):
        routes.link_up(link, 100, 1.0)
    hear(routes, 1, entry("x"), now=5.0)
    routes.flush(5.0)
    hear(routes, 1, entry("y"), now=5.001)
    assert routes.next_deadline() == pytest.approx(5.1)
    assert advertised(routes, 5.09) == []
    assert len(advertised(routes, 5.1)) == 1


def test_split_horizon_advertises_nothing_to_the_next_hop(routes):
    hear(routes, 1, entry("y"), entry("z"))
    hear(routes, 2, entry("x"))
    x, y, z = (Entry(name, 9, 5, 110, 2) for name in "xyz")
    assert advertised(routes, 1.0) == [([3], 0, [x, y, z]), ([1], 0, [x]), ([2], 0, [y, z])]
    routes.resend(1, 2.0)
    assert advertised(routes, 2.0) == [([1], ALL, [OWN, x])]


def test_a_new_next_hop_gets_a_retraction_and_the_former_one_the_route(routes):
    hear(routes, 1, entry(metric=50))
    routes.flush(1.0)
    hear(routes, 2, entry(metric=20), now=2.0)
    row = Entry("z", 9, 5, 120, 2)
    assert advertised(routes, 2.0) == [([1, 3], 0, [row]), ([2], 0, [retraction()])]


def test_a_change_of_the_next_hop_alone_is_advertised_to_the_new_and_the_former_one(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=40, seqno=4))
    routes.flush(1.0)
    hear(routes, 2, entry(metric=40), now=2.0)
    hear(routes, 2, entry(metric=50), now=2.001)
    assert (routes.get("z").link, routes.get("z").metric) == (2, 150)
    assert advertised(routes, 2.001) == [([2], 0, [retraction()]), ([1], 0, [Entry("z", 9, 5, 150, 2, 10)])]


def test_a_route_lost_with_its_link_is_retracted_after_the_hold_down(routes):
    hear(routes, 1, entry("y"), entry("z", metric=50))
    hear(routes, 2, entry("z", metric=500))
    routes.flush(1.0)
    routes.link_down(1)
    routes.select(5.0)
    routes.check()
    assert asked(routes, 5.0) == [(2, request())]
    assert advertised(routes, 5.0) == [([2, 3], 0, [retraction("y")])]  # no other neighbour offers a route
    assert routes.next_deadline() == 5.0 + HOLD_DOWN
    assert advertised(routes, 5.0 + HOLD_DOWN) == [([2, 3], 0, [retraction()])]


def test_a_neighbour_lost_with_its_link_is_retracted_at_once_though_others_offer_a_route(routes):
    """One of the two neighbours of a corner waited for an answer, and all beyond tried the paths over it meanwhile."""
    hear(routes, 1, entry(metric=0, hops=0))
    hear(routes, 2, entry(metric=500))
    routes.flush(1.0)
    routes.link_down(1)
    routes.select(5.0)
    assert asked(routes, 5.0) == [(2, request(5, 100))]
    assert advertised(routes, 5.0) == [([2, 3], 0, [retraction()])]


def lost_with_its_link(routes):
    """Node `z` was reached over link 1, which is down; link 2 leads there too, and is asked for a smaller distance."""
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=500))
    routes.flush(1.0)
    routes.link_down(1)
    routes.select(5.0)
    assert advertised(routes, 5.0) == []


def test_an_alternate_that_an_answer_makes_feasible_is_held_down_and_the_route_never_retracted(routes):
    lost_with_its_link(routes)
    hear(routes, 2, entry(metric=500, excess=380), now=5.03)
    assert advertised(routes, 5.0 + HOLD_DOWN) == []
    hear(routes, 2, entry(metric=510, excess=390), now=5.06)
    assert advertised(routes, 5.03 + HOLD_DOWN) == [([3], 0, [Entry("z", 9, 5, 610, 2, 460)]), ([2], 0, [retraction()])]
    assert advertised(routes, 9.0) == []


def test_an_alternate_that_an_answer_makes_feasible_and_that_is_retracted_was_never_advertised(routes):
    """When a node dies, all its neighbours have a route over one another."""
    lost_with_its_link(routes)
    hear(routes, 2, entry(metric=500, excess=380), now=5.03)
    hear(routes, 2, retraction(), now=5.05)
    assert advertised(routes, 5.05) == [([2, 3], 0, [retraction()])]
    assert advertised(routes, 9.0) == []


def test_a_route_that_returns_with_a_newer_seqno_is_advertised_at_once_and_never_retracted(routes):
    lost_with_its_link(routes)
    hear(routes, 2, entry(metric=500, seqno=6), now=5.03)
    assert advertised(routes, 5.03) == [([3], 0, [Entry("z", 9, 6, 600, 2)]), ([2], 0, [retraction()])]
    assert advertised(routes, 9.0) == []


def test_a_retraction_overtakes_changes_that_are_coalesced(routes):
    hear(routes, 1, entry("y"), entry("z"))
    assert advertised(routes, 5.0) == [([2, 3], 0, [Entry("y", 9, 5, 110, 2), Entry("z", 9, 5, 110, 2)])]
    hear(routes, 1, entry("x"), entry("y", metric=20), entry("z", metric=20), now=5.001)
    hear(routes, 1, retraction("z"), now=5.002)
    assert (routes.next_deadline(), routes.advertiser.urgent) == (5.002, True)
    assert advertised(routes, 5.002) == [([2, 3], 0, [retraction("z")])]
    assert advertised(routes, 5.0 + COALESCE) == [([2, 3], 0, [Entry("x", 9, 5, 110, 2), Entry("y", 9, 5, 120, 2, 10)])]


def detoured(routes):
    """Node `z` was reached over link 1, which took that back, and is reached over link 2, for more."""
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=60))
    routes.flush(1.0)
    hear(routes, 1, retraction(), now=5.0)
    assert (routes.get("z").link, routes.get("z").metric) == (2, 160)
    assert advertised(routes, 5.0 + COALESCE) == []


def test_an_alternate_to_a_retracted_route_is_held_down(routes):
    detoured(routes)
    assert routes.next_deadline() == 5.0 + HOLD_DOWN
    assert advertised(routes, 5.0 + HOLD_DOWN) == [
        ([1, 3], 0, [Entry("z", 9, 5, 160, 2, 10)]),
        ([2], 0, [retraction()]),
    ]


def test_an_alternate_that_is_retracted_too_was_never_advertised_and_the_retraction_goes_at_once(routes):
    detoured(routes)
    hear(routes, 2, retraction(), now=5.05)
    assert advertised(routes, 5.05) == [([2, 3], 0, [retraction()])]
    assert advertised(routes, 9.0) == []


def test_an_alternate_that_grows_is_held_down_no_longer_and_one_that_shrinks_is_pending(routes):
    detoured(routes)
    hear(routes, 2, entry(metric=65), now=5.05)
    assert routes.next_deadline() == 5.0 + HOLD_DOWN
    hear(routes, 2, entry(metric=62), now=5.06)
    assert advertised(routes, 5.06) == [([1, 3], 0, [Entry("z", 9, 5, 162, 2, 12)]), ([2], 0, [retraction()])]


def test_a_full_update_during_hold_down_has_what_the_other_neighbours_know(routes):
    detoured(routes)
    routes.resend(2, 5.01)
    routes.resend(3, 5.01)
    row = Entry("z", 9, 5, 150, 2)
    assert advertised(routes, 5.01) == [([2], ALL, [OWN, row]), ([3], ALL, [OWN, row])]
    hear(routes, 1, entry(metric=50), now=5.02)  # all is as it was
    assert advertised(routes, 9.0) == []


def test_a_route_that_is_held_down_and_was_never_advertised_is_in_no_full_update(routes):
    routes.flush(0.0)
    hear(routes, 1, entry("y"), now=5.0)
    routes.flush(5.0)
    hear(routes, 1, entry(metric=50), now=5.001)
    hear(routes, 2, entry(metric=60), now=5.001)
    hear(routes, 1, retraction(), now=5.002)
    routes.resend(3, 5.003)
    assert advertised(routes, 5.003) == [([3], ALL, [OWN, Entry("y", 9, 5, 110, 2)])]
    hear(routes, 2, retraction(), now=5.004)
    assert advertised(routes, 9.0) == []


def test_an_answer_ends_the_hold_down_of_an_alternate(routes):
    detoured(routes)
    routes.request(3, request(4, 0), 5.01)
    row = Entry("z", 9, 5, 160, 2, 10)
    assert advertised(routes, 5.01) == [([1, 3], 0, [row]), ([2], 0, [retraction()]), ([3], 0, [row])]
    assert advertised(routes, 9.0) == []


def test_an_alternate_that_answers_a_request_is_advertised_to_all(routes):
    hear(routes, 1, entry(metric=50))
    routes.flush(1.0)
    routes.request(3, request(5, 0), 4.0)
    hear(routes, 2, entry(metric=60, seqno=6), now=4.5)
    hear(routes, 1, retraction(), now=5.0)
    row = Entry("z", 9, 6, 160, 2)
    assert advertised(routes, 5.0) == [([1, 3], 0, [row]), ([2], 0, [retraction()]), ([3], 0, [row])]
    assert advertised(routes, 9.0) == []


def test_an_alternate_of_the_same_metric_is_advertised_at_once(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=50))
    routes.flush(1.0)
    hear(routes, 1, retraction(), now=5.0)
    assert advertised(routes, 5.0) == [([2], 0, [retraction()]), ([1], 0, [Entry("z", 9, 5, 150, 2)])]


def test_many_changes_go_in_several_updates_that_all_count(routes):
    hear(routes, 1, *(entry(f"n{number}") for number in range(MAX_ENTRIES + 1)))
    assert [(advertisement.links, len(advertisement.entries)) for advertisement in routes.flush(1.0)] == [
        ([2, 3], MAX_ENTRIES), ([2, 3], 1)
    ]  # fmt: skip
    assert [routes.sent(link) for link in (1, 2, 3)] == [1, 3, 3]


def test_a_newer_seqno_alone_is_not_advertised(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    assert hear(routes, 1, entry(seqno=6), now=2.0) == []
    assert routes.get("z").seqno == 6
    assert advertised(routes, 3.0) == []
    routes.resend(2, 4.0)
    assert advertised(routes, 4.0) == [([2], ALL, [OWN, Entry("z", 9, 6, 110, 2)])]


def test_a_change_that_is_reverted_before_the_update_is_not_advertised(routes):
    hear(routes, 1, entry(metric=50))
    routes.flush(1.0)
    hear(routes, 1, entry(metric=60), now=2.0)
    hear(routes, 1, entry(metric=50), now=2.001)
    assert advertised(routes, 3.0) == []


def test_a_route_that_is_found_and_lost_before_the_update_is_not_advertised(routes):
    hear(routes, 1, entry(), now=2.0)
    hear(routes, 1, retraction(), now=2.001)
    assert advertised(routes, 3.0) == []


def test_a_lost_route_is_retracted(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    hear(routes, 1, retraction(), now=2.0)
    assert advertised(routes, 3.0) == [([2, 3], 0, [retraction()])]


def test_a_neighbour_that_sends_resend_gets_a_full_update(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    routes.resend(2, 2.0)
    assert advertised(routes, 2.0) == [([2], ALL, [OWN, Entry("z", 9, 5, 110, 2)])]


def test_changes_go_to_the_others_while_one_gets_a_full_update(routes):
    hear(routes, 1, entry())
    routes.resend(2, 0.5)
    row = Entry("z", 9, 5, 110, 2)
    assert advertised(routes, 0.5) == [([3], 0, [row]), ([2], ALL, [OWN, row])]


def test_a_node_without_neighbours_advertises_nothing():
    routes = Routes("a", 1, 100, Alarm())
    routes.link_up(1, 100, 0.0)
    hear(routes, 1, entry())
    routes.link_down(1)
    routes.select(1.0)
    assert routes.flush(9.0) == []


def test_updates_sent_and_updates_received_are_counted_alike(routes):
    other = Routes("b", 2, 1, Alarm())
    other.link_up(7, 100, 0.0)
    routes.resend(1, 0.0)
    for now, change in [(0.0, entry("y")), (1.0, entry("z")), (2.0, entry("y", metric=30)), (3.0, retraction("z"))]:
        hear(routes, 2, change, now=now)
        for advertisement in routes.flush(now + COALESCE):
            if 1 in advertisement.links:
                hear(other, 7, *advertisement.entries, full=advertisement.full, number=advertisement.number)
        assert routes.sent(1) == other.received(7) != 0
    hear(routes, 2, entry("y", metric=20), now=4.0)
    routes.flush(5.0)  # and this is lost
    assert routes.sent(1) != other.received(7)


# --- full updates -------------------------------------------------------------------------------------------------


def test_a_full_update_replaces_all_rows_before_it(routes):
    hear(routes, 1, entry("x"), entry("y"), entry("z"))
    hear(routes, 1, entry("y"), full=FULL_BEGIN, number=8)
    assert set(routes.table()) == {"x", "y", "z"}
    hear(routes, 1, entry("w"), full=FULL_END, number=9)
    assert set(routes.table()) == {"w", "y"}
    assert routes.received(1) == 9


def test_a_full_update_may_come_in_one_part_and_be_empty(routes):
    hear(routes, 1, entry("x"))
    hear(routes, 1, full=ALL)
    assert routes.table() == {}


def test_the_end_of_a_full_update_whose_beginning_was_lost_retracts_nothing(routes):
    hear(routes, 1, entry("x"))
    hear(routes, 1, entry("y"), full=FULL_END)
    assert set(routes.table()) == {"x", "y"}


def test_a_large_full_update_is_sent_in_parts(routes):
    hear(routes, 1, *(entry(f"n{number}") for number in range(2 * MAX_ENTRIES)))
    routes.flush(1.0)
    routes.resend(2, 2.0)
    parts = routes.flush(2.0)
    assert [(advertisement.full, len(advertisement.entries)) for advertisement in parts] == [
        (FULL_BEGIN, MAX_ENTRIES), (0, MAX_ENTRIES), (FULL_END, 1)
    ]  # fmt: skip
    assert [advertisement.number for advertisement in parts] == [4, 5, 6]


def test_check_finds_a_change_that_no_update_will_advertise(routes):
    hear(routes, 1, entry())
    routes.advertiser._pending.clear()
    with pytest.raises(AssertionError, match="no UPDATE will advertise"):
        routes.check()


def test_check_finds_a_change_that_no_timer_will_advertise(routes):
    lost_with_its_link(routes)
    routes.advertiser._timers.cancel(routes._table["z"])
    with pytest.raises(AssertionError, match="no timer will advertise"):
        routes.check()


def test_check_finds_pending_changes_for_which_no_update_is_due(routes):
    hear(routes, 1, entry())
    routes.advertiser._flush_at = None
    with pytest.raises(AssertionError, match="no UPDATE is due"):
        routes.check()
