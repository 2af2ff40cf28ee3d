import pytest

from zmesh.core.routing.cost_damping import DELAY_INITIAL, DELAY_MAX, CostDamping
from zmesh.core.timers import Alarm


@pytest.fixture
def alarm():
    return Alarm()


@pytest.fixture
def damping(alarm):
    return CostDamping(alarm)


def test_a_move_after_a_calm_is_told_at_once(damping, alarm):
    assert damping.next_deadline() is None
    damping.add(1)
    assert alarm.soonest <= 7.0
    assert damping.take(7.0) == [1]
    assert (len(damping), damping.next_deadline(), damping.take(8.0)) == (0, None, [])
    damping.add(2)
    assert damping.take(8.0) == [2]


def test_moves_that_follow_are_told_together_after_a_pause(damping, alarm):
    damping.add(1)
    damping.take(7.0)
    for link in (3, 2, 3):
        damping.add(link)
    assert damping.take(7.0 + DELAY_INITIAL - 0.001) == []
    assert len(damping) == 2
    assert alarm.soonest <= damping.next_deadline() == 7.0 + DELAY_INITIAL
    assert damping.take(7.0 + DELAY_INITIAL) == [3, 2]


def test_the_pause_doubles_up_to_the_longest_while_moves_follow_and_is_short_again_after_a_calm(damping):
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
