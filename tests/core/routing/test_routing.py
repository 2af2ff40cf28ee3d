"""The facade of the control plane: what others read of it, and the frames that it returns."""

import pytest

from zmesh.core import wire
from zmesh.core.effects import Report
from zmesh.core.routing import Routing
from zmesh.core.timers import Alarm
from zmesh.core.wire import INFINITY, Kind, Record, SeqnoRequest, Update


class Links:
    """Links 1 and 2, to `b` and `c`, of the cost 100."""

    def neighbour(self, id):
        return {1: "b", 2: "c"}.get(id)

    def neighbours(self):
        return (("b", 100), ("c", 100))

    def routing_cost(self, id):
        return 130 if id == 1 else None


@pytest.fixture
def reports():
    return []


@pytest.fixture
def routing(reports):
    routing = Routing("a", 7, 100, Links(), reports.append, Alarm(), now=0.0, epoch=1000.0)
    for link, node in ((1, "b"), (2, "c")):
        routing.link_up(link, node, 100, 0.0)
    routing.flush(0.0)
    return routing


def update(routing, link, *rows, now):
    routing.on_update(link, Update(0, 1, list(rows)), now)
    changes = routing.select(now)
    routing.check()
    return changes


def kinds(frames):
    return [(link, wire.decode_packet(parts).kind) for link, parts in frames]


def test_a_selected_route_is_reported_and_advertised_and_readable(routing, reports):
    (change,) = update(routing, 1, ("z", 9, 5, 10, 1, 0), now=5.0)
    assert (change.destination, change.before, change.after) == ("z", None, routing.route("z"))
    assert reports == [Report("node_joined", "z"), Report("route_changed", "z", 1, "metric 110, 2 hops")]
    assert routing.is_urgent is False
    assert kinds(routing.flush(5.0)) == [(2, Kind.UPDATE)]
    update(routing, 2, ("z", 9, 5, 50, 1, 0), now=6.0)
    assert routing.others("z") == [(2, 150, True)]
    assert (routing.changed_at, routing.moved_at, routing.settled(8.0)) == (5.0, 5.0, 3.0)
    assert routing.routes() == {"z": routing.route("z")}
    assert routing.distance("z") == (5, 110)
    assert routing.counts() == {"routes": 1, "distances": 1, "records": 1, "contested_ids": 0, "departed": 0}


def test_a_changed_metric_alone_is_no_change_of_the_next_hop(routing):
    update(routing, 1, ("z", 9, 5, 10, 1, 0), now=5.0)
    assert update(routing, 1, ("z", 9, 5, 9, 1, 0), now=6.0) == []
    assert (routing.changed_at, routing.moved_at) == (5.0, 6.0)


def test_a_lost_route_is_reported_and_its_departure_kept(routing, reports):
    update(routing, 1, ("z", 9, 5, 0, 0, 0), now=5.0)
    reports.clear()
    update(routing, 1, ("z", 0, 0, INFINITY, 0, 0), now=6.0)
    assert reports == [Report("node_left", "z")]
    assert routing.has_left("z")
    assert routing.last_heard_by("z") == "a"
    assert routing.describe_departure("z", 8.0) == "'z' left 2 s ago, last heard by 'a'"
    assert routing.has_work
    assert routing.is_urgent


def test_refused_requests_are_reported_once_with_their_number(routing, reports):
    for _ in range(2):
        assert routing.on_seqno_request(1, SeqnoRequest("nobody", 5, 0, 9), 5.0) == 0
    assert (routing.has_work, routing.is_urgent) == (True, False)
    routing.report_refused()
    assert reports == [Report("route_refused", "b", 1, "asked_for_unknown: 2", count=2)]
    assert not routing.has_work


def test_a_changed_cost_follows_cost_damping_and_a_lost_link_is_ignored(routing):
    update(routing, 1, ("z", 9, 5, 10, 1, 0), now=5.0)
    routing.cost_moved(1, 6.0)
    routing.cost_moved(2, 6.1)
    routing.select(6.1)
    assert routing.route("z").metric == 140
    routing.expire(7.0)
    assert routing.next_deadline() is not None


def test_two_live_nodes_with_this_nodes_id_are_reported_and_the_later_one_has_to_end(routing, reports):
    proven = False
    for number in range(8):
        record = Record("a", 9, 10**6 + 10 * number, (), (), b"", 900.0)
        proven |= routing.on_records(1, [(record, wire.encode(record))], float(number))
        routing.expire(float(number) + 0.9)
    assert proven
    assert routing.is_contested
    assert routing.duplicates() == {"a"}
    assert [report.event for report in reports] == ["duplicate_id", "id_taken"]
