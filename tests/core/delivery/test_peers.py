import math

import pytest

from zmesh.core.delivery.flow_control import WINDOW
from zmesh.core.delivery.inbound import InboundStream
from zmesh.core.delivery.peers import ACK_DELAY, MAX_FORMER_INCARNATIONS, PEER_IDLE_TIMEOUT, PROBE_LIMIT, Peers
from zmesh.core.limits import Limits
from zmesh.core.message import Stream
from zmesh.core.wire import CLOSED, MAX_ACKS, Ack, AckItem, Kind


def stream(number=0):
    return Stream(number.to_bytes(16, "big"), True)


@pytest.fixture
def peers(forwarding, alarm):
    return Peers(forwarding, alarm, lambda peer, before, now: None)


def acks(forwarding):
    """The acknowledgements that were sent, frame by frame."""
    frames = forwarding.frames()
    assert all(sent.kind is Kind.ACK for sent in frames)
    return [sent.value for sent in frames]


# --- numbers ------------------------------------------------------------------------------------------------------


def test_a_peer_is_entered_once(peers):
    assert peers.get_or_create("b") is peers.get_or_create("b")
    assert peers.open_exchange("b") is peers.get_or_create("b")
    assert len(peers) == 1


def test_requests_to_a_peer_are_numbered_in_order(peers):
    b, c = peers.open_exchange("b"), peers.open_exchange("c")
    assert [
        peers.next_request_number(b),
        peers.next_request_number(b),
        peers.next_request_number(c),
        peers.next_request_number(b),
    ] == [0, 1, 0, 2]
    assert list(b.unacked_requests) == [0, 1, 2]
    assert list(c.unacked_requests) == [0]


def test_the_numbers_of_a_new_peer_start_above_all_that_were_ever_used(peers):
    b = peers.open_exchange("b")
    for _ in range(5):
        peers.next_request_number(b)
    assert peers.next_request_number(peers.open_exchange("c")) == 5
    assert peers.next_request_number(b) == 5


# --- forgetting ---------------------------------------------------------------------------------------------------


def test_a_peer_without_exchanges_is_forgotten_after_a_while(peers):
    peer = peers.open_exchange("b")
    peers.open_exchange("b")
    peers.check({"b": 2})
    peers.close_exchange(peer, 5.0)
    assert peers.next_deadline() is None
    peers.close_exchange(peer, 10.0)
    peers.check({})
    peers.tick(10.0 + PEER_IDLE_TIMEOUT - 0.001)
    assert len(peers) == 1
    peers.tick(10.0 + PEER_IDLE_TIMEOUT)
    assert len(peers) == 0
    assert peers.next_deadline() is None
    peers.check({})


def test_a_peer_with_exchanges_again_is_not_forgotten(peers):
    peer = peers.open_exchange("b")
    peers.close_exchange(peer, 0.0)
    peers.open_exchange("b")
    peers.tick(PEER_IDLE_TIMEOUT)
    assert peers.get_or_create("b") is peer
    peers.close_exchange(peer, PEER_IDLE_TIMEOUT + 1)
    peers.tick(2 * PEER_IDLE_TIMEOUT)
    assert len(peers) == 1
    peers.tick(2 * PEER_IDLE_TIMEOUT + 1)
    assert len(peers) == 0


def test_a_peer_is_kept_for_a_while_after_its_last_exchange(peers):
    peer = peers.open_exchange("b")
    peers.close_exchange(peer, 0.0)
    peers.open_exchange("b")
    peers.close_exchange(peer, 20.0)
    peers.tick(PEER_IDLE_TIMEOUT)
    assert len(peers) == 1
    peers.check({})
    peers.tick(20.0 + PEER_IDLE_TIMEOUT)
    assert len(peers) == 0


# --- incarnations -------------------------------------------------------------------------------------------------


def test_an_unknown_source_is_entered_and_forgotten_like_any_other(peers, alarm):
    peer = peers.identify("x", 7, 0.0)
    assert peer.incarnation == 7
    assert alarm.soonest <= peers.next_deadline() == PEER_IDLE_TIMEOUT
    peers.check({})
    peers.tick(PEER_IDLE_TIMEOUT)
    assert len(peers) == 0


def test_the_same_incarnation_is_the_same_peer(peers):
    peer = peers.identify("b", 2, 0.0)
    peer.replay_window.accept(0, 0)
    assert peers.identify("b", 2, 1.0) is peer
    assert not peer.replay_window.accept(0, 0)


def test_a_new_incarnation_starts_its_numbers_anew(peers, forwarding):
    peer = peers.identify("b", 2, 0.0)
    peer.replay_window.accept(0, 0)
    forwarding.open("b", 3)
    assert peers.identify("b", 3, 1.0) is peer
    assert peer.incarnation == 3
    assert peer.replay_window.accept(0, 0)


def test_the_numbers_of_former_incarnations_are_remembered_up_to_a_limit(peers, forwarding):
    forwarding.open("b", 0)  # as for a leaf, no incarnation is known that would make others stale
    for incarnation in range(1, MAX_FORMER_INCARNATIONS + 3):
        assert peers.identify("b", incarnation, 0.0).replay_window.accept(0, 0)
    for incarnation in range(3, MAX_FORMER_INCARNATIONS + 3):
        assert not peers.identify("b", incarnation, 0.0).replay_window.accept(0, 0)
    assert not peers.identify("b", 1, 0.0).replay_window.accept(0, 0)  # of which only the highest number is known
    assert peers.identify("b", 2, 0.0).replay_window.accept(1, 0)
    assert len(peers.get_or_create("b").former_windows) == MAX_FORMER_INCARNATIONS


def test_a_frame_of_a_former_incarnation_is_stale(peers):
    peer = peers.identify("b", 2, 0.0)
    assert peers.identify("b", 1, 1.0) is None
    assert peer.incarnation == 2


@pytest.mark.parametrize("known", [None, 0], ids=["no route", "a route to a leaf"])
def test_any_incarnation_is_accepted_where_the_routes_name_none(peers, forwarding, known):
    peers.identify("b", 2, 0.0)
    if known is None:
        forwarding.shut("b")
    else:
        forwarding.open("b", known)
    assert peers.identify("b", 3, 1.0).incarnation == 3


def test_a_peer_with_exchanges_is_not_about_to_be_forgotten(peers):
    peer = peers.open_exchange("b")
    peers.identify("b", 2, 0.0)
    assert peers.next_deadline() is None
    peers.close_exchange(peer, 100.0)
    assert peers.next_deadline() == 100.0 + PEER_IDLE_TIMEOUT


def test_an_unknown_source_without_an_incarnation_is_forgotten_too(peers):
    peers.identify("x", 0, 0.0)
    peers.check({})
    peers.tick(PEER_IDLE_TIMEOUT)
    assert len(peers) == 0


# --- leaves that move ---------------------------------------------------------------------------------------------


@pytest.fixture
def moves():
    return []


@pytest.fixture
def hosts(forwarding, alarm, moves):
    """Peers that report leaves that move."""
    for host in ("x", "y"):
        forwarding.open(f"leaf@{host}", 0)
    return Peers(forwarding, alarm, lambda peer, before, now: moves.append((peer.address, before, now)))


def test_a_leaf_that_attaches_to_another_node_is_the_same_peer(hosts, moves, forwarding):
    peer = hosts.identify("leaf@x", 7, 0.0)
    assert peer.replay_window.accept(0, 0)
    hosts.schedule_ack(peer, stream(), InboundStream(), 0.0, at_once=False)
    assert hosts.identify("leaf@y", 7, 5.0) is peer
    assert moves == [("leaf@y", "leaf@x", 5.0)]
    assert not peer.replay_window.accept(0, 0)
    assert hosts.get_or_create("leaf@y") is peer
    assert len(hosts) == 1
    hosts.tick(5.0 + ACK_DELAY)
    assert [frame.destination for frame in forwarding.frames()] == ["leaf@y"]
    hosts.tick(5.0 + PEER_IDLE_TIMEOUT)
    assert len(hosts) == 0
    assert hosts.identify("leaf@x", 7, 50.0) is not peer


def test_another_leaf_of_that_name_elsewhere_is_another_peer(hosts, moves):
    peer = hosts.identify("leaf@x", 7, 0.0)
    assert hosts.identify("leaf@y", 8, 0.0) is not peer
    assert hosts.identify("leaf@x", 9, 0.0) is peer  # it has restarted
    assert hosts.identify("leaf@z", 7, 0.0) is not peer
    assert moves == []


def test_a_leaf_that_moves_to_the_address_of_another_takes_its_place(hosts, moves):
    hosts.identify("leaf@x", 7, 0.0)
    other = hosts.identify("leaf@y", 8, 0.0)
    assert hosts.identify("leaf@y", 7, 1.0) is other
    assert moves == []


# --- acknowledgements ---------------------------------------------------------------------------------------------


def test_acks_are_delayed_and_sent_together(peers, forwarding, alarm):
    peer = peers.identify("b", 2, 0.0)
    inbound = InboundStream()
    inbound.expected = 3
    peers.schedule_ack(peer, stream(1), inbound, 5.0, at_once=False)
    peers.schedule_ack(peer, stream(2), None, 5.01, at_once=False)
    assert peers.pending_acks() == 2
    assert alarm.soonest <= peers.next_deadline() == 5.0 + ACK_DELAY
    peers.check({})
    peers.tick(5.01)
    assert acks(forwarding) == []
    peers.tick(5.0 + ACK_DELAY)
    assert acks(forwarding) == [Ack(1, 2, (AckItem(*stream(1), 3, WINDOW), AckItem(*stream(2), CLOSED, 0)))]
    assert peers.pending_acks() == 0


def test_an_immediate_ack_takes_the_pending_ones_along(peers, forwarding):
    peer = peers.identify("b", 2, 0.0)
    peers.schedule_ack(peer, stream(1), None, 0.0, at_once=False)
    peers.schedule_ack(peer, stream(2), InboundStream(), 0.0, at_once=True)
    assert acks(forwarding) == [Ack(1, 2, (AckItem(*stream(1), CLOSED, 0), AckItem(*stream(2), 0, WINDOW)))]
    peers.tick(ACK_DELAY)
    assert acks(forwarding) == []


def test_only_the_last_state_of_a_stream_is_acknowledged(peers, forwarding):
    peer = peers.identify("b", 2, 0.0)
    inbound = InboundStream()
    peers.schedule_ack(peer, stream(), inbound, 0.0, at_once=False)
    inbound.expected = 9
    peers.schedule_ack(peer, stream(), inbound, 0.0, at_once=False)
    peers.flush(peer)
    assert acks(forwarding) == [Ack(1, 2, (AckItem(*stream(), 9, WINDOW),))]


def test_a_probe_acknowledges_a_stream_and_gives_no_credit(peers, forwarding):
    peer = peers.identify("b", 2, 0.0)
    inbound = InboundStream()
    inbound.expected = 4
    peers.probe(peer, stream(), inbound)
    assert acks(forwarding) == [Ack(1, 2, (AckItem(*stream(), 4, PROBE_LIMIT),))]


@pytest.mark.parametrize("count", [MAX_ACKS, MAX_ACKS + 1, 3 * MAX_ACKS])
def test_more_acks_than_a_frame_may_have_go_in_several(peers, forwarding, count):
    peer = peers.identify("b", 2, 0.0)
    for number in range(count):
        peers.schedule_ack(peer, stream(number), None, 0.0, at_once=False)
    peers.flush(peer)
    sent = acks(forwarding)
    assert len(sent) == math.ceil(count / MAX_ACKS)
    assert [item.message_id for ack in sent for item in ack.acks] == [stream(number)[0] for number in range(count)]


def test_without_a_route_acks_are_dropped(peers, forwarding):
    peer = peers.identify("b", 2, 0.0)
    forwarding.shut("b")
    peers.schedule_ack(peer, stream(), None, 0.0, at_once=True)
    assert (acks(forwarding), peers.pending_acks()) == ([], 0)
    forwarding.open("b", 2)
    peers.flush(peer)
    assert acks(forwarding) == []


def test_a_forgotten_peer_has_no_pending_acks(peers, forwarding):
    peer = peers.identify("b", 2, 0.0)
    peers.schedule_ack(peer, stream(), None, PEER_IDLE_TIMEOUT, at_once=False)
    peers.tick(PEER_IDLE_TIMEOUT)
    peers.tick(PEER_IDLE_TIMEOUT + ACK_DELAY)
    assert len(peers) == 0
    assert acks(forwarding) == []
    assert peers.next_deadline() is None


def test_the_next_deadline_is_the_earlier_of_acknowledging_and_forgetting(peers):
    peer = peers.identify("b", 2, 0.0)
    assert peers.next_deadline() == PEER_IDLE_TIMEOUT
    peers.schedule_ack(peer, stream(), None, 1.0, at_once=False)
    assert peers.next_deadline() == 1.0 + ACK_DELAY
    peers.schedule_ack(peer, stream(), None, PEER_IDLE_TIMEOUT, at_once=False)
    peers.tick(2.0)
    peers.schedule_ack(peer, stream(), None, PEER_IDLE_TIMEOUT, at_once=False)
    assert peers.next_deadline() == PEER_IDLE_TIMEOUT


# --- what check finds ---------------------------------------------------------------------------------------------


def test_a_wrong_count_of_exchanges_is_found(peers):
    peers.open_exchange("b")
    with pytest.raises(AssertionError, match="count of exchanges"):
        peers.check({})


def test_an_idle_peer_that_no_timer_forgets_is_found(peers):
    peers.get_or_create("b")
    with pytest.raises(AssertionError, match="no timer forgets"):
        peers.check({})


def test_pending_acks_that_no_timer_sends_are_found(peers):
    peers.identify("b", 2, 0.0).acks[stream()] = (0, 0)
    with pytest.raises(AssertionError, match="no timer sends"):
        peers.check({})


@pytest.mark.parametrize(
    "spoil", [lambda peers, peer: peers._peers.clear(), lambda peers, peer: setattr(peer, "incarnation", 8)]
)
def test_a_leaf_that_is_not_at_its_address_is_found(peers, spoil):
    spoil(peers, peers.identify("leaf@x", 7, 0.0))
    with pytest.raises(AssertionError, match="not at its address"):
        peers.check({})


# --- what is remembered of those that were forgotten ----------------------------------------------------------------


def forget(peers, address, incarnation, numbers, now):
    """A peer that has sent these requests comes, goes, and is forgotten."""
    peer = peers.identify(address, incarnation, now)
    for number in numbers:
        peers.accept(peer, number, 0)
    peers.tick(now + PEER_IDLE_TIMEOUT)
    assert address not in peers._peers


def test_requests_of_a_forgotten_peer_are_known_when_it_retransmits_them(peers):
    forget(peers, "b", 9, (0, 3), 0.0)
    peer = peers.identify("b", 9, 100.0)
    assert [peer.replay_window.knows(number) for number in (0, 3, 4)] == [True, True, False]
    peers.check({})


def test_requests_of_another_incarnation_are_new(peers, forwarding):
    forwarding.open("b", 0)
    forget(peers, "b", 9, (0, 3), 0.0)
    peer = peers.identify("b", 10, 100.0)
    assert not peer.replay_window.knows(0)
    assert peers.identify("b", 9, 101.0).replay_window.knows(3)
    assert not peers.identify("b", 10, 102.0).replay_window.knows(0)
    peers.check({})


def test_a_leaf_that_was_forgotten_is_known_wherever_it_comes_back(peers):
    forget(peers, "cli@north", 9, (2,), 0.0)
    assert peers.identify("cli@south", 9, 100.0).replay_window.knows(2)


def test_former_incarnations_that_are_too_many_are_remembered_by_their_highest_number(peers, forwarding):
    forwarding.open("b", 0)
    for incarnation in range(1, MAX_FORMER_INCARNATIONS + 4):
        peers.accept(peers.identify("b", incarnation, 0.0), 5, 0)
    assert peers.identify("b", 1, 1.0).replay_window.knows(5)
    peers.check({})


def test_of_too_many_that_were_forgotten_the_first_is_not_remembered(forwarding, alarm):
    peers = Peers(forwarding, alarm, lambda peer, before, now: None, Limits(forgotten_peers=2))
    for name in ("b", "c", "d"):
        forget(peers, name, 9, (0,), 0.0)
    assert [peers.identify(name, 9, 100.0).replay_window.knows(0) for name in ("b", "c", "d")] == [False, True, True]


def test_nothing_is_remembered_of_a_peer_without_requests(peers):
    forget(peers, "b", 9, (), 0.0)
    assert not peers._forgotten


def test_a_peer_that_first_names_no_incarnation_is_known_when_it_names_its_own(peers):
    forget(peers, "b", 9, (4,), 0.0)
    peers.accept(peers.identify("b", 0, 50.0), 7, 0)
    assert peers.identify("b", 9, 100.0).replay_window.knows(4)
    peers.check({})


def test_a_forged_frame_without_an_incarnation_makes_no_request_new_again(peers, forwarding):
    """Whoever forges one with the address of a client and sends a request of it again would have that run twice."""
    forwarding.open("b", 0)
    assert peers.accept(peers.identify("b", 7, 0.0), 5, 0)
    assert peers.accept(peers.identify("b", 0, 0.0), 2, 0)
    peer = peers.identify("b", 7, 0.0)
    assert not peers.accept(peer, 5, 0)
    peers.check({})
    peers.identify("b", 8, 0.0)
    peers.check({})
    assert not peers.accept(peers.identify("b", 7, 0.0), 5, 0)


def test_requests_of_a_peer_without_an_incarnation_stay_known(peers):
    peers.accept(peers.identify("b", 0, 50.0), 7, 0)
    assert peers.identify("b", 9, 100.0).replay_window.knows(7)
    peers.check({})
