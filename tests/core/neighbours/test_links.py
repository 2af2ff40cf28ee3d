import collections
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.neighbours.links import (
    COST_STEP,
    MAX_COST,
    MAX_RATES,
    MAX_RTT_PENALTY,
    OPENING,
    RTT_CEILING,
    RTT_FLOOR,
    SILENCE,
    STEADY,
    SUSPECT_AFTER,
    SUSPECT_COST,
    TOGETHER,
    Link,
    Links,
    State,
    rtt_penalty,
)
from zmesh.core.timers import Alarm
from zmesh.core.wire import INFINITY


def named(link, node, incarnation=1, *, leaf=False):
    link.node, link.incarnation, link.leaf = node, incarnation, leaf
    return link


@pytest.fixture
def links():
    return Links(1.0, Alarm())


@pytest.fixture
def up(links):
    """Have a link to a node come up, and a round trip on it be measured."""

    def up(id, node, *, cost=100, now=0.0, incarnation=1, leaf=False):
        link = named(links.open(id, dialled=True, cost=cost, now=now), node, incarnation, leaf=leaf)
        links.establish(link, now)
        link.measure(0.0)
        return link

    return up


# --- what a link costs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rtt", "penalty"),
    [
        (0.0, 0),
        (RTT_FLOOR, 0),
        ((RTT_FLOOR + RTT_CEILING) / 2, MAX_RTT_PENALTY / 2),
        (RTT_CEILING, MAX_RTT_PENALTY),
        (10.0, MAX_RTT_PENALTY),
    ],
)
def test_a_slow_link_costs_more_up_to_a_bound(rtt, penalty):
    assert rtt_penalty(rtt) == penalty


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_slower_link_never_costs_less(one, other):
    assert (rtt_penalty(one) <= rtt_penalty(other)) or one > other
    assert 0 <= rtt_penalty(one) <= MAX_RTT_PENALTY


def test_the_round_trip_time_of_a_link_is_smoothed_as_in_rfc_6298():
    link = Link(1, dialled=True, cost=100, now=0.0)
    link.measure(0.004)
    assert (link.rtt, link.rtt_estimator.variation) == (0.004, 0.002)
    link.measure(0.012)
    assert link.rtt == pytest.approx(7 / 8 * 0.004 + 1 / 8 * 0.012)
    assert link.rtt_estimator.variation == pytest.approx(3 / 4 * 0.002 + 1 / 4 * 0.008)


def test_a_small_change_of_the_round_trip_time_leaves_the_cost_alone():
    link = Link(1, dialled=True, cost=100, now=0.0)
    assert link.measure(RTT_CEILING)
    assert link.cost == 100 + MAX_RTT_PENALTY
    assert not link.measure(RTT_CEILING * 0.95)
    assert link.cost == 100 + MAX_RTT_PENALTY


def test_a_link_that_is_fast_again_gets_its_configured_cost_back_exactly():
    link = Link(1, dialled=True, cost=100, now=0.0)
    assert not link.measure(RTT_FLOOR)
    assert not link.measure(RTT_FLOOR + (RTT_CEILING - RTT_FLOOR) * (COST_STEP - 1) / MAX_RTT_PENALTY)
    changes = [link.measure(0.05) for _ in range(40)]
    assert changes.count(True) >= 1
    assert link.cost > 100
    assert [link.measure(RTT_FLOOR) for _ in range(STEADY)] == [False] * (STEADY - 1) + [True]
    assert link.cost == 100
    assert not link.measure(0.0)


@pytest.mark.parametrize(("fast", "slow"), [(0.010, 0.100), (0.020, 0.200), (0.005, 0.050)])
def test_a_link_that_becomes_ten_times_slower_is_dearer_after_three_probes_and_one_slow_answer_means_nothing(
    fast, slow
):
    link = Link(1, dialled=True, cost=100, now=0.0)
    for _ in range(20):
        link.measure(fast)
    before = link.cost
    for _ in range(5):
        assert not link.measure(60.0)
        assert not link.measure(60.0)
        assert not link.measure(fast)
    assert [link.measure(slow) for _ in range(STEADY)] == [False] * (STEADY - 1) + [True]
    assert link.cost >= before + COST_STEP
    changes = [link.measure(slow) for _ in range(60)]
    assert changes.count(True) <= 1
    assert abs(link.cost - 100 - rtt_penalty(slow)) < COST_STEP


@given(st.lists(st.floats(0, 3600) | st.floats(0, 0.2), min_size=1, max_size=50), st.integers(1, MAX_COST))
def test_a_cost_changes_only_if_each_of_the_last_round_trips_requires_it(samples, cost):
    link = Link(1, dialled=True, cost=cost, now=0.0)
    for count, sample in enumerate(samples, 1):
        before = link.cost
        changed = link.measure(sample)
        assert changed is (link.cost != before)
        assert cost <= link.cost <= cost + MAX_RTT_PENALTY
        asked = [cost + rtt_penalty(recent) for recent in samples[max(0, count - STEADY) : count]]
        if changed:
            assert min(asked) >= before + COST_STEP or max(asked) <= before - COST_STEP or max(asked) == cost


@pytest.mark.parametrize(("asked", "given_"), [(0, 1), (-5, 1), (1, 1), (MAX_COST, MAX_COST), (MAX_COST + 1, MAX_COST)])
def test_a_configured_cost_is_kept_within_its_limits(links, asked, given_):
    assert links.open(1, dialled=True, cost=asked, now=0.0).cost == given_


# --- the table ----------------------------------------------------------------------------------------------------


def test_a_new_link_is_opening_and_carries_nothing(links):
    link = links.open(1, dialled=False, cost=100, now=5.0)
    assert link.state is State.OPENING
    assert (len(links), list(links), links.get(1)) == (1, [link], link)
    assert (links.up(), links.quarantined(), links.neighbours(), links.get(2)) == ([], [], (), None)
    links.check()


def test_a_link_that_is_up_is_found_by_its_neighbour(links, up):
    link = up(1, "a")
    assert link.state is State.UP
    assert (links.up(), links.to("a"), links.to("b"), links.neighbours()) == ([link], [link], [], (("a", 100),))
    links.check()


def test_of_two_links_to_a_neighbour_the_cheaper_comes_first(links, up):
    one, two, three = up(1, "a", cost=300), up(2, "a", cost=50), up(3, "a", cost=50)
    assert links.to("a") == [two, three, one]
    assert links.neighbours() == (("a", 50),)


def test_a_link_whose_round_trip_is_not_known_costs_routes_infinity_and_is_no_edge(links):
    link = named(links.open(1, dialled=True, cost=100, now=0.0), "a")
    links.establish(link, 0.0)
    assert (link.effective_cost, link.routing_cost, links.neighbours()) == (100, INFINITY, ())
    link.measure(0.0)
    assert (link.effective_cost, link.routing_cost, links.neighbours()) == (100, 100, (("a", 100),))


def test_the_neighbours_are_sorted_and_leaves_are_none_of_them(links, up):
    up(1, "z")
    up(2, "leaf", leaf=True)
    up(3, "b", cost=7)
    assert links.neighbours() == (("b", 7), ("z", 100))
    links.check()


def test_a_closed_link_leaves_nothing_behind(links, up):
    one, two = up(1, "a"), up(2, "a")
    assert links.close(1) is one
    assert links.close(1) is None
    assert links.to("a") == [two]
    links.check()
    assert links.close(2) is two
    assert (links.to("a"), links.up(), len(links), links.next_deadline()) == ([], [], 0, None)
    links.check()


def test_a_link_that_never_opened_can_be_closed(links, up):
    up(1, "a")
    held = named(links.open(2, dialled=True, cost=100, now=0.0), "a", 2)
    links.quarantine(held, 0.0)
    assert links.quarantined() == [held]
    assert links.close(2) is held
    assert links.close(3) is None
    assert links.quarantined() == []
    assert len(links.to("a")) == 1
    links.check()


# --- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heartbeat", [0.1, 1.0, 10.0])
def test_a_link_that_does_not_open_is_given_up(heartbeat):
    links = Links(heartbeat, Alarm())
    link = links.open(1, dialled=False, cost=100, now=2.0)
    deadline = 2.0 + max(OPENING, SILENCE * heartbeat)
    assert links.next_deadline() == deadline
    assert links.expire(deadline - 0.001) == ([], [])
    assert links.expire(deadline) == ([], [link])


def test_a_link_that_was_dialled_is_due_every_heartbeat_until_it_opens(links):
    link = links.open(1, dialled=True, cost=100, now=0.0)
    links.open(2, dialled=False, cost=100, now=0.0)
    assert links.due(0.89) == []
    assert links.due(1.1) == [link]
    assert links.due(2.2) == [link]


def test_a_link_is_probed_every_heartbeat_give_or_take_a_tenth(links, up):
    link = up(1, "a")
    probed = [0.0]
    while len(probed) < 20:
        now = link.heard = links.next_deadline()
        if links.due(now):
            probed.append(now)
        assert links.expire(now) == ([], [])
    assert all(0.9 <= later - earlier <= 1.1 for earlier, later in itertools.pairwise(probed))
    links.check()


def test_links_are_not_all_probed_at_the_same_instant_and_not_each_at_its_own(links, up):
    for id in range(500):
        up(id, f"n{id}")
    probed = []
    while links.next_deadline() < 60.0:
        now = links.next_deadline()
        for link in links:
            link.heard = now
        probed += [(now, link.id) for link in links.due(now)]
        assert links.expire(now) == ([], [])
    at = collections.Counter(when for when, _ in probed if when > 30.0)
    assert 12 <= len(at) / 30.0 <= 1 / TOGETHER
    assert max(at.values()) < 500 / 2
    for which in range(500):
        times = [when for when, id in probed if id == which]
        assert all(0.9 - TOGETHER <= later - earlier <= 1.1 for earlier, later in itertools.pairwise(times))


def quiet(links, now):
    """Take in what is silent at that time, and what became suspect before, each when it is due."""
    suspect, silent = [], []
    while (due := links.next_deadline()) is not None and due <= now and not silent:
        links.due(due)
        suspects, silent = links.expire(due)
        suspect += [(link, due) for link in suspects]
    return suspect, silent


def test_three_heartbeats_of_silence_are_too_long(links, up):
    link = up(1, "a", now=10.0)
    assert quiet(links, 10.0 + SUSPECT_AFTER - 0.001) == ([], [])
    link.heard = 11.5
    assert quiet(links, 11.5 + SILENCE - 0.001) == ([(link, 11.5 + SUSPECT_AFTER)], [])
    assert quiet(links, 11.5 + SILENCE) == ([], [link])


def test_a_link_is_suspect_after_two_heartbeats_of_silence_until_something_is_heard(links, up):
    link = up(1, "a", now=10.0)
    assert quiet(links, 10.0 + SUSPECT_AFTER - 0.001) == ([], [])
    link.heard = 11.53
    assert quiet(links, 11.53 + SUSPECT_AFTER - 0.001) == ([], [])
    assert (link.suspect, link.effective_cost) == (False, link.cost)
    assert quiet(links, 11.53 + SUSPECT_AFTER) == ([(link, 11.53 + SUSPECT_AFTER)], [])
    assert (link.suspect, link.effective_cost) == (True, link.cost + SUSPECT_COST)
    assert links.expire(14.0) == ([], [])  # once
    link.heard = 14.0
    links.trust(link)
    assert (link.suspect, link.effective_cost) == (False, link.cost)
    assert quiet(links, 14.0 + SUSPECT_AFTER) == ([(link, 14.0 + SUSPECT_AFTER)], [])
    links.check()


def test_a_suspect_link_that_was_heard_of_and_not_trusted_stays_suspect(links, up):
    link = up(1, "a", now=10.0)
    quiet(links, 10.0 + SUSPECT_AFTER)
    link.heard = 12.5
    assert quiet(links, 12.5 + SILENCE) == ([], [link])


def test_no_silence_is_counted_for_a_time_in_which_this_node_did_not_read(links, up):
    fresh, suspect, opening = up(1, "a", now=10.0), up(2, "b", now=8.0), links.open(3, dialled=False, cost=1, now=10.0)
    held = named(links.open(4, dialled=True, cost=1, now=10.0), "b", 2)
    links.quarantine(held, 10.0)
    assert links.expire(10.0) == ([suspect], [])
    links.forgive(10.0, 20.0)
    assert (fresh.heard, suspect.heard) == (20.0, 18.0)
    assert links.expire(20.0) == ([], [])
    assert suspect.suspect
    assert links.expire(18.0 + SILENCE) == ([], [suspect])
    assert links.expire(20.0 + SUSPECT_AFTER) == ([fresh], [])
    links.close(suspect.id)
    assert links.expire(20.0 + SILENCE) == ([], [fresh])
    links.close(fresh.id)
    assert links.expire(20.0 + SILENCE + 1) == ([], [held])
    links.close(held.id)
    assert links.expire(20.0 + OPENING) == ([], [opening])


def test_of_two_links_to_one_neighbour_the_suspect_one_comes_last(links, up):
    dear, cheap = up(1, "a", now=10.0), up(2, "a", now=10.0)
    dear.cost = cheap.cost + 1
    assert links.to("a") == [cheap, dear]
    dear.heard = 11.0
    assert quiet(links, 10.0 + SUSPECT_AFTER) == ([(cheap, 10.0 + SUSPECT_AFTER)], [])
    assert links.to("a") == [dear, cheap]
    assert dict(links.neighbours()) == {"a": cheap.cost}


def test_a_held_link_waits_for_one_heartbeat_longer_than_silence_takes(links):
    link = named(links.open(1, dialled=False, cost=100, now=0.0), "a")
    links.quarantine(link, 1.0)
    link.heard = 4.9
    assert links.expire(1.0 + SILENCE + 0.999) == ([], [])
    assert links.expire(1.0 + SILENCE + 1.0) == ([], [link])


def test_the_next_deadline_is_the_earliest_of_probing_suspicion_and_silence(links, up):
    assert links.next_deadline() is None
    links.open(1, dialled=False, cost=100, now=0.0)
    assert links.next_deadline() == OPENING
    up(2, "a", now=1.0)
    assert links.next_deadline() < 1.0 + 1.1
    links.due(4.2)
    assert links.next_deadline() == 1.0 + SUSPECT_AFTER
    links.expire(3.2)
    assert links.next_deadline() == 1.0 + SILENCE


@given(st.integers(0, 1 << 32))
def test_the_table_is_sound_whatever_happens_to_the_links(seed):
    rng = random.Random(seed)
    alarm = Alarm()
    links = Links(1.0, alarm)
    now, count = 0.0, 0
    for _ in range(60):
        now += rng.random()
        every = list(links)
        match rng.randrange(5):
            case 0:
                count += 1
                links.open(count, dialled=rng.random() < 0.5, cost=rng.randint(1, 500), now=now)
            case 1 if every:
                link = rng.choice(every)
                if link.state is not State.UP:
                    links.establish(named(link, rng.choice("abc")), now)
            case 2 if every:
                link = rng.choice(every)
                if link.state is State.OPENING:
                    links.quarantine(named(link, "a", 2), now)
            case 3 if every:
                links.close(rng.choice(every).id)
            case 4 if every:
                link = rng.choice(every)
                link.heard = now
                link.measure(rng.random() / 5)
                if link.suspect:
                    links.trust(link)
        assert alarm.soonest <= links.next_deadline() if len(links) else links.next_deadline() is None
        for link in links.due(now):
            assert link.state is State.UP or link.dialled
        suspects, silent = links.expire(now)
        assert all(link.state is State.UP and link.suspect for link in suspects)
        for link in silent:
            links.close(link.id)
        links.check()
        assert not len(links) or links.next_deadline() > now
        for node in "abc":
            prices = [link.effective_cost for link in links.to(node)]
            assert prices == sorted(prices)
            measured = [link.cost for link in links.to(node) if link.rtt is not None]
            assert dict(links.neighbours()).get(node) == min(measured, default=None)


# --- what check finds ---------------------------------------------------------------------------------------------


def test_a_link_that_is_up_without_having_been_raised_is_found(links):
    links.open(1, dialled=True, cost=100, now=0.0).state = State.UP
    with pytest.raises(AssertionError, match="not those in the table of neighbours"):
        links.check()


def test_a_link_that_is_held_without_having_been_put_there_is_found(links):
    links.open(1, dialled=True, cost=100, now=0.0).state = State.QUARANTINED
    with pytest.raises(AssertionError, match="are quarantined"):
        links.check()


def test_a_link_that_is_silent_and_yet_not_closed_is_found(links, up):
    up(1, "a")
    links.expire(100.0)
    with pytest.raises(AssertionError, match="without a deadline"):
        links.check()


def test_two_incarnations_of_one_node_at_once_are_found(links, up):
    up(1, "a", incarnation=1)
    up(2, "a", incarnation=2)
    with pytest.raises(AssertionError, match="two incarnations of 'a'"):
        links.check()


def test_the_rates_of_a_neighbour_hold_for_its_next_link_and_not_for_a_leafs(links):
    for number, leaf in enumerate((False, True)):
        node = f"n{number}"
        first = named(links.open(1, dialled=False, cost=100, now=0.0), node, leaf=leaf)
        links.establish(first, 0.0)
        assert first.limiter.has("route_entries", 0.0)
        first.limiter.spend("route_entries", 1e9)
        links.close(1)
        second = named(links.open(2, dialled=False, cost=100, now=0.0), node, leaf=leaf)
        assert second.limiter.has("route_entries", 0.0)
        links.establish(second, 0.0)
        assert second.limiter.has("route_entries", 0.0) is leaf
        links.close(2)


def test_the_rates_of_so_many_neighbours_are_remembered_and_the_first_is_forgotten(links):
    for number in range(MAX_RATES + 1):
        links.establish(named(links.open(number, dialled=False, cost=100, now=0.0), f"n{number}"), 0.0)
        links.close(number)
    assert len(links._rates) == MAX_RATES
    assert "n0" not in links._rates
