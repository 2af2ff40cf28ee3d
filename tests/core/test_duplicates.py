import pytest

from zmesh.core.duplicates import CALM, MAX_LIVES, RETURNS, Duplicates
from zmesh.core.timers import Alarm
from zmesh.core.wire import Record


def life(incarnation, serial, node="x"):
    return Record(node, incarnation, serial, (), (), b"")


@pytest.fixture
def duplicates():
    table = Duplicates(Alarm())
    yield table
    table.check()


def alternate(duplicates, times, now=0.0):
    """Two lives outbid each other so many times; which of them were proof."""
    found = []
    for number in range(times):
        winner, loser = life(1 + number % 2, number + 1), life(2 - number % 2, number)
        found.append(duplicates.witness(winner, loser, now))
    return found


def test_two_lives_that_outbid_each_other_again_and_again_are_two_nodes(duplicates):
    found = alternate(duplicates, 8)
    assert found.count(True) == 1
    assert found.index(True) == RETURNS
    assert "x" in duplicates
    assert duplicates.names() == ["x"]


def test_a_node_that_restarts_many_times_is_one_node(duplicates):
    for number in range(1, 3 * MAX_LIVES):
        assert not duplicates.witness(life(number + 1, 10 * number), life(number, 10 * number - 1), 0.0)
    assert "x" not in duplicates
    assert duplicates.names() == []


def test_late_records_of_a_life_that_is_over_are_no_proof(duplicates):
    assert not duplicates.witness(life(2, 6), life(1, 5), 0.0)
    assert not duplicates.witness(life(1, 8), life(2, 6), 0.1)
    assert not duplicates.witness(life(2, 9), life(1, 8), 0.2)
    assert "x" not in duplicates


def test_the_same_record_heard_over_many_links_counts_once(duplicates):
    duplicates.witness(life(2, 6), life(1, 5), 0.0)
    for _ in range(10):
        assert not duplicates.witness(life(2, 6), life(1, 5), 0.0)


def test_a_name_that_has_been_calm_is_forgotten(duplicates):
    alternate(duplicates, 8, now=10.0)
    assert duplicates.next_deadline() == 10.0 + CALM
    duplicates.expire(10.0 + CALM - 1)
    assert len(duplicates) == 1
    duplicates.expire(10.0 + CALM)
    assert len(duplicates) == 0
    assert duplicates.next_deadline() is None


def test_a_contest_that_nothing_will_end_is_noticed():
    duplicates = Duplicates(Alarm())
    alternate(duplicates, 2)
    duplicates._calm.cancel("x")
    with pytest.raises(AssertionError, match="contested"):
        duplicates.check()
