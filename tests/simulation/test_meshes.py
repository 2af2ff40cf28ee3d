"""Meshes in the simulator: what must hold, one sentence at a time."""

import networkx
import pytest

from zmesh.core import wire
from zmesh.core.delivery.flow_control import WINDOW
from zmesh.core.message import Address, Eof, LinkId, MessageId, NodeId
from zmesh.core.wire import Kind
from zmesh.testing.simexchange import Job
from zmesh.testing.simnode import SimNode
from zmesh.testing.simulator import Simulator


def events(node: SimNode, event: str) -> list[str]:
    return [report.detail for report in node.reports if report.event == event]


def test_a_request_over_three_hops_is_answered_within_its_round_trip() -> None:
    sim = Simulator()
    nodes = sim.chain("a", "b", "c", "d")
    assert sim.settle()
    started = sim.now
    outcome = nodes[0].send("d", b"hello")
    assert sim.run_until(lambda: outcome.eof is not None, 1)
    assert outcome.replies == [b"hello"]
    assert outcome.hops == 3
    assert sim.now - started == pytest.approx(6 * 0.002)


def test_a_small_request_and_its_reply_are_two_messages_on_the_critical_path() -> None:
    sim = Simulator()
    left, _ = sim.chain("a", "b")
    assert sim.settle()
    sim.run(5)
    sent: list[int] = []
    wire_ = sim.wires[0]
    send = wire_.send

    def count(end: int, frames: wire.Frames) -> bool:
        kind = wire.decode_packet(frames).kind
        if kind >= wire.FIRST_ROUTED:
            sent.append(kind)
        return send(end, frames)

    wire_.send = count  # type: ignore[method-assign]
    for _ in range(20):
        outcome = left.send("b", b"x")
        assert sim.run_until(lambda: outcome.eof is not None, 1)  # noqa: B023
    assert sent.count(Kind.CHUNK) == 40
    assert sent.count(Kind.ACK) <= 5


def test_a_node_reaches_itself_without_any_link() -> None:
    sim = Simulator()
    (node,) = sim.add("alone")
    outcome = node.send("alone", b"x" * 300_000)
    assert sim.run_until(lambda: outcome.eof is not None, 1)
    assert outcome.replies == [b"x" * 300_000]
    assert outcome.hops == 0


def test_a_transfer_is_not_held_up_by_delayed_acknowledgements() -> None:
    sim = Simulator()
    nodes = sim.chain("a", "b", "c")
    assert sim.settle()
    started = sim.now
    outcome = nodes[0].send("c", b"z" * 16_000_000)
    assert sim.run_until(lambda: outcome.eof is not None, 5)
    assert outcome.replies[0] == b"z" * 16_000_000
    assert sim.now - started < 0.5


def test_a_link_with_room_for_few_frames_loses_none_of_them() -> None:
    sim = Simulator()
    sim.add("a", "b", "c")
    sim.connect("b", "a", room=4)
    sim.connect("c", "b", room=4)
    assert sim.settle()
    outcomes = [sim.nodes["a"].send("c", bytes([i]) * 100_000) for i in range(20)]
    assert sim.run_until(lambda: all(outcome.eof for outcome in outcomes), 20)
    assert [outcome.replies for outcome in outcomes] == [[bytes([i]) * 100_000] for i in range(20)]
    assert not events(sim.nodes["b"], "frame_dropped")


def test_a_small_request_passes_a_large_one_on_a_full_link() -> None:
    sim = Simulator()
    sim.add("a", "b")
    sim.connect("b", "a", room=2)
    assert sim.settle()
    large = sim.nodes["a"].send("b", bytes(4_000_000))
    sim.run(0.01)
    small = sim.nodes["a"].send("b", b"small")
    assert sim.run_until(lambda: small.eof is not None, 10)
    assert large.eof is None


def test_a_slow_reader_stops_the_sender_after_one_window() -> None:
    sim = Simulator()
    left, right = sim.chain("a", "b")
    assert sim.settle()
    right.unread = True
    outcome = left.send("b", bytes(8_000_000))
    sim.run(5)
    job = next(iter(right.jobs.values()))
    assert len(job.payload) <= WINDOW
    assert outcome.eof is None


def test_every_metric_is_that_of_the_shortest_path() -> None:
    sim = Simulator(7)
    graph = networkx.gnm_random_graph(12, 24, seed=7)
    sim.add(*(f"n{i}" for i in graph))
    for a, b in graph.edges:
        cost = sim.random.choice([50, 100, 170, 300])
        graph.edges[a, b]["weight"] = cost
        sim.connect(f"n{a}", f"n{b}", delay=sim.random.uniform(0.001, 0.004), cost=cost)
    assert sim.settle()
    sim.run(3)
    costs = dict(networkx.all_pairs_dijkstra_path_length(graph))
    for i in graph:
        table = sim.nodes[f"n{i}"].engine.routing.routes()
        assert {dest: route.metric for dest, route in table.items()} == {
            f"n{j}": cost for j, cost in costs[i].items() if j != i
        }


def test_a_partitioned_mesh_is_two_meshes_and_then_one_again() -> None:
    sim = Simulator()
    nodes = sim.chain("a", "b", "c", "d")
    assert sim.settle()
    sim.wires[1].take_down()
    assert sim.settle()
    assert nodes[0].engine.nodes() == {"a", "b"}
    assert nodes[3].engine.nodes() == {"c", "d"}
    waiting = nodes[0].send("d", b"later")
    sim.run(3)
    sim.wires[1].bring_up()
    assert sim.run_until(lambda: waiting.eof is not None, 5)
    assert waiting.replies == [b"later"]


def test_a_restarted_node_is_back_at_once_and_its_old_exchanges_fail() -> None:
    sim = Simulator()
    nodes = sim.chain("a", "b", "c")
    assert sim.settle()
    nodes[2].plugin = lambda node, job: None  # never answers
    outcome = nodes[0].send("c", b"work")
    sim.run(1)
    nodes[2].restart()
    nodes[2].plugin = lambda node, job: node.reply(job, b"new", eof=Eof())
    assert sim.run_until(lambda: outcome.eof is not None, 2)
    assert outcome.eof is not None
    assert outcome.eof.reason == "node_restarted"
    again = nodes[0].send("c", b"more")
    assert sim.run_until(lambda: again.eof is not None, 1)
    assert again.replies == [b"new"]


def test_the_second_of_two_nodes_with_one_id_at_one_neighbour_is_refused() -> None:
    sim = Simulator()
    sim.add("hub", "twin")
    sim.connect("twin", "hub")
    assert sim.settle()
    first = sim.nodes["twin"]
    second = SimNode(sim, "twin", {})
    sim.nodes["twin-2"] = second
    sim.connect("twin-2", "hub")
    assert sim.run_until(lambda: bool(events(second, "duplicate_id")), 10)
    assert events(sim.nodes["hub"], "duplicate_id")
    assert "hub" in first.engine.nodes()
    assert "hub" not in second.engine.nodes()
    outcome = sim.nodes["hub"].send("twin", b"who")
    assert sim.run_until(lambda: outcome.eof is not None, 2)
    assert outcome.message_id in first.jobs
    assert outcome.message_id not in second.jobs


def test_two_nodes_of_one_name_far_apart_are_named_everywhere_and_swap_nothing() -> None:
    """Two partitions, each with a `twin` of its own, are joined in the middle."""
    sim = Simulator()
    sim.chain("twin", "a", "b")
    sim.add("c", "d")
    second = SimNode(sim, "twin", {})
    sim.nodes["twin-2"] = second
    sim.connect("c", "d")
    sim.connect("d", "twin-2")
    sim.run(3.0)
    first = sim.nodes["twin"]
    sim.connect("b", "c")
    asked = [node.send(to, b"%d" % number, timeout=20.0) for number in range(20) for node, to in
             ((first, "d"), (second, "a"), (first, "b"), (second, "c"))]  # fmt: skip
    assert sim.run_until(lambda: all(events(node, "duplicate_id") for node in sim.nodes.values()), 10)
    sim.run(40.0)
    for node in (first, second):
        (report,) = [report for report in node.reports if report.event == "duplicate_id"]
        assert "another node called 'twin' is alive in the mesh, linked to " in report.detail
    for outcome in asked:
        assert len(outcome.eofs) == 1
        number = next(b"%d" % number for number in range(20) if outcome in asked[4 * number : 4 * number + 4])
        assert outcome.replies == ([number] if outcome.eof == Eof() else [])
    frames = sim.frames
    sim.run(60.0)
    assert sim.frames - frames < 60 * 4 * 5 * 3  # probes and echoes, and a quarrel that has become slow


def test_a_node_that_names_itself_like_its_peer_is_refused_at_both_ends() -> None:
    sim = Simulator()
    sim.add("same")
    other = SimNode(sim, "same", {})
    sim.nodes["same-2"] = other
    sim.connect("same-2", "same")
    assert sim.run_until(lambda: bool(events(other, "link_refused")), 2)
    assert "taken by the node at this end" in events(sim.nodes["same"], "link_refused")[0]


def test_a_foreign_protocol_version_is_refused_with_a_reason() -> None:
    sim = Simulator()
    (node,) = sim.add("a")
    node.do(node.engine.link_up(LinkId(77), sim.now, dialled=False))
    effects = node.engine.receive(LinkId(77), wire.hello_for_version1(1), sim.now)
    names = [type(effect).__name__ for effect in effects]
    assert names == ["Transmit", "Report", "HangUp"]
    assert "protocol version 1 is not 2 to 2" in effects[1].detail  # type: ignore[union-attr]


def test_a_cancelled_request_is_confirmed_by_the_node_that_worked_on_it() -> None:
    sim = Simulator()
    nodes = sim.chain("a", "b", "c")
    assert sim.settle()
    jobs: list[Job] = []
    nodes[2].plugin = lambda node, job: jobs.append(job)
    outcome = nodes[0].send("c", b"work")
    assert sim.run_until(lambda: bool(jobs), 1)
    nodes[0].cancel(outcome)
    assert sim.run_until(lambda: outcome.eof is not None, 1)
    assert jobs[0].aborted == "cancelled"
    assert outcome.eof is not None
    assert outcome.eof.reason == "cancelled"
    nodes[0].cancel(outcome)
    sim.run(30)
    assert len(outcome.eofs) == 1
    assert sim.nodes["c"].engine.stats()["requests_received"] == 0


def test_a_request_without_a_route_ends_unreachable_with_the_likely_name() -> None:
    sim = Simulator()
    nodes = sim.chain("hub", "edge-7", route_timeout=5)
    assert sim.settle()
    outcome = nodes[0].send("edge-9")
    assert sim.run_until(lambda: outcome.eof is not None, 6)
    assert outcome.eof is not None
    assert outcome.eof.reason == "unreachable"
    text = (
        "no route to 'edge-9' after 5 s; the request has not left 'hub'; 'edge-9' was never known to 'hub'; "
        "known nodes: edge-7 (did you mean 'edge-7'?)"
    )
    assert outcome.eof.error == text


def test_an_error_names_the_last_node_that_the_request_reached() -> None:
    """Whether it is given up for lack of time or of a route, by a leaf or by a node that had a route and lost it."""
    for leaf, timeout in ((True, None), (True, 3.0), (False, 3.0)):
        sim = Simulator()
        nodes = sim.chain("a", "b", "c", route_timeout=5)
        assert sim.settle()
        nodes[2].plugin = lambda node, job: None
        sender = nodes[0]
        if leaf:
            (sender,) = sim.add("cli", leaf=True, route_timeout=5)
            sim.connect("cli", "a")
            sim.run(0.5)
        nodes[2].kill()
        assert sim.settle()
        gone = sender.send("c", timeout=timeout)
        assert sim.run_until(lambda gone=gone: gone.eof is not None, 10)
        assert gone.eof is not None
        assert gone.eof.reason == "unreachable"
        assert ("the last node on the path was 'a'" if leaf else "the request has not left 'a'") in gone.eof.error


def test_an_error_says_that_the_request_had_arrived_before_the_route_was_lost() -> None:
    sim = Simulator()
    nodes = sim.chain("a", "b", "c", route_timeout=5)
    assert sim.settle()
    jobs: list[Job] = []
    nodes[2].plugin = lambda node, job: jobs.append(job)
    lost, late = nodes[0].send("c"), nodes[0].send("c", timeout=3.0)
    assert sim.run_until(lambda: len(jobs) == 2, 1)
    sim.run(0.2)
    nodes[2].kill()
    assert sim.run_until(lambda: lost.eof is not None and late.eof is not None, 20)
    assert lost.eof is not None
    assert late.eof is not None
    assert (lost.eof.reason, late.eof.reason) == ("unreachable", "unreachable")
    assert "the request had reached 'c'" in lost.eof.error
    assert "the request had reached 'c'" in late.eof.error


def test_a_leaf_is_served_without_the_mesh_hearing_of_it() -> None:
    sim = Simulator()
    nodes = sim.chain("a", "b", "c")
    assert sim.settle()
    known = [dict(node.engine.records()) for node in nodes]
    (leaf,) = sim.add("cli", leaf=True)
    sim.connect("cli", "a")
    outcome = leaf.send("c", b"x" * 200_000)
    assert sim.run_until(lambda: outcome.eof is not None, 3)
    assert outcome.replies == [b"x" * 200_000]
    assert [dict(node.engine.records()) for node in nodes] == known
    assert NodeId(Address("cli")) not in nodes[0].engine.nodes()


def test_the_work_of_a_leaf_that_vanished_is_stopped() -> None:
    sim = Simulator()
    nodes = sim.chain("a", "b")
    assert sim.settle()
    jobs: list[Job] = []
    nodes[1].plugin = lambda node, job: jobs.append(job)
    (leaf,) = sim.add("cli", leaf=True)
    sim.connect("cli", "a")
    leaf.send("b", b"x")
    assert sim.run_until(lambda: bool(jobs), 3)
    leaf.kill()
    sim.run(45)
    assert jobs[0].aborted
    counts = nodes[1].engine.stats()
    assert counts == dict.fromkeys(counts, 0)


def test_a_frame_that_has_used_up_its_ttl_is_answered_and_goes_no_further() -> None:
    sim = Simulator()
    nodes = sim.chain("a", "b", "c")
    assert sim.settle()
    head = wire.encode(wire.Chunk(MessageId(bytes(16)), True, 0, 1, 0, 0, nodes[0].engine.incarnation, 0, None, None))
    frames = wire.encode_packet(Kind.CANCEL, Address("c"), Address("a"), head, b"", 1)
    link = nodes[0].engine.routing.routes()[NodeId(Address("c"))].link
    assert nodes[0].transmit(link, frames)
    sim.run(0.1)
    assert events(nodes[1], "expired") == ["a"]
    assert [report.node for report in nodes[0].reports if report.event == "expired"] == ["b"]
