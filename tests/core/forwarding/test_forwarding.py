import pytest

from tests.core.forwarding.forwarding_harness import Node, Passed, forward, frames, taken
from zmesh.core import wire
from zmesh.core.effects import Report
from zmesh.core.forwarding.forwarding import DRAIN, LAGGING_BYTES, MAX_FORMER, NextHop
from zmesh.core.forwarding.queues import BULK, FRAME_OVERHEAD, MAX_QUEUED_BYTES, Queue, weigh
from zmesh.core.forwarding.returned import MAX_RETURNED
from zmesh.core.limits import DEFAULT_LIMITS
from zmesh.core.wire import MAX_BODY, MAX_TTL, Kind

# --- passing on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind >= wire.FIRST_ROUTED])
def test_a_frame_is_passed_on_towards_its_destination_with_one_ttl_less(node, kind):
    assert forward(node, 2, frames(kind)) == [Passed(1, kind, MAX_TTL - 1, "c", "x", b"head", b"body")]


def test_the_queue_of_a_lost_link_moves_to_the_current_next_hop(node):
    gone = Queue()
    gone.give_back(frames(ttl=7))
    gone.push(wire.encode_link(Kind.ASK), None)
    gone.push(frames(of="a"), None)
    gone.push(frames(Kind.ACK, ttl=9), None)
    gone.push(frames(to="lost", of="d"), None)
    node.reach(2, "d")
    node.forwarding.reroute(gone, 10.0)
    passed, acked, dropped, returned = taken(node)
    assert (passed.link, passed.kind, passed.ttl) == (1, Kind.CHUNK, 7)
    assert (acked.link, acked.kind, acked.ttl) == (1, Kind.ACK, 9)
    assert dropped == Report("frame_dropped", "lost", None, "no_route")
    assert (returned.link, returned.kind, returned.destination) == (2, Kind.UNREACHABLE, "d")
    assert not gone.size_bytes


def test_a_leaf_passes_nothing_on_that_waited(node):
    leaf = Node(leaf=True)
    gone = Queue()
    gone.give_back(frames(of="a@former"))
    leaf.forwarding.reroute(gone, 10.0)
    assert taken(leaf) == []


def test_a_large_body_is_passed_on_uncopied(node):
    whole = frames(head=bytes(1000), body=bytes(MAX_BODY))
    node.forwarding.forward(2, wire.decode_packet(whole), whole, 0.0)
    (effect,) = node.forwarding.take()
    assert effect.frames[1] is whole[1]


def test_a_frame_for_a_leaf_of_another_node_goes_to_that_node(node):
    (passed,) = forward(node, 2, frames(to="cli@c"))
    assert (passed.link, passed.destination) == (1, "cli@c")


def test_a_frame_for_a_leaf_of_this_node_goes_to_the_leaf(node):
    (passed,) = forward(node, 2, frames(to="l@a"))
    assert (passed.link, passed.destination) == (3, "l@a")


def test_a_leaf_is_reached_over_the_link_that_it_was_bound_to_last(node):
    node.join(4, "l", leaf=True)
    (passed,) = forward(node, 2, frames(to="l@a"))
    assert passed.link == 4
    node.forwarding.bind_leaf("l", None)
    assert Report("frame_dropped", "a", 2, "no_route") in forward(node, 2, frames(to="l@a"))


def test_a_neighbour_is_no_leaf_of_this_node(node):
    assert Report("frame_dropped", "a", 2, "no_route") in forward(node, 2, frames(to="b@a"))


def test_a_frame_in_this_nodes_name_from_elsewhere_goes_no_further(node):
    assert forward(node, 2, frames(of="a")) == [Report("frame_dropped", "d", 2, "own_source")]
    assert forward(node, 2, frames(of="l@a")) == [Report("frame_dropped", "d", 2, "own_source")]
    (passed,) = forward(node, 3, frames(of="l@a"))
    assert passed.source == "l@a"


def test_a_leaf_forwards_nothing():
    node = Node(leaf=True)
    node.join(1, "b")
    assert forward(node, 1, frames()) == [Report("frame_dropped", "b", 1, "leaf_forwards_nothing")]


def test_large_chunks_and_small_ones_of_one_source_are_flows_of_their_own(node):
    node.queue(1).full = True
    for number in range(3):
        forward(node, 2, frames(head=b"large %d" % number, body=bytes(BULK)))
    forward(node, 2, frames(head=b"small", body=bytes(BULK - 100)))
    forward(node, 2, frames(head=b"of another", of="y"))
    forward(node, 2, frames(Kind.ACK, head=b"control"))
    node.forwarding.drain(1)
    order = [passed.head for passed in taken(node)]
    assert order == [b"control", b"large 0", b"small", b"of another", b"large 1", b"large 2"]


# --- what can't be passed on --------------------------------------------------------------------------------------


def bounced(effect):
    """The fields of an UNREACHABLE: source, destination and reason."""
    assert (effect.kind, effect.source) == (Kind.UNREACHABLE, "a")
    return wire.decode_unreachable(effect.head)


@pytest.mark.parametrize("kind", [Kind.CHUNK, Kind.CANCEL, Kind.ACK])
def test_the_source_hears_of_a_frame_without_a_route_and_gets_its_head_back(node, kind):
    report, note = forward(node, 2, frames(kind, to="nobody", of="c", head=b"mine"))
    assert report == Report("frame_dropped", "nobody", 2, "no_route")
    assert (note.link, note.destination, note.body) == (1, "c", b"mine")
    assert bounced(note) == wire.Unreachable(
        kind, "no_route", "a", "nobody", (), 5.0, "'nobody' was never known to 'a'"
    )


def test_the_source_hears_that_the_destination_has_left_and_when(node):
    node.update(1, ("c", 7, 2, wire.INFINITY, 1, 0), now=6.0)
    _, note = forward(node, 3, frames(to="cli@c", of="l@a"), now=18.0)
    text = "'c' left 12 s ago, last heard by 'a'"
    assert bounced(note) == wire.Unreachable(Kind.CHUNK, "left", "a", "cli@c", (), 12.0, text)


@pytest.mark.parametrize("kind", [Kind.UNREACHABLE, Kind.EXPIRED])
def test_a_note_is_never_answered_by_another(node, kind):
    assert forward(node, 2, frames(kind, to="nobody", of="c")) == [Report("frame_dropped", "nobody", 2, "no_route")]


def test_a_source_out_of_reach_hears_nothing(node):
    assert forward(node, 2, frames(to="nobody", of="stranger")) == [Report("frame_dropped", "nobody", 2, "no_route")]


def test_a_frame_for_a_departed_leaf_is_returned_as_gone(node):
    _, note = forward(node, 2, frames(to="left@a", of="c"))
    assert bounced(note) == wire.Unreachable(Kind.CHUNK, "gone", "a", "left@a", (), 5.0)


def test_the_hint_lists_node_ids_similar_to_the_requested_one(node):
    node.reach(1, "edge-1", "edge-2", "far")
    _, note = forward(node, 2, frames(to="edge-3", of="c"))
    assert set(bounced(note).near) == {"edge-1", "edge-2"}


def test_the_ttl_ends_where_it_is_used_up(node):
    (passed,) = forward(node, 2, frames(of="c", ttl=2))
    assert passed.ttl == 1
    report, note = forward(node, 2, frames(of="c", ttl=1))
    assert report == Report("expired", "c", 2, "c")
    assert (note.kind, note.destination, note.body) == (Kind.EXPIRED, "c", b"head")
    assert wire.decode_expired(note.head) == wire.Expired(Kind.CHUNK, "a", "c")


def test_so_many_frames_of_a_link_are_answered_as_expired_and_no_more(node):
    burst = int(DEFAULT_LIMITS.error_frames.burst)
    effects = [forward(node, 2, frames(of="c", ttl=1)) for _ in range(burst + 2)]
    assert [len(each) for each in effects] == [2] * burst + [1, 1]


@pytest.mark.parametrize(("size", "notes"), [(MAX_RETURNED, 1), (MAX_RETURNED + 1, 0)])
def test_a_head_that_is_too_large_is_not_sent_back(node, size, notes):
    effects = forward(node, 2, frames(to="nobody", of="c", head=bytes(size)))
    assert len(effects) == 1 + notes


def test_the_neighbour_on_a_link_is_known_for_a_while_after_it_was_lost(node):
    node.forwarding.close(1, remember=True)
    assert [node.forwarding.neighbour(link) for link in (1, 2, 99)] == ["b", "d", None]


def test_so_many_lost_links_are_remembered_and_no_more(node):
    for number in range(10, 10 + MAX_FORMER + 1):
        node.join(number, f"n{number}")
        node.forwarding.close(number, remember=True)
    assert node.forwarding.neighbour(10) is None
    assert node.forwarding.neighbour(11) == "n11"
    assert node.forwarding.neighbour(10 + MAX_FORMER) == f"n{10 + MAX_FORMER}"


def test_a_connection_that_never_came_up_leaves_no_name(node):
    node.forwarding.open(10, 0.0)
    node.forwarding.close(10, remember=True)
    node.join(11, "n11")
    node.forwarding.close(11, remember=False)
    assert [node.forwarding.neighbour(link) for link in (10, 11)] == [None, None]


# --- this node's own frames ---------------------------------------------------------------------------------------


def test_a_frame_of_this_node_leaves_over_the_next_hop(node):
    assert node.forwarding.next_hop("c") == NextHop(1, 7, False)
    node.forwarding.originate("c", Kind.CHUNK, b"head", b"body")
    node.forwarding.originate("c", Kind.ACK, b"head", b"", 2)
    assert taken(node) == [
        Passed(1, Kind.CHUNK, MAX_TTL, "c", "a", b"head", b"body"),
        Passed(2, Kind.ACK, MAX_TTL, "c", "a", b"head", b""),
    ]


def test_a_frame_of_this_node_to_itself_comes_back(node):
    assert node.forwarding.next_hop("a") == NextHop(0, 1, False)
    node.forwarding.originate("a", Kind.CHUNK, b"head", b"body")
    with pytest.raises(AssertionError, match="not taken out"):
        node.forwarding.check()
    assert node.forwarding.take_looped() == [wire.loop_packet(Kind.CHUNK, "a", b"head", b"body")]
    assert taken(node) == []


def test_there_may_be_no_next_hop(node):
    assert node.forwarding.next_hop("nobody") is None
    assert node.forwarding.next_hop("cli@nobody") is None
    assert node.forwarding.next_hop("left@a") is None
    node.forwarding.originate("cli@nobody", Kind.CHUNK, b"head", b"body")
    assert taken(node) == [Report("frame_dropped", "nobody", None, "no_route")]


def test_the_incarnation_of_a_leaf_is_not_known_to_the_routes(node):
    assert node.forwarding.next_hop("cli@c") == NextHop(1, 0, False)
    assert node.forwarding.next_hop("l@a") == NextHop(3, 0, False)


def test_a_leaf_sends_everything_to_the_node_that_it_hangs_on():
    node = Node("cli", leaf=True)
    node.join(1, "b")
    assert node.forwarding.next_hop("c") is None
    assert node.forwarding.hint("c", 0.0) == "; not linked to any node"
    node.forwarding.attach(1)
    assert node.forwarding.next_hop("c") == NextHop(1, 0, False)
    assert node.forwarding.hint("c", 0.0) == ""
    node.forwarding.originate("c", Kind.CHUNK, b"", b"")
    assert taken(node) == [Passed(1, Kind.CHUNK, MAX_TTL, "c", "cli@b", b"", b"")]
    node.forwarding.attach(None)
    assert (node.forwarding.address, node.forwarding.next_hop("c")) == ("cli", None)
    assert node.forwarding.hint("c", 0.0) == "; not linked to any node since the link with 'b' was lost"


# --- full links ---------------------------------------------------------------------------------------------------


def test_a_link_lags_when_so_many_bytes_wait_for_it(node):
    node.queue(1).full = True
    rest = LAGGING_BYTES - FRAME_OVERHEAD
    node.forwarding.enqueue(1, (b"", bytes(rest - 1)))
    assert node.forwarding.next_hop("c").lagging is False
    node.forwarding.drain(1)
    node.queue(1).full = True
    node.forwarding.enqueue(1, (b"", bytes(rest)))
    assert node.forwarding.next_hop("c").lagging is True


def fill(node, link=1):
    """No more than a packet without a head and a body has room on that link."""
    node.queue(link).full = True
    room = weigh(frames(Kind.ACK, head=b"", body=b""))
    node.forwarding.enqueue(link, (b"", bytes(MAX_QUEUED_BYTES - FRAME_OVERHEAD - room)))


def test_what_a_full_link_has_no_room_for_is_reported(node):
    fill(node)
    node.forwarding.enqueue(1, frames(Kind.ACK, head=b"", body=b""))
    assert node.forwarding.take() == []
    node.forwarding.enqueue(1, frames(Kind.ACK))
    assert node.forwarding.take() == [Report("frame_dropped", "b", 1, "queue_full")]


def test_the_source_of_a_chunk_that_a_full_link_refuses_gets_an_unreachable(node):
    fill(node)
    node.reach(2, "x")
    report, (link, kind, _, to, of, head, body) = forward(node, 2, frames(body=bytes(BULK)))
    assert report == Report("frame_dropped", "b", 1, "queue_full")
    assert (link, kind, to, of, body) == (2, Kind.UNREACHABLE, "x", "a", b"head")
    assert wire.decode_unreachable(head) == wire.Unreachable(Kind.CHUNK, "full", "a", "c", (), 0.0)


def test_a_source_without_a_route_gets_no_unreachable(node):
    fill(node)
    assert forward(node, 2, frames(body=bytes(BULK))) == [Report("frame_dropped", "b", 1, "queue_full")]


def test_a_node_hears_of_its_own_chunks_too(node):
    fill(node)
    node.forwarding.originate("c", Kind.CHUNK, b"head", bytes(BULK))
    (packet,) = node.forwarding.take_looped()
    assert (wire.decode_unreachable(packet.head).reason, packet.body) == ("full", b"head")


def test_a_leaf_sends_again_what_its_full_link_refused_when_its_time_has_come():
    leaf = Node(leaf=True)
    leaf.join(1, "b")
    leaf.forwarding.attach(1)
    fill(leaf)
    leaf.forwarding.originate("c", Kind.CHUNK, b"head", bytes(BULK))
    assert leaf.forwarding.take() == [Report("frame_dropped", "b", 1, "queue_full")]


def test_what_is_put_on_an_unknown_link_goes_nowhere(node):
    node.forwarding.enqueue(99, (b"",))
    assert node.forwarding.take() == [Report("frame_dropped", None, 99, "link_gone")]
    assert not node.forwarding.drain(99)
    node.forwarding.on_full(99, (b"",))
    assert node.forwarding.take() == [Report("frame_dropped", None, 99, "link_gone")]


def test_a_link_is_drained_a_few_frames_at_a_time(node):
    queue = node.queue(1)
    queue.full = True
    for number in range(DRAIN + 5):
        node.forwarding.enqueue(1, (b"%d" % number,))
    assert node.forwarding.drain(1)
    assert [effect.frames for effect in node.forwarding.take()] == [(b"%d" % number,) for number in range(DRAIN)]
    assert not queue.full
    node.forwarding.drain(1)
    assert len(node.forwarding.take()) == 5
    node.forwarding.drain(1)
    assert node.forwarding.take() == []


def test_frames_that_are_given_back_twice_stay_in_order(node):
    queue = node.queue(1)
    for number in range(DRAIN + 5):
        queue.give_back((b"%d" % number,))
    node.forwarding.drain(1)
    first, *rest = node.forwarding.take()
    for effect in rest:
        queue.give_back(effect.frames)
    sent = [first]
    while queue:
        node.forwarding.drain(1)
        sent += node.forwarding.take()
    assert [effect.frames for effect in sent] == [(b"%d" % number,) for number in range(DRAIN + 5)]


# --- what check finds ---------------------------------------------------------------------------------------------


def test_effects_that_were_not_taken_out_are_found(node):
    node.forwarding.check()
    node.forwarding.emit(Report("node_left", "c"))
    with pytest.raises(AssertionError, match="not taken out"):
        node.forwarding.check()


def test_an_entry_that_leads_to_a_closed_link_is_found(node):
    node.forwarding.close(3, remember=True)
    with pytest.raises(AssertionError, match="without a port"):
        node.forwarding.check()


def test_a_queue_of_the_wrong_size_is_found(node):
    node.queue(1).size_bytes = 1
    with pytest.raises(AssertionError, match="size"):
        node.forwarding.check()
