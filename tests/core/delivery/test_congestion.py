import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.delivery.congestion import (
    BATCH_TIME,
    CHUNK,
    CHUNK_TIME,
    CHUNKS,
    INITIAL_WINDOW,
    MAX_QUEUE_DELAY,
    MAX_WINDOW,
    MIN_CHUNK,
    MIN_RTT_LIFETIME,
    MIN_WINDOW,
    RATE_LIFETIME,
    RATE_ROUNDS,
    SMALL,
    SMALL_SHARE,
    WINDOW_GAIN,
    WINDOW_GROWTH,
    CongestionControl,
    Transmission,
)
from zmesh.core.wire import MAX_BODY


class Path:
    """One stream over a path of a bandwidth and a delay, on which everything waits in one line; time is virtual."""

    def __init__(self, rate, delay):
        self.congestion = CongestionControl()
        self.rate, self.delay = rate, delay
        self.now = self.free_at = 0.0
        self.in_flight = []
        self.delivered = 0
        self.trips = []
        self.sparing = False
        """Whether there is one chunk to send at a time."""

    def send(self):
        chunk = Transmission(self.congestion.chunk_bytes)
        self.congestion.on_sent(chunk, self.now)
        self.free_at = max(self.free_at, self.now) + chunk.credit / self.rate
        self.in_flight.append((self.free_at + self.delay, chunk))

    def run(self, seconds):
        """Keep as much in flight as the window allows; the bytes delivered in that time."""
        until, before = self.now + seconds, self.delivered
        while self.now < until:
            while self.congestion.fits(self.congestion.chunk_bytes) and not self.sparing:
                self.send()
            if self.sparing:
                self.send()
                self.congestion.on_idle()
            self.now, chunk = self.in_flight.pop(0)
            self.delivered += chunk.credit
            self.trips.append(self.now - chunk.sent_at)
            self.congestion.leave(chunk.credit)
            self.congestion.on_delivered(chunk.credit, chunk, self.now)
        return self.delivered - before


def sent(congestion, now, credit=CHUNK):
    """A chunk that is sent and arrives."""
    chunk = Transmission(credit)
    congestion.on_sent(chunk, now)
    congestion.leave(credit)
    return chunk


def test_a_window_starts_at_the_initial_one():
    assert CongestionControl().window == INITIAL_WINDOW


@pytest.mark.parametrize(
    ("rate", "delay"), [(25e6, 0.05), (25e6, 0.1), (100e6, 0.02), (12e6, 0.3)], ids=lambda value: f"{value:g}"
)
def test_a_long_path_is_filled_within_a_few_round_trips_and_not_flooded(rate, delay):
    path = Path(rate, delay)
    path.run(10 * delay)
    assert path.run(2.0) > 0.95 * 2.0 * rate
    product = rate * delay
    assert product < path.congestion.window < 1.3 * WINDOW_GAIN * product
    assert max(path.trips[-100:]) < 1.3 * WINDOW_GAIN * delay


def test_a_window_never_exceeds_the_maximum():
    path = Path(1e9, 0.5)
    path.run(20.0)
    assert path.congestion.window == MAX_WINDOW


@pytest.mark.parametrize("rate", [50e6, 125e6])
def test_a_short_path_keeps_the_initial_window(rate):
    path = Path(rate, 0.001)
    path.run(1.0)
    assert path.congestion.window == INITIAL_WINDOW


def test_a_short_and_fast_path_holds_what_it_carries_while_programs_work_at_a_batch():
    path = Path(1.25e9, 0.002)
    path.run(1.0)
    assert path.congestion.window == pytest.approx(BATCH_TIME * path.congestion.rate, rel=0.01)
    assert path.congestion.window == pytest.approx(BATCH_TIME * 1.25e9, rel=0.2)
    assert max(path.trips[-100:]) < 1.5 * (BATCH_TIME + path.delay)


def test_the_minimum_round_trip_time_expires_and_is_measured_anew():
    path = Path(25e6, 0.05)
    path.run(MIN_RTT_LIFETIME - 1)
    path.delay = 0.1
    path.run(2 * MIN_RTT_LIFETIME)
    assert path.congestion._min_rtt > 0.1
    assert path.run(2.0) > 0.9 * 2.0 * 25e6


def test_a_window_does_not_grow_by_its_own_queue():
    path = Path(25e6, 0.05)
    path.run(1.0)
    before = path.congestion.window
    windows = []
    for _ in range(6):
        path.run(MIN_RTT_LIFETIME)
        windows.append(path.congestion.window)
    assert max(windows) < 1.5 * before


def test_an_old_delivery_rate_expires():
    path = Path(100e6, 0.05)
    path.run(2.0)
    high = path.congestion.window
    path.rate = 25e6
    path.run(3 * max(RATE_LIFETIME, RATE_ROUNDS * 0.2))
    assert path.congestion.window < high / 2


def test_a_retransmitted_chunk_gives_no_sample():
    congestion = CongestionControl()
    congestion.on_delivered(10 * CHUNK, None, 1.0)
    assert (congestion._rate, congestion._min_rtt) == (0.0, math.inf)


def test_a_round_trip_of_no_time_gives_no_sample():
    congestion = CongestionControl()
    congestion.on_delivered(CHUNK, sent(congestion, 1.0), 1.0)
    assert (congestion._rate, congestion._min_rtt) == (0.0, math.inf)


def test_a_pause_of_the_sender_does_not_lower_the_delivery_rate():
    congestion = CongestionControl()
    congestion.on_delivered(CHUNK, sent(congestion, 0.0), 0.1)
    congestion.on_delivered(CHUNK, sent(congestion, 100.0), 100.1)
    assert congestion._rate == pytest.approx(CHUNK / 0.1)


def test_a_full_queue_halves_the_window_once_for_all_that_was_sent_before():
    congestion = CongestionControl()
    congestion.on_congestion(1.0, 2.0)
    assert congestion.window == INITIAL_WINDOW // 2
    congestion.on_congestion(1.9, 2.1)
    assert congestion.window == INITIAL_WINDOW // 2
    congestion.on_congestion(2.0, 2.2)
    assert congestion.window == INITIAL_WINDOW // 4


def test_a_window_never_shrinks_below_the_minimum():
    congestion = CongestionControl()
    for second in range(10):
        congestion.on_congestion(second, second)
    assert congestion.window == MIN_WINDOW


def test_a_halved_window_rises_again_step_by_step():
    congestion = CongestionControl()
    congestion.on_congestion(0.0, 0.0)
    half = congestion.window
    congestion.on_delivered(half, None, 1.0)
    assert congestion.window == half + WINDOW_GROWTH
    for second in range(100):
        congestion.on_delivered(congestion.window, None, second)
    assert congestion.window == INITIAL_WINDOW


def test_a_new_path_starts_all_estimates_anew():
    path = Path(25e6, 0.1)
    path.run(2.0)
    path.congestion.on_congestion(path.now, path.now)
    path.congestion.on_path_change()
    assert path.congestion.window == INITIAL_WINDOW
    path.run(2.0)
    assert path.congestion.window > 25e6 * 0.1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["sent", "delivered", "again", "idle", "congestion", "path"]),
            st.floats(0, 30),
            st.integers(1, MAX_WINDOW),
        ),
        max_size=60,
    )
)
def test_a_window_stays_within_its_bounds_whatever_happens(events):
    congestion, now, chunks = CongestionControl(), 0.0, []
    for what, pause, credit in events:
        now += pause
        match what:
            case "sent":
                chunks.append(Transmission(credit))
                congestion.on_sent(chunks[-1], now)
            case "delivered" if chunks:
                chunk = chunks.pop(0)
                congestion.leave(chunk.credit)
                congestion.on_delivered(chunk.credit, chunk, now)
            case "again":
                congestion.on_delivered(credit, None, now)
            case "idle":
                congestion.on_idle()
            case "congestion":
                congestion.on_congestion(now - pause, now)
            case "path":
                congestion.on_path_change()
        assert MIN_WINDOW <= congestion.window <= MAX_WINDOW
        assert congestion.in_flight == sum(chunk.credit for chunk in chunks)
        assert congestion.small_in_flight == sum(chunk.credit for chunk in chunks if chunk.credit <= SMALL)


def test_a_slow_path_holds_no_more_than_it_delivers_within_the_queue_delay():
    path = Path(1.25e6, 0.01)  # 10 Mbit/s
    path.run(20.0)
    assert MIN_WINDOW <= path.congestion.window < 2 * MIN_WINDOW
    assert max(path.trips[-100:]) < 2.5 * MAX_QUEUE_DELAY
    assert path.run(10.0) > 0.95 * 10 * path.rate


def test_a_path_on_one_machine_keeps_the_initial_window():
    path = Path(400e6, 0.0005)
    path.run(MIN_RTT_LIFETIME - 1)
    assert path.congestion.window >= INITIAL_WINDOW


def test_a_sender_with_little_to_send_neither_shrinks_the_window_nor_forgets_the_rate():
    path = Path(25e6, 0.05)
    path.run(2.0)
    window, rate = path.congestion.window, path.congestion.rate
    path.sparing = True
    path.run(MIN_RTT_LIFETIME - 3)
    assert path.congestion.window >= window * 0.9
    assert path.congestion.rate == pytest.approx(rate)
    path.sparing = False
    path.run(0.2)
    assert path.run(2.0) > 0.9 * 2.0 * 25e6


def test_the_rate_of_a_slow_path_is_known_soon_though_the_source_is_read_piece_by_piece():
    path = Path(1.25e6, 0.005)
    while path.congestion.fits(CHUNK):
        path.send()
        path.congestion.on_idle()
    path.run(1.7)
    assert path.congestion.window < 2 * MIN_WINDOW
    assert path.congestion.chunk_bytes == MIN_CHUNK


def test_pings_alone_never_shrink_the_window():
    path = Path(25e6, 0.001)
    path.sparing = True
    path.run(2 * INITIAL_WINDOW / CHUNK * 0.01)
    assert path.delivered > 2 * INITIAL_WINDOW
    assert path.congestion.window == INITIAL_WINDOW


def test_a_quarter_of_the_window_is_kept_for_small_chunks_beside_large_ones():
    congestion = CongestionControl()
    while congestion.fits(CHUNK):
        congestion.on_sent(Transmission(CHUNK), 0.0)
    large = congestion.in_flight
    assert INITIAL_WINDOW - CHUNK < large <= INITIAL_WINDOW
    while congestion.fits(SMALL):
        congestion.on_sent(Transmission(SMALL), 0.0)
    assert congestion.small_in_flight == INITIAL_WINDOW // SMALL_SHARE // SMALL * SMALL
    assert not congestion.fits(CHUNK)


def test_a_small_chunk_that_is_sent_alone_into_a_full_window_is_counted_as_any():
    alone, usual = CongestionControl(), CongestionControl()
    for congestion in (alone, usual):
        while congestion.fits(CHUNK):
            congestion.on_sent(Transmission(CHUNK), 0.0)
    while usual.fits(SMALL):
        usual.on_sent(Transmission(SMALL), 1.0)
        usual.on_idle()
        alone.on_sent_only(Transmission(SMALL), 1.0)
    assert [getattr(alone, name) for name in alone.__slots__] == [getattr(usual, name) for name in usual.__slots__]


def test_one_chunk_always_fits():
    congestion = CongestionControl()
    assert congestion.fits(2 * MAX_WINDOW)
    congestion.on_sent(Transmission(2 * MAX_WINDOW), 0.0)
    assert not congestion.fits(SMALL + 1)


@pytest.mark.parametrize(
    ("rate", "delay", "expected"),
    [
        (1.25e6, 0.05, MIN_CHUNK),  # 10 Mbit/s: even that takes 13 ms
        (12.5e6, 0.01, MIN_CHUNK),
        (25e6, 0.05, CHUNK // 2),  # 200 Mbit/s
        (125e6, 0.01, 2 * CHUNK),  # 1 Gbit/s, of which the window holds 7 ms
        (125e6, 0.05, 2 * CHUNK),
        (1.25e9, 0.01, MAX_BODY),
        (1.25e9, 0.0001, 8 * CHUNK),
        (450e6, 0.0001, 4 * CHUNK),  # no more than a part of the window
    ],
)
def test_a_chunk_takes_the_slowest_link_no_longer_than_two_milliseconds_and_is_no_longer_than_allowed(
    rate, delay, expected
):
    path = Path(rate, delay)
    path.run(20 * delay + 3.0)
    assert path.congestion.chunk_bytes == expected
    assert expected == MIN_CHUNK or expected <= CHUNK_TIME * rate
    assert path.congestion.window >= CHUNKS * expected


def test_chunks_have_the_usual_size_until_the_rate_is_measured_and_after_a_change_of_the_path():
    path = Path(1.25e9, 0.01)
    path.run(0.011)
    assert path.congestion.chunk_bytes == CHUNK
    path.run(1.0)
    assert path.congestion.chunk_bytes > CHUNK
    path.congestion.on_path_change()
    assert path.congestion.chunk_bytes == CHUNK


def test_chunks_shrink_when_the_path_becomes_slower_and_grow_again():
    path = Path(500e6, 0.01)
    path.run(2.0)
    assert path.congestion.chunk_bytes == 8 * CHUNK
    path.rate = 25e6
    path.run(20.0)
    assert path.congestion.chunk_bytes == CHUNK // 2
    path.rate = 500e6
    path.run(10.0)
    assert path.congestion.chunk_bytes == 8 * CHUNK


def test_a_sender_with_little_to_send_makes_chunks_longer_and_never_shorter():
    path = Path(500e6, 0.0001)
    path.sparing = True
    path.run(0.5)
    assert path.congestion.chunk_bytes > CHUNK
    path = Path(500e6, 0.1)
    path.sparing = True
    path.run(2 * INITIAL_WINDOW / CHUNK * 0.1)
    assert path.delivered > INITIAL_WINDOW
    assert path.congestion.chunk_bytes == CHUNK
