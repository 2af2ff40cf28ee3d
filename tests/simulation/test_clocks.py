"""Each node of the simulator has clocks of its own, and no promise of a node depends on those of another."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.testing.simclock import Clock
from zmesh.testing.simulator import Simulator

STEPS = st.one_of(
    st.tuples(st.just("run"), st.floats(0, 100)),
    st.tuples(st.just("jump"), st.floats(0, 1000)),
    st.tuples(st.just("drift"), st.floats(-0.5, 1.0)),
    st.tuples(st.just("stop"), st.just(0.0)),
    st.tuples(st.just("go"), st.just(0.0)),
)


@given(st.floats(-1e6, 1e6), st.floats(-0.01, 0.01), st.lists(STEPS, max_size=20), st.floats(0, 1e4))
def test_a_clock_never_runs_backwards_and_converts_its_time_to_the_simulators(offset, drift, steps, ahead):
    real = 0.0
    clock = Clock(lambda: real, lambda: None, offset=offset, drift=drift)
    shown = clock.now()
    assert shown == pytest.approx(offset)
    stopped = False
    for what, value in steps:
        if what == "run":
            real += value
            if stopped:
                assert clock.now() == shown
        elif what == "jump":
            clock.jump(value)
        elif what == "drift":
            clock.drift(value)
        else:
            stopped = what == "stop"
            (clock.stop if stopped else clock.go)()
        assert clock.now() >= shown - 1e-9 * max(1.0, abs(shown))
        shown = clock.now()
    when = clock.when(shown + ahead)
    if math.isinf(when):
        assert stopped
        return
    assert when >= real
    real = when
    assert clock.now() >= shown + ahead
    assert clock.now() == pytest.approx(shown + ahead, abs=1e-3)


@pytest.mark.parametrize("wrong", [lambda clock: clock.jump(-1.0), lambda clock: Clock(lambda: 0.0, int, drift=-1.0)])
def test_a_clock_refuses_to_run_backwards(wrong):
    with pytest.raises(ValueError, match="runs? "):
        wrong(Clock(lambda: 0.0, lambda: None))


def mesh(**clocks):
    """Four nodes in a row, of which the named ones have clocks of their own."""
    sim = Simulator()
    names = ("a", "b", "c", "d")
    for name in names:
        sim.add(name, **clocks.get(name, {}))
    for dialler, listener in zip(names[1:], names, strict=False):
        sim.connect(dialler, listener)
    assert sim.settle()
    return sim


@pytest.mark.parametrize("drift", [-0.01, -0.0002, 0.0002, 0.01])
def test_a_deadline_is_by_the_clock_of_the_node_that_set_it(drift):
    sim = mesh(a={"offset": 5000.0, "drift": drift, "epoch": 1.7e9}, d={"offset": 7.0, "epoch": -3.0})
    sim.nodes["d"].plugin = lambda node, job: None
    caller = sim.nodes["a"]
    began, mine = sim.now, caller.now
    outcome = caller.send("d", b"x", timeout=40.0)
    assert sim.run_until(lambda: outcome.eof is not None, 60)
    assert outcome.eof.reason == "timed_out"
    assert outcome.ended_at - mine == pytest.approx(40.0, abs=0.001)
    assert sim.now - began == pytest.approx(40.0 / (1 + drift), abs=0.01)


def test_clocks_that_drift_apart_lose_no_link_and_move_no_route():
    sim = mesh(a={"offset": 1e6, "drift": 0.01}, c={"drift": -0.01}, d={"offset": 12.5, "drift": 0.0002})
    sim.run(2)
    before = {id: len(node.reports) for id, node in sim.nodes.items()}
    sim.run(600)
    assert sim.settled()
    for id, node in sim.nodes.items():
        assert node.reports[before[id] :] == []


def test_a_machine_that_was_suspended_goes_on_where_it_was_and_the_mesh_heals():
    sim = mesh()
    node = sim.nodes["b"]
    before = node.now
    node.freeze(clock=True)
    sim.run(20)
    assert node.now == before
    assert "d" not in sim.nodes["a"].engine.nodes()
    node.resume()
    assert sim.settle(10)
    outcome = sim.nodes["a"].send("d", b"x", timeout=5.0)
    assert sim.run_until(lambda: outcome.eof is not None, 5)
    assert outcome.replies == [b"x"]


@pytest.mark.parametrize("first", [False, True])
def test_a_process_that_was_stopped_for_a_moment_loses_nothing(first):
    sim = mesh()
    outcomes = [sim.nodes["a"].send("d", bytes(200_000)) for _ in range(3)]
    sim.run(0.004)
    sim.nodes["b"].freeze()
    sim.run(1.5)
    assert not any(outcome.eof for outcome in outcomes)
    sim.nodes["b"].resume(first=first)
    assert sim.run_until(lambda: all(outcome.eof for outcome in outcomes), 20)
    assert [outcome.replies for outcome in outcomes] == [[bytes(200_000)]] * 3
    assert all(sim.nodes["d"].runs[outcome.message_id] == 1 for outcome in outcomes)


@pytest.mark.parametrize("seconds", [0.5, 2.5, 30.0, 200.0])
def test_a_clock_that_is_set_forward_ends_what_is_due_and_the_mesh_heals(seconds):
    sim = mesh()
    node = sim.nodes["b"]
    node.plugin = sim.nodes["d"].plugin = lambda node, job: None
    short, long = node.send("d", b"x", timeout=seconds / 2), node.send("d", b"x", timeout=seconds + 20)
    sim.run(0.1)
    node.clock.jump(seconds)
    sim.run(0.001)
    assert short.eof is not None  # all its links are silent for too long as well then, so its recipient may have left
    assert short.eof.reason in ("timed_out", "unreachable")
    assert sim.settle(10)
    assert sim.run_until(lambda: long.eof is not None, 30)
    assert long.eof.reason in ("timed_out", "unreachable")


@pytest.mark.parametrize("step", [-1e9, -3600.0, 3600.0, 1e9])
def test_a_wall_clock_that_is_set_changes_no_deadline_and_a_restart_after_it_is_believed(step):
    sim = mesh(**{name: {"epoch": 1.7e9} for name in "abcd"})
    node = sim.nodes["d"]
    node.clock.epoch += step
    outcome = node.send("a", b"x", timeout=5.0)
    assert sim.run_until(lambda: outcome.eof is not None, 5)
    assert outcome.replies == [b"x"]
    node.restart()
    assert sim.settle(5)
    outcome = sim.nodes["a"].send("d", b"x", timeout=5.0)
    assert sim.run_until(lambda: outcome.eof is not None, 5)
    assert outcome.replies == [b"x"]
