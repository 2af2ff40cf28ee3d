"""What the seeds draw: each some kinds of faults, all of them together everything."""

import collections

import pytest

from zmesh.testing.faults import FAULTS
from zmesh.testing.scenario import TRAITS, Scenario
from zmesh.testing.simnode import SimNode
from zmesh.testing.traffic import DIRECTIVES, Traffic


def test_each_seed_draws_some_faults_and_traits_and_all_come_about_equally_often():
    drawn = [Scenario(seed, count=3, swarm=True, liars=True) for seed in range(200)]
    faults = collections.Counter(fault for mesh in drawn for fault in mesh.faults)
    traits = collections.Counter(trait for mesh in drawn for trait in mesh.traits)
    assert faults.keys() == FAULTS.keys()
    assert traits.keys() == set(TRAITS)
    assert all(60 < number < 160 for number in [*faults.values(), *traits.values()])
    assert all(mesh.faults for mesh in drawn)
    assert any(len(mesh.faults) == len(FAULTS) for mesh in drawn)


def test_each_seed_draws_some_kinds_of_requests():
    drawn = [Traffic(Scenario(seed, count=3), swarm=True) for seed in range(50)]
    kinds = collections.Counter(kind for traffic in drawn for kind in set(traffic.directives))
    assert kinds.keys() == set(DIRECTIVES)
    assert any("work:never" not in traffic.directives for traffic in drawn)


def test_without_a_swarm_every_fault_may_happen_but_members_that_lie():
    mesh = Scenario(0, count=3)
    assert set(mesh.faults) == FAULTS.keys() - {"liar"}
    assert not mesh.traits


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_mesh_heals_of_each_fault_by_itself_and_of_many_of_its_kind(fault):
    for times in (1, 6):
        mesh = Scenario(7 + times, count=5, shape="random", audit=16)
        mesh.settle()
        for _ in range(times):
            FAULTS[fault](mesh, mesh.random)
            mesh.sim.run(0.2)
        mesh.mend()
        mesh.settle()


def test_a_blackout_takes_a_node_and_its_neighbours_and_gives_them_back():
    mesh = Scenario(3, count=7, shape="star")
    mesh.settle()
    mesh.blackout(mesh.nodes[3], 2.0)
    assert [node.id for node in mesh.nodes if not node.alive] == ["n0", "n3"]
    mesh.sim.run(4.0)
    assert all(node.alive for node in mesh.nodes)
    mesh.settle()


def test_clocks_of_a_mesh_differ_if_the_seed_says_so():
    meshes = [Scenario(seed, count=4, swarm=True) for seed in range(20)]
    for mesh in meshes:
        assert (len({node.now for node in mesh.nodes}) == 4) == ("clocks" in mesh.traits)
    assert all(isinstance(node, SimNode) for mesh in meshes for node in mesh.nodes)
