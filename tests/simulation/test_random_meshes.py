"""Whole meshes under random events; each case is decided by its seed."""

import random

import pytest

from zmesh.core.message import Eof
from zmesh.testing.simulator import Job, Outcome, SimNode, Simulator, Wire

SEEDS = range(60)


def build(sim: Simulator, count: int, extra: int) -> None:
    """Start `count` nodes as a random tree with `extra` links more."""
    ids = [f"n{i}" for i in range(count)]
    sim.add(*ids)
    for i in range(1, count):
        sim.connect(ids[i], ids[sim.random.randrange(i)], delay=sim.random.uniform(0.001, 0.02))
    for _ in range(extra):
        a, b = sim.random.sample(ids, 2)
        sim.connect(a, b, delay=sim.random.uniform(0.001, 0.02), cost=sim.random.choice([50, 100, 300]))


def disturb(sim: Simulator, rng: random.Random) -> None:
    """Do one thing that a mesh must live through."""
    wire: Wire = rng.choice(sim.wires)
    node: SimNode = rng.choice(list(sim.nodes.values()))
    match rng.randrange(7):
        case 0:
            wire.cut()
        case 1:
            wire.take_down()
            sim.after(rng.uniform(0.5, 4), wire.bring_up)
        case 2:
            wire.loss = 0.3
            sim.after(rng.uniform(0.5, 3), lambda: setattr(wire, "loss", 0.0))
        case 3:
            wire.silent = True
            sim.after(rng.uniform(0.5, 6), lambda: setattr(wire, "silent", False))
        case 4:
            if node.alive:
                node.restart()
        case 5:
            if node.alive:
                node.kill()
                sim.after(rng.uniform(0.1, 5), lambda: None if node.alive else node.restart())
        case 6:
            node.stopped = True
            sim.after(rng.uniform(0.1, 6), lambda: setattr(node, "stopped", False))


def slow_work(node: SimNode, job: Job) -> None:
    """Three replies, some time apart, then the end."""

    def step(serial: int) -> None:
        if job.ended or not node.alive:
            return
        if serial > 3:
            node.reply(job, None, eof=Eof())
        else:
            node.reply(job, bytes(job.payload) + b"%d" % serial, serial)
            node.sim.after(0.2, lambda: step(serial + 1))

    step(1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mesh_is_right_again_after_any_disturbance(seed: int) -> None:
    sim = Simulator(seed)
    build(sim, 8, 5)
    rng = random.Random(seed)
    for _ in range(12):
        sim.run(rng.uniform(0, 2))
        disturb(sim, rng)
    sim.run(8)
    assert sim.settle(30), f"seed {seed}: {[sorted(part) for part in sim.partitions()]}"


@pytest.mark.parametrize("seed", SEEDS)
def test_every_send_ends_exactly_once_and_its_work_runs_at_most_once(seed: int) -> None:
    sim = Simulator(seed)
    build(sim, 6, 4)
    for node in sim.nodes.values():
        node.plugin = slow_work
    rng = random.Random(seed)
    sent: list[tuple[SimNode, Outcome]] = []

    def send() -> None:
        node = rng.choice(list(sim.nodes.values()))
        if node.alive and not node.stopped:
            payload = rng.randbytes(rng.choice([0, 10, 70_000, 300_000]))
            outcome = node.send(rng.choice(list(sim.nodes)), payload, timeout=rng.choice([None, 0.5, 10]))
            sent.append((node, outcome))
            if rng.random() < 0.2:
                sim.after(rng.uniform(0, 1), lambda: node.cancel(outcome) if node.alive else None)

    lives = {}
    for _ in range(60):
        sim.run(rng.uniform(0, 0.3))
        send()
        lives.update({outcome.message_id: node.engine for node, outcome in sent if outcome.message_id not in lives})
        if rng.random() < 0.3:
            disturb(sim, rng)
    sim.run(120)
    assert sim.settle(30)
    for node, outcome in sent:
        if lives[outcome.message_id] is node.engine:
            assert len(outcome.eofs) == 1, (seed, node.id, outcome.recipient, outcome.eofs)
            assert outcome.serials == list(range(1, len(outcome.serials) + 1))
            if outcome.eofs[0].code == 0:
                assert len(outcome.replies) == 3
    for message_id in {outcome.message_id for _, outcome in sent}:
        assert sum(node.runs.get(message_id, 0) for node in sim.nodes.values()) <= 1
    for node in sim.nodes.values():
        counts = node.engine.exchanges.counts()
        assert counts == dict.fromkeys(counts, 0), (seed, node.id, counts)
