"""What a node tells its neighbours of its routes, as `Routes` has it told."""

import pytest

from tests.core.routing.route_rows import asked, entry, hear, request, retraction, told
from zmesh.core.routing.advertisements import COALESCE, HOLD_DOWN
from zmesh.core.routing.routes import Routes
from zmesh.core.timers import Alarm
from zmesh.core.wire import FULL_BEGIN, FULL_END, MAX_ENTRIES, Entry

# --- telling ------------------------------------------------------------------------------------------------------

ALL = FULL_BEGIN | FULL_END
OWN = Entry("a", 1, 100, 0, 0)


def test_a_new_neighbour_is_told_the_whole_table_at_once(routes):
    hear(routes, 1, entry("y"), entry("z"))
    routes.flush(1.0)
    routes.link_up(4, 100, 2.0)
    assert (routes.next_deadline(), routes.advertiser.urgent) == (2.0, True)
    assert told(routes, 2.0) == [([4], ALL, [OWN, Entry("y", 9, 5, 110, 2), Entry("z", 9, 5, 110, 2)])]


def test_a_change_is_told_at_once_and_what_changes_soon_after_is_told_together(routes, alarm):
    hear(routes, 1, entry("x"), now=5.0)
    assert alarm.soonest <= routes.next_deadline() == 5.0
    assert told(routes, 5.0) == [([2, 3], 0, [Entry("x", 9, 5, 110, 2)])]
    hear(routes, 1, entry("y"), now=5.001)
    hear(routes, 1, entry("z"), now=5.004)
    assert alarm.soonest <= routes.next_deadline() == 5.0 + COALESCE
    assert told(routes, 5.004) == []
    news = [Entry("y", 9, 5, 110, 2), Entry("z", 9, 5, 110, 2)]
    assert told(routes, 5.0 + COALESCE) == [([2, 3], 0, news)]
    assert told(routes, 6.0) == []


def test_a_next_hop_is_told_nothing_of_what_it_leads_to(routes):
    hear(routes, 1, entry("y"), entry("z"))
    hear(routes, 2, entry("x"))
    x, y, z = (Entry(name, 9, 5, 110, 2) for name in "xyz")
    assert told(routes, 1.0) == [([3], 0, [x, y, z]), ([1], 0, [x]), ([2], 0, [y, z])]
    routes.resend(1, 2.0)
    assert told(routes, 2.0) == [([1], ALL, [OWN, x])]


def test_a_new_next_hop_is_told_that_the_way_over_this_node_is_gone_and_the_former_one_what_there_is_now(routes):
    hear(routes, 1, entry(metric=50))
    routes.flush(1.0)
    hear(routes, 2, entry(metric=20), now=2.0)
    row = Entry("z", 9, 5, 120, 2)
    assert told(routes, 2.0) == [([1, 3], 0, [row]), ([2], 0, [retraction()])]


def test_that_the_next_hop_alone_has_changed_is_told_to_the_two_that_it_concerns(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=40, seqno=4))
    routes.flush(1.0)
    hear(routes, 2, entry(metric=40), now=2.0)
    hear(routes, 2, entry(metric=50), now=2.001)
    assert (routes.get("z").link, routes.get("z").metric) == (2, 150)
    assert told(routes, 2.001) == [([2], 0, [retraction()]), ([1], 0, [Entry("z", 9, 5, 150, 2, 10)])]


def test_a_route_that_is_lost_with_its_link_is_taken_back_if_no_answer_comes_in_a_while(routes):
    hear(routes, 1, entry("y"), entry("z", metric=50))
    hear(routes, 2, entry("z", metric=500))
    routes.flush(1.0)
    routes.link_down(1)
    routes.select(5.0)
    routes.check()
    assert asked(routes, 5.0) == [(2, request())]
    assert told(routes, 5.0) == [([2, 3], 0, [retraction("y")])]  # nobody else leads there
    assert routes.next_deadline() == 5.0 + HOLD_DOWN
    assert told(routes, 5.0 + HOLD_DOWN) == [([2, 3], 0, [retraction()])]


def test_that_a_neighbour_is_gone_with_its_link_is_told_at_once_though_others_may_lead_there(routes):
    """One of the two neighbours of a corner waited for an answer, and all beyond tried the ways over it meanwhile."""
    hear(routes, 1, entry(metric=0, hops=0))
    hear(routes, 2, entry(metric=500))
    routes.flush(1.0)
    routes.link_down(1)
    routes.select(5.0)
    assert asked(routes, 5.0) == [(2, request(5, 100))]
    assert told(routes, 5.0) == [([2, 3], 0, [retraction()])]


def lost_with_its_link(routes):
    """Node `z` was reached over link 1, which is down; link 2 leads there too, and is asked for a smaller distance."""
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=500))
    routes.flush(1.0)
    routes.link_down(1)
    routes.select(5.0)
    assert told(routes, 5.0) == []


def test_a_detour_that_an_answer_opens_is_told_after_a_while_and_the_route_was_never_gone_for_the_others(routes):
    lost_with_its_link(routes)
    hear(routes, 2, entry(metric=500, excess=380), now=5.03)
    assert told(routes, 5.0 + HOLD_DOWN) == []
    hear(routes, 2, entry(metric=510, excess=390), now=5.06)
    assert told(routes, 5.03 + HOLD_DOWN) == [([3], 0, [Entry("z", 9, 5, 610, 2, 460)]), ([2], 0, [retraction()])]
    assert told(routes, 9.0) == []


def test_a_detour_that_an_answer_opens_and_that_is_taken_back_was_never_told(routes):
    """When a node dies, all its neighbours know of a way over one another."""
    lost_with_its_link(routes)
    hear(routes, 2, entry(metric=500, excess=380), now=5.03)
    hear(routes, 2, retraction(), now=5.05)
    assert told(routes, 5.05) == [([2, 3], 0, [retraction()])]
    assert told(routes, 9.0) == []


def test_a_route_that_is_back_with_a_newer_number_is_told_at_once_and_was_never_gone_for_the_others(routes):
    lost_with_its_link(routes)
    hear(routes, 2, entry(metric=500, seqno=6), now=5.03)
    assert told(routes, 5.03) == [([3], 0, [Entry("z", 9, 6, 600, 2)]), ([2], 0, [retraction()])]
    assert told(routes, 9.0) == []


def test_that_a_route_is_gone_overtakes_what_waits_for_company(routes):
    hear(routes, 1, entry("y"), entry("z"))
    assert told(routes, 5.0) == [([2, 3], 0, [Entry("y", 9, 5, 110, 2), Entry("z", 9, 5, 110, 2)])]
    hear(routes, 1, entry("x"), entry("y", metric=20), entry("z", metric=20), now=5.001)
    hear(routes, 1, retraction("z"), now=5.002)
    assert (routes.next_deadline(), routes.advertiser.urgent) == (5.002, True)
    assert told(routes, 5.002) == [([2, 3], 0, [retraction("z")])]
    assert told(routes, 5.0 + COALESCE) == [([2, 3], 0, [Entry("x", 9, 5, 110, 2), Entry("y", 9, 5, 120, 2, 10)])]


def detoured(routes):
    """Node `z` was reached over link 1, which took that back, and is reached over link 2, for more."""
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=60))
    routes.flush(1.0)
    hear(routes, 1, retraction(), now=5.0)
    assert (routes.get("z").link, routes.get("z").metric) == (2, 160)
    assert told(routes, 5.0 + COALESCE) == []


def test_a_detour_round_a_route_that_was_taken_back_is_told_after_a_while(routes):
    detoured(routes)
    assert routes.next_deadline() == 5.0 + HOLD_DOWN
    assert told(routes, 5.0 + HOLD_DOWN) == [([1, 3], 0, [Entry("z", 9, 5, 160, 2, 10)]), ([2], 0, [retraction()])]


def test_a_detour_that_is_taken_back_as_well_was_never_told_and_that_it_is_gone_is_told_at_once(routes):
    detoured(routes)
    hear(routes, 2, retraction(), now=5.05)
    assert told(routes, 5.05) == [([2, 3], 0, [retraction()])]
    assert told(routes, 9.0) == []


def test_a_detour_that_grows_does_not_wait_for_longer_and_one_that_shrinks_is_told_with_the_next_news(routes):
    detoured(routes)
    hear(routes, 2, entry(metric=65), now=5.05)
    assert routes.next_deadline() == 5.0 + HOLD_DOWN
    hear(routes, 2, entry(metric=62), now=5.06)
    assert told(routes, 5.06) == [([1, 3], 0, [Entry("z", 9, 5, 162, 2, 12)]), ([2], 0, [retraction()])]


def test_who_asks_for_the_whole_table_meanwhile_is_told_what_the_others_know(routes):
    detoured(routes)
    routes.resend(2, 5.01)
    routes.resend(3, 5.01)
    row = Entry("z", 9, 5, 150, 2)
    assert told(routes, 5.01) == [([2], ALL, [OWN, row]), ([3], ALL, [OWN, row])]
    hear(routes, 1, entry(metric=50), now=5.02)  # all is as it was
    assert told(routes, 9.0) == []


def test_what_was_never_told_and_may_be_undone_is_in_no_table(routes):
    routes.flush(0.0)
    hear(routes, 1, entry("y"), now=5.0)
    routes.flush(5.0)
    hear(routes, 1, entry(metric=50), now=5.001)
    hear(routes, 2, entry(metric=60), now=5.001)
    hear(routes, 1, retraction(), now=5.002)
    routes.resend(3, 5.003)
    assert told(routes, 5.003) == [([3], ALL, [OWN, Entry("y", 9, 5, 110, 2)])]
    hear(routes, 2, retraction(), now=5.004)
    assert told(routes, 9.0) == []


def test_an_answer_ends_the_wait_of_a_detour(routes):
    detoured(routes)
    routes.request(3, request(4, 0), 5.01)
    row = Entry("z", 9, 5, 160, 2, 10)
    assert told(routes, 5.01) == [([1, 3], 0, [row]), ([2], 0, [retraction()]), ([3], 0, [row])]
    assert told(routes, 9.0) == []


def test_a_detour_that_answers_a_question_is_told_to_all(routes):
    hear(routes, 1, entry(metric=50))
    routes.flush(1.0)
    routes.request(3, request(5, 0), 4.0)
    hear(routes, 2, entry(metric=60, seqno=6), now=4.5)
    hear(routes, 1, retraction(), now=5.0)
    row = Entry("z", 9, 6, 160, 2)
    assert told(routes, 5.0) == [([1, 3], 0, [row]), ([2], 0, [retraction()]), ([3], 0, [row])]
    assert told(routes, 9.0) == []


def test_a_detour_that_costs_no_more_is_told_at_once(routes):
    hear(routes, 1, entry(metric=50))
    hear(routes, 2, entry(metric=50))
    routes.flush(1.0)
    hear(routes, 1, retraction(), now=5.0)
    assert told(routes, 5.0) == [([2], 0, [retraction()]), ([1], 0, [Entry("z", 9, 5, 150, 2)])]


def test_much_news_is_told_in_parts_that_all_count(routes):
    hear(routes, 1, *(entry(f"n{number}") for number in range(MAX_ENTRIES + 1)))
    assert [(advertisement.links, len(advertisement.entries)) for advertisement in routes.flush(1.0)] == [
        ([2, 3], MAX_ENTRIES), ([2, 3], 1)
    ]  # fmt: skip
    assert [routes.sent(link) for link in (1, 2, 3)] == [1, 3, 3]


def test_a_newer_number_alone_is_told_to_nobody(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    assert hear(routes, 1, entry(seqno=6), now=2.0) == []
    assert routes.get("z").seqno == 6
    assert told(routes, 3.0) == []
    routes.resend(2, 4.0)
    assert told(routes, 4.0) == [([2], ALL, [OWN, Entry("z", 9, 6, 110, 2)])]


def test_what_was_told_and_changed_back_before_its_time_is_not_told_again(routes):
    hear(routes, 1, entry(metric=50))
    routes.flush(1.0)
    hear(routes, 1, entry(metric=60), now=2.0)
    hear(routes, 1, entry(metric=50), now=2.001)
    assert told(routes, 3.0) == []


def test_a_route_that_came_and_went_before_its_time_is_not_told_at_all(routes):
    hear(routes, 1, entry(), now=2.0)
    hear(routes, 1, retraction(), now=2.001)
    assert told(routes, 3.0) == []


def test_a_lost_route_is_taken_back(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    hear(routes, 1, retraction(), now=2.0)
    assert told(routes, 3.0) == [([2, 3], 0, [retraction()])]


def test_a_neighbour_that_asks_is_told_the_whole_table_again(routes):
    hear(routes, 1, entry())
    routes.flush(1.0)
    routes.resend(2, 2.0)
    assert told(routes, 2.0) == [([2], ALL, [OWN, Entry("z", 9, 5, 110, 2)])]


def test_news_goes_to_the_others_while_one_is_told_the_whole_table(routes):
    hear(routes, 1, entry())
    routes.resend(2, 0.5)
    row = Entry("z", 9, 5, 110, 2)
    assert told(routes, 0.5) == [([3], 0, [row]), ([2], ALL, [OWN, row])]


def test_a_node_without_neighbours_tells_nobody():
    routes = Routes("a", 1, 100, Alarm())
    routes.link_up(1, 100, 0.0)
    hear(routes, 1, entry())
    routes.link_down(1)
    routes.select(1.0)
    assert routes.flush(9.0) == []


def test_what_was_sent_and_what_was_received_are_counted_alike(routes):
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


# --- whole tables -------------------------------------------------------------------------------------------------


def test_a_whole_table_replaces_all_that_was_heard_before(routes):
    hear(routes, 1, entry("x"), entry("y"), entry("z"))
    hear(routes, 1, entry("y"), full=FULL_BEGIN, number=8)
    assert set(routes.table()) == {"x", "y", "z"}
    hear(routes, 1, entry("w"), full=FULL_END, number=9)
    assert set(routes.table()) == {"w", "y"}
    assert routes.received(1) == 9


def test_a_whole_table_may_come_in_one_piece_and_be_empty(routes):
    hear(routes, 1, entry("x"))
    hear(routes, 1, full=ALL)
    assert routes.table() == {}


def test_the_end_of_a_table_whose_beginning_was_lost_takes_nothing_back(routes):
    hear(routes, 1, entry("x"))
    hear(routes, 1, entry("y"), full=FULL_END)
    assert set(routes.table()) == {"x", "y"}


def test_a_large_table_goes_out_in_parts(routes):
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
