import math

import pytest

from zmesh.core.delivery.peers import ACK_DELAY, FORGET_PEER, MAX_FORMER, POKE_LIMIT, Peers
from zmesh.core.delivery.streams import WINDOW, InboundStream
from zmesh.core.limits import Limits
from zmesh.core.message import Stream
from zmesh.core.wire import CLOSED, MAX_ACKS, Ack, AckItem, Kind


def stream(number=0):
    return Stream(number.to_bytes(16, "big"), True)


@pytest.fixture
def peers(road, alarm):
    return Peers(road, alarm, lambda peer, before, now: None)


def acks(road):
    """The acknowledgements that were sent, frame by frame."""
    frames = road.frames()
    assert all(sent.kind is Kind.ACK for sent in frames)
    return [sent.value for sent in frames]


# --- numbers ------------------------------------------------------------------------------------------------------


def test_a_peer_is_entered_once(peers):
    assert peers.get("b") is peers.get("b")
    assert peers.enter("b") is peers.get("b")
    assert len(peers) == 1


def test_requests_to_a_peer_are_numbered_in_order(peers):
    b, c = peers.enter("b"), peers.enter("c")
    assert [peers.number(b), peers.number(b), peers.number(c), peers.number(b)] == [0, 1, 0, 2]
    assert list(b.unsettled) == [0, 1, 2]
    assert list(c.unsettled) == [0]


def test_the_numbers_of_a_new_peer_begin_above_all_that_were_ever_given(peers):
    b = peers.enter("b")
    for _ in range(5):
        peers.number(b)
    assert peers.number(peers.enter("c")) == 5
    assert peers.number(b) == 5


# --- forgetting ---------------------------------------------------------------------------------------------------


def test_a_peer_without_exchanges_is_forgotten_after_a_while(peers):
    peer = peers.enter("b")
    peers.enter("b")
    peers.check({"b": 2})
    peers.leave(peer, 5.0)
    assert peers.next_deadline() is None
    peers.leave(peer, 10.0)
    peers.check({})
    peers.tick(10.0 + FORGET_PEER - 0.001)
    assert len(peers) == 1
    peers.tick(10.0 + FORGET_PEER)
    assert len(peers) == 0
    assert peers.next_deadline() is None
    peers.check({})


def test_a_peer_that_is_busy_again_is_not_forgotten(peers):
    peer = peers.enter("b")
    peers.leave(peer, 0.0)
    peers.enter("b")
    peers.tick(FORGET_PEER)
    assert peers.get("b") is peer
    peers.leave(peer, FORGET_PEER + 1)
    peers.tick(2 * FORGET_PEER)
    assert len(peers) == 1
    peers.tick(2 * FORGET_PEER + 1)
    assert len(peers) == 0


def test_a_peer_is_kept_for_a_while_after_its_last_exchange(peers):
    peer = peers.enter("b")
    peers.leave(peer, 0.0)
    peers.enter("b")
    peers.leave(peer, 20.0)
    peers.tick(FORGET_PEER)
    assert len(peers) == 1
    peers.check({})
    peers.tick(20.0 + FORGET_PEER)
    assert len(peers) == 0


# --- incarnations -------------------------------------------------------------------------------------------------


def test_a_stranger_is_met_and_forgotten_like_any_other(peers, alarm):
    peer = peers.meet("x", 7, 0.0)
    assert peer.incarnation == 7
    assert alarm.soonest <= peers.next_deadline() == FORGET_PEER
    peers.check({})
    peers.tick(FORGET_PEER)
    assert len(peers) == 0


def test_the_same_incarnation_is_met_again(peers):
    peer = peers.meet("b", 2, 0.0)
    peer.replays.accept(0, 0)
    assert peers.meet("b", 2, 1.0) is peer
    assert not peer.replays.accept(0, 0)


def test_a_new_incarnation_begins_its_numbers_anew(peers, road):
    peer = peers.meet("b", 2, 0.0)
    peer.replays.accept(0, 0)
    road.open("b", 3)
    assert peers.meet("b", 3, 1.0) is peer
    assert peer.incarnation == 3
    assert peer.replays.accept(0, 0)


def test_the_numbers_of_former_incarnations_are_remembered_up_to_a_limit(peers, road):
    road.open("b", 0)  # as for a leaf, no incarnation is known that would make others stale
    for life in range(1, MAX_FORMER + 3):
        assert peers.meet("b", life, 0.0).replays.accept(0, 0)
    for life in range(3, MAX_FORMER + 3):
        assert not peers.meet("b", life, 0.0).replays.accept(0, 0)
    assert not peers.meet("b", 1, 0.0).replays.accept(0, 0)  # of which only the highest number is known
    assert peers.meet("b", 2, 0.0).replays.accept(1, 0)
    assert len(peers.get("b").former) == MAX_FORMER


def test_a_voice_of_an_incarnation_that_is_no_more_is_not_heard(peers):
    peer = peers.meet("b", 2, 0.0)
    assert peers.meet("b", 1, 1.0) is None
    assert peer.incarnation == 2


@pytest.mark.parametrize("known", [None, 0], ids=["no way", "a way to a leaf"])
def test_any_incarnation_is_believed_where_the_routes_know_of_none(peers, road, known):
    peers.meet("b", 2, 0.0)
    if known is None:
        road.shut("b")
    else:
        road.open("b", known)
    assert peers.meet("b", 3, 1.0).incarnation == 3


def test_a_busy_peer_that_is_met_is_not_on_the_list_to_be_forgotten(peers):
    peer = peers.enter("b")
    peers.meet("b", 2, 0.0)
    assert peers.next_deadline() is None
    peers.leave(peer, 100.0)
    assert peers.next_deadline() == 100.0 + FORGET_PEER


def test_a_stranger_without_an_incarnation_is_forgotten_too(peers):
    peers.meet("x", 0, 0.0)
    peers.check({})
    peers.tick(FORGET_PEER)
    assert len(peers) == 0


# --- leaves that move ---------------------------------------------------------------------------------------------


@pytest.fixture
def moves():
    return []


@pytest.fixture
def hosts(road, alarm, moves):
    """Peers that tell of leaves that move."""
    for host in ("x", "y"):
        road.open(f"leaf@{host}", 0)
    return Peers(road, alarm, lambda peer, before, now: moves.append((peer.address, before, now)))


def test_a_leaf_that_hangs_on_another_node_is_the_same_peer_there(hosts, moves, road):
    peer = hosts.meet("leaf@x", 7, 0.0)
    assert peer.replays.accept(0, 0)
    hosts.owe(peer, stream(), InboundStream(), 0.0, at_once=False)
    assert hosts.meet("leaf@y", 7, 5.0) is peer
    assert moves == [("leaf@y", "leaf@x", 5.0)]
    assert not peer.replays.accept(0, 0)
    assert hosts.get("leaf@y") is peer
    assert len(hosts) == 1
    hosts.tick(5.0 + ACK_DELAY)
    assert [frame.destination for frame in road.frames()] == ["leaf@y"]
    hosts.tick(5.0 + FORGET_PEER)
    assert len(hosts) == 0
    assert hosts.meet("leaf@x", 7, 50.0) is not peer


def test_another_leaf_of_that_name_elsewhere_is_another_peer(hosts, moves):
    peer = hosts.meet("leaf@x", 7, 0.0)
    assert hosts.meet("leaf@y", 8, 0.0) is not peer
    assert hosts.meet("leaf@x", 9, 0.0) is peer  # it has restarted, and its former life is not looked for any more
    assert hosts.meet("leaf@z", 7, 0.0) is not peer
    assert moves == []


def test_a_leaf_that_moves_to_where_another_of_its_name_hangs_is_that_one_from_then_on(hosts, moves):
    hosts.meet("leaf@x", 7, 0.0)
    other = hosts.meet("leaf@y", 8, 0.0)
    assert hosts.meet("leaf@y", 7, 1.0) is other
    assert moves == []


# --- acknowledgements ---------------------------------------------------------------------------------------------


def test_acknowledgements_wait_for_each_other_and_go_together(peers, road, alarm):
    peer = peers.meet("b", 2, 0.0)
    inbound = InboundStream()
    inbound.expected = 3
    peers.owe(peer, stream(1), inbound, 5.0, at_once=False)
    peers.owe(peer, stream(2), None, 5.01, at_once=False)
    assert peers.owed() == 2
    assert alarm.soonest <= peers.next_deadline() == 5.0 + ACK_DELAY
    peers.check({})
    peers.tick(5.01)
    assert acks(road) == []
    peers.tick(5.0 + ACK_DELAY)
    assert acks(road) == [Ack(1, 2, (AckItem(*stream(1), 3, WINDOW), AckItem(*stream(2), CLOSED, 0)))]
    assert peers.owed() == 0


def test_what_is_owed_at_once_takes_the_others_along(peers, road):
    peer = peers.meet("b", 2, 0.0)
    peers.owe(peer, stream(1), None, 0.0, at_once=False)
    peers.owe(peer, stream(2), InboundStream(), 0.0, at_once=True)
    assert acks(road) == [Ack(1, 2, (AckItem(*stream(1), CLOSED, 0), AckItem(*stream(2), 0, WINDOW)))]
    peers.tick(ACK_DELAY)
    assert acks(road) == []


def test_only_the_last_word_on_a_stream_is_sent(peers, road):
    peer = peers.meet("b", 2, 0.0)
    inbound = InboundStream()
    peers.owe(peer, stream(), inbound, 0.0, at_once=False)
    inbound.expected = 9
    peers.owe(peer, stream(), inbound, 0.0, at_once=False)
    peers.flush(peer)
    assert acks(road) == [Ack(1, 2, (AckItem(*stream(), 9, WINDOW),))]


def test_a_poke_says_how_far_a_stream_has_come_and_gives_no_room(peers, road):
    peer = peers.meet("b", 2, 0.0)
    inbound = InboundStream()
    inbound.expected = 4
    peers.poke(peer, stream(), inbound)
    assert acks(road) == [Ack(1, 2, (AckItem(*stream(), 4, POKE_LIMIT),))]


@pytest.mark.parametrize("count", [MAX_ACKS, MAX_ACKS + 1, 3 * MAX_ACKS])
def test_more_acknowledgements_than_a_frame_may_have_go_in_several(peers, road, count):
    peer = peers.meet("b", 2, 0.0)
    for number in range(count):
        peers.owe(peer, stream(number), None, 0.0, at_once=False)
    peers.flush(peer)
    sent = acks(road)
    assert len(sent) == math.ceil(count / MAX_ACKS)
    assert [item.message_id for ack in sent for item in ack.acks] == [stream(number)[0] for number in range(count)]


def test_without_a_way_acknowledgements_are_dropped(peers, road):
    peer = peers.meet("b", 2, 0.0)
    road.shut("b")
    peers.owe(peer, stream(), None, 0.0, at_once=True)
    assert (acks(road), peers.owed()) == ([], 0)
    road.open("b", 2)
    peers.flush(peer)
    assert acks(road) == []


def test_a_peer_that_was_forgotten_is_owed_nothing(peers, road):
    peer = peers.meet("b", 2, 0.0)
    peers.owe(peer, stream(), None, FORGET_PEER, at_once=False)
    peers.tick(FORGET_PEER)
    peers.tick(FORGET_PEER + ACK_DELAY)
    assert len(peers) == 0
    assert acks(road) == []
    assert peers.next_deadline() is None


def test_the_next_deadline_is_the_earlier_of_acknowledging_and_forgetting(peers):
    peer = peers.meet("b", 2, 0.0)
    assert peers.next_deadline() == FORGET_PEER
    peers.owe(peer, stream(), None, 1.0, at_once=False)
    assert peers.next_deadline() == 1.0 + ACK_DELAY
    peers.owe(peer, stream(), None, FORGET_PEER, at_once=False)
    peers.tick(2.0)
    peers.owe(peer, stream(), None, FORGET_PEER, at_once=False)
    assert peers.next_deadline() == FORGET_PEER


# --- what check finds ---------------------------------------------------------------------------------------------


def test_a_wrong_count_of_exchanges_is_found(peers):
    peers.enter("b")
    with pytest.raises(AssertionError, match="count of exchanges"):
        peers.check({})


def test_an_idle_peer_that_nothing_will_forget_is_found(peers):
    peers.get("b")
    with pytest.raises(AssertionError, match="nothing will forget"):
        peers.check({})


def test_acknowledgements_that_nothing_will_send_are_found(peers):
    peers.meet("b", 2, 0.0).acks[stream()] = (0, 0)
    with pytest.raises(AssertionError, match="nothing will send"):
        peers.check({})


@pytest.mark.parametrize(
    "spoil", [lambda peers, peer: peers._peers.clear(), lambda peers, peer: setattr(peer, "incarnation", 8)]
)
def test_a_leaf_that_is_not_at_its_address_is_found(peers, spoil):
    spoil(peers, peers.meet("leaf@x", 7, 0.0))
    with pytest.raises(AssertionError, match="not at its address"):
        peers.check({})


# --- what is remembered of those that were forgotten ----------------------------------------------------------------


def forget(peers, address, incarnation, numbers, now):
    """A peer that has sent these requests comes, goes, and is forgotten."""
    peer = peers.meet(address, incarnation, now)
    for number in numbers:
        peers.accept(peer, number, 0)
    peers.tick(now + FORGET_PEER)
    assert address not in peers._peers


def test_the_requests_of_a_peer_that_was_forgotten_are_known_when_it_sends_them_again(peers):
    forget(peers, "b", 9, (0, 3), 0.0)
    peer = peers.meet("b", 9, 100.0)
    assert [peer.replays.knows(number) for number in (0, 3, 4)] == [True, True, False]
    peers.check({})


def test_those_of_another_incarnation_are_new(peers, road):
    road.open("b", 0)
    forget(peers, "b", 9, (0, 3), 0.0)
    peer = peers.meet("b", 10, 100.0)
    assert not peer.replays.knows(0)
    assert peers.meet("b", 9, 101.0).replays.knows(3)
    assert not peers.meet("b", 10, 102.0).replays.knows(0)
    peers.check({})


def test_a_leaf_that_was_forgotten_is_known_wherever_it_comes_back(peers):
    forget(peers, "cli@north", 9, (2,), 0.0)
    assert peers.meet("cli@south", 9, 100.0).replays.knows(2)


def test_former_incarnations_that_are_too_many_are_remembered_by_their_highest_number(peers, road):
    road.open("b", 0)
    for incarnation in range(1, MAX_FORMER + 4):
        peers.accept(peers.meet("b", incarnation, 0.0), 5, 0)
    assert peers.meet("b", 1, 1.0).replays.knows(5)
    peers.check({})


def test_of_too_many_that_were_forgotten_the_first_is_not_remembered(road, alarm):
    peers = Peers(road, alarm, lambda peer, before, now: None, Limits(forgotten_peers=2))
    for name in ("b", "c", "d"):
        forget(peers, name, 9, (0,), 0.0)
    assert [peers.meet(name, 9, 100.0).replays.knows(0) for name in ("b", "c", "d")] == [False, True, True]


def test_nothing_is_remembered_of_a_peer_that_has_asked_for_nothing(peers):
    forget(peers, "b", 9, (), 0.0)
    assert not peers._forgotten


def test_a_peer_that_first_names_no_incarnation_is_known_when_it_names_its_own(peers):
    forget(peers, "b", 9, (4,), 0.0)
    peers.accept(peers.meet("b", 0, 50.0), 7, 0)
    assert peers.meet("b", 9, 100.0).replays.knows(4)
    peers.check({})


def test_what_came_from_a_peer_without_an_incarnation_stays_known_where_no_other_was_forgotten(peers):
    peers.accept(peers.meet("b", 0, 50.0), 7, 0)
    assert peers.meet("b", 9, 100.0).replays.knows(7)
    peers.check({})
