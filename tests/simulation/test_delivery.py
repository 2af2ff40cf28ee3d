"""Every send ends exactly once, whatever happens meanwhile; `make soak` runs many more seeds of the same."""

import collections

import pytest

from zmesh.testing.traffic import REASONS, run_delivery, run_requests

SEEDS = 500
BATCH = 25


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_every_send_ends_exactly_once_its_work_runs_at_most_once_and_no_reply_is_lost(first):
    tally = collections.Counter()
    for seed in range(first, first + BATCH):
        tally.update(run_delivery(seed))
    assert tally["eof"] > 0
    assert set(tally) <= {"eof", "remote", "sender gone", *REASONS}


def test_ten_thousand_requests_with_a_thousand_outstanding_are_all_answered_and_leave_nothing_behind():
    run_requests(1, count=10_000, outstanding=1_000)
