"""Sessions between nodes: keys that come and go, numbers that are never used twice, and whose packet is whose."""

import pytest

from zmesh.core import wire
from zmesh.core.credentials import Unsealable
from zmesh.core.forwarding.sealing import KEY_LIFETIME, KEY_PACKETS, KEY_SETTLES, MAX_FORMER, MAX_ROUTES, SPARE, Sealing
from zmesh.core.limits import DEFAULT_LIMITS
from zmesh.core.wire import Kind, WireError
from zmesh.testing.authority import TestAuthority

NOTE = wire.Unreachable(Kind.CHUNK, "no_route", "b", "x", (), 0.0)


class Records:
    """What a node knows of others, which all nodes here share."""

    def __init__(self):
        self.known = {}

    def record(self, node):
        return self.known.get(node)


class Node:
    def __init__(self, records, authority, id, incarnation=1, **limits):
        self.id = id
        self.incarnation = incarnation
        self.records = records
        self.credentials = authority.credentials(id)
        limits = DEFAULT_LIMITS._replace(**limits)
        self.sealing = Sealing(id, incarnation, self.credentials, records, 0.0, limits)
        self.publish()

    def publish(self):
        key = self.credentials.exchange_key
        self.records.known[self.id] = wire.Record(self.id, self.incarnation, 1, (), (), key)

    def seal(self, to, head=b"head", body=b"body", kind=Kind.CHUNK, source=None):
        sealed = self.sealing.seal(kind, to, source or self.id, head, body)
        self.sealing.check()
        return None if sealed is None else packet(kind, to, source or self.id, *sealed)

    def open(self, packet):
        opened = self.sealing.open(packet)
        self.sealing.check()
        assert not opened.sealed
        return opened.head, opened.body

    def refusal(self, packet):
        with pytest.raises(Unsealable) as caught:
            self.sealing.open(packet)
        return caught.value.reason


def packet(kind, to, source, head, body):
    return wire.decode_packet(wire.encode_sealed(kind, to, source, head, body))


@pytest.fixture
def authority():
    return TestAuthority(1)


@pytest.fixture
def records():
    return Records()


@pytest.fixture
def nodes(records, authority):
    return [Node(records, authority, id) for id in "abc"]


def test_two_nodes_open_what_they_have_sealed_for_each_other(nodes):
    a, b, _ = nodes
    for number in range(3):
        assert b.open(a.seal("b", b"%d" % number)) == (b"%d" % number, b"body")
        assert a.open(b.seal("a", b"", b"")) == (b"", b"")
    assert len(a.sealing) == len(b.sealing) == 1


def test_a_packet_is_opened_once_and_by_nobody_else(nodes):
    a, b, c = nodes
    sealed = a.seal("b")
    assert c.refusal(sealed._replace(destination="c")) == "restarted"
    assert b.refusal(sealed._replace(source="c")) == "no_key"
    assert b.refusal(sealed._replace(source="leaf@a")) == "forged"
    assert b.refusal(sealed._replace(kind=Kind.ACK)) == "forged"
    assert b.open(sealed) == (b"head", b"body")
    assert b.refusal(sealed) == "replayed"


def test_what_is_not_sealed_or_too_short_is_refused(nodes):
    a, b, _ = nodes
    assert b.refusal(a.seal("b")._replace(sealed=False)) == "not_sealed"
    with pytest.raises(WireError):
        b.sealing.open(a.seal("b")._replace(head=bytes(31)))
    with pytest.raises(WireError):
        b.sealing.reopen(Kind.CHUNK, "b", "a", bytes(31))


def test_a_leaf_is_sealed_for_and_opened_for_by_its_node(nodes):
    a, b, _ = nodes
    assert b.open(a.seal("leaf@b", source="cli@a")) == (b"head", b"body")
    assert a.open(b.seal("cli@a", source="leaf@b")) == (b"head", b"body")


def test_of_what_is_authenticated_no_more_than_so_many_routes_are_kept(nodes):
    a, b, _ = nodes
    for number in range(MAX_ROUTES):
        a.sealing.seal(Kind.CHUNK, f"leaf{number}@b", "a", b"head", b"")
    assert len(a.sealing._routes) == MAX_ROUTES
    more = a.seal("b")
    assert len(a.sealing._routes) == 1
    assert b.open(more) == (b"head", b"body")


def test_without_a_record_nothing_is_sealed_or_opened(nodes, records):
    a, b, _ = nodes
    sealed = a.seal("b")
    del records.known["a"]
    assert b.refusal(sealed) == "no_key"
    assert b.seal("a") is None
    assert not b.sealing.knows("a", 1)
    assert a.sealing.knows("b", 1)
    assert not a.sealing.knows("b", 2)


@pytest.mark.parametrize("key", [b"", bytes(32), bytes(31)])
def test_a_node_whose_key_is_none_gets_nothing(nodes, records, key):
    a, b, _ = nodes
    records.known["b"] = records.known["b"]._replace(public_key=key)
    assert a.seal("b") is None
    assert a.refusal(b.seal("a")) == "no_key"


def test_a_node_that_has_restarted_says_so_and_opens_nothing_of_before(nodes, records, authority):
    a, b, _ = nodes
    before = a.seal("b")
    again = Node(records, authority, "b", 2)
    assert again.refusal(before) == "restarted"
    assert again.open(a.seal("b")) == (b"head", b"body")
    assert a.refusal(b.seal("a")) == "no_key"


def test_the_same_key_under_another_incarnation_is_another_session(nodes, records):
    a, b, _ = nodes
    first = a.seal("b")
    record = records.known["b"]
    records.known["b"] = record._replace(incarnation=5)
    a.open_none = a.refusal(b.seal("a"))
    assert a.open_none == "forged"
    assert b.open(first) == (b"head", b"body")


def test_a_head_comes_back_to_who_has_sealed_it(nodes):
    a, b, c = nodes
    sealed = a.seal("c")
    head = wire.encode(NOTE._replace(destination="c"))
    note = b.seal("a", head, sealed.head, Kind.UNREACHABLE)
    assert a.open(note) == (head, b"head")
    late = b.seal("a", wire.encode(wire.Expired(Kind.CHUNK, "b", "c")), sealed.head, Kind.EXPIRED)
    assert a.open(late)[1] == b"head"
    assert a.refusal(b.seal("a", head, c.seal("b").head, Kind.UNREACHABLE)) == "not_ours"
    assert a.refusal(b.seal("a", wire.encode(NOTE._replace(destination="b")), sealed.head, Kind.UNREACHABLE)) == (
        "not_ours"
    )


@pytest.mark.parametrize(
    "note",
    [
        NOTE._replace(at="c", destination="c"),
        NOTE._replace(reason="restarted", destination="c"),
        NOTE._replace(reason="gone", destination="leaf@c"),
    ],
)
def test_a_node_speaks_for_itself_alone(nodes, note):
    a, b, _ = nodes
    assert a.refusal(b.seal("a", wire.encode(note), a.seal("c").head, Kind.UNREACHABLE)) == "forged"


def test_sessions_with_nodes_that_are_gone_are_dropped_and_no_number_is_used_again(records, authority):
    a, b = Node(records, authority, "a"), Node(records, authority, "b")
    first = [a.seal("b") for _ in range(5)]
    opened = b.open(first[0])
    assert opened == (b"head", b"body")
    kept = records.known["b"], records.known["a"]
    del records.known["b"], records.known["a"]
    others = [Node(records, authority, f"n{number}") for number in range(SPARE)]
    for other in others:
        a.seal(other.id)
        b.seal(other.id)
    assert len(a.sealing) == SPARE
    records.known["b"], records.known["a"] = kept
    numbers = {wire.decode_seal(each.head).counter for each in first}
    again = a.seal("b")
    assert wire.decode_seal(again.head).counter not in numbers
    assert b.open(again) == (b"head", b"body")
    assert b.refusal(first[0]) == "replayed"


def test_of_sessions_that_were_dropped_so_many_are_remembered(records, authority):
    a = Node(records, authority, "a", forgotten_peers=10)
    for number in range(3 * SPARE):
        other = Node(records, authority, f"n{number}")
        a.seal(other.id)
        a.open(other.seal("a"))
        del records.known[other.id]
    assert len(a.sealing._highest) == 10
    assert len(a.sealing) <= 2 * SPARE


def test_a_key_lasts_a_day_and_the_next_one_is_used_when_others_know_it(nodes):
    a, b, c = nodes
    assert not a.sealing.tick(KEY_LIFETIME - 1)
    before = a.seal("b")
    assert b.open(before) == (b"head", b"body")
    assert a.sealing.tick(KEY_LIFETIME)
    a.publish()
    assert not a.sealing.tick(KEY_LIFETIME)
    meanwhile = a.seal("b")
    assert wire.decode_seal(meanwhile.head).sender == wire.decode_seal(before.head).sender
    first = a.seal("c")
    assert wire.decode_seal(first.head).sender == a.credentials.exchange_key[:4]
    assert c.open(first) == (b"head", b"body")
    assert b.open(meanwhile) == (b"head", b"body")
    assert not a.sealing.tick(KEY_LIFETIME + KEY_SETTLES)
    after = a.seal("b")
    assert wire.decode_seal(after.head).sender == a.credentials.exchange_key[:4]
    assert b.open(after) == (b"head", b"body")
    assert a.open(b.seal("a")) == (b"head", b"body")


def test_what_was_sealed_for_the_last_key_is_opened_and_for_the_one_before_that_it_is_late(nodes):
    a, b, _ = nodes
    first = b.seal("a")
    now = 0.0
    for turn in range(MAX_FORMER + 2):
        now += KEY_LIFETIME + KEY_SETTLES
        second = b.seal("a")
        assert a.sealing.tick(now)
        a.publish()
        a.sealing.tick(now + KEY_SETTLES)
        assert a.open(second) == (b"head", b"body")
        if turn == 1:
            assert a.refusal(first) == "former_key"
    assert a.refusal(first) == "restarted"
    assert len(a.sealing._former) == MAX_FORMER
    assert len(a.sealing._keys) == 2


def test_a_session_that_the_last_rotation_has_ended_is_dropped(nodes):
    a, b, _ = nodes
    for turn in range(1, 4):
        a.open(b.seal("a"))
        a.sealing.tick(turn * 2 * KEY_LIFETIME)
        a.publish()
        a.sealing.tick(turn * 2 * KEY_LIFETIME + KEY_SETTLES)
    assert len(a.sealing) == 2 - 1
    assert not a.sealing._highest


def test_a_key_that_has_sealed_much_is_replaced_before_it_may_seal_no_more(nodes):
    a, b, _ = nodes
    a.seal("b")
    session = a.sealing._sending["b"][1]
    session.counter = KEY_PACKETS // 2
    assert b.open(a.seal("b")) == (b"head", b"body")
    assert a.sealing.tick(1.0)
    session.counter = KEY_PACKETS
    assert a.seal("b") is None
    a.publish()
    a.sealing.tick(1.0 + KEY_SETTLES)
    assert b.open(a.seal("b")) == (b"head", b"body")


def test_a_session_that_is_used_and_not_in_the_table_is_an_error(nodes):
    a, _, _ = nodes
    a.seal("b")
    a.sealing._sessions.clear()
    with pytest.raises(AssertionError):
        a.sealing.check()
