"""Meshes of nodes that speak different versions: what they have in common is enough, and without that they say so."""

import collections

import pytest

from zmesh.core import wire
from zmesh.testing.simulator import Simulator
from zmesh.testing.simversions import CONTENT, RANGES, UNKNOWN, OtherRange, Version1
from zmesh.testing.traffic import REASONS, run_mixed

SEEDS = 40
BATCH = 10


def put(sim, kind, id, *arguments):
    sim.nodes[id] = kind(sim, id, {}, *arguments)


def details(node, event):
    return [report.detail for report in node.reports if report.event == event]


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_a_mixed_mesh_heals_and_every_send_in_it_ends_once(first):
    tally = collections.Counter()
    for seed in range(first, first + BATCH):
        tally.update(run_mixed(seed))
    assert tally["eof"] > 0
    assert set(tally) <= {"eof", "remote", "sender gone", *REASONS}


@pytest.mark.parametrize(("lowest", "highest"), RANGES)
def test_nodes_of_another_range_interoperate_at_both_ends_and_in_between(lowest, highest):
    sim = Simulator(seed=3)
    sim.add("a", "c", "e")
    put(sim, OtherRange, "b", lowest, highest)
    put(sim, OtherRange, "d", lowest, highest)
    for dialler, listener in ("ba", "bc", "cd", "ed"):
        sim.connect(dialler, listener)
    assert sim.settle()
    asked = [(sim.nodes[one].send(to, bytes(200_000)), 200_000) for one, to in ("ae", "bd", "ad", "be")]
    asked += [(sim.nodes[one].send(to, b"small"), 5) for one, to in ("ae", "bd", "ad", "be")]
    assert sim.run_until(lambda: all(outcome.eof is not None for outcome, _ in asked), 20)
    for outcome, size in asked:
        assert [len(reply) for reply in outcome.replies] == [size]
    for node in sim.nodes.values():
        assert details(node, "frame_dropped") == []
        if node.id not in ("b", "d"):
            for other in ("b", "d"):
                record = node.engine.routing.record(other)
                assert record is not None
                assert record.extensions == {UNKNOWN: CONTENT}


def test_a_reason_that_is_not_known_ends_nothing_and_changes_no_route():
    """A forwarder of a later version sends one for each chunk."""
    sim = Simulator(seed=4)
    sim.add("a", "c")
    put(sim, OtherRange, "b", 2, 3)
    sim.connect("a", "b")
    sim.connect("b", "c")
    assert sim.settle()
    a = sim.nodes["a"]
    asked = [a.send("c", bytes(200_000)), a.send("c", b"small")]
    assert sim.run_until(lambda: all(outcome.eof is not None for outcome in asked), 20)
    assert [outcome.eof.reason for outcome in asked] == ["", ""]
    assert [report for report in a.reports if report.event == "unreachable"] == []


def test_digests_agree_about_extensions_that_only_their_sender_knows():
    sim = Simulator()
    sim.add("a", "c")
    put(sim, OtherRange, "b", 2, 3)
    sim.connect("a", "b")
    sim.connect("c", "b")
    assert sim.settle()
    sim.run(5.0)
    kinds = collections.Counter()
    sim.tap = lambda frames: kinds.update([wire.decode_packet(frames).kind])
    sim.run(30.0)
    assert set(kinds) == {wire.Kind.PROBE, wire.Kind.ECHO}


def test_a_critical_extension_refuses_what_has_it_and_nothing_else():
    sim = Simulator()
    sim.add("a")
    put(sim, OtherRange, "b", 2, 3)
    sim.connect("a", "b")
    assert sim.settle()
    a, b = sim.nodes["a"], sim.nodes["b"]
    assert b.send("a", b"before") is not None
    b.extensions = {wire.CRITICAL: CONTENT}
    refused = b.send("a", b"more than a knows", timeout=2.0)
    sim.run(1.0)
    assert set(details(a, "frame_dropped")) == {"unknown_extension: the extension 128 is critical, and unknown here"}
    b.extensions = {UNKNOWN: CONTENT}
    asked = b.send("a", b"as before")
    assert sim.run_until(lambda: asked.eof is not None and refused.eof is not None, 5)
    assert asked.replies == [b"as before"]
    assert [link.node for link in a.engine.links()] == ["b"], "one message is refused, not its sender"


@pytest.mark.parametrize(("dialler", "listener"), [("old-1", "new-1"), ("new-1", "old-1")])
def test_nodes_of_version_1_and_of_this_one_refuse_each_other_and_name_both_versions(dialler, listener):
    sim = Simulator()
    put(sim, Version1, "old-1")
    old = sim.nodes["old-1"]
    new = sim.add("new-1", "new-2")
    sim.connect("new-2", "new-1")
    sim.connect(dialler, listener)
    sim.run(20.0)
    said = details(new[0], "link_refused")
    assert said
    if dialler == "old-1":
        text = "protocol version 1 is not 2 to 2, which this node speaks"
        assert set(said) == {f"we refuse: {text}"}
        assert set(old.refusals) == {text}
    else:
        assert set(said) == {f"they refuse: {Version1.TEXT}"}
    assert sim.nodes["new-1"].engine.nodes() == {"new-1", "new-2"}
    frames = sim.frames
    sim.run(60.0)
    assert sim.frames - frames < 60 * 4 + 60 / 5 * 8, "probes of the other link, and a dial every five seconds"
