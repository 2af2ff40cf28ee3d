"""What is remembered of another node: the time that the path takes, and the numbers of its requests."""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zmesh.core.delivery.replay_window import MAX_NUMBERS, ReplayWindow
from zmesh.core.rtt import GRANULARITY, INITIAL_TIMEOUT, MAX_TIMEOUT, RttEstimator

# --- the time a path takes ----------------------------------------------------------------------------------------


def test_a_path_without_a_sample_has_the_timeout_of_a_first_time():
    assert [RttEstimator().timeout(retries) for retries in range(5)] == [
        INITIAL_TIMEOUT * 2**retries for retries in range(4)
    ] + [MAX_TIMEOUT]


def test_the_timeout_follows_rfc_6298():
    path = RttEstimator()
    path.update(0.8)
    assert (path.smoothed, path.variation) == (0.8, 0.4)
    assert path.timeout(0) == pytest.approx(0.8 + 4 * 0.4)
    path.update(0.4)
    assert path.variation == pytest.approx(0.75 * 0.4 + 0.25 * 0.4)
    assert path.smoothed == pytest.approx(7 / 8 * 0.8 + 1 / 8 * 0.4)


def test_an_answer_may_be_late_on_the_steadiest_path():
    path = RttEstimator()
    for _ in range(100):
        path.update(0.4)
    assert path.timeout(0) == pytest.approx(0.4 + GRANULARITY)


@given(st.lists(st.floats(0, 1000), max_size=30), st.integers(0, 10_000))
@example([3.0], 0)
def test_a_timeout_is_bounded_and_grows_with_the_tries(samples, retries):
    path = RttEstimator()
    for sample in samples:
        path.update(sample)
    assert GRANULARITY <= path.timeout(retries) <= MAX_TIMEOUT
    assert path.timeout(retries) <= path.timeout(retries + 1)


# --- the memory of requests ---------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=120))
def test_a_number_is_new_once_and_only_if_no_floor_was_above_it(requests):
    replay_window = ReplayWindow()
    accepted, floor = set(), 0
    for number, told in requests:
        fresh = number not in accepted and number >= floor
        assert replay_window.accept(number, told) is fresh
        if fresh:
            accepted.add(number)
        floor = max(floor, told)
        assert len(replay_window) <= sum(number >= floor for number in accepted)


@given(st.integers(0, 1 << 32), st.integers(1, 40))
def test_only_numbers_between_the_floor_and_the_highest_are_remembered(seed, window):
    rng = random.Random(seed)
    replay_window = ReplayWindow()
    under_way, copies, following, told = {}, [], 0, 0
    for _ in range(300):
        if len(under_way) < window and rng.random() < 0.6:
            under_way[following] = False
            following += 1
        elif under_way:
            number = rng.choice(list(under_way))
            floor = min(under_way)
            assert replay_window.accept(number, floor) is not under_way[number]
            copies.append((number, floor))
            under_way[number] = True
            if rng.random() < 0.5:
                del under_way[number]
        if copies and rng.random() < 0.3:
            assert not replay_window.accept(*rng.choice(copies))
        assert len(replay_window) <= following - told


def test_requests_in_order_take_no_memory_at_all():
    replay_window = ReplayWindow()
    assert all(replay_window.accept(number, 0) for number in range(1000))
    assert len(replay_window) == 0


def test_a_sender_that_names_no_floor_is_remembered_up_to_a_limit():
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


def test_what_is_below_the_floor_that_it_begins_with_is_known():
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
