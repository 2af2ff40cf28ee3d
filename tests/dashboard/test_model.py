"""The model of the dashboard: answers become rows, and each client gets what has changed."""

from hypothesis import given
from hypothesis import strategies as st

from tests.dashboard.fixed_mesh import link, member, status
from zmesh import GraphLink, MemberList, MeshGraph, NodeEvent, RequestsTaken
from zmesh.dashboard import model as limits
from zmesh.dashboard.model import MeshModel
from zmesh.dashboard.rates import MAX_REQUESTS
from zmesh.dashboard.rows import KEPT_REMOVALS, Rows, Versions


def joined(*nodes, links=(), now=100.0):
    model = MeshModel()
    model.take_members(MemberList("hub", tuple(member(node) for node in ("hub", *nodes))), now)
    model.take_graph(MeshGraph("hub", (), tuple(GraphLink(a, b, 100, 100) for a, b in links)), now)
    return model


def all_of(model):
    """The one update that a new client gets of a small mesh."""
    (update,) = model.updates(0, 0, 0.0)
    return update


def row(model, node):
    return model.nodes.get(node)


def test_a_node_that_leaves_is_down_since_then_and_so_are_its_links():
    model = joined("a", "b", links=[("a", "hub"), ("b", "hub")])
    model.take_members(MemberList("hub", (member("hub"), member("b"), member("a", left=3.0, heard_by=("hub",)))), 110.0)
    assert (row(model, "a")["up"], row(model, "a")["since"], row(model, "a")["heard_by"]) == (False, 107.0, ["hub"])
    assert model.links.rows.get("a|hub")["state"] == "down"
    assert model.links.rows.get("a|hub")["since"] == 107.0
    assert model.links.rows.get("b|hub")["state"] == "up"
    model.check()


def test_an_event_of_the_host_shows_a_node_down_before_the_next_list():
    model = joined("a", links=[("a", "hub")])
    model.take_event("hub", NodeEvent(7, 104.0, "node_left", "a", "", "a left the mesh"), 104.2)
    assert (row(model, "a")["up"], row(model, "a")["since"]) == (False, 104.0)
    assert all_of(model)["events"][-1]["text"] == "a left the mesh"


def test_an_old_event_of_a_node_that_left_and_came_back_changes_nothing():
    model = joined("a")
    model.take_event("hub", NodeEvent(7, 4.0, "node_left", "a", "", "a left the mesh"), 104.2)
    assert row(model, "a")["up"]


def test_the_time_of_leaving_stays_the_same_from_list_to_list():
    model = joined("a")
    for now, left in ((110.0, 3.0), (112.0, 5.004), (114.0, 6.99)):
        model.take_members(MemberList("hub", (member("hub"), member("a", left=left))), now)
        assert row(model, "a")["since"] == 107.0


def test_a_node_that_comes_back_is_up_with_its_links():
    model = joined("a", links=[("a", "hub")])
    model.take_members(MemberList("hub", (member("hub"), member("a", left=1.0))), 110.0)
    model.take_members(MemberList("hub", (member("hub"), member("a"))), 120.0)
    model.take_graph(MeshGraph("hub", (), (GraphLink("a", "hub", 100, None),)), 120.0)
    assert row(model, "a")["up"]
    assert row(model, "a")["since"] is None
    assert model.links.rows.get("a|hub") | {"id": ""} == model.links.rows.get("a|hub") | {
        "id": "",
        "state": "up",
        "since": 120.0,
    }


def test_a_node_that_is_listed_no_more_is_down():
    model = joined("a")
    model.take_members(MemberList("hub", (member("hub"),)), 130.0)
    assert (row(model, "a")["up"], row(model, "a")["since"]) == (False, 130.0)


def test_a_link_that_fell_between_two_nodes_that_are_up_is_down_for_an_hour():
    model = joined("a", "b", links=[("a", "b")])
    model.take_graph(MeshGraph("hub", (), ()), 110.0)
    assert model.links.rows.get("a|b")["state"] == "down"
    model.take_graph(MeshGraph("hub", (), ()), 110.0 + 3601.0)
    assert model.links.rows.get("a|b") is None


def test_two_states_of_a_node_make_rates_of_it_and_of_its_links():
    model = joined("a", links=[("a", "hub")])
    first = [RequestsTaken("hub", "echo:echo", 10, 0)]
    model.take_status(status("a", 10.0, served=10, links=[link("hub", moved=1000)], requests=first, cpu=1.0), 110.0)
    second = [RequestsTaken("hub", "echo:echo", 30, 2)]
    counters = {"frame_dropped:no_route": 4, "link_up": 3}
    after = status(
        "a", 14.0, served=30, links=[link("hub", rtt=0.1803, moved=5000)], requests=second, cpu=1.2, counters=counters
    )
    model.take_status(after, 114.0)
    shown = row(model, "a")
    assert (shown["requests"], shown["bytes_in"], shown["errors"], shown["cpu"]) == (5.0, 500.0, 1.0, 0.05)
    assert shown["requested"] == [["hub", "echo:echo", 30, 5.0, 2]]
    assert (model.links.rows.get("a|hub")["rate"], model.links.rows.get("a|hub")["rtt"]) == (1000, 0.18)


def test_a_node_that_was_restarted_counts_from_its_start():
    model = joined("a")
    model.take_status(status("a", 1000.0, served=5000), 110.0)
    model.take_status(status("a", 2.0, served=4, incarnation="2"), 112.0)
    assert row(model, "a")["requests"] == 2.0


def test_a_neighbour_says_why_a_node_is_down():
    model = joined("a", "b", links=[("a", "b")])
    model.take_members(MemberList("hub", (member("hub"), member("a"), member("b", left=1.0))), 110.0)
    model.take_status(status("a", links=[link("b", "down", reason="the connection was closed")]), 111.0)
    assert row(model, "b")["reason"] == "the connection was closed"
    assert model.links.rows.get("a|b")["reason"] == "the connection was closed"


def test_a_node_that_may_not_be_asked_says_so_until_it_may():
    model = joined("a")
    model.take_failure("a", "not_allowed", "node 'a' does not let 'hub' call zmesh:status", 110.0)
    assert row(model, "a")["problem"]["code"] == "not_allowed"
    model.take_status(status("a"), 111.0)
    assert row(model, "a")["problem"] is None


def test_the_mesh_does_what_its_nodes_do_that_are_up():
    model = joined("a", "b")
    for node in ("a", "b"):
        model.take_status(status(node, 10.0, served=50), 110.0)
    model.tick(111.0)
    assert model.lines.mesh[-1].requests == 10.0
    model.take_members(MemberList("hub", (member("hub"), member("a"), member("b", left=1.0))), 112.0)
    model.tick(112.0)
    assert model.lines.mesh[-1].requests == 5.0


def test_a_client_gets_what_has_changed_since_its_version():
    model = joined("a", "b")
    first = all_of(model)
    assert first["full"]
    assert {each["id"] for each in first["nodes"]} == {"hub", "a", "b"}
    model.take_status(status("b"), 110.0)
    (then,) = model.updates(first["version"], first["event_count"], 0.0)
    assert (then["full"], [each["id"] for each in then["nodes"]], then["links"]) == (False, ["b"], [])


def test_what_has_changed_comes_in_updates_of_so_many_rows_at_most(monkeypatch):
    monkeypatch.setattr(limits, "MAX_ROWS", 3)
    names = [f"n{number}" for number in range(8)]
    model = joined(*names, links=[("hub", name) for name in names])
    model.take_event("hub", NodeEvent(1, 100.0, "link_up", "n1", "", "linked with n1"), 100.0)
    first, *more = model.updates(0, 0, 0.0)
    assert [update["full"] for update in (first, *more)] == [True] + [False] * 5
    assert all(len(update["nodes"]) + len(update["links"]) <= 3 for update in (first, *more))
    assert {each["id"] for update in (first, *more) for each in update["nodes"]} == {"hub", *names}
    assert sum(len(update["links"]) for update in (first, *more)) == 8
    assert ([len(update["events"]) for update in (first, *more)], more[-1]["version"]) == (
        [1, 0, 0, 0, 0, 0],
        model.versions.current,
    )
    seen, shown = more[-1]["version"], []
    for name in names:
        model.take_status(status(name), 110.0)
    while seen < model.versions.current:
        (update,) = model.updates(seen, 1, 0.0)
        shown.append([each["id"] for each in update["nodes"]])
        seen = update["version"]
    assert shown == [names[:3], names[3:6], names[6:]]


def test_of_what_is_requested_of_a_node_the_most_frequent_is_shown_without_what_shows_it():
    model = joined("a")
    taken = [RequestsTaken(f"n{number:02}", "echo:echo", number, 0) for number in range(40)]
    model.take_status(status("a", requests=[RequestsTaken("hub", "zmesh:status", 900, 0), *taken]), 110.0)
    assert [each[2] for each in row(model, "a")["requested"]] == list(range(39, 39 - MAX_REQUESTS, -1))


def test_a_client_that_missed_more_removals_than_are_remembered_gets_all():
    rows = Rows(Versions(), 10_000)
    for number in range(KEPT_REMOVALS + 1):
        rows.put(str(number), {"id": number})
    for number in range(KEPT_REMOVALS + 1):
        rows.remove(str(number))
    assert not rows.can_tell_since(KEPT_REMOVALS + 1)
    assert rows.can_tell_since(KEPT_REMOVALS + 2)


def test_a_larger_mesh_than_the_limit_is_cut_and_the_rest_counted(monkeypatch):
    monkeypatch.setattr(limits, "MAX_NODES", 3)
    model = joined("a", "b", "c", "d")
    assert (len(model.nodes), model.nodes.omitted) == (3, 2)
    model.check()


def test_of_many_nodes_that_are_down_the_last_ones_are_kept(monkeypatch):
    monkeypatch.setattr(limits, "MAX_DOWN", 2)
    model = joined()
    gone = tuple(member(f"n{number}", left=float(number)) for number in range(5))
    model.take_members(MemberList("hub", (member("hub"), *gone)), 200.0)
    assert sorted(each["id"] for each in model.nodes) == ["hub", "n0", "n1"]


def test_events_are_kept_up_to_a_limit_and_numbered_on(monkeypatch):
    model = joined()
    for number in range(limits.MAX_EVENTS + 5):
        model.take_event("hub", NodeEvent(number + 1, 1.0, "link_up", "a", "", "linked with a"), 100.0)
    model.take_event("hub", NodeEvent(3, 1.0, "link_up", "a", "", "once more"), 100.0)
    assert (len(model.events), model.event_count) == (limits.MAX_EVENTS, limits.MAX_EVENTS + 5)


@given(
    st.lists(st.tuples(st.sampled_from(["put", "remove"]), st.integers(0, 5), st.integers(0, 2)), max_size=60),
    st.integers(0, 60),
)
def test_changes_applied_in_turn_give_all_rows(steps, cut):
    rows, client, seen = Rows(versions := Versions(), 4), {}, 0
    for number, (step, key, value) in enumerate(steps):
        if step == "put":
            rows.put(str(key), {"id": str(key), "value": value})
        else:
            rows.remove(str(key))
        if number % 7 == cut % 7:
            changed, removed = rows.since(seen, versions.current)
            client = {each: client[each] for each in client if each not in removed} | {
                each["id"]: each for each in changed
            }
            seen = versions.current
    changed, removed = rows.since(seen, versions.current)
    client = {each: client[each] for each in client if each not in removed} | {each["id"]: each for each in changed}
    assert client == {each["id"]: each for each in rows}
