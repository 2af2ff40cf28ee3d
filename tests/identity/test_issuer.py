"""The authority's node: certificates, the list of them, revocation, rotation, a key with a passphrase."""

import pytest

from zmesh.errors import ConfigError
from zmesh.identity import Identity, IdentityKey, Issuer, LockedKey, Profile, State, TrustError, TrustStore, fingerprint
from zmesh.identity.issuer import EARLY, VALIDITY

NOW = 1_800_000_000.0
DAY = 86400


@pytest.fixture
def state(tmp_path):
    return State(tmp_path / "lab")


@pytest.fixture
def issuer(state):
    return Issuer.create(state, "lab", NOW)


def identity_at(state, issuer):
    key = IdentityKey.generate()
    return Identity.create(state, Profile("lab", "hub"), key, issuer.issue(key.public, "hub", (), NOW), issuer.trust)


def test_a_certificate_is_valid_from_an_hour_ago_for_ninety_days(issuer):
    issued = issuer.issue(IdentityKey.generate().public, "edge", ("gpu",), NOW)
    assert (issued.not_before, issued.not_after) == (NOW - EARLY, NOW + VALIDITY)
    assert (issued.node_id, issued.tags, issued.mesh) == ("edge", ("gpu",), "lab")
    issuer.trust.check(issued, NOW, "edge")


def test_no_certificate_outlives_its_authority(issuer):
    end = issuer.trust.authorities[0].not_after
    assert issuer.issue(IdentityKey.generate().public, "edge", (), end - 5).not_after == end
    with pytest.raises(ConfigError, match="is not valid any more; zmesh authority rotate"):
        issuer.issue(IdentityKey.generate().public, "edge", (), end)


def test_the_last_certificate_of_each_key_is_noted(state, issuer):
    first, second = IdentityKey.generate(), IdentityKey.generate()
    issuer.issue(first.public, "b", (), NOW)
    issuer.issue(first.public, "b", ("gpu",), NOW + 5)
    issuer.issue(second.public, "a", (), NOW)
    noted = issuer.issued()
    assert [(each.node_id, each.tags, each.key) for each in noted] == [
        ("a", (), fingerprint(second.public)),
        ("b", ("gpu",), fingerprint(first.public)),
    ]
    state.write("issued.json", b'{"issued": [3]}', secret=True)
    with pytest.raises(ConfigError, match="is damaged"):
        issuer.issued()


def test_a_second_authority_is_not_made_in_one_folder(state, issuer):
    with pytest.raises(ConfigError, match="holds an authority already, and it is not overwritten"):
        Issuer.create(state, "lab", NOW)


def test_a_key_with_a_passphrase_needs_it(state):
    issuer = Issuer.create(state, "lab", NOW, "secret")
    identity = identity_at(state, issuer)
    with pytest.raises(LockedKey, match=r"has a passphrase; give it in ZMESH_PASSPHRASE"):
        Issuer.load(identity)
    with pytest.raises(ConfigError, match="not a private key that can be read"):
        Issuer.load(identity, "wrong")
    assert Issuer.load(identity, "secret").public == issuer.public


def test_the_authority_is_elsewhere_at_a_node_that_has_joined(tmp_path, issuer):
    edge = identity_at(State(tmp_path / "edge"), issuer)
    with pytest.raises(ConfigError, match="the authority's key does not lie in .*edge; this works where 'zmesh init'"):
        Issuer.load(edge)


def test_an_expired_certificate_is_renewed_and_a_revoked_one_is_not(issuer):
    issued = issuer.issue(IdentityKey.generate().public, "edge", ("gpu",), NOW)
    renewed = issuer.renew(issued, NOW + 200 * DAY)
    assert renewed.not_after == NOW + 290 * DAY
    assert (renewed.public, renewed.node_id, renewed.tags) == (issued.public, "edge", ("gpu",))
    issuer.revoke("edge", NOW + 201 * DAY, "stolen")
    for certificate in (issued, renewed):
        with pytest.raises(TrustError, match="stolen") as caught:
            issuer.renew(certificate, NOW + 500 * DAY)
        assert caught.value.reason == "revoked"


def test_a_fresh_certificate_is_not_renewed_again(issuer):
    issued = issuer.issue(IdentityKey.generate().public, "edge", (), NOW)
    assert issuer.renew(issued, NOW + DAY) == issued
    assert issuer.renew(issued, NOW + 30 * DAY) != issued


def test_a_certificate_made_right_after_its_name_was_revoked_is_believed(issuer):
    issuer.revoke("edge", NOW)
    issuer.trust.check(issuer.issue(IdentityKey.generate().public, "edge", (), NOW + 1), NOW + 1)


def test_what_is_revoked_already_is_said(issuer):
    issuer.revoke("edge", NOW)
    with pytest.raises(TrustError, match="revoked already"):
        issuer.revoke("edge", NOW)


def test_a_rotation_keeps_both_authorities_believed_by_old_and_new_members(state, issuer):
    identity = identity_at(state, issuer)
    issuer = Issuer.load(identity)
    old, before = issuer.public, issuer.trust.authorities[0]
    member = issuer.issue(IdentityKey.generate().public, "edge", (), NOW)
    endorsement = issuer.begin_rotation(NOW)
    with pytest.raises(ConfigError, match="is there already"):
        issuer.begin_rotation(NOW)
    assert issuer.issue(IdentityKey.generate().public, "edge-2", (), NOW).authority == old
    issuer.switch()
    renewed = issuer.issue(IdentityKey.generate().public, "edge-3", (), NOW)
    assert renewed.authority != old
    known = TrustStore("lab", [before])  # an old member
    assert known.endorse(endorsement)
    known.check(renewed, NOW)
    joined = TrustStore("lab", [endorsement.authority], (), issuer.trust.endorsements)  # one that knows the new one
    joined.check(member, NOW)
    identity.save_trust()
    read = Identity.load(state)
    assert {each.public for each in read.trust.authorities} == {old, issuer.public}
    assert len(read.trust.endorsements) == 2
    assert Issuer.load(read).public == issuer.public
    with pytest.raises(ConfigError, match="there is no next authority"):
        issuer.switch()


def test_what_a_revoked_authority_has_signed_is_believed_no_more(state, issuer):
    issuer = Issuer.load(identity_at(state, issuer))
    member = issuer.issue(IdentityKey.generate().public, "edge", (), NOW)
    old = issuer.public
    issuer.begin_rotation(NOW)
    issuer.switch()
    issuer.revoke(fingerprint(old), NOW)
    with pytest.raises(TrustError) as caught:
        issuer.trust.check(member, NOW)
    assert caught.value.reason == "revoked"
