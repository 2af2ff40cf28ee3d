import pytest

from zmesh.core.routing.cost_damping import MOVE_FIRST, MOVE_LAST, Moves
from zmesh.core.timers import Alarm


@pytest.fixture
def alarm():
    return Alarm()


@pytest.fixture
def moves(alarm):
    return Moves(alarm)


def test_a_move_after_a_calm_is_told_at_once(moves, alarm):
    assert moves.next_deadline() is None
    moves.add(1)
    assert alarm.soonest <= 7.0
    assert moves.take(7.0) == [1]
    assert (len(moves), moves.next_deadline(), moves.take(8.0)) == (0, None, [])
    moves.add(2)
    assert moves.take(8.0) == [2]


def test_moves_that_follow_are_told_together_after_a_pause(moves, alarm):
    moves.add(1)
    moves.take(7.0)
    for link in (3, 2, 3):
        moves.add(link)
    assert moves.take(7.0 + MOVE_FIRST - 0.001) == []
    assert len(moves) == 2
    assert alarm.soonest <= moves.next_deadline() == 7.0 + MOVE_FIRST
    assert moves.take(7.0 + MOVE_FIRST) == [3, 2]


def test_the_pause_doubles_up_to_the_longest_while_moves_follow_and_is_short_again_after_a_calm(moves):
    now, pauses = 0.0, []
    for _ in range(8):
        moves.add(1)
        now = max(now, moves.next_deadline())
        assert moves.take(now) == [1]
        moves.add(1)
        pauses.append(moves.next_deadline() - now)
    assert pauses == [min(MOVE_LAST, MOVE_FIRST * 2**count) for count in range(8)]
    moves.take(now + MOVE_LAST)
    calm = now + 3 * MOVE_LAST
    moves.add(1)
    assert moves.take(calm) == [1]
    moves.add(1)
    assert moves.next_deadline() == calm + MOVE_FIRST
