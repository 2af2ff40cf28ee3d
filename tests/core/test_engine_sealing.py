"""Sealing between engines: what is on the links, what comes at the ends, and whose errors are believed."""

import pytest

from tests.core.engine_harness import NOW
from zmesh.core import wire
from zmesh.core.engine import Engine
from zmesh.core.forwarding.sealing import KEY_LIFETIME
from zmesh.core.message import MessageId, RequestHeader
from zmesh.core.wire import Kind
from zmesh.testing.authority import DAY
from zmesh.testing.simexchange import Outcome
from zmesh.testing.simulator import Simulator

TEXT = b"the quick brown fox jumps over the lazy dog; " * 3


CHAIN = ("a", "b", "c", "d")


def leaf(sim, at, id="cli"):
    node = sim.add(id, epoch=float(NOW), leaf=True)[0]
    sim.connect(id, at).local = True
    assert sim.run_until(lambda: bool(node.engine.links()), 5.0)
    return node


def details(node, event="frame_dropped"):
    return [report.detail for report in node.reports if report.event == event]


def test_a_request_and_its_reply_are_sealed_on_every_link(sim, seen):
    outcome = sim.nodes["a"].send("d", TEXT)
    sim.run(2.0)
    assert outcome.replies == [TEXT]
    assert outcome.hops == 3
    assert {wire.decode_packet(frames).kind for frames in seen} >= {Kind.CHUNK, Kind.ACK}
    for frames in seen:
        assert wire.decode_packet(frames).sealed
        whole = b"".join(frames)
        assert not any(part in whole for part in (b"quick", b"echo:echo", outcome.message_id, b"lazy"))


def test_directives_and_metadata_are_sealed(sim, seen):
    header = RequestHeader("echo:echo", 0.0, content_type="text/secret", metadata={"owner": "ada lovelace"})
    node = sim.nodes["a"]
    message_id = MessageId(b"m" * 16)
    node.outcomes[message_id] = Outcome(message_id, "d")
    node.do(node.engine.send(message_id, "d", header, TEXT, node.now))
    sim.run(2.0)
    assert node.outcomes[message_id].replies == [TEXT]
    words = (b"echo", b"secret", b"ada", b"owner", b"mmm")
    assert not any(word in b"".join(frames) for frames in seen for word in words)


def test_a_node_talks_to_itself_in_plain(sim, seen):
    outcome = sim.nodes["a"].send("a", TEXT)
    sim.run(1.0)
    assert outcome.replies == [TEXT]
    assert seen == []


def test_a_leaf_is_sealed_for_by_its_node(sim, seen):
    node = leaf(sim, "a")
    outcome = node.send("d", TEXT)
    sim.run(2.0)
    assert outcome.replies == [TEXT]
    packets = [wire.decode_packet(frames) for frames in seen]
    assert {packet.source for packet in packets if packet.sealed} == {"cli@a", "d"}
    for frames, packet in zip(seen, packets, strict=True):
        if packet.sealed:
            assert b"quick" not in b"".join(frames)


def test_two_leaves_of_one_node_talk_through_it(sim, seen):
    one, other = leaf(sim, "a", "one"), leaf(sim, "a", "other")
    sim.run(1.0)
    outcome = one.send("other@a", TEXT)
    sim.run(2.0)
    assert outcome.replies == [TEXT]
    assert not any(wire.decode_packet(frames).sealed for frames in seen)
    assert other.engine.leaf


def test_leaves_of_two_nodes_talk(sim):
    one, _ = leaf(sim, "a", "one"), leaf(sim, "d", "other")
    outcome = one.send("other@d", TEXT)
    sim.run(2.0)
    assert outcome.replies == [TEXT]


def test_what_can_not_be_opened_for_a_leaf_is_dropped(sim, seen):
    node = leaf(sim, "d")
    sim.nodes["a"].send("cli@d", TEXT)
    sim.run(1.0)
    frames = next(frames for frames in seen if wire.decode_packet(frames).destination == "cli@d")
    assert offer(sim, frames, "d", "c") == ["unsealable: replayed"]
    assert sum(node.runs.values()) == 1


def test_a_bad_checksum_of_a_leaf_is_found_by_its_node(sim):
    node = sim.nodes["a"]
    leaf(sim, "a")
    link = next(link for link in node.engine.links() if link.leaf)
    for destination in ("d", "a"):
        frames = wire.encode_packet(Kind.CHUNK, destination, "cli@a", b"head", b"body")
        node.do(node.engine.receive(link.id, (frames[0][:-1] + b"x",), node.now))
    assert [detail.partition(":")[0] for detail in details(node)] == ["checksum", "checksum"]


def test_an_unknown_node_is_unreachable_and_the_error_comes_back_sealed(sim, seen):
    node = leaf(sim, "a")
    outcome = node.send("nobody", TEXT, route_timeout=1.0)
    sim.run(5.0)
    assert outcome.eof.reason == "unreachable"


def test_a_leaf_that_is_gone_is_said_to_be_so_by_its_node(sim, seen):
    node = leaf(sim, "d")
    outcome = sim.nodes["a"].send("cli@d", TEXT, "slow:one", route_timeout=1.0)
    sim.run(0.5)
    node.kill()
    again = sim.nodes["a"].send("cli@d", TEXT, route_timeout=1.0)
    sim.run(30.0)
    assert outcome.eof is not None
    assert again.eof.reason == "unreachable"
    errors = [packet for packet in map(wire.decode_packet, seen) if packet.kind == Kind.UNREACHABLE]
    assert errors
    assert all(packet.sealed for packet in errors)


def test_a_packet_that_runs_out_of_hops_comes_back(sim, seen):
    sim.nodes["a"].send("d", TEXT)
    sim.run(1.0)
    frames = next(frames for frames in seen if wire.decode_packet(frames).destination == "d")
    first = frames[0][:3] + b"\x01" + frames[0][4:]
    node = sim.nodes["b"]
    link = next(link for link in node.engine.links() if link.node == "a")
    node.do(node.engine.receive(link.id, (first,), node.now))
    sim.run(1.0)
    assert [report.node for report in sim.nodes["a"].reports if report.event == "expired"] == ["b"]


def offer(sim, frames, to, of):
    """Put a packet on a link again."""
    node = sim.nodes[to]
    link = next(link for link in node.engine.links() if link.node == of)
    node.do(node.engine.receive(link.id, frames, node.now))
    return details(node)[-1:]


def test_a_packet_is_taken_once_and_unchanged_and_sealed(sim, seen):
    sim.nodes["a"].send("d", TEXT)
    sim.run(2.0)
    frames = next(frames for frames in seen if wire.decode_packet(frames).destination == "d")
    assert offer(sim, frames, "d", "c") == ["unsealable: replayed"]
    assert offer(sim, (frames[0][:-1] + bytes([frames[0][-1] ^ 1]),), "d", "c") == ["unsealable: replayed"]
    packet = wire.decode_packet(frames)
    counter = wire.decode_seal(packet.head)
    ahead = wire.encode_seal(counter._replace(counter=counter.counter + 9)) + packet.head[16:]
    forged = wire.encode_sealed(packet.kind, "d", "a", ahead, packet.body)
    assert offer(sim, forged, "d", "c") == ["unsealable: forged"]
    assert offer(sim, wire.encode_sealed(packet.kind, "d", "a", b"", b""), "d", "c")[0].startswith("garbage")
    assert offer(sim, wire.encode_packet(packet.kind, "d", "a", b"head", b""), "d", "c") == ["unsealable: not_sealed"]
    assert offer(sim, wire.encode_sealed(packet.kind, "d", "z", packet.head, b""), "d", "c") == ["unsealable: no_key"]
    assert offer(sim, wire.encode_sealed(packet.kind, "c", "a", packet.head, packet.body), "c", "b") == [
        "unsealable: restarted"
    ]
    sim.run(1.0)
    assert sum(sim.nodes["d"].runs.values()) == 1


def test_a_restarted_server_is_found_again(sim):
    node = sim.nodes["a"]
    assert node.send("d", TEXT) is not None
    sim.run(1.0)
    sim.nodes["d"].restart()
    outcome = node.send("d", TEXT, route_timeout=20.0)
    sim.run(20.0)
    assert outcome.replies == [TEXT]


def test_a_leaf_learns_that_a_server_has_restarted(sim):
    """It has sealed nothing itself; the chunk comes back to its node in the form that the node has sealed."""
    node = leaf(sim, "a")
    assert node.send("d", TEXT) is not None
    sim.run(1.0)
    sim.nodes["d"].restart()
    sim.run(3.0)
    first = node.send("d", TEXT, route_timeout=30.0)
    sim.run(5.0)
    assert first.eof is not None
    outcome = node.send("d", TEXT)
    sim.run(5.0)
    assert outcome.replies == [TEXT]


def test_a_request_to_a_server_that_restarts_meanwhile_ends(sim):
    sim.nodes["d"].plugin = lambda node, job: None
    outcome = sim.nodes["a"].send("d", TEXT, timeout=60.0)
    sim.run(1.0)
    sim.nodes["d"].restart()
    sim.run(40.0)
    assert outcome.eof.code


def test_requests_go_on_over_a_change_of_keys(sim):
    node, now = sim.nodes["a"], sim.now
    key = node.engine.credentials.exchange_key
    node.engine.forwarding.sealing._rotates_at = now + 1.0
    outcomes = []
    for _ in range(40):
        outcomes.append((node.send("d", TEXT), sim.nodes["d"].send("a", TEXT)))
        sim.run(0.5)
    sim.run(2.0)
    assert node.engine.credentials.exchange_key != key
    assert sim.nodes["d"].engine.routing.record("a").public_key == node.engine.credentials.exchange_key
    assert [[outcome.replies for outcome in pair] for pair in outcomes] == [[[TEXT], [TEXT]]] * 40
    assert not any(detail.startswith("unsealable") for each in sim.all() for detail in details(each))
    assert KEY_LIFETIME == DAY


def test_a_node_of_which_the_route_is_known_and_the_record_is_not_is_not_reached_yet(sim):
    node = sim.nodes["a"]
    engine = node.engine
    routing = engine.routing
    assert engine.forwarding.reach("d") == sim.nodes["d"].engine.incarnation
    routing._records.forget("d")
    assert engine.forwarding.reach("d") is None
    assert engine.forwarding.next_hop("d") is None
    assert engine.forwarding.next_hop("cli@d") is None
    engine.forwarding.originate("d", Kind.ACK, wire.encode_ack(1, 1, []), b"")
    node.do(engine.tick(node.now))
    assert details(node) == ["no_key"]
    assert sim.run_until(lambda: routing.record("d") is not None, 10.0)
    outcome = node.send("d", TEXT)
    sim.run(1.0)
    assert outcome.replies == [TEXT]


def test_a_leafs_packet_for_a_node_without_a_key_is_dropped(sim):
    node = sim.nodes["a"]
    leaf(sim, "a")
    node.engine.routing._records.forget("d")
    link = next(link for link in node.engine.links() if link.leaf)
    frames = wire.encode_packet(Kind.ACK, "d", "cli@a", wire.encode_ack(1, 1, []), b"")
    node.do(node.engine.receive(link.id, frames, node.now))
    assert "no_key" in details(node)


@pytest.mark.parametrize("sender", ["a", "cli"])
def test_packets_that_a_full_queue_refuses_come_back_in_plain_to_who_has_sent_them(authority, sender):
    sim = Simulator(4)
    sim.chain("a", "b", epoch=float(NOW), credentials=authority.installed)
    assert sim.settle()
    if sender == "cli":
        leaf(sim, "a")
    node = sim.nodes["a"]
    link = next(link for link in node.engine.links() if link.node == "b")
    forwarding = node.engine.forwarding
    queue = forwarding._ports[link.id].queue
    queue.full = True
    source = "a" if sender == "a" else "cli@a"
    head = wire.encode_chunk(b"m" * 16, True, 1, 0, 0, 0, 1, 1)
    frames = forwarding._encode(Kind.CHUNK, "b", source, head, bytes(60_000))
    foreign = wire.encode_sealed(Kind.CHUNK, "b", source, bytes(40), b"")
    forwarding.returned.send_full(frames)
    forwarding.returned.send_full(foreign)
    notes = [(packet.kind, packet.body) for packet in forwarding.take_looped()]
    for effect in forwarding.take():
        packet = wire.decode_packet(effect.frames)
        notes.append((packet.kind, packet.body))
    assert notes == [(Kind.UNREACHABLE, head)]


def test_an_engine_without_an_identity_seals_nothing():
    engine = Engine("a", 1, now=0.0)
    assert engine.forwarding.sealing is None
    packet = wire.loop_packet(Kind.ACK, "a", b"", b"")
    assert engine.forwarding.unseal(packet, 0.0) is packet
    engine.routing._records.rekeyed["x"] = None
    assert engine.routing.take_rekeyed() == []
