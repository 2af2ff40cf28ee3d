"""The clock of a machine is set while its node, or a leaf of that, runs; and answers that are lost meanwhile."""

import pytest

from tests.core.engine_harness import NOW
from tests.core.test_engine_grants import answered, details, leaf, parties
from zmesh.core import wire
from zmesh.core.grants import REQUEST_AGAIN
from zmesh.core.wire import Kind
from zmesh.identity.grant import LIFETIME
from zmesh.testing.authority import DAY
from zmesh.testing.simulator import Simulator

CHAIN = ("home", "b", "d")


def set_clock(node, ahead):
    """Set the clock of a node ahead by so many seconds, or back."""
    node.clock.epoch += ahead
    node.do(node.engine.clock_set(node.engine.epoch + ahead, node.now))


def test_a_clock_that_is_set_wrong_ends_the_links_that_end_by_it_and_both_clocks_are_named(sim):
    b = sim.nodes["b"]
    assert {link.node for link in b.engine.links()} == {"home", "d"}
    set_clock(b, -400 * DAY)
    assert b.engine.links() == []
    texts = details(b, "link_refused") + details(b, "link_lost")
    assert any("the clock of 'b' is 13 months behind that of 'home'" in text for text in texts), texts
    sim.run(20.0)
    assert any("the clock of 'b' is 13 months behind" in text for text in details(sim.nodes["home"], "link_refused"))
    set_clock(b, 400 * DAY)
    assert sim.run_until(lambda: len(b.engine.links()) == 2, 60.0)


def test_the_clocks_of_neighbours_are_compared_with_the_one_that_was_set(sim):
    b = sim.nodes["b"]
    set_clock(b, 600.0)
    assert [round(link.skew) for link in b.engine.links()] == [-600, -600]


def test_a_node_without_an_identity_compares_no_clocks():
    sim = Simulator(4)
    sim.chain("a", "b", epoch=float(NOW))
    assert sim.settle()
    set_clock(sim.nodes["a"], -DAY)
    assert [link.skew for link in sim.nodes["a"].engine.links()] == [None]


@pytest.mark.parametrize("ahead", [3 * LIFETIME, -3 * LIFETIME], ids=["ahead", "back"])
@pytest.mark.parametrize("first", ["cli", "home"])
def test_a_leaf_with_a_grant_talks_on_after_the_clocks_were_set(sim, ahead, first):
    node = leaf(sim)
    assert answered(sim, node, "d")
    for id in ("b", "d", first):
        set_clock(sim.nodes[id], ahead)
    sim.run(0.3)
    set_clock(sim.nodes["home" if first == "cli" else "cli"], ahead)
    sim.run(12.0)
    assert answered(sim, node, "d")
    assert abs(parties(sim, "d")["cli@home"].certified.details.grant.not_after - NOW - ahead - LIFETIME) < 60


def test_keys_that_are_exchanged_anew_after_a_clock_was_set_back_are_no_replay(sim):
    node = leaf(sim)
    assert answered(sim, node, "d")
    serial = parties(sim, "d")["cli@home"].certified.details.grant.serial
    for id in ("cli", "home"):
        set_clock(sim.nodes[id], -LIFETIME / 2)
    outcome = node.send("d", b"after", timeout=60.0)
    sim.run(15.0)
    assert outcome.replies == [b"after"]
    assert details(sim.nodes["d"]) == []
    assert parties(sim, "d")["cli@home"].certified.details.grant.serial > serial


def test_what_is_not_answered_yet_is_signed_anew_with_the_time_that_was_set(sim):
    node = leaf(sim)
    assert answered(sim, node, "d")
    key_exchanges = node.engine.forwarding.key_exchanges
    before = key_exchanges.request("b", node.now)
    set_clock(node, 600.0)
    after = key_exchanges.request("b", node.now)
    times = [wire.decode_proof(wire.decode_key_exchange(head).proof).time for head in (before, after)]
    assert round((times[1] - times[0]) / 1000) == 600


# --- answers that are lost ------------------------------------------------------------------------------------------


def lose_first(node, kind):
    """Lose the first packet of that kind that a node sends; returns a list that has it then."""
    lost, transmit = [], node.transmit

    def lose(link, frames):
        if not lost and wire.decode_packet(frames).kind == kind:
            lost.append(frames)
            return True
        return transmit(link, frames)

    node.transmit = lose
    return lost


def test_a_grant_that_is_lost_is_requested_again(sim):
    node = leaf(sim)
    lost = lose_first(sim.nodes["home"], Kind.GRANT)
    outcome = node.send("d", b"hello")
    sim.run(REQUEST_AGAIN + 4.0)
    assert lost
    assert outcome.replies == [b"hello"]


def test_a_grant_is_requested_once_a_second_whatever_others_send(sim):
    node = leaf(sim)
    assert answered(sim, node, "d")
    sent = []
    transmit = node.transmit
    node.transmit = lambda link, frames: sent.append(frames) or transmit(link, frames)
    for _ in range(50):
        node.engine.forwarding.end_to_end.request_grant(node.now)
        node.do(node.engine.tick(node.now))
    assert [wire.decode_packet(frames).kind for frames in sent].count(Kind.GRANT) == 1


def test_keys_that_were_exchanged_in_vain_for_the_next_grant_are_sent_again(sim):
    node = leaf(sim)
    assert answered(sim, node, "d")
    before = parties(sim, "d")["cli@home"].certified.details.grant.serial
    lost = lose_first(node, Kind.KEY_EXCHANGE)
    node.engine.forwarding.key_exchanges.clock_set(node.now)
    outcome = node.send("d", b"hello", timeout=60.0)
    sim.run(25.0)
    assert lost
    assert outcome.replies == [b"hello"]
    assert parties(sim, "d")["cli@home"].certified.details.grant.serial > before
