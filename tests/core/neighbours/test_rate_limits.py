import pytest

from zmesh.core.limits import DEFAULT_LIMITS, Limits, Rate, TokenBucket
from zmesh.core.neighbours.rate_limits import LIMIT_OF, RateExceeded, RateLimiter
from zmesh.core.wire import FIRST_ROUTED, Kind

EXEMPT = {Kind.REFUSE, Kind.GOODBYE, Kind.BATCH}  # they end the link, or stand for what they hold


def spent(bucket, now):
    """How many times one can be spent at that time."""
    count = 0
    while bucket.has(now):
        bucket.spend(1)
        count += 1
    return count


def test_so_many_may_be_spent_at_once_and_so_many_a_second_from_then_on():
    bucket = TokenBucket(Rate(2, 10), 0.0)
    assert spent(bucket, 0.0) == 10
    assert spent(bucket, 0.0) == 0
    assert sum(spent(bucket, step / 100) for step in range(1, 10_001)) == pytest.approx(200, abs=1)


def test_no_more_is_saved_up_than_may_be_spent_at_once():
    bucket = TokenBucket(Rate(2, 10), 0.0)
    spent(bucket, 0.0)
    assert spent(bucket, 1e6) == 10


def test_what_was_overdrawn_has_to_be_made_up_for():
    bucket = TokenBucket(Rate(2, 10), 0.0)
    bucket.spend(30)
    assert not bucket.has(9.9)
    assert bucket.has(10.1)


def test_a_clock_that_goes_back_earns_nothing():
    bucket = TokenBucket(Rate(2, 1), 100.0)
    bucket.spend(1)
    assert not bucket.has(50.0)
    assert not bucket.has(100.0)
    assert bucket.has(100.1)


def test_each_kind_of_frame_that_stays_on_a_link_has_a_limit_or_ends_the_link():
    assert LIMIT_OF.keys() | EXEMPT == {kind for kind in Kind if kind < FIRST_ROUTED}
    assert all(isinstance(getattr(DEFAULT_LIMITS, name), Rate) for name in LIMIT_OF.values())


def test_one_kind_does_not_use_up_what_another_may_have():
    limiter = RateLimiter(Limits(probes=Rate(1, 3), record_updates=Rate(1, 1)))
    for _ in range(3):
        limiter.admit(Kind.PROBE, 0.0, is_up=True)
    with pytest.raises(RateExceeded, match="probes, ECHO"):
        limiter.admit(Kind.ECHO, 0.0, is_up=True)
    limiter.admit(Kind.RECORD, 0.0, is_up=True)
    limiter.spend("record_updates", 5)
    with pytest.raises(RateExceeded, match="record_updates, RECORD"):
        limiter.admit(Kind.RECORD, 4.0, is_up=True)
    limiter.admit(Kind.GOODBYE, 4.0, is_up=True)


def test_before_the_greeting_everything_is_an_attempt_to_greet():
    limiter = RateLimiter(Limits(greetings=Rate(1, 2)))
    for kind in (Kind.UPDATE, Kind.REFUSE):
        limiter.admit(kind, 0.0, is_up=False)
    with pytest.raises(RateExceeded, match="greetings, PROBE"):
        limiter.admit(Kind.PROBE, 0.0, is_up=False)


def test_what_is_costly_counts_for_all_links_of_a_neighbour_and_greetings_and_probes_for_each():
    limits = Limits(probes=Rate(1, 2), route_entries=Rate(1, 5))
    shared = {}
    first, second = RateLimiter(limits), RateLimiter(limits)
    for limiter in (first, second):
        limiter.share(shared)
        for _ in range(2):
            limiter.admit(Kind.PROBE, 0.0, is_up=True)
    first.admit(Kind.UPDATE, 0.0, is_up=True)
    first.spend("route_entries", 5)
    with pytest.raises(RateExceeded, match="route_entries"):
        second.admit(Kind.UPDATE, 0.0, is_up=True)
    second.admit(Kind.UPDATE, 1.0, is_up=True)
