"""Who has requested what: counts by client and directive."""

from zmesh.serving.request_counts import MAX_PAIRS, RequestCount, RequestCounts


def test_requests_are_counted_by_client_and_directive_and_those_that_fail():
    counts = RequestCounts()
    for sender in ("a", "a", "cli-0f3a@hub", "cli-77aa@hub", "ada.12ef@hub"):
        counts.taken_up(sender, "echo:echo")
    counts.failed("cli-0f3a@hub", "echo:echo", "remote_error")
    counts.failed("a", "echo:echo", "cancelled")
    counts.failed("b", "echo:echo", "remote_error")
    assert list(counts) == [
        RequestCount("a", "echo:echo", 2, 0),
        RequestCount("cli@hub", "echo:echo", 2, 1),
        RequestCount("ada@hub", "echo:echo", 1, 0),
    ]


def test_the_least_frequent_pair_goes_where_there_is_no_room():
    counts = RequestCounts()
    for _ in range(5):
        counts.taken_up("a", "echo:echo")
    for number in range(10_000):
        counts.taken_up(f"n{number}", "echo:echo")
    found = list(counts)
    assert len(found) == MAX_PAIRS
    assert found[0] == RequestCount("a", "echo:echo", 5, 0)
    assert sum(each.taken for each in found) + counts.others == 10_005
