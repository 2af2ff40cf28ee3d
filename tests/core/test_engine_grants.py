"""A leaf without a certificate at its node's own socket: a grant of that node lets it seal for itself."""

import random

import pytest

from tests.core.engine_harness import NOW
from zmesh.core import wire
from zmesh.core.limits import Limits, Rate
from zmesh.core.wire import FLAG_LEAF, Kind
from zmesh.identity import Grant, IdentityKey, LeafKey
from zmesh.identity.grant import LIFETIME, given, read_given
from zmesh.testing.authority import TestAuthority
from zmesh.testing.simulator import Simulator
from zmesh.testing.simversions import OtherRange

TEXT = b"the quick brown fox jumps over the lazy dog; " * 3


class Older(OtherRange):
    """A node that knows no grants: it says so in no HELLO and no record."""

    def __init__(self, sim, id, options):
        super().__init__(sim, id, options, 2, 2)
        self.extensions = {}

    def transmit(self, link, frames):
        """Send a HELLO without the extension."""
        packet = wire.decode_packet(frames) if len(frames) <= 2 else None
        if packet is not None and packet.kind == Kind.HELLO:
            hello = wire.decode_hello(packet.head)
            kept = {number: content for number, content in hello.extensions.items() if number != wire.GRANTS}
            frames = wire.encode_link(Kind.HELLO, hello._replace(extensions=kept))
        return super().transmit(link, frames)

    def _extend(self, record):
        return record._replace(extensions={n: c for n, c in record.extensions.items() if n != wire.GRANTS})

    def _strip(self, record):
        return record._replace(extensions={**record.extensions, wire.GRANTS: b""})


CHAIN = ("home", "b", "c", "d")


@pytest.fixture
def calm(authority):
    """Two nodes that probe their link seldom, so that hours pass quickly."""
    sim = Simulator(3)
    sim.chain("home", "d", epoch=float(NOW), credentials=authority.installed, heartbeat=60.0)
    assert sim.settle()
    return sim


def leaf(sim, id="cli", at="home", seed=1, **options):
    """A leaf at the own socket of a node."""
    options |= {"epoch": float(NOW), "leaf_key": lambda: LeafKey(random.Random(seed).randbytes)}
    node = sim.add(id, leaf=True, **options)[0]
    sim.connect(id, at).local = True
    assert sim.run_until(lambda: bool(node.engine.links()), 5.0)
    return node


def details(node, event="frame_dropped"):
    return [report.detail for report in node.reports if report.event == event]


def answered(sim, node, to, text=TEXT):
    """Whether a request was."""
    outcome = node.send(to, text)
    sim.run(4.0)
    return outcome.replies == [text]


def parties(sim, at):
    return sim.nodes[at].engine.forwarding.key_exchanges._parties


def exchanges(seen, source):
    found = [wire.decode_packet(frames) for frames in seen]
    return [packet for packet in found if (packet.kind, packet.source) == (Kind.KEY_EXCHANGE, source)]


def offer(sim, at, frames, of):
    """Put a packet on a link of a node; why it is dropped, if it is."""
    node = sim.nodes[at]
    before = len(details(node))
    link = next(link for link in node.engine.links() if link.node == of)
    node.do(node.engine.receive(link.id, frames, node.now))
    return details(node)[before:]


def shown(sim, grant, home="home"):
    """What a leaf shows that has this grant, with the certificate of a node."""
    credentials = sim.nodes[home].engine.credentials
    return read_given(given(grant, credentials.own.data, "lab", credentials.trust.authorities))[2]


def offered(sim, source, grant, key, home="home", to="d", time=NOW * 1000 + 60_000):
    """A KEY_EXCHANGE that whoever has `key` makes, with a grant."""
    exchange = sim.nodes["b"].engine.credentials.new_key().public
    statement = wire.signed_key_exchange("lab", time, source, 7, exchange, to, b"")
    proof = wire.encode_proof(wire.Proof(time, key.sign(statement), shown(sim, grant, home)))
    return wire.encode_packet(
        Kind.KEY_EXCHANGE, to, source, wire.encode(wire.KeyExchange(7, exchange, b"", proof)), b""
    )


# --- what it is for -------------------------------------------------------------------------------------------------


def test_neither_its_own_node_nor_any_other_on_the_path_reads_what_it_sends_or_gets(sim, seen):
    node = leaf(sim)
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


def test_others_know_it_as_a_leaf_of_its_node_in_whose_name_it_acts(sim, authority):
    node = leaf(sim)
    assert answered(sim, node, "d")
    assert sim.nodes["d"].engine.identity("cli@home").id == "home"
    party = parties(sim, "d")["cli@home"]
    assert party.certified.public == node.engine.forwarding.key_exchanges._credentials.key.public
    grant = party.certified.details.grant
    assert (grant.mesh, grant.home, grant.leaf) == ("lab", "home", "cli")
    assert grant.not_after - NOW == pytest.approx(LIFETIME, abs=60)


def test_what_it_says_to_its_own_node_needs_no_key(sim, seen):
    node = leaf(sim)
    assert answered(sim, node, "home")
    assert {wire.decode_packet(frames).kind for frames in seen} == {Kind.CHUNK, Kind.ACK}
    assert not node.engine.forwarding.key_exchanges.has_credentials


def test_a_node_may_begin(sim, seen):
    node = leaf(sim)
    assert answered(sim, sim.nodes["d"], "cli@home")
    assert answered(sim, node, "d")
    assert answered(sim, sim.nodes["d"], "cli@home")
    assert exchanges(seen, "cli@home")


def test_leaves_of_the_same_name_at_two_nodes_are_two(sim):
    one = leaf(sim)
    assert answered(sim, one, "d")
    key = IdentityKey.from_seed(bytes(32))
    theirs = sim.nodes["b"].engine.credentials
    grant = Grant.sign(theirs.key, "lab", "b", "cli", key.public, NOW + 60, 1)
    assert offer(sim, "d", offered(sim, "cli@b", grant, key, "b"), "c") == []
    assert parties(sim, "d").keys() >= {"cli@home", "cli@b"}
    assert answered(sim, one, "d")


def test_two_such_leaves_talk_through_their_nodes(sim):
    one, other = leaf(sim), leaf(sim, "other", "d", 2)
    assert answered(sim, one, "other@d")
    assert answered(sim, other, "cli@home")


def test_it_talks_with_a_leaf_that_has_a_certificate(sim, authority, seen):
    one = leaf(sim)
    authority.states["ada"] = authority.credentials("ada")
    laptop = sim.add("ada.1", epoch=float(NOW), leaf=True, credentials=lambda id: authority.installed("ada"))[0]
    sim.connect("ada.1", "c")
    assert sim.run_until(lambda: bool(laptop.engine.links()), 5.0)
    outcomes = [one.send("ada.1@c", TEXT), laptop.send("cli@home", TEXT)]
    sim.run(20.0)
    assert [outcome.replies for outcome in outcomes] == [[TEXT], [TEXT]]


def test_a_leaf_with_a_dot_in_its_name_gets_none(sim, seen):
    node = leaf(sim, "ada.1")
    assert answered(sim, node, "d")
    assert exchanges(seen, "ada.1@home") == []
    assert node.engine.forwarding.key_exchanges is None


# --- nodes of before ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("older", ["home", "d", "b"])
def test_with_a_node_that_knows_no_grants_it_talks_as_before(authority, older):
    sim = Simulator(5)
    options = {"epoch": float(NOW), "credentials": authority.installed}
    for id in ("home", "b", "d"):
        if id == older:
            sim.nodes[id] = Older(sim, id, options)
        else:
            sim.add(id, **options)
    sim.connect("b", "home")
    sim.connect("d", "b")
    assert sim.settle()
    node = leaf(sim)
    assert answered(sim, node, "d")
    assert answered(sim, sim.nodes["d"], "cli@home")
    assert ("cli@home" in parties(sim, "d")) == (older == "b")
    assert all(details(other) == [] for other in sim.all())


# --- time -----------------------------------------------------------------------------------------------------------


def test_it_is_renewed_on_a_link_that_lasts_and_keys_are_exchanged_anew_before_it_ends(calm):
    sim, node = calm, leaf(calm, heartbeat=60.0)
    assert answered(sim, node, "d")
    first = parties(sim, "d")["cli@home"].certified.details.grant
    for _ in range(10):
        sim.run(LIFETIME / 5)
        assert answered(sim, node, "d")
    last = parties(sim, "d")["cli@home"].certified.details.grant
    assert last.serial > first.serial
    assert last.not_after > first.not_after + LIFETIME
    assert all(details(other, "not_trusted") == [] for other in sim.all())


def test_one_that_has_expired_is_refused_counted_and_logged_at_both_ends(sim):
    node = leaf(sim)
    assert answered(sim, node, "b")
    d = sim.nodes["d"]
    d.do(d.engine.clock_set(float(NOW) + 3 * LIFETIME, d.now))
    outcome = node.send("d", TEXT)
    sim.run(4.0)
    assert outcome.eof.reason == "not_trusted"
    assert "the grant of leaf 'cli' by node 'home' expired" in outcome.eof.error
    assert "the clock of 'd' is 3 h ahead of that of 'home'" in outcome.eof.error
    assert details(d)[0].startswith("key_exchange: expired")
    assert details(d, "not_trusted")[0] == outcome.eof.error
    assert not node.engine.forwarding.key_exchanges.is_by_home("d")


def test_one_that_expires_unrenewed_is_sealed_for_no_more(calm):
    sim, node = calm, leaf(calm, heartbeat=60.0)
    assert answered(sim, node, "d")
    node.engine.forwarding.end_to_end.request_grant = lambda now: None
    sim.run(LIFETIME + 30.0)
    outcome = node.send("d", TEXT, timeout=5.0)
    sim.run(10.0)
    assert outcome.replies == []
    assert outcome.eof.reason == "not_trusted"


# --- lies -----------------------------------------------------------------------------------------------------------


def test_no_node_can_vouch_for_the_leaf_of_another(sim):
    leaf(sim)
    key = IdentityKey.from_seed(bytes(32))
    liar = sim.nodes["b"].engine.credentials
    about = (key.public, NOW + 60, 1)

    def refused(source, grant, home="b", by=key):
        (reason,) = offer(sim, "d", offered(sim, source, grant, by, home), "c")
        return reason

    below = Grant.sign(liar.key, "lab", "b", "cli", *about)
    forged = Grant.sign(liar.key, "lab", "home", "cli", *about)
    assert refused("cli@home", forged).startswith("key_exchange: id: leaf 'cli' of node 'home' shows")
    assert refused("cli@home", below).startswith("key_exchange: id")
    assert refused("cli@home", forged, "home").startswith("key_exchange: signature")
    assert refused("other@b", below).startswith("key_exchange: id")
    assert refused("cli@b", Grant.sign(liar.key, "prod", "b", "cli", *about)).startswith("key_exchange: mesh")
    assert refused("cli@b", below, by=IdentityKey.from_seed(bytes(31) + b"1")).startswith("key_exchange: signature")
    assert refused("cli.1@b", below).startswith("key_exchange: certificate")
    assert "zmesh revoke home" in refused("cli@home", forged, "home")
    assert offer(sim, "d", offered(sim, "cli@b", below, key, "b"), "c") == []
    assert "cli@home" not in parties(sim, "d")


def test_its_node_can_not_speak_in_its_name_once_keys_were_exchanged(sim):
    node = leaf(sim)
    assert answered(sim, node, "d")
    hub = sim.nodes["home"].engine.forwarding
    head = wire.encode_chunk(b"m" * 16, True, 0, wire.FLAG_LAST, 9, 0, 1, sim.nodes["d"].engine.incarnation)
    sealed = hub.sealing.seal(Kind.CHUNK, "d", "cli@home", head, b"rm -rf")
    frames = wire.encode_sealed(Kind.CHUNK, "d", "cli@home", *sealed)
    assert offer(sim, "d", frames, "c") == ["unsealable: not_by_the_leaf"]


def test_a_forged_refusal_ends_nothing(sim):
    """A member can have a node refuse a key exchange in the name of a leaf, which has sent another one."""
    node = leaf(sim)
    outcome = node.send("d", TEXT)
    link = node.engine.links()[0]
    for reason in ("not_trusted", "no_grants"):
        note = wire.encode(wire.Unreachable(Kind.KEY_EXCHANGE, reason, "home", "d", (), 0.0, "made up"))
        frames = wire.encode_packet(Kind.UNREACHABLE, "cli@home", "home", note, b"of another")
        node.do(node.engine.receive(link.id, frames, node.now))
    assert len(details(node)) == 2
    sim.run(4.0)
    assert outcome.replies == [TEXT]


def test_only_its_node_and_the_other_end_can_say_that_no_grants_are_taken(sim, seen):
    node = leaf(sim)
    assert answered(sim, node, "c")
    exchange = node.engine.forwarding.key_exchanges
    head = exchange.request("d", node.now)
    note = wire.encode(wire.Unreachable(Kind.KEY_EXCHANGE, "no_grants", "b", "d", (), 0.0))
    frames = wire.encode_packet(Kind.UNREACHABLE, "cli@home", "b", note, head)
    link = node.engine.links()[0]
    node.do(node.engine.receive(link.id, frames, node.now))
    assert details(node) == ["unsealable: forged"]
    assert not exchange.is_by_home("d")


def test_a_revoked_node_vouches_for_nobody(sim, authority):
    node = leaf(sim)
    assert answered(sim, node, "d")
    d = sim.nodes["d"]
    d.engine.credentials.trust.revoke(authority.revoke("home", NOW + 30))
    d.do(d.engine.trust_changed(d.now))
    assert not parties(sim, "d")["cli@home"].is_believed


# --- limits and what is malformed -----------------------------------------------------------------------------------


def test_where_there_is_no_room_for_its_keys_its_node_seals_for_it(authority):
    sim = Simulator(3)
    limits = Limits(key_parties_per_identity=1)
    sim.chain("home", "d", epoch=float(NOW), credentials=authority.installed, limits=limits)
    assert sim.settle()
    nodes = [leaf(sim, f"cli-{number}", seed=number) for number in range(3)]
    outcomes = [node.send("d", TEXT) for node in nodes]
    sim.run(8.0)
    assert [outcome.replies for outcome in outcomes] == [[TEXT]] * 3
    assert len(parties(sim, "d")) == 1


def test_a_leaf_gets_grants_at_a_rate_and_no_others_do(sim):
    node = leaf(sim)
    home = sim.nodes["home"]
    request = wire.encode_link(Kind.GRANT, wire.Grant(bytes(32)))
    limit = int(home.engine.neighbours.up()[0].limiter._limits.key_exchanges.burst)
    reasons = [offer(sim, "home", request, "cli") for _ in range(limit + 2)]
    assert reasons[0] == []
    assert reasons[-1] == ["rate_limited: key_exchanges, GRANT"]
    assert offer(sim, "home", request, "b") == ["unexpected: GRANT"]
    sim.run(1.0)
    assert set(details(node)) == {"unexpected: GRANT"}, "they were not requested"


def test_a_grant_that_is_none_is_dropped_and_the_next_one_taken(sim):
    node = leaf(sim)
    key = IdentityKey.from_seed(bytes(32))
    credentials = sim.nodes["home"].engine.credentials
    other = given(
        Grant.sign(credentials.key, "lab", "home", "cli", key.public, NOW, 1), credentials.own.data, "lab",
        credentials.trust.authorities,
    )  # fmt: skip
    link = node.engine.links()[0]
    for grant, reason in ((b"", "grant: signature"), (b"\x93", "grant: signature"), (other, "grant: signature")):
        sim.run(1.5)
        before = len(details(node))
        node.engine._grants._request(node.now)
        node.engine.forwarding.take()
        node.do(node.engine.receive(link.id, wire.encode_link(Kind.GRANT, wire.Grant(bytes(32), grant)), node.now))
        (found,) = details(node)[before:]
        assert found.startswith(reason)
    assert answered(sim, node, "d")


def test_a_node_that_gives_no_grant_to_be_believed_is_named_at_once(sim, monkeypatch):
    home = sim.nodes["home"].engine.credentials
    monkeypatch.setattr(home, "key", IdentityKey.from_seed(bytes(32)))
    node = leaf(sim)
    outcomes = [node.send("d", TEXT), node.send("c", TEXT), node.send("home", TEXT)]
    sim.run(2.0)
    assert [outcome.eof.reason for outcome in outcomes] == ["not_trusted", "not_trusted", ""]
    assert "a grant that node 'home' (key SHA256:" in outcomes[0].eof.error


def test_keys_are_taken_by_a_leaf_that_has_a_grant_only(sim):
    node = leaf(sim)
    key = IdentityKey.from_seed(bytes(32))
    grant = Grant.sign(sim.nodes["b"].engine.credentials.key, "lab", "b", "other", key.public, NOW, 1)
    assert offer(sim, "cli", offered(sim, "other@b", grant, key, "b", "cli@home"), "home") == ["key_exchange: no_grant"]
    assert answered(sim, node, "d")


def test_a_leaf_takes_no_keys_that_are_not_signed_with_the_key_of_their_grant(sim):
    node = leaf(sim)
    assert answered(sim, node, "d")
    key, other = IdentityKey.from_seed(bytes(32)), IdentityKey.from_seed(bytes([1] * 32))
    grant = Grant.sign(sim.nodes["b"].engine.credentials.key, "lab", "b", "other", key.public, NOW, 1)
    (reason,) = offer(sim, "cli", offered(sim, "other@b", grant, other, "b", "cli@home"), "home")
    assert reason.startswith("key_exchange: signature: ")


def test_a_leaf_is_answered_at_a_rate_that_a_node_takes_no_grants(authority):
    sim = Simulator(5)
    options = {"epoch": float(NOW), "credentials": authority.installed}
    sim.add("home", **options, limits=Limits(error_frames=Rate(1e-6, 2)))
    sim.nodes["d"] = Older(sim, "d", options)
    sim.connect("d", "home")
    assert sim.settle()
    node = leaf(sim)
    assert answered(sim, node, "d"), "the first of two answers"
    head = node.engine.forwarding.key_exchanges.request("d", node.now)
    for _ in range(4):
        assert offer(sim, "home", wire.encode_packet(Kind.KEY_EXCHANGE, "d", "cli@home", head, b""), "cli") == []
    sim.run(1.0)
    assert details(node) == ["unsealable: not_ours"], "the second one, about a request that it has not made"
    assert details(sim.nodes["d"]) == []


def test_a_grant_is_requested_anew_for_an_authority_that_was_not_known_at_the_last_one(sim, authority):
    node = leaf(sim)
    assert answered(sim, node, "c")
    successor = TestAuthority(seed=9)
    for other in ("home", "b", "c", "d"):
        assert sim.nodes[other].engine.credentials.trust.endorse(authority.endorse(successor))
    d = sim.nodes["d"].engine.credentials
    d.renew(successor.certificate("d", d.key, begins=NOW - 60))
    assert answered(sim, node, "d")
    assert [detail[:23] for detail in details(node)] == ["key_exchange: authority"]


def test_it_asks_again_at_a_node_that_it_comes_back_to_and_at_another(sim):
    node = leaf(sim)
    assert answered(sim, node, "d")
    outcome = node.send("d", TEXT)
    sim.nodes["home"].kill()
    sim.run(2.0)
    sim.nodes["home"].start()
    sim.run(20.0)
    assert outcome.eof is not None
    assert answered(sim, node, "d")
    sim.nodes["home"].kill()
    sim.connect("cli", "c").local = True
    sim.run(30.0)
    assert node.engine.forwarding.address == "cli@c"
    assert answered(sim, node, "d")
    assert parties(sim, "d")["cli@c"].certified.identity.id == "c"
