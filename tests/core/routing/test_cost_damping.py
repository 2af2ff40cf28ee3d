import pytest

from zmesh.core.routing.cost_damping import DELAY_INITIAL, DELAY_MAX, CostDamping
from zmesh.core.timers import Alarm


@pytest.fixture
def alarm():
    return Alarm()


@pytest.fixture
def damping(alarm):
    return CostDamping(alarm)


def test_a_change_of_a_cost_after_a_quiet_time_is_advertised_at_once(damping, alarm):
    assert damping.next_deadline() is None
    damping.add(1)
    assert alarm.soonest <= 7.0
    assert damping.take(7.0) == [1]
    assert (len(damping), damping.next_deadline(), damping.take(8.0)) == (0, None, [])
    damping.add(2)
    assert damping.take(8.0) == [2]


def test_changes_that_follow_are_advertised_together_after_a_delay(damping, alarm):
    damping.add(1)
    damping.take(7.0)
    for link in (3, 2, 3):
        damping.add(link)
    assert damping.take(7.0 + DELAY_INITIAL - 0.001) == []
    assert len(damping) == 2
    assert alarm.soonest <= damping.next_deadline() == 7.0 + DELAY_INITIAL
    assert damping.take(7.0 + DELAY_INITIAL) == [3, 2]


def test_the_delay_doubles_up_to_a_bound_while_changes_follow_and_is_short_after_a_quiet_time(damping):
    now, pauses = 0.0, []
    for _ in range(8):
        damping.add(1)
        now = max(now, damping.next_deadline())
        assert damping.take(now) == [1]
        damping.add(1)
        pauses.append(damping.next_deadline() - now)
    assert pauses == [min(DELAY_MAX, DELAY_INITIAL * 2**count) for count in range(8)]
    damping.take(now + DELAY_MAX)
    calm = now + 3 * DELAY_MAX
    damping.add(1)
    assert damping.take(calm) == [1]
    damping.add(1)
    assert damping.next_deadline() == calm + DELAY_INITIAL
