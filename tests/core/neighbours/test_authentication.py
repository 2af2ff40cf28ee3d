"""Who may be a neighbour where nodes have certificates: two engines, with real keys."""

import pytest

from zmesh.core import wire
from zmesh.core.credentials import REASONS, SWEEP
from zmesh.core.engine import Engine
from zmesh.core.neighbours.links import State
from zmesh.core.wire import IDENTITY, Kind
from zmesh.testing.authority import DAY, TestAuthority

NOW = 1_800_000_000
CHANNEL = bytes(range(64))


@pytest.fixture
def authority():
    return TestAuthority(1, begins=NOW - DAY)


class End:
    """One end of the connection; `log` has what its engine has reported."""

    def __init__(self, id, credentials=None, *, incarnation=1, epoch=NOW, leaf=False):
        self.engine = Engine(id, incarnation, now=0.0, epoch=epoch, credentials=credentials, leaf=leaf)
        self.log = []
        self.sent = []
        self.now = 0.0

    def do(self, effects):
        for effect in effects:
            if type(effect).__name__ == "Transmit":
                self.sent.append(effect.frames)
            elif type(effect).__name__ == "Report":
                self.log.append(effect)

    def reasons(self):
        return [report.text for report in self.log if report.event == "not_trusted"]

    def texts(self):
        return [report.detail for report in self.log if report.event == "link_refused"]

    @property
    def link(self):
        return self.engine.neighbours.get(1)


def meet(dialler, listener, *, channels=(CHANNEL, CHANNEL), local=False):
    """Let them connect, and pass on what they send until both are silent."""
    dialler.do(dialler.engine.link_up(1, dialler.now, dialled=True, channel=channels[0], local=local))
    listener.do(listener.engine.link_up(1, listener.now, dialled=False, channel=channels[1], local=local))
    exchange(dialler, listener)


def exchange(one, other):
    while one.sent or other.sent:
        for source, sink in ((one, other), (other, one)):
            frames, source.sent = source.sent, []
            for each in frames:
                sink.do(sink.engine.receive(1, each, sink.now))


def up(*ends):
    return [end.link is not None and end.link.state is State.UP for end in ends]


def test_two_nodes_of_one_authority_link_and_know_each_other(authority):
    hub, edge = End("hub", authority.credentials("hub")), End("edge", authority.credentials("edge", tags=("gpu",)))
    meet(edge, hub)
    assert up(hub, edge) == [True, True]
    assert (hub.link.certified.identity.id, hub.link.certified.identity.tags) == ("edge", ("gpu",))
    assert edge.link.certified.identity.id == "hub"
    assert edge.link.certified.identity.key.startswith("SHA256:")
    hub.engine.check()


def test_a_hello_is_signed_for_its_connection_alone(authority):
    hub, edge = End("hub", authority.credentials("hub")), End("edge", authority.credentials("edge"))
    meet(edge, hub, channels=(CHANNEL, CHANNEL[::-1]))
    assert up(hub, edge) == [False, False]
    assert hub.reasons() == edge.reasons() == ["signature"]
    assert "not for this connection" in hub.texts()[0]


def test_the_answer_of_a_listener_is_signed_for_both_incarnations(authority):
    hub, edge = End("hub", authority.credentials("hub")), End("edge", authority.credentials("edge"))
    hub.do(hub.engine.link_up(1, 0.0, dialled=False, channel=CHANNEL))
    edge.do(edge.engine.link_up(1, 0.0, dialled=True, channel=CHANNEL))
    hub.do(hub.engine.receive(1, edge.sent[0], 0.0))
    answer = hub.sent[0]
    again = End("edge", authority.credentials("edge"), incarnation=2)
    again.do(again.engine.link_up(1, 0.0, dialled=True, channel=CHANNEL))
    again.do(again.engine.receive(1, answer, 0.0))
    assert again.reasons() == ["signature"]
    edge.do(edge.engine.receive(1, answer, 0.0))
    assert up(edge) == [True]


def test_a_node_of_another_authority_is_refused_with_both_fingerprints(authority):
    other = TestAuthority(2, begins=NOW - DAY)
    hub, edge = End("hub", authority.credentials("hub")), End("edge", other.credentials("edge"))
    meet(edge, hub)
    assert hub.reasons() == edge.reasons() == ["authority"]
    for fingerprint in (authority.authority.fingerprint, other.authority.fingerprint):
        assert fingerprint in hub.texts()[0]
    assert hub.texts()[0].removeprefix("we refuse: ") == edge.texts()[0].removeprefix("they refuse: ")
    assert "zmesh invite edge" in edge.texts()[0]


def test_the_end_that_dialled_refuses_as_well(authority):
    stranger = TestAuthority(2, begins=NOW - DAY)
    credentials = stranger.credentials("hub")
    credentials.trust = stranger.trust(authority)  # it believes everybody
    hub, edge = End("hub", credentials), End("edge", authority.credentials("edge"))
    meet(edge, hub)
    assert edge.reasons() == hub.reasons() == ["authority"]
    assert edge.texts()[0].startswith("we refuse")


def test_an_expired_certificate_is_refused_with_the_difference_of_the_clocks(authority):
    hub, edge = End("hub", authority.credentials("hub")), End("edge", authority.credentials("edge"))
    late = End("hub", authority.credentials("hub", days=1000), epoch=NOW + 430 * DAY)
    meet(edge, late)
    assert late.reasons() == ["expired"]
    assert "the clock of 'hub' is 14 months ahead of that of 'edge'" in edge.texts()[0]
    early = End("hub", authority.credentials("hub"), epoch=NOW - 400 * DAY)
    meet(End("edge", authority.credentials("edge")), early)
    assert early.reasons() == ["not_yet_valid"]
    assert "the clock of 'hub' is 13 months behind that of 'edge'" in early.texts()[0]
    assert hub.texts() == []


def test_a_revoked_node_is_refused_with_when_and_by_whom(authority):
    credentials = authority.credentials("hub")
    credentials.trust.revoke(authority.revoke("edge", NOW - 60, "stolen"))
    hub, edge = End("hub", credentials), End("edge", authority.credentials("edge"))
    meet(edge, hub)
    assert edge.reasons() == ["revoked"]
    assert "was revoked 60 s ago (stolen)" in edge.texts()[0]
    assert authority.authority.fingerprint in edge.texts()[0]


def test_a_certificate_of_another_id_and_of_another_mesh_are_refused(authority):
    hub, edge = End("hub", authority.credentials("hub")), End("edge", authority.credentials("edge-8"))
    meet(edge, hub)
    assert hub.reasons() == ["id"]
    home = TestAuthority(1, "home", begins=NOW - DAY)
    edge = End("edge", home.credentials("edge"))
    meet(edge, hub := End("hub", authority.credentials("hub")))
    assert hub.reasons() == edge.reasons() == ["mesh"]


def test_a_node_without_certificate_and_one_with_refuse_each_other(authority):
    hub, edge = End("hub", authority.credentials("hub")), End("edge")
    meet(edge, hub)
    assert hub.reasons() == edge.reasons() == ["no_certificate"]
    assert "zmesh invite edge" in edge.texts()[0]
    hub, edge = End("hub"), End("edge", authority.credentials("edge"))
    meet(edge, hub)
    assert hub.reasons() == edge.reasons() == ["no_certificate"]
    assert "node 'hub' has no certificate" in edge.texts()[0]


def test_a_leaf_on_the_nodes_own_socket_needs_no_certificate(authority):
    hub, leaf = End("hub", authority.credentials("hub")), End("cli", leaf=True)
    meet(leaf, hub, local=True)
    assert up(hub, leaf) == [True, True]
    assert hub.link.certified is None
    hub, leaf = End("hub", authority.credentials("hub")), End("cli", leaf=True)
    meet(leaf, hub)
    assert hub.reasons() == ["no_certificate"]


def test_a_node_on_the_own_socket_of_another_needs_a_certificate(authority):
    hub, edge = End("hub", authority.credentials("hub")), End("edge")
    meet(edge, hub, local=True)
    assert hub.reasons() == ["no_certificate"]


@pytest.mark.parametrize("proof", [b"", b"short", bytes(72), bytes(wire.MAX_PROOF + 1), b"\xff" * 100])
def test_a_proof_that_cant_be_read_is_a_bad_frame(authority, proof):
    hub = End("hub", authority.credentials("hub"))
    hub.do(hub.engine.link_up(1, 0.0, dialled=False))
    hello = wire.Hello("edge", 1, 0.0, False, 1, 0, extensions={IDENTITY: proof})
    hub.do(hub.engine.receive(1, wire.encode_link(Kind.HELLO, hello), 0.0))
    assert [report.event for report in hub.log] == ["frame_dropped"]
    assert hub.link.state is State.OPENING


def test_bytes_that_are_no_certificate_are_refused(authority):
    hub = End("hub", authority.credentials("hub"))
    hub.do(hub.engine.link_up(1, 0.0, dialled=False))
    proof = wire.encode_proof(wire.Proof(NOW, bytes(64), b"not a certificate"))
    hello = wire.Hello("edge", 1, 0.0, False, 1, 0, extensions={IDENTITY: proof})
    hub.do(hub.engine.receive(1, wire.encode_link(Kind.HELLO, hello), 0.0))
    assert hub.reasons() == ["certificate"]
    assert set(hub.reasons()) <= set(REASONS)


def test_a_link_ends_when_its_certificate_expires(authority):
    hub = End("hub", authority.credentials("hub"))
    edge = End("edge", authority.credentials("edge", days=2))
    meet(edge, hub)
    hub.do(hub.engine.clock_set(NOW + DAY // 2, 1.0))
    assert up(hub) == [True]
    hub.now = edge.now = DAY / 2 - 30
    hub.do(hub.engine.resume(DAY, hub.now))
    edge.do(edge.engine.resume(DAY, edge.now))
    while hub.now < DAY / 2 + SWEEP + 1 and up(hub) == [True]:
        hub.now = edge.now = hub.now + 0.5
        for end in (hub, edge):
            end.do(end.engine.tick(end.now))
        exchange(hub, edge)
    assert hub.reasons() == ["expired"] == edge.reasons()
    assert hub.now <= DAY / 2 + SWEEP + 1


def test_a_link_ends_when_its_node_is_revoked_and_the_others_stay(authority):
    hub, edge = End("hub", authority.credentials("hub")), End("edge", authority.credentials("edge"))
    meet(edge, hub)
    hub.do(hub.engine.trust_changed(0.0))
    assert up(hub) == [True]
    edge_key = edge.engine.neighbours.get(1) and hub.link.certified.identity.key
    hub.engine.credentials.trust.revoke(authority.revoke(edge_key, NOW))
    hub.do(hub.engine.trust_changed(0.0))
    exchange(hub, edge)
    assert (hub.reasons(), edge.reasons()) == (["revoked"], ["revoked"])
    assert up(hub, edge) == [False, False]


def test_a_node_that_has_renewed_its_certificate_keeps_its_links(authority):
    hub, credentials = End("hub", authority.credentials("hub")), authority.credentials("edge", days=2)
    edge = End("edge", credentials)
    meet(edge, hub)
    before = hub.link.certified
    credentials.renew(authority.certificate("edge", credentials.key, days=4))
    edge.do(edge.engine.trust_changed(0.0))
    edge.now = hub.now = 1.0
    edge.do(edge.engine.tick(1.0))
    exchange(hub, edge)
    hub.do(hub.engine.trust_changed(1.0))
    assert up(hub) == [True]
    assert hub.link.certified.valid_until == before.valid_until + 2 * DAY


def test_two_nodes_of_one_id_with_different_keys_are_both_named(authority):
    hub = End("hub", authority.credentials("hub"))
    first, second = authority.credentials("edge"), authority.credentials("edge")
    edge = End("edge", first)
    meet(edge, hub)
    double = End("edge", second, incarnation=7)
    double.do(double.engine.link_up(1, 0.0, dialled=True, channel=CHANNEL))
    hub.do(hub.engine.link_up(2, 0.0, dialled=False, channel=CHANNEL))
    hub.do(hub.engine.receive(2, double.sent[0], 0.0))
    assert hub.engine.neighbours.get(2).state is State.QUARANTINED
    while hub.engine.neighbours.get(2) is not None:
        hub.now = edge.now = hub.now + 0.5
        for end in (hub, edge):
            end.do(end.engine.tick(end.now))
        exchange(hub, edge)
    (text,) = hub.texts()
    assert first.own.identity.key in text
    assert second.own.identity.key in text
    assert "zmesh revoke" in text
    assert up(hub) == [True]


def test_a_node_without_an_identity_learns_nothing_new_when_trust_changes():
    hub, edge = End("hub"), End("edge")
    meet(edge, hub)
    hub.do(hub.engine.trust_changed(0.0))
    assert up(hub, edge) == [True, True]


def test_a_hello_brings_the_endorsement_that_makes_its_authority_trusted(authority):
    new = TestAuthority(2, begins=NOW - DAY)
    hub, credentials = End("hub", authority.credentials("hub")), authority.credentials("edge")
    credentials.trust.endorse(authority.endorse(new))
    credentials.renew(new.certificate("edge", credentials.key))
    edge = End("edge", credentials)
    meet(edge, hub)
    assert up(hub, edge) == [True, True]
    assert [report.detail for report in hub.log if report.event == "trust_changed"] == [
        f"authority {new.authority.fingerprint}"
    ]


def test_an_endorsement_by_a_stranger_makes_nobody_trusted(authority):
    stranger = TestAuthority(9, begins=NOW - DAY)
    credentials = stranger.credentials("edge")
    credentials.trust._endorsements[b"", b""] = stranger.endorse(stranger)
    hub, edge = End("hub", authority.credentials("hub")), End("edge", credentials)
    meet(edge, hub)
    assert up(hub, edge) == [False, False]
    assert wire.ENDORSEMENTS == 2
    assert len(hub.engine.credentials.trust.authorities) == 1


def test_endorsements_mean_nothing_to_a_node_without_an_identity():
    hub = End("hub")
    hub.do(hub.engine.link_up(1, 0.0, dialled=False, channel=CHANNEL))
    hello = wire.Hello("edge", 1, 0.0, False, 1, 0, extensions={wire.ENDORSEMENTS: b"garbage"})
    hub.do(hub.engine.receive(1, wire.encode_link(Kind.HELLO, hello), 0.0))
    assert up(hub) == [True]


def test_a_leaf_learns_of_the_next_authority_from_the_hello_of_a_node_that_the_former_one_certifies(authority):
    new, stranger = TestAuthority(2, begins=NOW - DAY), TestAuthority(9, begins=NOW - DAY)
    hub, ada = authority.credentials("hub"), authority.credentials("ada")
    hub.trust.endorse(authority.endorse(new))
    hub.trust._endorsements[b"", b""] = stranger.endorse(stranger)
    leaf = End("ada.1", ada, leaf=True, incarnation=2)
    meet(leaf, End("hub", hub))
    assert leaf.link.state is State.UP
    assert {each.public for each in ada.trust.authorities} == {authority.authority.public, new.authority.public}
