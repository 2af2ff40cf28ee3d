"""How many destinations a node keeps, and which neighbour's have to go when there are more."""

import random

import pytest

from tests.core.routing.route_rows import entry, hear, request, retraction
from zmesh.core.routing.routes import EVICTION_DELAY, KEEP_DISTANCE, Routes
from zmesh.core.timers import Alarm
from zmesh.core.wire import FULL_BEGIN, FULL_END, MAX_HOPS


def routes_of(limit, **neighbours):
    """The routes of node `a` with room for so many destinations, and a link to each of these neighbours."""
    routes = Routes("a", 1, 100, Alarm(), limit)
    for name, link in neighbours.items():
        routes.link_up(link, 100, 0.0, name)
    return routes


def names(*parts, count):
    return [entry("-".join([*parts, str(number)])) for number in range(count)]


@pytest.mark.parametrize("limit", [1, 7])
def test_no_more_destinations_are_kept_than_the_limit(limit):
    routes = routes_of(limit, b=1)
    hear(routes, 1, *names("n", count=limit))
    assert routes.refused == {}
    assert hear(routes, 1, entry("more")) == []
    assert (len(routes.table()), routes.refused) == (limit, {(1, "destinations"): 1})


def test_a_destination_that_found_no_room_is_taken_when_there_is_some():
    routes = routes_of(3, b=1)
    hear(routes, 1, *names("n", count=3))
    hear(routes, 1, entry("more"))
    hear(routes, 1, retraction("n-1"))
    assert routes.table().keys() == {"n-0", "n-2", "more"}


def test_a_neighbour_may_advertise_as_many_rows_as_there_is_room_for_and_itself():
    routes = routes_of(10, b=1)
    hear(routes, 1, *names("n", count=20))
    assert len(routes._neighbours[1].rows) == 11
    assert routes.refused == {(1, "destinations"): 9 + 1}
    hear(routes, 1, *names("n", count=11))  # known rows may be advertised again
    assert len(routes._neighbours[1].rows) == 11


@pytest.mark.parametrize("honest", [1, 30, 50])
def test_a_neighbour_that_makes_up_destinations_does_not_take_the_place_of_the_others(honest):
    routes = routes_of(100, liar=1, b=2, c=3)
    hear(routes, 1, *names("made-up", count=1000))
    assert len(routes.table()) == 100
    changes = hear(routes, 2, *names("n", count=honest))
    assert {change.destination for change in changes if change.after} == {f"n-{number}" for number in range(honest)}
    assert len([change for change in changes if change.after is None]) == honest
    assert len(routes.table()) == 100
    hear(routes, 1, *names("made-up", count=1000))
    assert all(routes.get(f"n-{number}") for number in range(honest))


def test_honest_routes_that_were_there_first_stay():
    routes = routes_of(100, liar=1, b=2)
    hear(routes, 2, *names("n", count=50))
    hear(routes, 1, *names("made-up", count=1000))
    assert len(routes.table()) == 100
    assert all(routes.get(f"n-{number}") for number in range(50))


def test_several_links_to_one_neighbour_have_the_share_of_one():
    routes = routes_of(100, liar=1, b=2)
    routes.link_up(3, 100, 0.0, "liar")
    hear(routes, 1, *names("made-up", count=80))
    hear(routes, 3, *names("and", count=80))
    hear(routes, 2, *names("n", count=50))
    assert all(routes.get(f"n-{number}") for number in range(50))


def test_all_is_well_as_soon_as_the_liar_has_left():
    routes = routes_of(100, liar=1, b=2)
    hear(routes, 1, *names("made-up", count=1000))
    hear(routes, 2, *names("n", count=80))
    assert len([name for name in routes.table() if name.startswith("n")]) == 50
    routes.link_down(1)
    for _ in range(2):
        routes.select(1.0)
        routes.check()
        routes.expire(1.0)
    assert routes.table().keys() == {f"n-{number}" for number in range(80)}
    routes.expire(1.0 + KEEP_DISTANCE)
    routes.select(1.0 + KEEP_DISTANCE)
    routes.check()
    assert len(routes) == 80


def test_an_evicted_route_is_not_selected_again_before_the_eviction_delay():
    """A neighbour that still has its route by this node would be taken for a next hop, in a loop."""
    routes = routes_of(2, liar=1, b=2)
    hear(routes, 1, entry("y"), entry("z"))
    (gone,) = [change.destination for change in hear(routes, 2, entry("n")) if change.after is None]
    hear(routes, 2, entry(gone, metric=500))
    hear(routes, 2, retraction("n"), now=1.0)
    assert gone not in routes.table()
    for now, known in ((EVICTION_DELAY - 0.1, False), (EVICTION_DELAY, True)):
        routes.expire(now)
        routes.select(now)
        routes.check()
        assert (gone in routes.table()) is known


def test_destinations_that_come_and_go_do_not_pile_up_as_distances():
    routes = routes_of(100, liar=1, b=2)
    hear(routes, 2, *names("n", count=20))
    for number in range(30):
        hear(routes, 1, *names("made-up", str(number), count=50), now=number)
        hear(routes, 1, *(retraction(each.destination) for each in names("made-up", str(number), count=50)))
    assert len(routes) == 100
    assert len(routes.table()) == 20


def test_a_starved_destination_that_is_evicted_is_not_requested_any_more():
    routes = routes_of(4, liar=1, b=2, c=3)
    hear(routes, 1, *names("made-up", count=3), now=0.0)
    hear(routes, 2, entry("made-up-2", metric=500))
    hear(routes, 1, retraction("made-up-2"))
    assert routes._table["made-up-2"].is_starved
    hear(routes, 3, entry("n-0"), entry("n-1"), entry("n-2"))
    assert "made-up-2" not in routes._table
    assert len([name for name in routes.table() if name.startswith("n")]) == 2
    routes.check()


def test_an_entry_whose_seqno_is_too_far_ahead_counts_as_a_retraction(routes):
    hear(routes, 1, entry(seqno=5))
    routes.update(1, 0, 1, [tuple(entry(seqno=1001)), tuple(entry("y", seqno=1001))], 1000)
    routes.select(1.0)
    routes.check()
    assert routes.table() == {}
    assert routes.refused == {(1, "seqno_ahead"): 2}
    routes.update(1, 0, 1, [tuple(entry(seqno=1000))], 1000)
    routes.select(2.0)
    assert routes.get("z") is not None


def test_an_entry_of_too_many_hops_is_counted(routes):
    hear(routes, 1, entry(hops=MAX_HOPS))
    assert routes.refused == {(1, "max_hops"): 1}


def test_a_request_for_an_unknown_destination_is_counted(routes):
    assert routes.request(1, request(destination="made-up"), 1.0) == 0
    assert routes.refused == {(1, "asked_for_unknown"): 1}


def test_the_number_of_links_that_a_request_was_forwarded_on_is_returned(routes):
    for link in (1, 2, 3):
        hear(routes, link, entry(metric=10 * link))
    assert routes.request(1, request(distance=5), 1.0) == 2
    assert routes.request(1, request(distance=5), 1.0) == 0
    assert routes.request(1, request(distance=4, hops_left=1), 1.0) == 0


@pytest.mark.parametrize("seed", range(30))
def test_the_table_stays_consistent_and_within_its_limit_whatever_is_advertised(seed):
    rng = random.Random(seed)
    limit = rng.randint(1, 12)
    routes = routes_of(limit, b=1, c=2, d=3)
    now = 0.0
    for _ in range(300):
        now += rng.choice((0.0, 0.01, 1.0, 30.0))
        link = rng.randint(1, 3)
        rows = [
            retraction(f"n{rng.randrange(30)}") if rng.random() < 0.3
            else entry(f"n{rng.randrange(30)}", metric=rng.choice((1, 50, 400)), seqno=rng.choice((5, 5, 6)))
            for _ in range(rng.randint(1, 6))
        ]  # fmt: skip
        match rng.randrange(10):
            case 0:
                routes.link_down(link)
                routes.select(now)
                routes.link_up(link, 100, now, rng.choice("bcd"))
            case 1:
                routes.set_cost(link, rng.choice((50, 100, 300)))
                routes.select(now)
            case 2:
                routes.request(
                    link, request(destination=f"n{rng.randrange(30)}", distance=rng.choice((0, 99, 150))), now
                )
            case 3:
                hear(routes, link, *rows, now=now, full=FULL_BEGIN | FULL_END)
            case _:
                hear(routes, link, *rows, now=now)
        routes.flush(now)
        routes.requests(now)
        routes.expire(now)
        routes.select(now)
        routes.check()
        assert len(routes) <= limit
        heard = {name for link in (1, 2, 3) for name in routes._neighbours[link].rows}
        assert routes._no_room.keys() <= heard
    for link in (1, 2, 3):
        routes.link_down(link)
    routes.select(now)
    routes.expire(now + KEEP_DISTANCE)
    routes.select(now + KEEP_DISTANCE)
    routes.check()
    assert (len(routes), routes._no_room, len(routes._quotas)) == (0, {}, 0)


def test_check_finds_a_destination_without_an_owner(routes):
    hear(routes, 1, entry())
    routes._quotas.drop("z")
    with pytest.raises(AssertionError, match="without an owner"):
        routes.check()
