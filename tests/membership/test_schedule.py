"""When a certificate is renewed, and when its node warns."""

import pytest

from zmesh.membership import Schedule, warning
from zmesh.membership.schedule import DAY, LOOK_AGAIN, RETRY_FIRST, RETRY_LAST

NOW = 1_700_000_000.0


def test_a_renewal_is_due_from_its_time_on() -> None:
    schedule = Schedule()
    assert not schedule.is_due(NOW + 1, NOW)
    assert schedule.is_due(NOW, NOW)


def test_one_that_fails_is_tried_again_less_and_less_often() -> None:
    schedule, now, pauses = Schedule(), NOW, []
    for _ in range(9):
        schedule.failed(now)
        pause = RETRY_FIRST
        while not schedule.is_due(NOW, now + pause):
            pause += RETRY_FIRST
        pauses.append(pause)
        now += pause
    assert pauses[:3] == [60.0, 120.0, 240.0]
    assert pauses[-1] == RETRY_LAST
    schedule.renewed()
    assert schedule.is_due(NOW, now)


def test_a_clock_that_is_set_back_by_ten_years_delays_nothing() -> None:
    schedule = Schedule()
    schedule.failed(NOW)
    assert schedule.is_due(0.0, NOW - 10 * 365 * DAY)
    assert schedule.warns(0.2, NOW)
    assert schedule.warns(0.2, NOW - 10 * 365 * DAY)


@pytest.mark.parametrize(("remaining", "warns"), [(0.5, False), (0.34, False), (0.33, True), (0.05, True), (0.0, True)])
def test_it_warns_from_a_third_of_the_validity_on_once_a_day(remaining: float, warns: bool) -> None:
    schedule = Schedule()
    assert schedule.warns(remaining, NOW) is warns
    assert not schedule.warns(remaining, NOW + DAY - 1)
    assert schedule.warns(remaining, NOW + DAY) is warns


def test_the_clock_is_read_again_soon_whatever_it_shows() -> None:
    schedule = Schedule()
    assert schedule.wait(NOW + 90 * DAY, NOW) == LOOK_AGAIN
    assert schedule.wait(NOW + 5, NOW) == 5
    assert schedule.wait(NOW - 5, NOW) == 1


@pytest.mark.parametrize(
    ("remaining", "left", "text"),
    [
        (0.3, 27 * DAY, "less than a third of the validity of the certificate of 'edge'"),
        (
            0.1,
            DAY,
            "less than a tenth of the validity of the certificate of 'edge'",
        ),
        (
            0.0,
            0.0,
            "the certificate of 'edge' has expired, and it could not be renewed (nobody",
        ),
    ],
)
def test_a_warning_says_how_much_is_left_and_what_to_do(remaining: float, left: float, text: str) -> None:
    said = warning("edge", remaining, left, "nobody is there")
    assert said.startswith(text)
    assert "(nobody is there)" in said
    assert "the authority's key" in said
