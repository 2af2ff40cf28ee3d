"""Trust in meshes: revocations reach everyone, authorities change, clocks are wrong, issuers are away."""

import random
from functools import partial
from itertools import pairwise, permutations

import pytest

from zmesh.testing.authority import DAY, YEAR, TestAuthority
from zmesh.testing.simulator import Simulator

NOW = 1_800_000_000


def mesh(authority, count, seed=1, **options):
    """A connected random mesh with about two links a node, in two halves that a few wires join."""
    sim = Simulator(seed, audit=200, checked=count < 100)
    ids = [f"n{number}" for number in range(count)]
    sim.add(*ids, epoch=float(NOW), credentials=authority.installed, **options)
    half, draw = count // 2, random.Random(seed)
    sim.bridges = []
    for part in (range(half), range(half, count)):
        for number in part[1:]:
            sim.connect(f"n{number}", f"n{draw.choice(range(part[0], number))}")
        for _ in range(half // 3):
            one, other = draw.sample(part, 2)
            sim.connect(f"n{one}", f"n{other}")
    for _ in range(3):
        sim.bridges.append(sim.connect(f"n{draw.randrange(half)}", f"n{draw.randrange(half, count)}"))
    assert sim.settle(60.0)
    return sim


def tell(sim, authority, id, *statements):
    """Have one node believe something, as its user does."""
    trust = authority.states[id].trust
    for each in statements:
        assert trust.revoke(each) if hasattr(each, "subject") else trust.endorse(each)
    node = sim.nodes[id]
    node.do(node.engine.trust_changed(node.now))


def links_of(sim, id):
    """The links of other nodes to that one that are up."""
    return sum(link.node == id for node in sim.all() for link in node.engine.links() if node.id != id)


def test_nodes_whose_processors_differ_seal_with_the_same_cipher():
    """Every second one is slow at AES; each sends to each, over forwarders."""
    authority = TestAuthority(1, begins=NOW - DAY)
    sim = Simulator(1, audit=200)
    ids = ["n0", "n1", "n2", "n3"]
    for number, id in enumerate(ids):
        sim.add(id, epoch=float(NOW), credentials=partial(authority.installed, prefers_chacha20=number % 2 == 1))
    for one, other in pairwise(ids):
        sim.connect(one, other)
    assert sim.settle(60.0)
    for one, other in permutations(ids, 2):
        outcome = sim.nodes[one].send(other, b"x" * 20_000)
        sim.run(5.0)
        assert outcome.eof.code == 0, (one, other)


@pytest.mark.parametrize("seed", range(3))
def test_a_revocation_reaches_everyone_and_ends_links_in_five_seconds(seed):
    authority = TestAuthority(seed, begins=NOW - DAY)
    sim = mesh(authority, 30, seed)
    victim = random.Random(seed).choice([*sim.nodes])
    teller = next(id for id in sim.nodes if id != victim)
    assert links_of(sim, victim)
    tell(sim, authority, teller, authority.revoke(victim, NOW + 1, "stolen"))
    assert sim.run_until(lambda: links_of(sim, victim) == 0, 5.0)
    sim.run(30.0)
    assert links_of(sim, victim) == 0
    others = [node for node in sim.all() if node.id != victim]
    for node in others:
        if sim.nodes[teller].engine.route(node.id) is not None or node.id == teller:
            assert len(authority.states[node.id].trust.revocations) == 1, node.id
            assert victim not in node.engine.records()
    outcome = sim.nodes[victim].send(teller, b"let me in", timeout=5.0)
    sim.run(10.0)
    assert outcome.eof.reason


def test_a_restarted_node_has_not_forgotten_a_revocation():
    authority = TestAuthority(1, begins=NOW - DAY)
    sim = mesh(authority, 8)
    tell(sim, authority, "n0", authority.revoke("n7", NOW + 1))
    sim.run(5.0)
    for id in ("n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"):
        sim.nodes[id].restart()
    sim.run(20.0)
    assert links_of(sim, "n7") == 0
    assert sim.nodes["n0"].engine.nodes() >= {"n0"}


def test_a_node_that_was_away_learns_of_a_revocation_from_whom_it_links_to():
    authority = TestAuthority(1, begins=NOW - DAY)
    sim = mesh(authority, 12)
    for wire in sim.bridges:
        wire.take_down()
    sim.run(5.0)
    tell(sim, authority, "n0", authority.revoke("n11", NOW + 1))
    sim.run(20.0)
    assert authority.states["n8"].trust.revocations == ()
    assert links_of(sim, "n11")
    for wire in sim.bridges:
        wire.bring_up()
    assert sim.run_until(lambda: links_of(sim, "n11") == 0, 15.0)
    reached = [id for id in sim.nodes if id == "n0" or sim.nodes["n0"].engine.route(id) is not None]
    assert any(int(id[1:]) >= 6 for id in reached)
    assert all(len(authority.states[id].trust.revocations) == 1 for id in reached)


def test_the_key_that_was_revoked_is_out_and_the_node_with_a_new_one_is_in():
    authority = TestAuthority(1, begins=NOW - DAY)
    sim = mesh(authority, 6)
    key = authority.states["n5"].own.identity.key
    tell(sim, authority, "n0", authority.revoke(key, NOW + 1))
    sim.run(5.0)
    assert links_of(sim, "n5") == 0
    del authority.states["n5"]
    sim.nodes["n5"].restart()
    sim.run(40.0)
    assert links_of(sim, "n5") > 0


def test_an_authority_takes_over_from_another_across_a_partition_that_heals():
    """100 nodes: endorse the new authority, renew, revoke the old one; half of the mesh is away for the first two."""
    old, new = TestAuthority(1, begins=NOW - DAY), TestAuthority(2, begins=NOW - DAY)
    sim = mesh(old, 100, heartbeat=5.0)
    new.states = old.states

    def trusting():
        return sum(new.key.public in {each.public for each in state.trust.authorities} for state in old.states.values())

    for wire in sim.bridges:
        wire.take_down()
    tell(sim, old, "n0", old.endorse(new))
    assert sim.run_until(lambda: trusting() == 50, 10.0)
    for number in range(50):
        new.renew(f"n{number}")
        node = sim.nodes[f"n{number}"]
        node.do(node.engine.trust_changed(node.now))
        sim.run(0.01)
    for wire in sim.bridges:
        wire.bring_up()
    assert sim.run_until(lambda: trusting() == 100, 60.0)
    for number in range(50, 100):
        new.renew(f"n{number}")
        node = sim.nodes[f"n{number}"]
        node.do(node.engine.trust_changed(node.now))
        sim.run(0.01)
    assert sim.settle(60.0)
    tell(sim, old, "n75", new.revoke(old.authority.fingerprint, NOW + 100))
    sim.run(15.0)
    assert all(node.engine.nodes() == set(sim.nodes) for node in sim.all())
    outcomes = [sim.nodes[f"n{n}"].send(f"n{99 - n}", b"hello", timeout=20.0) for n in range(0, 100, 10)]
    sim.run(20.0)
    assert [outcome.replies for outcome in outcomes] == [[b"hello"]] * 10


@pytest.mark.parametrize("off", [-10 * YEAR, -2 * DAY, 100 * DAY, 10 * YEAR], ids=["10y-", "2d-", "100d", "10y"])
def test_a_clock_that_is_off_is_named_and_links_as_soon_as_it_is_set(off):
    authority = TestAuthority(1, begins=NOW - DAY)
    sim = Simulator(1)
    sim.add("hub", epoch=float(NOW), credentials=authority.installed)
    (edge,) = sim.add("edge", epoch=float(NOW + off), credentials=authority.installed)
    sim.connect("edge", "hub")
    sim.run(20.0)
    assert links_of(sim, "edge") == links_of(sim, "hub") == 0
    texts = " ".join(report.text or report.detail for node in sim.all() for report in node.reports)
    direction = "behind" if off < 0 else "ahead of"
    assert "the clock of 'edge' is" in texts
    assert f"{direction} that of 'hub'" in texts
    edge.do(edge.engine.clock_set(float(NOW), edge.now))
    edge.clock.epoch = float(NOW)
    assert sim.run_until(lambda: links_of(sim, "edge") == links_of(sim, "hub") == 1, 60.0)


def test_an_hour_between_clocks_is_nothing():
    authority = TestAuthority(1, begins=NOW - 3600)
    sim = Simulator(1)
    sim.add("hub", epoch=float(NOW), credentials=authority.installed)
    sim.add("edge", epoch=float(NOW - 3500), credentials=authority.installed)
    sim.connect("edge", "hub")
    assert sim.settle()


def test_a_mesh_whose_issuer_was_away_for_twice_the_validity_comes_back_when_it_renews():
    authority = TestAuthority(1, begins=NOW - 90 * DAY + 60)
    sim = mesh(authority, 10)
    sim.run(120.0)
    assert not any(node.engine.links() for node in sim.all())
    assert all(node.engine.records().keys() <= {node.id} for node in sim.all())
    for node in sim.all():
        node.do(node.engine.clock_set(float(NOW + 180 * DAY), node.now))
    sim.run(30.0)
    assert not any(node.engine.links() for node in sim.all())
    for id in sim.nodes:
        authority.renew(id, begins=NOW + 180 * DAY - 3600)
        sim.nodes[id].do(sim.nodes[id].engine.trust_changed(sim.nodes[id].now))
    assert sim.settle(120.0)
