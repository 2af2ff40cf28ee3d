import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.routing.record_rows import advertised, hear, record
from zmesh.core.routing.records import (
    BATCH_BYTES,
    KEEP_GONE,
    UNIT_BYTES,
    Records,
)
from zmesh.core.timers import Alarm
from zmesh.core.wire import (
    MAX_CAPABILITIES,
    MAX_RECORDS,
    decode_record,
)

# --- links --------------------------------------------------------------------------------------------------------


def test_a_new_neighbour_gets_the_records_of_all_reachable_nodes_at_once(records):
    hear(records, record("b"))
    hear(records, record("gone"))
    records.set_reachable("b", True, 0.0)
    records.flush(1.0)
    records.link_up(1, 2.0)
    assert records.next_deadline() == 2.0
    assert advertised(records, 2.0) == [(1, [records.get("a"), record("b")])]


def test_a_neighbour_gets_all_records_again_when_it_sends_resend(records):
    records.link_up(1, 0.0)
    records.flush(0.0)
    records.resend(1, 5.0)
    records.resend(2, 5.0)
    assert advertised(records, 5.0) == [(1, [records.get("a")])]


def test_no_records_are_sent_on_a_link_that_is_down(records):
    records.link_up(1, 0.0)
    records.link_down(1)
    records.link_down(1)
    records.resend(1, 0.0)
    assert advertised(records, 0.0) == []


def test_a_record_that_was_dropped_meanwhile_is_not_sent(records):
    records.link_up(1, 0.0)
    records.flush(0.0)
    records.set_reachable("b", True, 1.0)
    hear(records, record("b"), 1.0, link=2)
    records.set_reachable("b", False, 1.0)
    assert records.expire(1.0 + KEEP_GONE) == ["b"]
    assert advertised(records, 1.0 + KEEP_GONE) == []


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(0, [MAX_RECORDS, MAX_RECORDS, 77]), (1000, None)],
    ids=["by number", "by size"],
)
def test_many_records_go_out_in_batches(records, size, sizes):
    for number in range(2 * MAX_RECORDS + 76):
        node = f"n{number}"
        records.set_reachable(node, True, 0.0)
        hear(records, record(node, capabilities=["c" * 100] * (size // 100)))
    records.link_up(1, 0.0)
    batches = records.flush(0.0)
    if sizes:
        assert [len(blobs) for _, blobs in batches] == sizes
    assert all(sum(map(len, blobs)) <= BATCH_BYTES for _, blobs in batches)
    assert len({blob for _, blobs in batches for blob in blobs}) == 2 * MAX_RECORDS + 77
    whole = [sum(map(len, blobs)) for _, blobs in batches]
    assert sizes or all(sum(pair) > BATCH_BYTES for pair in itertools.pairwise(whole))


def test_a_record_larger_than_a_batch_goes_out_alone(records):
    records.describe(["c" * 160] * (MAX_CAPABILITIES - 1), tuple((f"{i:064}", 1) for i in range(1000)), 0.0)
    hear(records, record("b"))
    records.set_reachable("b", True, 0.0)
    records.link_up(1, 1.0)
    (first, second) = records.flush(1.0)
    assert len(first[1][0]) > BATCH_BYTES
    assert (len(first[1]), len(second[1])) == (1, 1)


def test_the_next_deadline_is_the_earlier_of_flooding_and_dropping(records):
    assert records.next_deadline() is None
    hear(records, record("b"), 1.0)
    assert records.next_deadline() == 1.0 + KEEP_GONE
    records.describe(["x:y"], (), KEEP_GONE)
    assert records.next_deadline() == KEEP_GONE
    records.flush(KEEP_GONE)
    assert records.next_deadline() == 1.0 + KEEP_GONE


# --- limits -------------------------------------------------------------------------------------------------------


def test_a_record_of_a_node_without_a_route_is_passed_on_only_once_there_is_one(records):
    for link in (1, 2):
        records.link_up(link, 0.0)
    records.flush(0.0)
    hear(records, record("b", 1), 1.0, link=2)
    hear(records, record("b", 2), 2.0, link=2)
    assert advertised(records, 10.0) == []
    records.set_reachable("b", True, 11.0)
    assert advertised(records, 11.0) == [(1, [record("b", 2)])]
    records.set_reachable("b", False, 12.0)
    records.set_reachable("b", True, 13.0)
    assert advertised(records, 20.0) == []
    records.check()


@pytest.mark.parametrize("limit", [1, 5])
def test_no_more_records_are_kept_than_the_limit_and_its_own(alarm, limit):
    records = Records("a", 1, 100, alarm, limit)
    for number in range(limit):
        records.set_reachable(f"n{number}", True, 0.0)
        assert hear(records, record(f"n{number}"))
    assert not hear(records, record("more"))
    assert hear(records, record("n0", 2))
    assert (len(records), records.refused) == (limit + 1, {(1, "nodes"): 1})
    records.check()


def test_a_large_record_counts_for_as_many_as_it_takes_memory(alarm):
    records = Records("a", 1, 100, alarm, 10)
    for node in "bc":
        records.set_reachable(node, True, 0.0)
    beside = [(f"n{number}", 100) for number in range(9 * UNIT_BYTES // 160)]
    assert not hear(records, record("b", neighbours=[*beside, *beside[:20]]))
    assert hear(records, record("b", neighbours=beside[:-20]))
    assert not hear(records, record("c", neighbours=beside))
    assert hear(records, record("b", 2))
    assert hear(records, record("c", neighbours=beside[:-20]))
    records.check()


def test_a_neighbour_that_sends_too_many_records_does_not_evict_those_of_others(alarm):
    records = Records("a", 1, 100, alarm, 100)
    records.link_up(1, 0.0, "liar")
    records.link_up(2, 0.0, "honest")
    for number in range(200):
        records.set_reachable(f"made-up-{number}", True, 0.0)
        hear(records, record(f"made-up-{number}"), link=1)
    for number in range(50):
        records.set_reachable(f"n{number}", True, 0.0)
        assert hear(records, record(f"n{number}"), link=2)
    assert not hear(records, record("one-more"), link=2)
    assert len(records) == 101
    assert records.refused == {(1, "nodes"): 100, (None, "gave_way"): 50, (2, "nodes"): 1}
    records.check()
    for number in range(200):
        records.set_reachable(f"made-up-{number}", False, 10.0)
    assert hear(records, record("one-more"), 11.0, link=2)
    records.expire(10.0 + KEEP_GONE)
    assert len(records) == 51 + 1
    records.check()


# --- flooding -----------------------------------------------------------------------------------------------------


@given(st.integers(0, 1 << 32))
def test_all_nodes_agree_when_the_flood_is_over(seed):
    rng = random.Random(seed)
    count = rng.randint(2, 7)
    edges = {(i, rng.randrange(i)) for i in range(1, count)}
    edges |= {tuple(sorted(rng.sample(range(count), 2), reverse=True)) for _ in range(rng.randrange(4))}
    tables = [Records(f"n{i}", rng.getrandbits(8) + 1, rng.randrange(5), Alarm()) for i in range(count)]
    for table in tables:
        for j in range(count):
            table.set_reachable(f"n{j}", True, 0.0)
    beside = {i: [b if a == i else a for a, b in edges if i in (a, b)] for i in range(count)}
    queues = {(i, j): [] for i in range(count) for j in beside[i]}
    for i in range(count):
        for j in beside[i]:
            tables[i].link_up(j, 0.0)
    now = 0.0
    stray = record("n0", rng.randrange(10), incarnation=999)
    hear(tables[rng.randrange(1, count)], stray, 0.0, link=-1)
    for step in range(400):
        now += 0.05
        i = rng.randrange(count)
        if step < 60 and rng.random() < 0.3:
            tables[i].describe([f"c:{rng.randrange(5)}"], (), now)
        for j, blobs in tables[i].flush(now):
            queues[i, j].append(blobs)
        (a, b), waiting = rng.choice(list(queues.items()))
        for blobs in [waiting.pop(0)] if waiting else []:
            for blob in blobs:
                tables[b].update(a, decode_record(blob), blob, now)
        tables[i].check()
    for _ in range(5 * count):
        now += 1.5
        for i in range(count):
            for j, blobs in tables[i].flush(now):
                queues[i, j].append(blobs)
        for (a, b), waiting in queues.items():
            for blob in [blob for blobs in waiting for blob in blobs]:
                tables[b].update(a, decode_record(blob), blob, now)
            waiting.clear()
    assert len({table.digest for table in tables}) == 1
    assert all(table.known() == tables[0].known() for table in tables)
    for i, table in enumerate(tables):
        assert tables[0].get(f"n{i}") == table.get(f"n{i}")
        table.check()
