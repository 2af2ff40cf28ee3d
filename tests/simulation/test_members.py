"""What a member that lies leaves behind in a mesh once it has gone, and that honest meshes never meet a limit."""

import random

import pytest

from zmesh.core import wire
from zmesh.core.effects import Transmit
from zmesh.core.limits import Limits
from zmesh.core.routing.serials import MAX_LEAD_MS
from zmesh.core.wire import MAX_ENTRIES, U63, U64, Record
from zmesh.testing.scenario import Scenario, run_routes
from zmesh.testing.simulator import Simulator

HONEST = ("a", "b", "c", "d", "e")
REFUSALS = ("rate_limited", "destinations", "nodes", "serial_ahead", "seqno_ahead", "gave_way")


def say(node, *frames):
    """Let a node say this on all its links."""
    node.do([Transmit(link, each) for link in node.wires for each in frames])


def refusals(sim):
    """What any node of a mesh has refused to keep or answer."""
    return {
        (node.id, report.event, report.detail)
        for node in sim.all()
        for report in node.reports
        if report.detail.startswith(REFUSALS)
    }


def mesh_with_a_liar(checked=True, **options):
    """A ring of honest nodes, two of which have the liar for a neighbour."""
    sim = Simulator(5, audit=20, checked=checked)
    sim.add(*HONEST, "liar", **options)
    for one, other in zip(HONEST, (*HONEST[1:], HONEST[0]), strict=True):
        sim.connect(one, other, delay=0.005)
    for one in ("a", "c"):
        sim.connect("liar", one, delay=0.005)
    assert sim.settle()
    return sim, sim.nodes["liar"]


def records_of(sim):
    return [{name: record.serial for name, record in sim.nodes[node].engine.records().items()} for node in HONEST]


@pytest.mark.parametrize("lead", [1, 1 << 30, MAX_LEAD_MS - 60_000, MAX_LEAD_MS + 60_000, U63])
@pytest.mark.parametrize("incarnation", [0, None, U64], ids=["lowest", "own", "highest"])
def test_records_in_others_names_are_put_right_by_those_whose_names_they_are(lead, incarnation):
    sim, liar = mesh_with_a_liar()
    for _ in range(5):
        forged = [
            Record(name, sim.nodes[name].engine.incarnation if incarnation is None else incarnation,
                   min(U63, int(1000 * sim.now) + lead), ("forged:one",), (), b"")
            for name in HONEST
        ]  # fmt: skip
        say(liar, wire.encode_records([*map(wire.encode, forged)]))
        sim.run(1.0)
    sim.remove("liar")
    sim.run(60.0)
    assert sim.settle()
    first, *others = records_of(sim)
    assert all(other == first for other in others)
    for node in HONEST:
        for record in sim.nodes[node].engine.records().values():
            assert record.capabilities == ("echo:echo",)
            assert record.incarnation == sim.nodes[record.node].engine.incarnation


def test_two_records_that_differ_in_nothing_but_what_they_say_do_not_divide_the_mesh():
    sim, liar = mesh_with_a_liar()
    said = sim.nodes["e"].engine.routing.record("e")
    say(liar, wire.encode_records([wire.encode(said._replace(capabilities=("forged:one",)))]))
    sim.run(30.0)
    sim.remove("liar")
    sim.run(30.0)
    digests = {sim.nodes[node].engine.routing.digest for node in HONEST}
    assert len(digests) == 1
    assert sim.nodes["a"].engine.routing.record("e").capabilities == ("echo:echo",)


def test_made_up_destinations_do_not_push_honest_ones_out_anywhere_in_the_mesh():
    sim, liar = mesh_with_a_liar(checked=False, limits=Limits(destinations=60))  # paths through a liar may loop
    rng = random.Random(1)
    for _ in range(20):
        names = [f"made-up-{rng.randrange(100_000)}" for _ in range(MAX_ENTRIES)]
        say(liar, wire.encode_update(wire.Update(0, 0, [(name, 9, 5, 50, 1, 0) for name in names])))
        sim.run(0.2)
        for node in HONEST:
            sim.nodes[node].engine.check()
            table = sim.nodes[node].engine.routing.routes()
            assert set(HONEST) - {node} <= table.keys()
            assert len(table) <= 60
    sim.add("late")
    sim.connect("late", "e", delay=0.005)
    sim.run(2.0)
    assert all(sim.nodes[node].engine.routing.route("late") for node in HONEST)
    sim.remove("liar")
    sim.run(5.0)
    assert sim.settle()
    assert all(sim.nodes[node].engine.nodes() == {*HONEST, "late"} for node in HONEST)


def test_a_table_of_records_that_one_side_refuses_is_not_asked_for_without_end():
    sim, liar = mesh_with_a_liar(limits=Limits(nodes=8))
    names = [f"made-up-{number}" for number in range(40)]
    say(liar, wire.encode_update(wire.Update(0, 0, [(name, 9, 5, 50, 1, 0) for name in names])))
    say(liar, wire.encode_records([wire.encode(Record(name, 9, 5, (), (), b"")) for name in names]))
    sim.run(10.0)
    asked = []
    sim.tap = lambda frames: asked.append(sim.now) if wire.decode_packet(frames).kind == wire.Kind.RESEND else None
    sim.run(600.0)
    minutes = [sum(1 for when in asked if start <= when < start + 60) for start in range(60, 600, 60)]
    assert max(minutes[3:]) <= 2 * 2 * len(sim.wires)


@pytest.mark.parametrize("seed", range(40))
def test_an_honest_mesh_never_meets_a_limit_whatever_befalls_it(seed, monkeypatch):
    seen = []
    monkeypatch.setattr(Scenario, "settle", _settle_and_look(seen))
    run_routes(seed, audit=50)
    assert seen == [set()]


def _settle_and_look(seen):
    settle = Scenario.settle

    def look(self, *limit):
        took = settle(self, *limit)
        seen.append(refusals(self.sim))
        return took

    return look


def test_a_mesh_of_60_nodes_that_starts_falls_apart_and_grows_together_meets_no_limit():
    mesh = Scenario(3, count=60, shape="random", audit=5000)
    mesh.sim.run(5.0)
    mesh.part({str(node.id) for node in mesh.nodes[:30]}, 6.0)
    mesh.sim.run(12.0)
    mesh.settle(30.0)
    assert refusals(mesh.sim) == set()
