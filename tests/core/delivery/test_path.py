"""The timer and the turns of the path to one peer."""

import pytest

from zmesh.core.delivery.congestion import INITIAL_WINDOW, SMALL, Transmission
from zmesh.core.delivery.path import Path
from zmesh.core.rtt import INITIAL_TIMEOUT

CHUNK = 64 * 1024


class Waiting:
    """A stream whose next chunk has that credit."""

    def __init__(self, credit):
        self.credit = credit
        self.outbound = self

    def next_credit(self):
        return self.credit


@pytest.fixture
def path():
    return Path()


def fill(path, credit=CHUNK):
    while path.congestion.fits(credit):
        path.congestion.on_sent(Transmission(credit), 0.0)


def test_the_stream_whose_timer_was_started_first_is_due_first(path):
    first, second, third = (Waiting(1) for _ in range(3))
    for now, stream in enumerate((first, second, third)):
        path.restart_timer(stream, now)
    path.restart_timer(first, 3.0)
    path.stop_timer(third)
    assert path.deadline() == 1.0 + INITIAL_TIMEOUT
    assert path.expire(1.5, 10) == []
    assert path.expire(2.0, 10) == [second]
    assert path.is_timed(first)
    assert not path.is_timed(second)


def test_after_a_timeout_timers_that_are_started_wait_twice_as_long_and_as_before_after_progress(path):
    first, second = Waiting(1), Waiting(1)
    path.restart_timer(first, 0.0)
    path.restart_timer(second, 0.5)
    assert path.expire(INITIAL_TIMEOUT, 10) == [first]
    path.restart_timer(first, INITIAL_TIMEOUT)
    assert path.expire(0.5 + INITIAL_TIMEOUT, 10) == [second]
    assert path.deadline() == INITIAL_TIMEOUT + 2 * INITIAL_TIMEOUT
    path.retries = 0
    assert path.deadline() == INITIAL_TIMEOUT + INITIAL_TIMEOUT


def test_streams_that_time_out_together_count_as_one_timeout(path):
    streams = [Waiting(1) for _ in range(6)]
    for stream in streams:
        path.restart_timer(stream, 0.0)
    for batch in range(3):
        assert path.expire(INITIAL_TIMEOUT, 2) == streams[2 * batch : 2 * batch + 2]
        for stream in streams[2 * batch : 2 * batch + 2]:
            path.restart_timer(stream, INITIAL_TIMEOUT)
    assert path.retries == 1
    assert path.expire(3 * INITIAL_TIMEOUT, 10) == streams
    assert path.retries == 2


def test_no_more_timers_expire_at_a_time_than_are_asked_for(path):
    streams = [Waiting(1) for _ in range(5)]
    for stream in streams:
        path.restart_timer(stream, 0.0)
    assert path.expire(9.0, 3) == streams[:3]
    assert path.expire(9.0, 3) == streams[3:]
    assert path.deadline() is None


def test_streams_wait_in_turn_until_the_window_has_room(path):
    streams = [Waiting(CHUNK) for _ in range(3)]
    fill(path)
    assert path.is_behind(CHUNK)
    for stream in streams:
        path.wait(stream, CHUNK)
    path.wait(streams[0], CHUNK)
    assert path.next_turn() is None
    path.congestion.leave(CHUNK)
    assert path.is_behind(CHUNK)  # there is room, but others were there before
    assert path.next_turn() is streams[0]
    path.wait(streams[0], CHUNK)
    assert [path.next_turn() for _ in range(4)] == [streams[1], streams[2], streams[0], None]
    assert not path.is_awaited


def test_small_chunks_do_not_wait_behind_large_ones_and_take_no_more_than_their_share_beside_them(path):
    large, small = Waiting(CHUNK), Waiting(SMALL)
    fill(path)
    path.wait(large, CHUNK)
    assert not path.is_behind(SMALL)
    while not path.is_behind(SMALL):
        path.congestion.on_sent(Transmission(SMALL), 0.0)
    assert path.congestion.small_in_flight <= INITIAL_WINDOW // 4
    path.wait(small, SMALL)
    assert path.next_turn() is None
    for _ in range(12):
        path.congestion.leave(CHUNK)
    assert path.next_turn() is large
    assert path.next_turn() is small


def test_a_stream_whose_next_chunk_has_grown_while_it_waited_waits_among_the_large_ones(path):
    growing, small = Waiting(SMALL), Waiting(SMALL)
    fill(path)
    fill(path, SMALL)
    path.wait(growing, SMALL)
    path.wait(small, SMALL)
    growing.credit = CHUNK
    path.congestion.leave(SMALL)
    assert path.next_turn() is small
    assert path.next_turn() is None
    assert path.is_waiting(growing)
    while not path.congestion.fits(CHUNK):
        path.congestion.leave(CHUNK)
    assert path.next_turn() is growing


def test_a_stream_that_is_over_has_no_timer_and_no_turn(path):
    over, other = Waiting(CHUNK), Waiting(SMALL)
    fill(path)
    for stream in (over, other):
        path.restart_timer(stream, 0.0)
        path.wait(stream, stream.credit)
        assert path.is_waiting(stream)
    path.remove(over)
    assert not path.is_waiting(over)
    assert path.deadline() == INITIAL_TIMEOUT
    path.remove(other)
    assert (path.deadline(), path.next_turn(), path.is_awaited) == (None, None, False)


def test_the_path_of_a_peer_that_has_restarted_is_measured_anew(path):
    path.rtt.update(0.5)
    path.retries = 3
    path.congestion.on_congestion(0.0, 0.0)
    path.renew()
    assert (path.rtt.smoothed, path.retries, path.congestion.window) == (None, 0, INITIAL_WINDOW)
