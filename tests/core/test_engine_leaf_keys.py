"""A leaf with a certificate of its own: sealed from end to end, past its own node, and known by its certificate."""

from tests.core.engine_harness import NOW
from zmesh.core import wire
from zmesh.core.effects import Report
from zmesh.core.wire import FLAG_LEAF, FLAG_SEALED, Kind

SEALED = FLAG_SEALED | FLAG_LEAF
TEXT = b"the quick brown fox jumps over the lazy dog; " * 3


CHAIN = ("hub", "b", "c", "d")


def leaf(sim, authority, at="hub", id="ada.1", holder="ada", tags=()):
    """A leaf with the certificate of a person."""
    if holder not in authority.states:
        authority.states[holder] = authority.credentials(holder, tags=tags)
    node = sim.add(id, epoch=float(NOW), leaf=True, credentials=lambda id: authority.installed(holder))[0]
    sim.connect(id, at)
    assert sim.run_until(lambda: bool(node.engine.links()), 5.0)
    return node


def details(node, event="frame_dropped"):
    return [report.detail for report in node.reports if report.event == event]


def kinds(seen):
    return {wire.decode_packet(frames).kind for frames in seen}


def test_neither_its_own_node_nor_any_other_on_the_path_reads_what_it_sends_or_gets(sim, authority, seen):
    node = leaf(sim, authority)
    outcome = node.send("d", TEXT)
    sim.run(5.0)
    assert outcome.replies == [TEXT]
    packets = [wire.decode_packet(frames) for frames in seen]
    assert {packet.kind for packet in packets} >= {Kind.KEY_EXCHANGE, Kind.CHUNK, Kind.ACK}
    for frames, packet in zip(seen, packets, strict=True):
        assert packet.kind == Kind.KEY_EXCHANGE or packet.sealed & FLAG_LEAF
        assert not any(part in b"".join(frames) for part in (b"quick", b"echo:echo", outcome.message_id, b"lazy"))
    for other in sim.all():
        assert details(other) == []


def test_one_key_exchange_does_for_all_that_follows(sim, authority, seen):
    node = leaf(sim, authority)
    for _ in range(3):
        outcomes = [node.send("d", TEXT), node.send("c", TEXT)]
        sim.run(3.0)
        assert [outcome.replies for outcome in outcomes] == [[TEXT], [TEXT]]
    at_leaf = [wire.decode_packet(frames) for frames in seen]
    keys = {packet.head for packet in at_leaf if packet.kind == Kind.KEY_EXCHANGE and packet.source == "ada.1@hub"}
    assert len(keys) == 2


def test_other_nodes_know_it_by_its_certificate(sim, authority):
    node = leaf(sim, authority, tags=("admin",))
    engine = sim.nodes["d"].engine
    assert engine.identity("ada.1@hub") is None
    outcome = node.send("d", TEXT)
    sim.run(3.0)
    assert outcome.replies
    assert engine.identity("ada.1@hub")[:2] == ("ada", ("admin",))
    assert engine.identity("ada.2@hub") is None
    assert engine.identity("cli@hub").id == "hub"
    assert node.engine.identity("d").id == "d"


def test_what_it_says_to_its_own_node_stays_on_their_link(sim, authority, seen):
    node = leaf(sim, authority)
    outcome = node.send("hub", TEXT)
    sim.run(3.0)
    assert outcome.replies == [TEXT]
    assert Kind.KEY_EXCHANGE not in kinds(seen)


def test_two_such_leaves_talk_and_their_nodes_read_nothing(sim, authority, seen):
    one, other = leaf(sim, authority), leaf(sim, authority, "d", "bob.1", "bob")
    outcome = one.send("bob.1@d", TEXT)
    sim.run(10.0)
    assert outcome.replies == [TEXT]
    for frames in seen:
        packet = wire.decode_packet(frames)
        assert packet.kind != Kind.CHUNK or packet.sealed & FLAG_LEAF
        assert b"quick" not in b"".join(frames)
    assert other.engine.leaf


def test_it_talks_with_a_leaf_that_has_no_certificate_whose_node_opens_for_it(sim, authority, seen):
    node = leaf(sim, authority)
    plain = sim.add("cli", epoch=float(NOW), leaf=True)[0]
    sim.connect("cli", "d").local = True
    assert sim.run_until(lambda: bool(plain.engine.links()), 5.0)
    outcomes = [node.send("cli@d", TEXT), plain.send("ada.1@hub", TEXT)]
    sim.run(10.0)
    assert [outcome.replies for outcome in outcomes] == [[TEXT], [TEXT]]


def test_a_node_may_begin(sim, authority, seen):
    leaf(sim, authority)
    outcome = sim.nodes["d"].send("ada.1@hub", TEXT)
    sim.run(10.0)
    assert outcome.replies == [TEXT]
    for frames in seen:
        packet = wire.decode_packet(frames)
        assert packet.kind != Kind.CHUNK or packet.sealed & FLAG_LEAF


def test_an_unknown_node_is_unreachable_at_once(sim, authority):
    node = leaf(sim, authority)
    outcome = node.send("nobody", TEXT, route_timeout=1.0)
    sim.run(5.0)
    assert outcome.eof.reason == "unreachable"
    assert "no route" in outcome.eof.error
    assert [report.node for report in node.reports if report.event == "destination_unreachable"] == []


# --- lies -----------------------------------------------------------------------------------------------------------


def offer(sim, at, frames, of):
    """Put a packet on a link of a node; why it is dropped, if it is."""
    node = sim.nodes[at]
    before = len(details(node))
    link = next(link for link in node.engine.links() if link.node == of)
    node.do(node.engine.receive(link.id, frames, node.now))
    return details(node)[before:]


def greeted(sim, authority, seen, text=TEXT):
    """A leaf that has exchanged keys with `d`."""
    node = leaf(sim, authority)
    outcome = node.send("d", text)
    sim.run(3.0)
    assert outcome.replies == [text]
    return node


def exchanges(seen, source):
    """The KEY_EXCHANGEs of that source, as they were sent."""
    found = [wire.decode_packet(frames) for frames in seen]
    return [packet for packet in found if (packet.kind, packet.source) == (Kind.KEY_EXCHANGE, source)]


def rewritten(packet, to=None, of=None, **changes):
    """The KEY_EXCHANGE with other addresses or fields, in a sound packet."""
    said = wire.decode_key_exchange(packet.head)._replace(**changes)
    return wire.encode_packet(packet.kind, to or packet.destination, of or packet.source, wire.encode(said), b"")


def test_its_own_node_can_not_speak_in_its_name(sim, authority, seen):
    """The node of a leaf, or any member, seals with its own key what it says that the leaf has sent."""
    greeted(sim, authority, seen)
    runs = sum(sim.nodes["d"].runs.values())
    hub = sim.nodes["hub"].engine.forwarding
    head = wire.encode_chunk(b"m" * 16, True, 0, wire.FLAG_LAST, 9, 0, 1, sim.nodes["d"].engine.incarnation)
    frames = wire.encode_sealed(
        Kind.CHUNK, "d", "ada.1@hub", *hub.sealing.seal(Kind.CHUNK, "d", "ada.1@hub", head, b"rm -rf")
    )
    assert offer(sim, "d", frames, "c") == ["unsealable: not_by_the_leaf"]
    assert sum(sim.nodes["d"].runs.values()) == runs


def test_its_own_node_can_not_speak_to_it_in_the_name_of_another(sim, authority, seen):
    node = greeted(sim, authority, seen)
    link = node.engine.links()[0]
    forged = wire.encode_packet(Kind.ACK, "ada.1@hub", "d", wire.encode_ack(1, 0, []), b"")
    other = wire.encode_packet(Kind.ACK, "ada.1@hub", "b", wire.encode_ack(1, 0, []), b"")
    spoilt = (other[0][:-1] + b"x",)
    sealed = wire.encode_sealed(Kind.ACK, "ada.1@hub", "c", bytes(40), b"", sealed=SEALED)
    short = wire.encode_sealed(Kind.ACK, "ada.1@hub", "c", bytes(3), b"", sealed=SEALED)
    reasons = []
    for frames in (forged, other, spoilt, sealed, short):
        before = len(details(node))
        node.do(node.engine.receive(link.id, frames, node.now))
        reasons += details(node)[before:]
    assert reasons[:2] == ["unsealable: not_sealed"] * 2
    assert reasons[2].startswith("checksum")
    assert reasons[3] == "unsealable: no_key"
    assert reasons[4].startswith("garbage")


def test_a_key_exchange_that_is_not_that_of_the_leaf_is_refused(sim, authority, seen):
    greeted(sim, authority, seen)
    leaf(sim, authority, "b", "eve.1", "eve")
    sim.nodes["eve.1"].send("d", TEXT)
    sim.run(3.0)
    (ada,), (eve,) = ({one.head: one for one in exchanges(seen, of)}.values() for of in ("ada.1@hub", "eve.1@b"))
    mallory = wire.decode_key_exchange(eve.head)

    def refused(frames):
        (reason,) = offer(sim, "d", frames, "c")
        return reason

    assert refused(rewritten(eve, of="ada.1@b")).startswith("key_exchange: id: leaf 'ada.1' shows")
    assert refused(rewritten(eve, of="eve@b")).startswith("key_exchange: signature"), (
        "the person's own name is no leaf's"
    )
    assert refused(rewritten(eve, of="eve.2@b")).startswith("key_exchange: signature")
    assert refused(rewritten(ada, key=mallory.key)).startswith("key_exchange: signature")
    assert refused(rewritten(ada, incarnation=3)).startswith("key_exchange: signature")
    assert refused(rewritten(ada, of="b")) == "key_exchange: not_a_leaf"
    assert refused(rewritten(ada, answers=mallory.key)) == "key_exchange: unrequested"
    assert refused(rewritten(ada, proof=b"")).startswith("garbage")
    assert refused(rewritten(ada, key=b"")).startswith("garbage")
    assert refused(rewritten(ada, proof=bytes(100))).startswith("key_exchange: certificate")
    spoilt = rewritten(ada)
    assert refused((spoilt[0][:-1] + b"x",)).startswith("checksum")
    assert offer(sim, "c", rewritten(ada, to="c"), "b")[0].startswith("key_exchange: signature"), "it is for d"


def test_a_former_key_exchange_is_not_taken_again_and_the_last_one_is_answered_as_before(sim, authority, seen):
    node = greeted(sim, authority, seen)
    first = exchanges(seen, "ada.1@hub")[0]
    answers = exchanges(seen, "d")
    assert offer(sim, "d", rewritten(first), "c") == []
    sim.run(1.0)
    assert {packet.head for packet in exchanges(seen, "d")} == {answers[0].head}
    assert details(node) == ["key_exchange: unrequested"] or details(node) == []
    node.engine.forwarding.end_to_end._wanted["d"] = None
    sim.run(2.0)
    node.send("d", TEXT)
    sim.run(2.0)
    assert len({packet.head for packet in exchanges(seen, "ada.1@hub")}) == 2
    assert offer(sim, "d", rewritten(first), "c") == ["key_exchange: replayed"]
    again = node.send("d", TEXT)
    sim.run(2.0)
    assert again.replies == [TEXT]


def test_a_member_can_make_a_node_verify_so_many_key_exchanges_and_no_more(sim, authority, seen):
    greeted(sim, authority, seen)
    first = exchanges(seen, "ada.1@hub")[0]
    limit = sim.nodes["d"].engine.neighbours.up()[0].limiter._limits.key_exchanges
    reasons = [offer(sim, "d", rewritten(first, incarnation=n), "c") for n in range(int(limit.burst) + 5)]
    assert reasons[-1] == ["rate_limited: key_exchanges"]
    assert sum(reason == ["rate_limited: key_exchanges"] for reason in reasons) <= 6


def test_a_leaf_that_was_revoked_is_sealed_for_no_more_and_heard_no_more(sim, authority, seen):
    node = greeted(sim, authority, seen)
    sim.nodes["d"].plugin = lambda node, job: None
    waiting = node.send("d", TEXT)
    sim.run(1.0)
    engine = sim.nodes["d"].engine
    authority.states["d"].trust.revoke(authority.revoke("ada", NOW + 10))
    sim.nodes["d"].do(engine.trust_changed(sim.nodes["d"].now))
    assert engine.identity("ada.1@hub") is None
    before = len(seen)
    sim.run(3.0)
    later = [wire.decode_packet(frames) for frames in seen[before:]]
    assert not any(packet.kind == Kind.CHUNK and packet.source == "d" for packet in later)
    assert "unsealable: disbelieved" in details(sim.nodes["d"])
    assert waiting.replies == []


# --- time, loss, and limits -----------------------------------------------------------------------------------------


def test_it_goes_on_after_the_node_has_restarted(sim, authority, seen):
    node = greeted(sim, authority, seen)
    sim.nodes["d"].restart()
    lost = node.send("d", TEXT, route_timeout=30.0)
    sim.run(10.0)
    assert lost.eof.reason == "node_restarted", "its first chunk may have arrived before"
    outcome = node.send("d", TEXT)
    sim.run(5.0)
    assert outcome.replies == [TEXT]


def test_it_goes_on_after_the_node_has_forgotten_its_keys(sim, authority, seen):
    node = greeted(sim, authority, seen)
    sim.run(120.0)
    assert len(sim.nodes["d"].engine.forwarding.key_exchanges) == 0
    outcome = node.send("d", TEXT)
    sim.run(5.0)
    assert outcome.replies == [TEXT]
    node.engine.forwarding.key_exchanges._parties.clear()
    outcome = node.send("d", TEXT)
    sim.run(5.0)
    assert outcome.replies == [TEXT]


def test_keys_that_are_lost_at_the_node_alone_are_exchanged_anew(sim, authority, seen):
    node = greeted(sim, authority, seen)
    sim.nodes["d"].engine.forwarding.key_exchanges._parties.clear()
    outcome = node.send("d", TEXT)
    sim.run(5.0)
    assert outcome.replies == [TEXT]
    assert "unsealable: no_key" in details(sim.nodes["d"])


def test_keys_are_kept_while_there_is_an_exchange(sim, authority, seen):
    node = greeted(sim, authority, seen)
    sim.nodes["d"].plugin = lambda node, job: None
    slow = node.send("d", TEXT, timeout=300.0)
    sim.run(90.0)
    assert len(sim.nodes["d"].engine.forwarding.key_exchanges) == 1
    assert node.engine.forwarding.key_exchanges.knows("d")
    assert slow.eof is None


def test_a_leaf_that_moves_to_another_node_keeps_its_keys(sim, authority, seen):
    node = greeted(sim, authority, seen)
    sim.connect("ada.1", "b")
    sim.run(2.0)
    before = len({packet.head for packet in exchanges(seen, "ada.1@hub")})
    sim.nodes["hub"].kill()
    outcome = node.send("d", TEXT)
    sim.run(30.0)
    assert outcome.replies == [TEXT]
    assert node.engine.address == "ada.1@b"
    assert len({packet.head for packet in exchanges(seen, "ada.1@b")}) == 0 < before


def test_after_a_day_or_half_of_the_packets_keys_are_exchanged_anew_under_way(sim, authority, seen):
    node = greeted(sim, authority, seen)
    parties = node.engine.forwarding.key_exchanges._parties
    key = parties["d"].sessions[-1][0]
    for change in ("age", "counter"):
        if change == "age":
            parties["d"].made_at -= 86400
        else:
            parties["d"].sending.highest = 1 << 31
        outcomes = []
        for _ in range(30):
            outcomes.append(node.send("d", TEXT))
            sim.run(0.5)
        assert all(outcome.replies == [TEXT] for outcome in outcomes)
        assert parties["d"].sessions[-1][0] != key
        key = parties["d"].sessions[-1][0]
    party = sim.nodes["d"].engine.forwarding.key_exchanges._parties["ada.1@"]
    assert party.sessions[-1][1:] == (key, party.sending)


def test_a_key_seals_so_many_packets_and_no_more(sim, authority, seen):
    node = greeted(sim, authority, seen)
    forwarding = sim.nodes["d"].engine.forwarding
    forwarding.key_exchanges._parties["ada.1@"].sending.counter = 1 << 32
    assert forwarding._encode(Kind.ACK, "ada.1@hub", "d", b"", b"") is None
    assert forwarding.take() == [Report("frame_dropped", "hub", None, "no_key")]
    assert node.engine.forwarding.key_exchanges.knows("d")


def test_an_error_about_its_packet_comes_back_to_it_alone(sim, authority, seen):
    node = greeted(sim, authority, seen)
    sim.nodes["d"].plugin = lambda node, job: None
    outcome = node.send("d", TEXT, route_timeout=1.0)
    sim.run(1.0)
    sim.nodes["d"].kill()
    sim.run(60.0)
    assert outcome.eof.reason
    assert any(wire.decode_packet(frames).kind == Kind.UNREACHABLE for frames in seen)
    assert not any(detail.startswith("unsealable") for detail in details(sim.nodes["hub"]))


def test_an_error_that_its_own_node_has_made_up_is_dropped(sim, authority, seen):
    node = greeted(sim, authority, seen)
    link = node.engine.links()[0]
    note = wire.Unreachable(Kind.CHUNK, "restarted", "hub", "d", (), 3.0)
    head = wire.encode_chunk(b"m" * 16, True, 0, 0, 9, 0, 1, 1)
    reasons = []
    for made_up, body in (
        (note, head),
        (note._replace(reason="no_route"), head),
        (note._replace(reason="no_route"), bytes(40)),
        (note._replace(reason="no_route", kind=Kind.KEY_EXCHANGE), b""),
    ):
        before = len(details(node))
        frames = wire.encode_packet(Kind.UNREACHABLE, "ada.1@hub", "hub", wire.encode(made_up), body)
        node.do(node.engine.receive(link.id, frames, node.now))
        reasons.append(details(node)[before:])
    assert reasons[0] == ["unsealable: forged"]
    assert reasons[1] == ["unsealable: not_ours"]
    assert reasons[2] == ["unsealable: not_ours"]
    assert reasons[3] == ["unsealable: not_ours"]
    expired = wire.encode(wire.Expired(Kind.KEY_EXCHANGE, "hub", "d"))
    node.do(node.engine.receive(link.id, wire.encode_packet(Kind.EXPIRED, "ada.1@hub", "hub", expired, b""), node.now))
    assert node.send("d", TEXT) is not None


def test_garbage_for_a_leaf_that_seals_for_itself_ends_at_its_node(sim, authority, seen):
    greeted(sim, authority, seen)
    short = wire.encode_sealed(Kind.ACK, "ada.1@hub", "d", bytes(3), b"", sealed=SEALED)
    (reason,) = offer(sim, "hub", short, "b")
    assert reason.startswith("garbage")


def test_an_error_about_what_it_has_said_to_its_own_node_is_taken(sim, authority):
    node = leaf(sim, authority)
    link = node.engine.links()[0]
    head = wire.encode(wire.Unreachable(Kind.CHUNK, "full", "hub", "hub", (), 0.0))
    chunk = wire.encode_chunk(b"m" * 16, True, 0, 0, 9, 0, 1, 1)
    frames = wire.encode_packet(Kind.UNREACHABLE, "ada.1@hub", "hub", head, chunk)
    node.do(node.engine.receive(link.id, frames, node.now))
    assert details(node) == []
