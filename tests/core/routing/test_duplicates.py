import pytest

from zmesh.core.limits import Limits
from zmesh.core.routing.duplicates import CONTEST_TIMEOUT, MAX_INCARNATIONS, RETURNS, Duplicates, told
from zmesh.core.timers import Alarm
from zmesh.core.wire import MAX_WHERE, Record, Refused


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
    for number in range(1, 3 * MAX_INCARNATIONS):
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
    assert duplicates.next_deadline() == 10.0 + CONTEST_TIMEOUT
    duplicates.expire(10.0 + CONTEST_TIMEOUT - 1)
    assert len(duplicates) == 1
    duplicates.expire(10.0 + CONTEST_TIMEOUT)
    assert len(duplicates) == 0
    assert duplicates.next_deadline() is None


def test_a_contest_that_nothing_will_end_is_noticed():
    duplicates = Duplicates(Alarm())
    alternate(duplicates, 2)
    duplicates._calm.cancel("x")
    with pytest.raises(AssertionError, match="contested"):
        duplicates.check()


# --- nodes that were refused --------------------------------------------------------------------------------------


def test_a_node_that_was_refused_is_news_once_and_kept_while_it_comes_back(duplicates):
    assert duplicates.refuse("x", 2, 7.0, "from 10.0.0.7", 0.0)
    assert not duplicates.refuse("x", 2, 7.0, "from 10.0.0.7", 100.0)
    assert duplicates.refuse("x", 3, 8.0, "from 10.0.0.8", 100.0)
    assert duplicates.refused() == (Refused("x", 2, 7.0, "from 10.0.0.7"), Refused("x", 3, 8.0, "from 10.0.0.8"))
    assert not duplicates.expire(100.0 + CONTEST_TIMEOUT - 1)
    assert duplicates.next_deadline() == 100.0 + CONTEST_TIMEOUT
    assert duplicates.expire(100.0 + CONTEST_TIMEOUT)
    assert (duplicates.refused(), duplicates.next_deadline()) == ((), None)
    assert "x" not in duplicates


def test_no_more_refused_nodes_are_told_than_the_limit():
    duplicates = Duplicates(Alarm(), Limits(refused_ids=2))
    assert [duplicates.refuse(f"n{number}", 2, 7.0, "", 0.0) for number in range(4)] == [True, True, False, False]
    assert not duplicates.refuse("n0", 2, 7.0, "", 1.0)
    assert len(duplicates.refused()) == 2
    duplicates.check()


def test_where_a_refused_node_is_is_cut_to_what_the_wire_takes(duplicates):
    duplicates.refuse("x", 2, 7.0, "w" * (MAX_WHERE + 1), 0.0)
    assert duplicates.refused()[0].where == "w" * MAX_WHERE


def test_a_refused_name_that_nothing_will_forget_is_noticed(duplicates):
    duplicates.refuse("x", 2, 7.0, "", 0.0)
    duplicates._refusals.cancel(("x", 2))
    with pytest.raises(AssertionError, match="refused"):
        duplicates.check()
    duplicates._refused.clear()


def test_what_is_said_of_a_refused_node():
    end = "and was refused; one of the two must get another id"
    refused = Refused("x", 2, 7.0, "from 10.0.0.7")
    assert told(refused, "hub", "a") == f"a second node called 'x' has tried to join at 'hub' from 10.0.0.7 {end}"
    assert told(refused._replace(where=""), "hub", "x") == f"another node called 'x' has tried to join at 'hub' {end}"
