import pytest

from zmesh.core.limits import Limits
from zmesh.core.routing.duplicates import CONTEST_TIMEOUT, MAX_INCARNATIONS, RETURNS, Duplicates, describe_refused
from zmesh.core.timers import Alarm
from zmesh.core.wire import MAX_WHERE, Record, Refused


def record_of(incarnation, serial, node="x"):
    return Record(node, incarnation, serial, (), (), b"")


@pytest.fixture
def duplicates():
    table = Duplicates(Alarm())
    yield table
    table.check()


def alternate(duplicates, times, now=0.0):
    """Two incarnations outrank each other so many times; returns which times completed the proof."""
    found = []
    for number in range(times):
        winner, loser = record_of(1 + number % 2, number + 1), record_of(2 - number % 2, number)
        found.append(duplicates.witness(winner, loser, now))
    return found


def test_two_incarnations_that_keep_outranking_each_other_are_two_nodes(duplicates):
    found = alternate(duplicates, 8)
    assert found.count(True) == 1
    assert found.index(True) == RETURNS
    assert "x" in duplicates
    assert duplicates.names() == ["x"]


def test_a_node_that_restarts_many_times_is_one_node(duplicates):
    for number in range(1, 3 * MAX_INCARNATIONS):
        assert not duplicates.witness(record_of(number + 1, 10 * number), record_of(number, 10 * number - 1), 0.0)
    assert "x" not in duplicates
    assert duplicates.names() == []


def test_late_records_of_a_former_incarnation_are_no_proof(duplicates):
    assert not duplicates.witness(record_of(2, 6), record_of(1, 5), 0.0)
    assert not duplicates.witness(record_of(1, 8), record_of(2, 6), 0.1)
    assert not duplicates.witness(record_of(2, 9), record_of(1, 8), 0.2)
    assert "x" not in duplicates


def test_the_same_record_received_on_many_links_counts_once(duplicates):
    duplicates.witness(record_of(2, 6), record_of(1, 5), 0.0)
    for _ in range(10):
        assert not duplicates.witness(record_of(2, 6), record_of(1, 5), 0.0)


def test_a_contested_id_is_dropped_after_its_timeout(duplicates):
    alternate(duplicates, 8, now=10.0)
    assert duplicates.next_deadline() == 10.0 + CONTEST_TIMEOUT
    duplicates.expire(10.0 + CONTEST_TIMEOUT - 1)
    assert len(duplicates) == 1
    duplicates.expire(10.0 + CONTEST_TIMEOUT)
    assert len(duplicates) == 0
    assert duplicates.next_deadline() is None


def test_check_finds_a_contest_without_a_timeout():
    duplicates = Duplicates(Alarm())
    alternate(duplicates, 2)
    duplicates._timeouts.cancel("x")
    with pytest.raises(AssertionError, match="contested"):
        duplicates.check()


# --- refused duplicates -------------------------------------------------------------------------------------------


def test_a_refused_duplicate_is_new_once_and_kept_while_it_returns(duplicates):
    assert duplicates.refuse("x", 2, 7.0, "from 10.0.0.7", 0.0)
    assert not duplicates.refuse("x", 2, 7.0, "from 10.0.0.7", 100.0)
    assert duplicates.refuse("x", 3, 8.0, "from 10.0.0.8", 100.0)
    assert duplicates.refused() == (Refused("x", 2, 7.0, "from 10.0.0.7"), Refused("x", 3, 8.0, "from 10.0.0.8"))
    assert not duplicates.expire(100.0 + CONTEST_TIMEOUT - 1)
    assert duplicates.next_deadline() == 100.0 + CONTEST_TIMEOUT
    assert duplicates.expire(100.0 + CONTEST_TIMEOUT)
    assert (duplicates.refused(), duplicates.next_deadline()) == ((), None)
    assert "x" not in duplicates


def test_no_more_refused_duplicates_are_listed_than_the_limit():
    duplicates = Duplicates(Alarm(), Limits(refused_ids=2))
    assert [duplicates.refuse(f"n{number}", 2, 7.0, "", 0.0) for number in range(4)] == [True, True, False, False]
    assert not duplicates.refuse("n0", 2, 7.0, "", 1.0)
    assert len(duplicates.refused()) == 2
    duplicates.check()


def test_the_place_of_a_refused_duplicate_is_cut_to_the_length_that_the_wire_allows(duplicates):
    duplicates.refuse("x", 2, 7.0, "w" * (MAX_WHERE + 1), 0.0)
    assert duplicates.refused()[0].where == "w" * MAX_WHERE


def test_check_finds_a_refused_duplicate_without_a_timeout(duplicates):
    duplicates.refuse("x", 2, 7.0, "", 0.0)
    duplicates._refusal_timeouts.cancel(("x", 2))
    with pytest.raises(AssertionError, match="refused"):
        duplicates.check()
    duplicates._refused.clear()


def test_the_report_of_a_refused_duplicate_names_the_refusing_node_and_where_it_came_from():
    end = "and was refused; one of the two must get another id"
    refused = Refused("x", 2, 7.0, "from 10.0.0.7")
    text = describe_refused(refused, "hub", "a")
    assert text == f"a second node called 'x' has tried to join at 'hub' from 10.0.0.7 {end}"
    text = describe_refused(refused._replace(where=""), "hub", "x")
    assert text == f"another node called 'x' has tried to join at 'hub' {end}"
