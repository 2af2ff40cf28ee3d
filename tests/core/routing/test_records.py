import pytest

from tests.core.routing.record_rows import advertised, hear, record
from zmesh.core.routing.records import (
    COALESCE,
    KEEP_GONE,
    REORIGINATE_INITIAL,
    REORIGINATE_MAX,
    Records,
)
from zmesh.core.routing.serials import HIGHEST
from zmesh.core.wire import (
    MAX_CAPABILITIES,
    MAX_CAPABILITY,
    MAX_NEIGHBOURS,
    MAX_RECORD,
    U64,
    Record,
    decode_record,
    encode,
    software_of,
    tags_of,
)

# --- the own record ----------------------------------------------------------------------------------------------


def test_a_node_knows_its_own_record_from_the_start(records):
    own = record("a", 100, 1)
    assert records.known() == {"a": own}
    assert records.get("a") == own
    assert (len(records), list(records.names())) == (1, ["a"])
    records.check()


def test_a_record_is_never_larger_than_what_neighbours_accept(records):
    """256 names of 160 characters that take four bytes each, and 2048 neighbours, are more than MAX_RECORD."""
    beside = tuple((f"{number:064}", 100) for number in range(MAX_NEIGHBOURS + 3))
    cut = records.describe(["\U0001f600" * MAX_CAPABILITY] * MAX_CAPABILITIES, beside, 0.0)
    own = records.get("a")
    assert decode_record(encode(own)) == own
    assert len(encode(own)) <= MAX_RECORD
    assert len(own.neighbours) == MAX_NEIGHBOURS
    assert cut == [
        f"256 directives are offered, and the mesh hears of {len(own.capabilities)}",
        "2051 neighbours are there, and the mesh hears of 2048",
    ]
    serial = own.serial
    assert records.describe(["\U0001f600" * MAX_CAPABILITY] * MAX_CAPABILITIES, beside, 0.0) == []
    assert records.get("a").serial == serial


def test_a_changed_record_has_a_higher_serial(records):
    assert records.describe(["x:y"], (("b", 100),), 0.0) == []
    assert records.get("a") == Record("a", 1, 101, ("x:y",), (("b", 100),), b"")
    records.describe(["x:y"], (("b", 100),), 0.0)
    assert records.get("a").serial == 101
    records.check()


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (MAX_CAPABILITIES, MAX_CAPABILITIES),
        (MAX_CAPABILITIES + 1, MAX_CAPABILITIES),
    ],
)
def test_a_record_has_no_more_capabilities_than_it_may_hold(records, said, kept):
    records.describe(["x:y"] * said, (), 0.0)
    assert len(records.get("a").capabilities) == kept


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (MAX_NEIGHBOURS, MAX_NEIGHBOURS),
        (MAX_NEIGHBOURS + 1, MAX_NEIGHBOURS),
    ],
)
def test_a_record_lists_no_more_neighbours_than_it_may_hold(records, said, kept):
    records.describe([], tuple((f"n{number}", 100) for number in range(said)), 0.0)
    assert len(records.get("a").neighbours) == kept


@pytest.mark.parametrize(("said", "kept"), [(MAX_CAPABILITY, MAX_CAPABILITY), (MAX_CAPABILITY + 1, MAX_CAPABILITY)])
def test_a_long_capability_is_cut_to_its_limit(records, said, kept):
    records.describe(["c" * said], (), 0.0)
    assert records.get("a").capabilities == ("c" * kept,)


def test_an_own_record_is_flooded_on_every_link_at_once_and_later_ones_are_coalesced(records, alarm):
    records.link_up(1, 0.0)
    records.link_up(2, 0.0)
    assert alarm.soonest == 0.0
    own = records.get("a")
    assert advertised(records, 0.0) == [(1, [own]), (2, [own])]
    records.describe(["x:x"], (), 5.0)
    own = record("a", 101, 1, ["x:x"])
    assert advertised(records, 5.0) == [(1, [own]), (2, [own])]
    records.describe(["x:y"], (), 5.002)
    records.describe(["x:y", "x:z"], (), 5.005)
    assert records.next_deadline() == 5.0 + COALESCE
    assert advertised(records, 5.005) == []
    own = record("a", 103, 1, ["x:y", "x:z"])
    assert advertised(records, 5.0 + COALESCE) == [(1, [own]), (2, [own])]
    assert advertised(records, 6.0) == []
    assert records.next_deadline() is None


def test_a_hub_with_many_links_floods_less_often(records):
    for link in range(500):
        records.link_up(link, 0.0)
    records.flush(0.0)
    records.describe(["x:x"], (), 0.001)
    assert records.next_deadline() == pytest.approx(0.2)
    assert advertised(records, 0.19) == []
    assert len(advertised(records, 0.2)) == 500


def test_a_change_rings_the_alarm(records, alarm):
    records.describe(["x:y"], (), 3.0)
    assert alarm.soonest == 3.0


# --- records of others -------------------------------------------------------------------------------------------


def test_a_record_is_passed_on_to_all_but_the_one_it_came_from(records):
    for link in (1, 2, 3):
        records.link_up(link, 0.0)
    records.flush(0.0)
    records.set_reachable("b", True, 0.0)
    assert hear(records, record("b", 1), 1.0, link=2)
    assert advertised(records, 1.0 + COALESCE) == [(1, [record("b", 1)]), (3, [record("b", 1)])]


def test_a_record_is_passed_on_with_the_bytes_it_came_with(records):
    records.link_up(1, 0.0)
    records.flush(0.0)
    blob = b"\x99\xd9\x01b" + encode(record("b", 1))[3:]
    assert decode_record(blob) == record("b", 1)
    records.set_reachable("b", True, 0.0)
    records.update(2, record("b", 1), blob, 0.0)
    assert records.flush(1.0) == [(1, [blob])]


def test_a_newer_record_replaces_an_older_one_and_never_the_reverse(records):
    assert hear(records, record("b", 5))
    assert not hear(records, record("b", 5))
    assert not hear(records, record("b", 4, capabilities=["old:one"]))
    assert hear(records, record("b", 6, capabilities=["new:one"]))
    assert records.get("b") == record("b", 6, capabilities=["new:one"])
    assert not hear(records, record("b", 6, incarnation=6))
    assert hear(records, record("b", 6, incarnation=8))
    records.check()


def test_the_record_of_a_node_out_of_reach_is_kept_for_a_while_and_then_dropped(records):
    hear(records, record("b"), 10.0)
    assert records.known().keys() == {"a"}
    assert records.get("b") is not None
    hear(records, record("b", 2), 30.0)
    assert records.expire(10.0 + KEEP_GONE - 0.001) == []
    assert records.expire(10.0 + KEEP_GONE) == ["b"]
    assert records.get("b") is None
    records.check()


def test_a_node_that_comes_into_reach_is_known_and_one_that_leaves_is_not(records):
    hear(records, record("b"), 0.0)
    alone = records.digest
    records.set_reachable("b", True, 1.0)
    records.set_reachable("b", True, 1.0)
    assert records.known().keys() == {"a", "b"}
    assert records.digest != alone
    assert records.expire(1000.0) == []
    records.set_reachable("b", False, 1000.0)
    records.set_reachable("b", False, 1000.0)
    assert records.known().keys() == {"a"}
    assert records.digest == alone
    records.check()
    assert records.expire(1000.0 + KEEP_GONE) == ["b"]


def test_a_node_may_be_reachable_before_its_record_arrives(records):
    records.set_reachable("b", True, 0.0)
    assert records.known().keys() == {"a"}
    records.check()
    hear(records, record("b"), 1.0)
    assert records.known().keys() == {"a", "b"}
    assert records.expire(1000.0) == []
    records.check()


def test_a_node_that_leaves_before_its_record_arrives_leaves_nothing_behind(records):
    records.set_reachable("b", True, 0.0)
    records.set_reachable("b", False, 1.0)
    assert records.next_deadline() is None
    assert records.expire(1000.0) == []
    records.check()


def test_a_node_can_not_be_out_of_its_own_reach(records):
    records.set_reachable("a", False, 0.0)
    assert records.known().keys() == {"a"}
    records.check()


# --- a record in one's own name -----------------------------------------------------------------------------------


def test_a_record_of_a_former_incarnation_is_superseded(records):
    records.link_up(1, 0.0)
    records.flush(0.0)
    assert not hear(records, record("a", 500, incarnation=9), 1.0)
    assert records.get("a") == record("a", 501, incarnation=1)
    assert advertised(records, 1.0 + COALESCE) == [(1, [record("a", 501, incarnation=1)])]


def test_an_equal_serial_is_superseded_by_the_lower_incarnation(records):
    assert not hear(records, record("a", 100, incarnation=0))
    assert records.get("a").serial == 100
    assert not hear(records, record("a", 100, incarnation=2))
    assert records.get("a").serial == 101


def test_this_nodes_own_record_coming_back_changes_nothing(records):
    records.describe(["x:y"], (), 0.0)
    own = records.get("a")
    assert not hear(records, record("a", 100, incarnation=1))
    assert not hear(records, own)
    assert records.get("a") == own


@pytest.mark.parametrize("incarnation", [0, 1, 2], ids=["lower", "same", "higher"])
@pytest.mark.parametrize("ahead", [1, 1 << 40, 1 << 60])
def test_a_forged_record_of_this_node_is_superseded_whatever_incarnation_it_claims(records, incarnation, ahead):
    assert not hear(records, record("a", 100 + ahead, incarnation, ["forged:one"]))
    assert records.get("a") == record("a", 101 + ahead, 1)


def test_of_two_records_of_one_serial_and_incarnation_all_nodes_keep_the_same_one(alarm):
    """Else the tables differ for ever, and the node itself hears of only one of the two."""
    said = [record("b", 5, capabilities=["x:y"]), record("b", 5, capabilities=["forged:one"])]
    kept = []
    for order in (said, said[::-1]):
        records = Records("a", 1, 100, alarm)
        for each in order:
            hear(records, each)
        assert not hear(records, records.get("b"))
        kept.append(records.get("b"))
    assert kept[0] == kept[1]
    itself = Records("b", 7, 4, alarm)
    itself.describe(next(each.capabilities for each in said if each != kept[0]), (), 0.0)
    assert itself.get("b") in said
    hear(itself, kept[0])
    assert itself.get("b").serial == 6


def test_a_serial_that_is_too_far_ahead_is_refused_and_counted_and_not_superseded(records):
    records.link_up(1, 0.0)
    records.flush(0.0)
    for name in ("a", "b"):
        forged = record(name, 1001)
        assert not records.outranks(forged, 1000)
        assert not records.update(1, forged, encode(forged), 1.0, 1000)
    assert records.refused == {(1, "serial_ahead"): 2}
    assert records.get("a").serial == 100
    assert records.get("b") is None
    assert records.flush(2.0) == []
    highest = record("b", 1000)
    assert records.update(1, highest, encode(highest), 1.0, 1000)


def test_the_node_itself_can_supersede_every_serial_that_is_accepted(records):
    for _ in range(3):
        forged = record("a", HIGHEST, incarnation=U64)
        hear(records, forged, 1000.0)
        assert decode_record(encode(records.get("a"))).serial == HIGHEST + 1


def test_two_nodes_of_one_id_reoriginate_with_exponential_backoff(records):
    now, serial, pauses = 1.0, 200, []
    hear(records, record("a", serial, incarnation=9), now)
    for _ in range(12):
        serial = records.get("a").serial + 1
        hear(records, record("a", serial, incarnation=9), now)
        assert records.get("a").serial == serial - 1
        due = records.next_deadline()
        while due - now < REORIGINATE_INITIAL / 2:
            records.flush(due)
            due = records.next_deadline()
        records.expire(due - 0.001)
        assert records.get("a").serial == serial - 1
        records.expire(due)
        assert records.get("a").serial == serial + 1
        pauses.append(due - now)
        now = due
    assert pauses[0] == pytest.approx(REORIGINATE_INITIAL * 2)
    assert pauses[1] == pytest.approx(REORIGINATE_INITIAL * 4)
    assert pauses[-1] == pytest.approx(REORIGINATE_MAX)


def test_after_a_long_quiet_time_a_record_is_reoriginated_soon_again(records):
    for number in range(8):
        hear(records, record("a", 1000 * (number + 1), incarnation=9), 100.0 * number)
    hear(records, record("a", 20_000, incarnation=9), 5000.0)
    hear(records, record("a", 30_000, incarnation=9), 5000.0 + REORIGINATE_INITIAL)
    assert records.get("a").serial == 30_001


# --- check --------------------------------------------------------------------------------------------------------


def test_a_digest_that_is_not_the_sum_is_found(records):
    records.digest += 1
    with pytest.raises(AssertionError, match="digest"):
        records.check()


def test_a_record_without_its_bytes_is_found(records):
    records._blobs.clear()
    with pytest.raises(AssertionError, match="without its bytes"):
        records.check()


def test_check_finds_a_record_without_an_owner(records):
    hear(records, record("b"))
    records._quotas.drop("b")
    with pytest.raises(AssertionError, match="without an owner"):
        records.check()


def test_a_record_that_is_held_back_for_nothing_is_found(records):
    hear(records, record("b"))
    del records._held_back["b"]
    records._held_back["a"] = 1
    with pytest.raises(AssertionError, match="held back"):
        records.check()


def test_a_record_that_nothing_will_drop_is_found(records):
    hear(records, record("b"))
    records._gone.cancel("b")
    with pytest.raises(AssertionError, match="without a timeout"):
        records.check()


def test_the_own_record_has_the_tags_of_this_node(records):
    records.describe(["x:y"], (), 0.0, tags=("gpu",))
    own = records.get("a")
    assert (tags_of(own), tags_of(decode_record(encode(own)))) == (("gpu",), ("gpu",))
    records.describe(["x:y"], (), 0.0, tags=("gpu",))
    assert records.get("a") is own
    records.describe(["x:y"], (), 0.0)
    assert tags_of(records.get("a")) == ()


def test_the_own_record_has_the_version_of_the_software_of_this_node(records):
    records.describe(["x:y"], (), 0.0, software="0.1.0")
    assert software_of(decode_record(encode(records.get("a")))) == "0.1.0"
    records.describe(["x:y"], (), 0.0, software="é" * 40)
    assert software_of(records.get("a")) == "?" * 32
    records.describe(["x:y"], (), 0.0)
    assert software_of(records.get("a")) == ""
