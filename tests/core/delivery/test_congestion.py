import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.delivery.congestion import (
    FIRST_WINDOW,
    GAIN,
    GROWTH,
    MAX_WINDOW,
    MIN_WINDOW,
    QUEUE,
    RATE_FOR,
    RATE_ROUNDS,
    SHORTEST_FOR,
    CongestionControl,
)

CHUNK = 64 * 1024


class Path:
    """One stream over a path of a bandwidth and a delay, on which everything waits in one line; time is virtual."""

    def __init__(self, rate, delay):
        self.pace = CongestionControl()
        self.rate, self.delay = rate, delay
        self.now = self.free_at = 0.0
        self.in_flight = []
        self.delivered = 0
        self.trips = []

    @property
    def credit(self):
        return CHUNK * len(self.in_flight)

    def run(self, seconds):
        """Keep as much under way as the window allows; the bytes delivered in that time."""
        until, before = self.now + seconds, self.delivered
        while self.now < until:
            while self.credit + CHUNK <= self.pace.window:
                mark = self.pace.mark(self.credit, self.now)
                self.free_at = max(self.free_at, self.now) + CHUNK / self.rate
                self.in_flight.append((self.free_at + self.delay, mark))
            arrives, mark = self.in_flight.pop(0)
            self.now = arrives
            self.delivered += CHUNK
            self.trips.append(self.now - mark.sent)
            self.pace.on_delivered(CHUNK, mark, self.now)
        return self.delivered - before


def test_a_window_begins_as_a_small_one():
    assert CongestionControl().window == FIRST_WINDOW


@pytest.mark.parametrize(
    ("rate", "delay"), [(25e6, 0.05), (25e6, 0.1), (100e6, 0.02), (12e6, 0.3)], ids=lambda value: f"{value:g}"
)
def test_a_long_path_is_filled_within_a_few_round_trips_and_not_flooded(rate, delay):
    path = Path(rate, delay)
    path.run(10 * delay)
    assert path.run(2.0) > 0.95 * 2.0 * rate
    product = rate * delay
    assert product < path.pace.window < 1.3 * GAIN * product
    assert max(path.trips[-100:]) < 1.3 * GAIN * delay


def test_a_window_never_passes_the_largest():
    path = Path(1e9, 0.5)
    path.run(20.0)
    assert path.pace.window == MAX_WINDOW


@pytest.mark.parametrize(("rate", "delay"), [(50e6, 0.001), (450e6, 0.002)], ids=["a network", "one machine"])
def test_a_short_path_keeps_the_first_window(rate, delay):
    path = Path(rate, delay)
    path.run(1.0)
    assert path.pace.window == FIRST_WINDOW


def test_the_shortest_round_trip_is_measured_anew_after_a_while():
    path = Path(25e6, 0.05)
    path.run(SHORTEST_FOR - 1)
    path.delay = 0.1
    path.run(2 * SHORTEST_FOR)
    assert path.pace._shortest > 0.1
    assert path.run(2.0) > 0.9 * 2.0 * 25e6


def test_a_window_does_not_grow_by_its_own_queue():
    path = Path(25e6, 0.05)
    path.run(1.0)
    before = path.pace.window
    windows = []
    for _ in range(6):
        path.run(SHORTEST_FOR)
        windows.append(path.pace.window)
    assert max(windows) < 1.5 * before


def test_a_high_rate_of_long_ago_does_not_count():
    path = Path(100e6, 0.05)
    path.run(2.0)
    high = path.pace.window
    path.rate = 25e6
    path.run(3 * max(RATE_FOR, RATE_ROUNDS * 0.2))
    assert path.pace.window < high / 2


def test_a_chunk_that_was_sent_twice_measures_nothing():
    pace = CongestionControl()
    pace.on_delivered(10 * CHUNK, None, 1.0)
    assert (pace._rate, pace._shortest) == (0.0, math.inf)


def test_an_answer_that_took_no_time_measures_nothing():
    pace = CongestionControl()
    pace.on_delivered(CHUNK, pace.mark(0, 1.0), 1.0)
    assert (pace._rate, pace._shortest) == (0.0, math.inf)


def test_a_pause_of_the_sender_is_not_taken_for_a_slow_path():
    pace = CongestionControl()
    pace.on_delivered(CHUNK, pace.mark(0, 0.0), 0.1)
    pace.on_delivered(CHUNK, pace.mark(0, 100.0), 100.1)
    assert pace._rate == pytest.approx(CHUNK / 0.1)


def test_a_full_queue_halves_what_is_under_way_once_for_all_that_was_sent_before():
    pace = CongestionControl()
    pace.on_congestion(FIRST_WINDOW, 1.0, 2.0)
    assert pace.window == FIRST_WINDOW // 2
    pace.on_congestion(FIRST_WINDOW // 2, 1.9, 2.1)
    assert pace.window == FIRST_WINDOW // 2
    pace.on_congestion(FIRST_WINDOW // 2, 2.0, 2.2)
    assert pace.window == FIRST_WINDOW // 4


def test_a_window_shrinks_to_the_smallest_and_no_further():
    pace = CongestionControl()
    for second in range(10):
        pace.on_congestion(pace.window, second, second)
    assert pace.window == MIN_WINDOW


def test_a_halved_window_rises_again_step_by_step():
    pace = CongestionControl()
    pace.on_congestion(FIRST_WINDOW, 0.0, 0.0)
    half = pace.window
    pace.on_delivered(half, None, 1.0)
    assert pace.window == half + GROWTH
    for second in range(100):
        pace.on_delivered(pace.window, None, second)
    assert pace.window == FIRST_WINDOW


def test_another_path_is_another_matter():
    path = Path(25e6, 0.1)
    path.run(2.0)
    path.pace.on_congestion(MIN_WINDOW, path.now, path.now)
    path.pace.on_path()
    assert path.pace.window == FIRST_WINDOW
    path.run(2.0)
    assert path.pace.window > 25e6 * 0.1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["sent", "delivered", "again", "congestion", "path"]),
            st.floats(0, 30),
            st.integers(1, MAX_WINDOW),
        ),
        max_size=60,
    )
)
def test_a_window_stays_within_its_bounds_whatever_happens(events):
    pace, now, marks = CongestionControl(), 0.0, []
    for what, pause, credit in events:
        now += pause
        match what:
            case "sent":
                marks.append(pace.mark(credit, now))
            case "delivered" if marks:
                pace.on_delivered(credit, marks.pop(0), now)
            case "again":
                pace.on_delivered(credit, None, now)
            case "congestion":
                pace.on_congestion(credit, now - pause, now)
            case "path":
                pace.on_path()
        assert MIN_WINDOW <= pace.window <= MAX_WINDOW


def test_a_slow_path_holds_no_more_than_it_carries_in_a_moment():
    path = Path(1.25e6, 0.01)  # 10 Mbit/s
    path.run(20.0)
    assert MIN_WINDOW <= path.pace.window < 2 * MIN_WINDOW
    assert max(path.trips[-100:]) < 2.5 * QUEUE
    assert path.run(10.0) > 0.95 * 10 * path.rate


def test_a_path_of_programs_on_one_machine_holds_the_first_window():
    path = Path(400e6, 0.0005)
    path.run(SHORTEST_FOR - 1)
    assert path.pace.window >= FIRST_WINDOW
