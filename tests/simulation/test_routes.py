"""Routes under everything that may happen to a mesh. The simulator looks for circles after every single event."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from zmesh.testing.scenario import COSTS, DELAYS, SHAPES, Scenario, run_routes

SEEDS = 500
BATCH = 25
SOME = st.integers(0, 1 << 16)
SECONDS = st.sampled_from([0.02, 0.2, 1.0, 2.5, 6.0])


class AnyMesh(RuleBasedStateMachine):
    """A mesh to which Hypothesis does what it likes, and which must be right again when it stops."""

    @initialize(seed=SOME, count=st.integers(2, 8), shape=st.sampled_from(SHAPES))
    def begin(self, seed, count, shape):
        self.mesh = Scenario(seed, count=count, shape=shape, audit=4)

    def wire(self, index):
        return self.mesh.wires[index % len(self.mesh.wires)]

    def node(self, index):
        return self.mesh.nodes[index % len(self.mesh.nodes)]

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.012, 0.05, 0.3, 1.5, 4.0]))
    def wait(self, seconds):
        self.mesh.sim.run(seconds)

    @rule(wire=SOME)
    def cut(self, wire):
        self.mesh.cut(self.wire(wire))

    @rule(wire=SOME, seconds=SECONDS)
    def down(self, wire, seconds):
        self.mesh.down(self.wire(wire), seconds)

    @rule(wire=SOME, seconds=SECONDS, share=st.sampled_from([0.1, 0.3, 0.7]))
    def lossy(self, wire, seconds, share):
        self.mesh.lossy(self.wire(wire), seconds, share)

    @rule(wire=SOME, seconds=SECONDS)
    def silent(self, wire, seconds):
        self.mesh.silent(self.wire(wire), seconds)

    @rule(wire=SOME, seconds=SECONDS, jitter=st.sampled_from([0.02, 0.4, 2.0]))
    def late(self, wire, seconds, jitter):
        self.mesh.late(self.wire(wire), seconds, jitter)

    @rule(wire=SOME, delay=st.sampled_from(DELAYS))
    def slower_or_faster(self, wire, delay):
        self.mesh.slower(self.wire(wire), delay)

    @rule(wire=SOME, cost=st.sampled_from(COSTS))
    def dearer_or_cheaper(self, wire, cost):
        self.mesh.reprice(self.wire(wire), cost)

    @rule(apart=st.sets(st.integers(0, 7)), seconds=SECONDS)
    def part_and_merge(self, apart, seconds):
        self.mesh.part({f"n{i}" for i in apart}, seconds)

    @rule(node=SOME, forgetful=st.booleans())
    def restart(self, node, forgetful):
        self.mesh.restart(self.node(node), forgetful=forgetful)

    @rule(node=SOME, seconds=SECONDS, forgetful=st.booleans())
    def kill(self, node, seconds, forgetful):
        self.mesh.kill(self.node(node), seconds, forgetful=forgetful)

    @rule(node=SOME, seconds=SECONDS)
    def leave(self, node, seconds):
        self.mesh.leave(self.node(node), seconds)

    @rule(node=SOME, seconds=SECONDS)
    def hang(self, node, seconds):
        self.mesh.hang(self.node(node), seconds)

    @rule(node=SOME, at=SOME, seconds=SECONDS)
    def twin(self, node, at, seconds):
        self.mesh.twin(self.node(node), self.node(at), seconds)

    @rule(at=SOME, seconds=SECONDS)
    def leaf(self, at, seconds):
        self.mesh.leaf(self.node(at), seconds)

    def teardown(self):
        if hasattr(self, "mesh"):
            self.mesh.mend()
            self.mesh.settle()


AnyMesh.TestCase.settings = settings(max_examples=settings().max_examples, stateful_step_count=25)
TestAnyMesh = AnyMesh.TestCase


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_no_route_is_a_circle_at_any_instant_and_a_settled_mesh_has_the_shortest(first):
    for seed in range(first, first + BATCH):
        run_routes(seed)
