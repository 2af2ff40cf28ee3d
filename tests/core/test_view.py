"""What the shell reads of an engine."""

from tests.core.engine_harness import ID
from zmesh.core.message import Stream
from zmesh.core.view import ActiveLink, Alternate
from zmesh.core.wire import Entry


def test_the_links_that_are_up_are_listed_with_their_costs(linked):
    linked.link_up(2)
    view = linked.engine
    heard = linked.now
    assert view.links() == [ActiveLink(1, "a", False, False, 100, 0.0, False, heard, 0, None)]
    assert (view.heartbeat, view.address, view.uplink, view.rtt(1), view.rtt(9)) == (1.0, "b", None, 0.0, None)
    assert (len(view.neighbours), len(view.forwarding), view.forwarding.queued_bytes) == (2, 2, 0)
    assert (view.queued_bytes, view.forwarding.queued(9)) == (0, 0)


def test_a_route_is_shown_with_its_next_hop_and_the_alternates(linked):
    linked.join(2, "c", 5)
    linked.advertise(1, Entry("z", 7, 1, 10, 1))
    linked.advertise(2, Entry("z", 7, 1, 30, 1))
    linked.run(0.1)
    route = linked.engine.route("z")
    assert (route.next_hop, route.link, route.metric, route.hops, route.rtt) == ("a", 1, 110, 2, 0.0)
    assert route.alternates == (Alternate("c", 130, True),)
    assert [route.destination for route in linked.engine.routes()] == ["a", "c", "z"]
    assert linked.engine.route("b") is None
    assert linked.engine.nodes() == {"a", "b", "c", "z"}
    assert linked.engine.settled(linked.now) > 0
    assert linked.engine.duplicates() == set()
    assert set(linked.engine.records()) == {"b"}
    assert linked.engine.explain("z").following.neighbour == "c"
    assert linked.engine.losses() == {}
    assert linked.engine.near("zz", linked.now) == ("z",)
    assert (linked.engine.routing.neighbour(1), linked.engine.routing.neighbour(9)) == ("a", None)
    assert (linked.engine.software("b"), linked.engine.software("nobody")) == ("", "")
    assert linked.engine.rtt_to("z") is None
    assert linked.engine.tags() == {"b": ((), ())}
    assert linked.engine.last_heard_by("nobody") is None
    assert linked.engine.routing.moved_at > 0
    assert linked.engine.routing.counts()["routes"] == 3


def test_a_request_is_shown_until_it_is_over(linked):
    view, stream = linked.engine, Stream(ID, True)
    linked.send(body=b"x" * 10, last=False)
    assert view.is_handing_over
    assert view.is_open(stream)
    assert view.room(stream) > 0
    assert (view.waiting_bytes, view.waiting_streams, view.is_lost(ID)) == (10, 0, False)
    assert 1 in view.stats().values()
    assert view.deadline < float("inf")
    assert view.hint("x", 0.0).startswith("; 'x' was never known")
    view.attach(ID, object())  # no request that was received here
    assert view.neighbour_of(ID) is None
    assert view.obstacle(ID, 0.0) == "nothing was heard of the request since it left 'b'"
    assert view.obstacle(bytes(16), 0.0) == ""


def test_a_leaf_shows_its_uplink(subject_of):
    leaf = subject_of(leaf=True)
    leaf.join(1, "a", dialled=True)
    assert (leaf.engine.uplink, leaf.engine.address) == ("a", "b@a")
