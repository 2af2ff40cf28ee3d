import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.routing.quotas import Quotas


def filled(capacity=10, **owners):
    """A full table, or one with so many rows of each of the owners."""
    shares = Quotas(capacity)
    for owner, count in owners.items():
        for number in range(count):
            assert shares.take(f"{owner}{number}", owner) == []
    shares.check()
    return shares


def test_while_there_is_room_one_may_have_all_of_it():
    shares = filled(a=10)
    assert (len(shares), shares.of("a"), shares.of("b")) == (10, 10, 0)
    assert shares.take("a0", "a") == []
    assert "a0" in shares


def test_the_owner_with_the_most_is_refused_when_there_is_no_room():
    shares = filled(a=10)
    assert shares.take("more", "a") is None
    assert "more" not in shares
    shares.check()


def test_rows_of_the_largest_owner_are_evicted_for_a_smaller_one_until_both_have_as_much():
    shares = filled(a=10)
    for number in range(5):
        assert shares.take(f"b{number}", "b") == [f"a{9 - number}"]
    assert shares.take("b5", "b") is None
    assert (shares.of("a"), shares.of("b")) == (5, 5)
    shares.check()


def test_idle_rows_are_evicted_first_the_oldest_before_the_others():
    shares = filled(a=10)
    for key in ("a4", "a2"):
        shares.idle(key)
        shares.idle(key)
    assert shares.take("b0", "b") == ["a4"]
    assert shares.take("a9x", "a") == ["a2"]
    assert shares.take("a9y", "a") is None
    shares.check()


def test_idle_rows_of_others_are_evicted_even_if_these_have_less():
    shares = filled(a=8, b=2)
    shares.idle("b1")
    assert shares.take("more", "a") == ["b1"]
    shares.check()


def test_a_row_that_is_used_again_is_evicted_as_if_it_were_new():
    shares = filled(a=10)
    shares.idle("a0")
    shares.use("a0")
    shares.use("a0")
    assert shares.take("b0", "b") == ["a0"]


def test_a_row_that_another_owner_sends_belongs_to_it_from_then_on():
    shares = filled(a=6, b=4)
    assert shares.take("a0", "b") == []
    assert (shares.of("a"), shares.of("b")) == (5, 5)
    shares.check()


def test_a_row_may_become_heavier_as_far_as_there_is_room():
    shares = filled(a=4, b=4)
    assert shares.take("a0", "a", 3) == []
    assert shares.of("a") == 6
    assert shares.take("a1", "a", 2) is None
    assert len(shares.take("b0", "b", 2)) == 1
    assert (shares.of("b"), shares.total) == (5, 10)
    shares.check()


def test_a_row_that_would_need_more_than_may_be_evicted_changes_nothing():
    shares = filled(a=6, b=4)
    shares.idle("b3")
    assert shares.take("b0", "b", 9) is None
    assert shares.take("c", "c", 11) is None
    assert (shares.of("a"), shares.of("b"), len(shares)) == (6, 4, 10)
    assert shares.take("more", "a") == ["b3"]
    shares.check()


def test_dropped_rows_make_room():
    shares = filled(a=5, b=5)
    for key in ("a0", "a0", "b0"):
        shares.drop(key)
    shares.idle("a0")
    assert len(shares) == 8
    assert shares.take("c", "c") == []
    shares.check()


def test_finding_the_largest_owner_costs_no_more_with_many_owners():
    """It is looked for once, not for each of the rows that are refused or that take the place of one's own."""
    looked = []

    class Counted(Quotas):
        def _find_largest(self):
            looked.append(self._largest is None)
            return super()._find_largest()

    shares = Counted(2000)
    for number in range(1000):
        shares.take(number, f"o{number}")
    for number in range(2000):
        shares.take(f"made up {number}", "liar")
    for number in range(1000):
        shares.idle(f"made up {number}")
        shares.take(f"and {number}", "liar")
    assert len(looked) == 2000
    assert sum(looked) <= 10
    shares.check()


@given(st.lists(st.tuples(st.sampled_from(["take", "idle", "use", "drop"]), st.integers(0, 30), st.integers(0, 4),
                          st.integers(1, 4)), max_size=200))  # fmt: skip
def test_the_sums_stay_right_and_no_row_is_evicted_for_a_larger_owner(events):
    shares = Quotas(20)
    for what, key, owner, weight in events:
        if what == "take":
            used = {other: len(share.used) for other, share in shares._shares.items()}
            before = {other: shares.of(other) for other in range(5)}
            moved = key in shares
            victims = shares.take(key, owner, weight)
            if victims is None:
                assert before == {other: shares.of(other) for other in range(5)}
            for other, share in shares._shares.items():
                if other != owner and not moved and len(share.used) < used[other]:
                    assert before[other] > before[owner] + weight
        else:
            getattr(shares, what)(key)
        shares.check()


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (lambda shares: setattr(shares, "total", 3), "weight"),
        (lambda shares: setattr(shares, "_idle", 3), "lost count"),
        (lambda shares: shares._shares["a"].used.clear(), "without a share"),
    ],
    ids=["total", "idle", "rows"],
)
def test_sums_that_are_wrong_are_found(harm, match):
    shares = filled(a=10)
    harm(shares)
    with pytest.raises(AssertionError, match=match):
        shares.check()
