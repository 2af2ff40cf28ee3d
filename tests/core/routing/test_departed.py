import pytest

from tests.core.routing.route_rows import select_all
from zmesh.core import wire
from zmesh.core.limits import Limits
from zmesh.core.routing.departed import MAX_VISITED, MAX_WITNESSES, Departed, Departure
from zmesh.core.routing.records import Records
from zmesh.core.routing.routes import Routes
from zmesh.core.timers import Alarm
from zmesh.core.wire import INFINITY, Entry, Record


class Tables:
    """What node `a` knows of the mesh, with one link, and of the nodes that have left it."""

    def __init__(self, limits=None):
        alarm = Alarm()
        self.routes = Routes("a", 1, 1, alarm)
        self.records = Records("a", 1, 1, alarm)
        self.departed = Departed("a", self.routes, self.records, limits or Limits())
        self.routes.link_up(1, 100, 0.0)

    def reach(self, *nodes, hops=1):
        self.routes.update(1, 0, 1, [(node, 7, 1, 100 * hops, hops, 0) for node in nodes])
        for change in select_all(self.routes):
            self.departed.join(change.destination)

    def describe(self, node, *neighbours, serial=1):
        """A node says who its neighbours are."""
        record = Record(node, 7, serial, (), tuple((name, 100) for name in neighbours), b"")
        self.records.update(1, record, wire.encode(record), 0.0)

    def lose(self, *nodes, now=0.0):
        """The last route to each of them goes, all at once."""
        self.routes.update(1, 0, 1, [(node, 0, 0, INFINITY, 0, 0) for node in nodes])
        for change in select_all(self.routes, now):
            self.departed.leave(change.destination, change.before, None, now)
        self.departed.check()


@pytest.fixture
def tables():
    return Tables()


def test_a_node_that_was_never_known_differs_from_one_that_has_left(tables):
    assert tables.departed.describe("x", 0.0) == "'x' was never known to 'a'"
    tables.reach("x")
    tables.lose("x", now=5.0)
    assert tables.departed.describe("x", 17.0) == "'x' left 12 s ago"
    assert "x" in tables.departed


def test_a_node_that_loses_a_neighbour_was_the_last_to_hear_it(tables):
    tables.reach("x", hops=0)
    tables.lose("x")
    assert tables.departed.heard_by("x") == "a"
    assert tables.departed.describe("x", 3.0) == "'x' left 3 s ago, last heard by 'a'"


def test_the_neighbour_that_still_lists_a_node_was_the_last_to_hear_it(tables):
    tables.reach("x", "south", "north")
    tables.describe("x", "south", "north")
    tables.describe("south", "a", "north")
    tables.describe("north", "a", "south", "x")
    tables.lose("x")
    assert tables.departed.heard_by("x") == "north"


def test_of_neighbours_that_have_all_lost_a_node_any_is_named(tables):
    tables.reach("x", "south", "north")
    tables.describe("x", "south", "north")
    tables.describe("south", "a")
    tables.lose("x")
    assert tables.departed.heard_by("x") == "south"


def test_a_node_behind_others_that_left_with_it_was_heard_by_the_near_end(tables):
    """The chain a, b, c, d breaks between b and c."""
    tables.reach("b", "c", "d")
    for node, *neighbours in (("b", "a", "c"), ("c", "b", "d"), ("d", "c")):
        tables.describe(node, *neighbours)
    tables.lose("d", "c")
    assert [tables.departed.heard_by(node) for node in ("c", "d")] == ["b", "b"]
    tables.lose("b")
    assert [tables.departed.heard_by(node) for node in ("c", "d")] == [None, None]


def test_nodes_that_list_only_each_other_have_no_reachable_witness(tables):
    tables.reach("x", "y", "z")
    for node, *neighbours in (("x", "y", "z"), ("y", "z", "x"), ("z", "x", "y")):
        tables.describe(node, *neighbours)
    tables.lose("x", "y", "z")
    assert tables.departed.heard_by("x") is None


def test_this_node_is_no_witness_of_a_node_that_it_lost_before(tables):
    tables.reach("x", "b")
    tables.describe("x", "a", "b")
    tables.lose("x")
    assert tables.departed.heard_by("x") == "b"


def test_no_more_nodes_are_looked_at_than_the_limit(tables):
    names = [f"n{number}" for number in range(MAX_VISITED + 2)]
    tables.reach("b", *names)
    for node, following in zip(names, [*names[1:], "b"], strict=True):
        tables.describe(node, following)
    tables.lose(*names)
    assert tables.departed.heard_by(names[-2]) == "b"
    assert tables.departed.heard_by(names[0]) is None


def test_of_a_node_with_many_neighbours_a_few_are_remembered(tables):
    names = [f"n{number}" for number in range(MAX_WITNESSES + 1)]
    tables.reach("x")
    tables.describe("x", *names)
    tables.lose("x")
    assert tables.departed._departures["x"] == Departure(0.0, tuple(names[:MAX_WITNESSES]), None, 200, 2)


def test_a_node_that_comes_back_has_not_left(tables):
    tables.reach("x")
    tables.lose("x")
    tables.reach("x")
    assert "x" not in tables.departed
    assert len(tables.departed) == 0


def test_the_oldest_departure_is_dropped_past_the_limit():
    tables = Tables(Limits(departed_nodes=2))
    tables.reach("x", "y", "z")
    for node in ("x", "y"):
        tables.lose(node)
    tables.reach("x")
    tables.lose("x")
    assert len(tables.departed) == 2
    tables.lose("z")
    assert ["y" in tables.departed, "x" in tables.departed, "z" in tables.departed] == [False, True, True]
    assert tables.departed.describe("y", 0.0) == "'y' is not known to 'a'"


def test_a_table_that_contradicts_the_routes_or_its_limit_is_noticed():
    tables = Tables(Limits(departed_nodes=1))
    tables.reach("x")
    tables.departed._departures["x"] = Departure(0.0, (), None, 0, 0)
    with pytest.raises(AssertionError, match="can be reached"):
        tables.departed.check()
    tables.departed._departures = {name: Departure(0.0, (), None, 0, 0) for name in "yz"}
    with pytest.raises(AssertionError, match="more departures"):
        tables.departed.check()


# --- in the engine ------------------------------------------------------------------------------------------------


def test_an_engine_keeps_a_departure_until_the_node_returns(linked):
    linked.advertise(1, Entry("c", 5, 1, 10, 1))
    linked.advertise(1, Entry("c", 0, 0, INFINITY, 0))
    assert linked.engine.routing.describe_departure("c", linked.now + 4.0) == "'c' left 4 s ago"
    linked.advertise(1, Entry("c", 5, 3, 10, 1))
    assert not linked.engine.routing.has_left("c")
    linked.link_down(1)
    assert linked.engine.routing.last_heard_by("a") == "b"
