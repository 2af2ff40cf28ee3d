"""Routes under everything that may happen to a mesh. The simulator looks for circles after every single event."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from zmesh.core.routing import routes
from zmesh.testing.faults import BANDWIDTHS, COSTS, DRIFTS, JUMPS, LAGS, WALL_JUMPS
from zmesh.testing.scenario import DELAYS, SHAPES, Scenario, run_routes
from zmesh.testing.simliar import LIES

SEEDS = 250
BATCH = 25
SOME = st.integers(0, 1 << 16)
SECONDS = st.sampled_from([0.02, 0.2, 1.0, 2.5, 6.0])
DIRECTION = st.sampled_from([None, 0, 1])
DELAY = st.sampled_from([*DELAYS, (DELAYS[0], DELAYS[-1]), (DELAYS[-1], DELAYS[0])])


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

    @rule(wire=SOME, lags=st.tuples(st.sampled_from(LAGS), st.sampled_from(LAGS)))
    def cut(self, wire, lags):
        self.mesh.cut(self.wire(wire), lags)

    @rule(wire=SOME, lag=st.sampled_from(LAGS))
    def reconnect(self, wire, lag):
        self.mesh.reconnect(self.wire(wire), lag)

    @rule(wire=SOME, seconds=SECONDS)
    def down(self, wire, seconds):
        self.mesh.down(self.wire(wire), seconds)

    @rule(wire=SOME, seconds=SECONDS)
    def swallow(self, wire, seconds):
        self.mesh.swallow(self.wire(wire), seconds)

    @rule(wire=SOME, times=st.integers(2, 6), seconds=st.sampled_from([0.1, 0.3, 1.2]))
    def flap(self, wire, times, seconds):
        self.mesh.flap(self.wire(wire), times, seconds)

    @rule(wire=SOME, seconds=SECONDS, share=st.sampled_from([0.1, 0.3, 0.7]), direction=DIRECTION)
    def lossy(self, wire, seconds, share, direction):
        self.mesh.lossy(self.wire(wire), seconds, share, direction)

    @rule(wire=SOME, seconds=SECONDS, share=st.sampled_from([0.1, 1.0]))
    def copied(self, wire, seconds, share):
        self.mesh.copied(self.wire(wire), seconds, share)

    @rule(wire=SOME, seconds=SECONDS, direction=DIRECTION)
    def silent(self, wire, seconds, direction):
        self.mesh.silent(self.wire(wire), seconds, direction)

    @rule(wire=SOME, seconds=SECONDS, jitter=st.sampled_from([0.02, 0.4, 2.0]), direction=DIRECTION)
    def late(self, wire, seconds, jitter, direction):
        self.mesh.late(self.wire(wire), seconds, jitter, direction)

    @rule(wire=SOME, seconds=SECONDS, bandwidth=st.sampled_from(BANDWIDTHS), direction=DIRECTION)
    def narrow(self, wire, seconds, bandwidth, direction):
        self.mesh.narrow(self.wire(wire), seconds, bandwidth, direction)

    @rule(wire=SOME, delay=DELAY)
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

    @rule(node=SOME, seconds=SECONDS, forgetful=st.booleans(), power=st.booleans())
    def kill(self, node, seconds, forgetful, power):
        self.mesh.kill(self.node(node), seconds, forgetful=forgetful, power=power)

    @rule(node=SOME, seconds=SECONDS)
    def blackout(self, node, seconds):
        self.mesh.blackout(self.node(node), seconds)

    @rule(node=SOME, seconds=SECONDS)
    def storm(self, node, seconds):
        self.mesh.storm(self.node(node), seconds)

    @rule(node=SOME, seconds=SECONDS)
    def leave(self, node, seconds):
        self.mesh.leave(self.node(node), seconds)

    @rule(node=SOME, seconds=SECONDS)
    def hang(self, node, seconds):
        self.mesh.hang(self.node(node), seconds)

    @rule(node=SOME, seconds=SECONDS, suspend=st.booleans(), first=st.booleans())
    def freeze(self, node, seconds, suspend, first):
        self.mesh.freeze(self.node(node), seconds, suspend=suspend, first=first)

    @rule(node=SOME, seconds=st.sampled_from(JUMPS))
    def set_forward(self, node, seconds):
        self.mesh.set_forward(self.node(node), seconds)

    @rule(node=SOME, seconds=st.sampled_from(WALL_JUMPS))
    def set_wall(self, node, seconds):
        self.mesh.set_wall(self.node(node), seconds)

    @rule(node=SOME, share=st.sampled_from(DRIFTS))
    def drift(self, node, share):
        self.mesh.drift(self.node(node), share)

    @rule(at=st.sets(SOME, min_size=1, max_size=3), seconds=SECONDS, lies=st.sets(st.sampled_from(LIES), min_size=1))
    def liar(self, at, seconds, lies):
        self.mesh.liar({self.node(each).id: self.node(each) for each in sorted(at)}.values(), seconds, lies)

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


@pytest.mark.parametrize("seeds", [(3, 35), range(60, 70), range(70, 80)])
def test_the_same_holds_where_each_stimulus_selects_a_single_route(monkeypatch, seeds):
    """Random meshes have fewer destinations than one stimulus selects (seeds 3 and 35 requested routes that waited)."""
    monkeypatch.setattr(routes, "SELECTED_AT_ONCE", 1)
    for seed in seeds:
        run_routes(seed)
