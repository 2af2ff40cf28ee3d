"""How late a loop runs its callbacks."""

from zmesh.runtime.watchdog import LAG_PERIOD, LoopLag


def test_the_worst_delay_is_kept_for_one_to_two_periods():
    lag = LoopLag()
    lag.note(0.5, 10.0)
    lag.note(0.1, 11.0)
    assert (lag.last, lag.worst) == (0.1, 0.5)
    lag.note(0.2, 10.0 + LAG_PERIOD)
    assert (lag.last, lag.worst) == (0.2, 0.5)
    lag.note(0.1, 10.0 + 2 * LAG_PERIOD)
    assert (lag.last, lag.worst) == (0.1, 0.2)
