"""The round-trip time of a path, and the retransmission timeout."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zmesh.core.rtt import GRANULARITY, INITIAL_TIMEOUT, MAX_TIMEOUT, RttEstimator


def test_a_path_without_a_sample_has_the_initial_timeout():
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


def test_the_timeout_exceeds_the_steadiest_round_trip_by_the_granularity():
    path = RttEstimator()
    for _ in range(100):
        path.update(0.4)
    assert path.timeout(0) == pytest.approx(0.4 + GRANULARITY)


@given(st.lists(st.floats(0, 1000), max_size=30), st.integers(0, 10_000))
@example([3.0], 0)
def test_a_timeout_is_bounded_and_grows_with_the_retries(samples, retries):
    path = RttEstimator()
    for sample in samples:
        path.update(sample)
    assert GRANULARITY <= path.timeout(retries) <= MAX_TIMEOUT
    assert path.timeout(retries) <= path.timeout(retries + 1)
