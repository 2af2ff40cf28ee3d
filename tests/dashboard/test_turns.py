"""When the dashboard asks which node."""

from zmesh.dashboard.turns import LIST_ROWS, LIST_SOONEST, REFUSED_AGAIN, Lists, Turns


def test_the_longest_due_node_is_next_and_a_watched_one_before_it():
    turns = Turns()
    turns.set_nodes({"a", "b"}, 1.0)
    turns.set_nodes({"a", "b", "c"}, 2.0)
    assert turns.next(set(), set(), 3.0) == "a"
    assert turns.next({"c"}, set(), 3.0) == "c"
    assert turns.next(set(), {"a", "b", "c"}, 3.0) is None


def test_a_node_with_many_links_is_asked_seldom():
    turns = Turns()
    turns.set_nodes({"a"}, 0.0)
    turns.answered("a", 1000, 0.0, watched=False)
    assert turns.next(set(), set(), 9.9) is None
    assert turns.next(set(), set(), 10.0) == "a"


def test_a_node_that_fails_is_asked_ever_more_seldom_and_one_that_refuses_once_a_minute():
    turns = Turns()
    turns.set_nodes({"a"}, 0.0)
    turns.failed("a", 0.0)
    turns.failed("a", 4.0)
    assert turns.next(set(), set(), 11.9) is None
    assert turns.next(set(), set(), 12.0) == "a"
    for _ in range(40):
        turns.failed("a", 12.0)
    assert turns.next(set(), set(), 72.0) == "a"
    turns.refused("a", 72.0)
    turns.watch("a", 73.0)
    assert turns.next(set(), set(), 72.0 + REFUSED_AGAIN - 0.1) is None


def test_a_node_that_is_gone_has_no_turn():
    turns = Turns()
    turns.set_nodes({"a"}, 0.0)
    turns.set_nodes(set(), 1.0)
    turns.answered("a", 1, 2.0, watched=True)
    assert len(turns) == 0


def test_lists_of_a_large_mesh_are_asked_for_at_a_bounded_rate_whatever_happens():
    lists, rows, now = Lists(0.0), 0, 0.0
    while now < 300.0:
        if lists.due(now, hurry=True, watched=True):
            lists.asked(1000, now)
            rows += 1000
        now += 0.1
    assert rows <= LIST_ROWS.per_second * 300 + LIST_ROWS.burst + 1000


def test_an_event_brings_the_next_list_forward_and_a_closed_page_puts_it_off():
    lists = Lists(0.0)
    lists.asked(10, 0.0)
    assert not lists.due(1.0, hurry=False, watched=True)
    assert lists.due(LIST_SOONEST, hurry=True, watched=True)
    assert lists.due(2.0, hurry=False, watched=True)
    assert not lists.due(19.9, hurry=False, watched=False)
