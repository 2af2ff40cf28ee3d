"""Key exchanges as a table: who is forgotten for whom, and what is not in order."""

import pytest

from zmesh.core import wire
from zmesh.core.credentials import Unsealable
from zmesh.core.forwarding.end_to_end import EndToEnd
from zmesh.core.forwarding.forwarding import Forwarding
from zmesh.core.forwarding.key_exchanges import KeyExchanges, Waiting
from zmesh.core.limits import DEFAULT_LIMITS
from zmesh.core.timers import WallClock
from zmesh.core.wire import FLAG_LEAF, FLAG_SEALED, Kind
from zmesh.testing.authority import TestAuthority

NOW = 1000.0


@pytest.fixture
def authority():
    return TestAuthority()


class End:
    """One end of key exchanges; `busy` has the names of those with whom it has something to do."""

    def __init__(self, authority, id, holder=None, **limits):
        self.leaf = holder is not None
        self.address = f"{id}@hub" if self.leaf else id
        self.credentials = authority.credentials(holder or id)
        self.table = KeyExchanges(
            id, 7, self.credentials, WallClock(NOW), leaf=self.leaf, limits=DEFAULT_LIMITS._replace(**limits)
        )
        self.busy = set()
        self.table.in_use = lambda name, incarnation: name in self.busy

    def packet(self, to, kind, head, body=b"", sealed=0):
        frames = wire.encode_packet(kind, to, self.address, head, body)
        return wire.decode_packet(frames)._replace(sealed=sealed)

    def exchange(self, other, now=0.0):
        """Exchange keys with another end."""
        request = self.packet(other.address, Kind.KEY_EXCHANGE, self.table.request(other.address, now))
        answer = other.table.take(request, now)
        assert self.table.take(other.packet(self.address, Kind.KEY_EXCHANGE, answer), now) is None

    def seal(self, other, head=b"head", body=b"body"):
        sealed = self.table.seal(other.address, Kind.CHUNK, other.address, self.address, head, body)
        return self.packet(other.address, Kind.CHUNK, *sealed, sealed=FLAG_SEALED | FLAG_LEAF)


def leaves(authority, node, count, holder="ada"):
    """So many leaves of one person, that have exchanged keys with a node one after the other."""
    made = [End(authority, f"{holder}.{number}", holder) for number in range(count)]
    for number, each in enumerate(made):
        each.exchange(node, float(number))
    return made


def test_both_ends_seal_for_each_other(authority):
    leaf, node = End(authority, "ada.1", "ada"), End(authority, "d")
    leaf.exchange(node)
    assert node.table.open(leaf.seal(node)) == (b"head", b"body")
    assert leaf.table.open(node.seal(leaf)) == (b"head", b"body")
    assert leaf.table.reopen(Kind.CHUNK, "d", "ada.1@hub", leaf.seal(node).head) == b"head"


def test_one_person_has_so_many_and_makes_way_for_more_of_its_own(authority):
    node = End(authority, "d", key_parties_per_identity=3)
    bob = leaves(authority, node, 1, "bob")[0]
    first, *others = leaves(authority, node, 4)
    assert not node.table.knows(first.address)
    assert all(node.table.knows(each.address) for each in (bob, *others))
    assert len(node.table) == 4
    node.busy = {wire.name_of(each.address) for each in others}
    with pytest.raises(Unsealable, match="key_parties_per_identity"):
        End(authority, "ada.9", "ada").exchange(node)
    assert len(node.table) == 4


def test_all_together_have_so_many_and_those_in_use_stay(authority):
    node = End(authority, "d", key_parties=3)
    one, two, three = (leaves(authority, node, 1, name)[0] for name in ("ann", "bob", "cid"))
    node.busy = {wire.name_of(one.address)}
    leaves(authority, node, 1, "dan")
    assert [node.table.knows(each.address) for each in (one, two, three)] == [True, False, True]
    node.busy = {"ann.0@", "cid.0@", "dan.0@"}
    with pytest.raises(Unsealable, match="key_parties"):
        End(authority, "eve.0", "eve").exchange(node)


def test_a_leaf_asks_so_many_nodes_at_a_time(authority):
    """Its own node could name any number of nodes to it."""
    leaf = End(authority, "ada.1", "ada", key_parties=2)
    leaf.busy = {"n0", "n1"}
    assert [leaf.table.request(f"n{number}", 0.0) is not None for number in range(3)] == [True, True, False]
    leaf.table.wait("n2", Waiting(Kind.ACK, "n2", b"", b""))
    assert leaf.table.take_waiting("n2") == []
    forwarding = Forwarding("ada.1", 7, None, leaf=True)
    end_to_end = EndToEnd(forwarding, leaf.table)
    for name in ("n2", "n1"):  # there is no room for the one, and no uplink for the other
        end_to_end.wait(Waiting(Kind.ACK, name, b"", b""))
        with pytest.raises(AssertionError, match="not exchanged"):
            end_to_end.check()
        end_to_end.send_requests(0.0)
        end_to_end.check()
    assert len(leaf.table.take_waiting("n1")) == 1
    leaf.table.forget("n2")
    leaf.busy = set()
    assert leaf.table.request("n2", 0.0) is not None


def test_packets_of_others_and_of_former_keys_are_not_opened(authority):
    leaf, node, other = End(authority, "ada.1", "ada"), End(authority, "d"), End(authority, "bob.1", "bob")
    leaf.exchange(node)
    other.exchange(node)
    strange = leaf.seal(node)._replace(source=other.address)
    with pytest.raises(Unsealable, match="no_key"):
        node.table.open(strange)
    for _ in range(2):
        leaf.table.forget(node.address)
        leaf.exchange(node, 5.0 + _)
    with pytest.raises(Unsealable, match="no_key"):
        node.table.open(strange._replace(source=leaf.address))
    with pytest.raises(Unsealable, match="not_ours"):
        leaf.table.reopen(Kind.CHUNK, "nobody", leaf.address, strange.head)


def test_no_key_seals_after_it_was_lost(authority):
    leaf, node = End(authority, "ada.1", "ada"), End(authority, "d")
    leaf.exchange(node)
    leaf.table.forget("d")
    assert leaf.table.seal("d", Kind.CHUNK, "d", leaf.address, b"", b"") is None
    assert leaf.table.worn(1e9) == []


def test_a_leaf_that_asked_and_got_no_answer_is_forgotten(authority):
    leaf = End(authority, "ada.1", "ada")
    leaf.table.request("nobody", 0.0)
    for at in (10.0, 20.0):
        leaf.table.sweep(at)
    assert len(leaf.table) == 0


def test_a_party_that_is_filed_wrongly_is_found(authority):
    leaf = End(authority, "ada.1", "ada")
    leaf.table.request("d", 0.0)
    leaf.table.check()
    leaf.table._parties["d"].waiting = [None] * 99
    with pytest.raises(AssertionError, match="not in order"):
        leaf.table.check()
