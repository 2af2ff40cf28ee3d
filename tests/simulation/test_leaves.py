"""Leaves by the hundred: a mesh serves them and remembers nothing of them."""

from zmesh.core import wire
from zmesh.core.delivery import PEER_IDLE_TIMEOUT, PROBE_INTERVAL
from zmesh.core.message import Eof
from zmesh.core.wire import Kind
from zmesh.testing.simexchange import Job, Outcome
from zmesh.testing.simnode import SimNode
from zmesh.testing.simulator import Simulator

NODES = 200
SECONDS = 4
A_SECOND = 100
STAY = 0.5
SETTLED = 10.0


def tables(node: SimNode) -> dict[str, object]:
    """All that may grow in a node."""
    engine = node.engine
    return {
        "routes": engine.routing.routes().keys(),
        "records": dict(engine.records()),
        "entries": engine.routing.counts(),
        "links": len(engine.neighbours),
        "queues": len(engine.forwarding),
        "exchanges": engine.stats(),
    }


def test_a_hundred_one_shot_leaves_a_second_leave_a_mesh_of_two_hundred_nodes_as_it_was():
    sim = Simulator(5, checked=False)
    ids = [f"n{i}" for i in range(NODES)]
    nodes = sim.add(*ids, heartbeat=10.0)  # idle links would take most of the time that this runs for
    rng = sim.random
    for i in range(1, NODES):
        sim.connect(ids[i], ids[rng.randrange(max(0, i - 20), i)], delay=rng.uniform(0.001, 0.01))
    for _ in range(NODES):
        sim.connect(*rng.sample(ids, 2), delay=rng.uniform(0.001, 0.01))
    sim.run(SETTLED)
    assert sim.settled()
    before = [tables(node) for node in nodes]
    kinds: list[int] = []
    for each in sim.wires:
        send = each.send

        def count(end: int, frames: wire.Frames, send=send) -> bool:
            kinds.append(wire.decode_packet(frames).kind)
            return send(end, frames)

        each.send = count  # type: ignore[method-assign]
    outcomes: list[Outcome] = []

    def visit(number: int) -> None:
        id = f"leaf{number}"
        (leaf,) = sim.add(id, leaf=True)
        sim.connect(id, rng.choice(ids))
        outcomes.append(leaf.send(rng.choice(ids), b"%d" % number))
        sim.after(STAY, lambda: sim.remove(id))

    for number in range(SECONDS * A_SECOND):
        sim.after(number / A_SECOND, lambda number=number: visit(number))
    sim.run(SECONDS + 2 * STAY)
    assert [outcome.replies for outcome in outcomes] == [[b"%d" % i] for i in range(SECONDS * A_SECOND)]
    advertised = [kind for kind in kinds if kind in (Kind.UPDATE, Kind.RECORD, Kind.SEQNO_REQUEST, Kind.RESEND)]
    assert advertised == []
    assert kinds.count(Kind.CHUNK) > 2 * len(outcomes)
    sim.run(2 * PEER_IDLE_TIMEOUT + PROBE_INTERVAL)
    assert [tables(node) for node in nodes] == before
    for node in nodes:
        node.engine.check()


def test_a_leaf_that_loses_the_node_it_hangs_on_goes_on_over_another():
    sim = Simulator()
    sim.chain("first", "second", "far")
    assert sim.settle()
    (leaf,) = sim.add("leaf", leaf=True)
    sim.connect("leaf", "first")
    assert sim.run_until(lambda: leaf.engine.uplink is not None, 1)
    sim.connect("leaf", "second")
    sim.run(1)
    assert leaf.engine.address == "leaf@first"
    jobs: list[Job] = []
    sim.nodes["far"].plugin = lambda node, job: jobs.append(job)
    long, stopped = leaf.send("far", bytes(300_000)), leaf.send("far", b"work")
    assert sim.run_until(lambda: len(jobs) == 2, 1)
    sim.wires[2].take_down()
    sim.run(0.5)
    assert leaf.engine.address == "leaf@second"
    sim.wires[2].bring_up()
    sim.run(0.5)
    work = {job.message_id: job for job in jobs}
    sim.nodes["far"].reply(work[long.message_id], bytes(300_000), eof=Eof())
    leaf.cancel(stopped)
    assert sim.run_until(lambda: bool(long.eof and stopped.eof), 2)
    assert long.replies == [bytes(300_000)]
    assert work[stopped.message_id].aborted == "cancelled"


def test_a_leaf_hears_within_two_seconds_that_the_node_which_works_for_it_has_restarted():
    sim = Simulator()
    nodes = sim.chain("home", "middle", "far")
    assert sim.settle()
    nodes[2].plugin = lambda node, job: None
    (leaf,) = sim.add("leaf", leaf=True)
    sim.connect("leaf", "home")
    outcome = leaf.send("far", b"work")
    sim.run(20)
    assert outcome.message_id in nodes[2].jobs
    nodes[2].kill()
    sim.run(3)
    nodes[2].restart()
    assert sim.run_until(lambda: "far" in nodes[0].engine.nodes(), 1)
    assert sim.run_until(lambda: outcome.eof is not None, 2)
    assert outcome.eof is not None
    assert outcome.eof.reason == "node_restarted"
