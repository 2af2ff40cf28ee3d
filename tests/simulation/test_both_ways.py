"""Requests that are written while their replies come, over links that lose frames and to nodes that die."""

import pytest

from zmesh.core.message import Eof
from zmesh.testing.simulator import Simulator

ENDED = Eof()


def echo_parts(node, job, part):
    """Reply each part of a request as it comes, and end with it."""
    if part:
        job.serial += 1
        node.reply(job, part, job.serial)
    if job.complete:
        job.ended = True
        node.reply(job, None, eof=ENDED)


@pytest.fixture
def chain():
    """A simulator, the nodes `a`, `b` and `c` in a row, and their links; `c` echoes streams."""
    sim = Simulator(seed=7)
    nodes = dict(zip("abc", sim.chain("a", "b", "c"), strict=True))
    nodes["c"].listener, nodes["c"].plugin = echo_parts, lambda node, job: None
    assert sim.settle()
    return sim, nodes


def converse(sim, node, outcome, count):
    """Write `count` numbers, each as soon as there is room, and end."""
    for number in range(count):
        data = b"%d " % number
        assert sim.run_until(lambda data=data: node.write(outcome, data), 60)
    assert sim.run_until(lambda: node.write(outcome, b"", last=True), 60)


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_2000_small_messages_pass_each_way_at_once_over_links_that_lose_frames(chain, loss):
    sim, nodes = chain
    for wire in sim.wires:
        wire.loss = loss
    outcome = nodes["a"].open("c", "stream:echo")
    converse(sim, nodes["a"], outcome, 2_000)
    assert sim.run_until(lambda: outcome.eof is not None, 300)
    assert outcome.eof == ENDED
    assert b"".join(outcome.replies) == b"".join(b"%d " % number for number in range(2_000)) == bytes(outcome.written)
    assert list(nodes["c"].runs.values()) == [1]


@pytest.mark.parametrize(
    ("dies", "returns", "reason"),
    [("c", True, "node_restarted"), ("c", False, "unreachable"), ("b", False, "unreachable")],
)
def test_a_death_amid_a_conversation_ends_it_once_and_leaves_nothing(chain, dies, returns, reason):
    sim, nodes = chain
    outcome = nodes["a"].open("c", "stream:echo", route_timeout=5.0)
    assert sim.run_until(lambda: nodes["a"].write(outcome, b"first"), 5)
    assert sim.run_until(lambda: outcome.replies == [b"first"], 5)
    nodes[dies].kill()
    nodes["a"].write(outcome, b"second")
    if returns:
        sim.run(1.0)
        nodes[dies].restart()
        nodes["c"].listener = echo_parts
    assert sim.run_until(lambda: outcome.eof is not None, 120)
    sim.run(120)
    assert [eof.reason for eof in outcome.eofs] == [reason]
    assert outcome.stopped, "the writer is told that nothing more is wanted"
    assert outcome.replies == [b"first"]
    for node in nodes.values():
        if node.alive:
            counts = node.engine.stats()
            assert counts == dict.fromkeys(counts, 0)
