"""The request numbers that are remembered of a client."""

import random

from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.delivery.replay_window import MAX_NUMBERS, ReplayWindow


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=120))
def test_a_number_is_new_once_and_only_if_it_may_be_outstanding(requests):
    replay_window = ReplayWindow()
    accepted, lowest = set(), 0
    for number, floor in requests:
        is_new = number not in accepted and number >= lowest
        assert replay_window.accept(number, floor) is is_new
        if is_new:
            accepted.add(number)
        lowest = max(lowest, floor)
        assert len(replay_window) <= sum(number >= lowest for number in accepted)


@given(st.integers(0, 1 << 32), st.integers(1, 40))
def test_only_numbers_between_the_lowest_outstanding_and_the_highest_are_remembered(seed, window):
    rng = random.Random(seed)
    replay_window = ReplayWindow()
    under_way, copies, following, floor = {}, [], 0, 0
    for _ in range(300):
        if len(under_way) < window and rng.random() < 0.6:
            under_way[following] = False
            following += 1
        elif under_way:
            number = rng.choice(list(under_way))
            lowest = min(under_way)
            assert replay_window.accept(number, lowest) is not under_way[number]
            copies.append((number, lowest))
            under_way[number] = True
            if rng.random() < 0.5:
                del under_way[number]
        if copies and rng.random() < 0.3:
            assert not replay_window.accept(*rng.choice(copies))
        assert len(replay_window) <= following - floor


def test_requests_in_order_take_no_memory_at_all():
    replay_window = ReplayWindow()
    assert all(replay_window.accept(number, 0) for number in range(1000))
    assert len(replay_window) == 0


def test_a_client_that_never_raises_its_lowest_number_is_remembered_up_to_a_limit():
    replay_window = ReplayWindow()
    for number in range(1, MAX_NUMBERS + 1):
        replay_window.accept(number, 0)
    assert len(replay_window) == MAX_NUMBERS
    assert replay_window.accept(0, 0)
    assert len(replay_window) == 0
    for number in range(MAX_NUMBERS + 2, 2 * MAX_NUMBERS + 2):
        replay_window.accept(number, 0)
    assert len(replay_window) == MAX_NUMBERS
    assert replay_window.accept(3 * MAX_NUMBERS, 0)
    assert len(replay_window) <= MAX_NUMBERS
    assert not replay_window.accept(MAX_NUMBERS + 1, 0)
    assert not replay_window.accept(3 * MAX_NUMBERS, 0)


def test_numbers_below_the_initial_lowest_are_known():
    replay_window = ReplayWindow(5)
    assert (replay_window.knows(4), replay_window.knows(5), replay_window.end, len(replay_window)) == (
        True,
        False,
        5,
        0,
    )
    assert not replay_window.accept(4, 0)
    assert replay_window.accept(7, 0)
    assert replay_window.end == 8
