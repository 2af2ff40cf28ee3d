"""Trust: a certificate of an authority of the mesh is believed in its time, unless it was revoked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.identity.certificates import issue
from zmesh.identity.keys import IdentityKey, fingerprint
from zmesh.identity.trust import MAX_REVOCATIONS, Authority, Revocation, TrustError, TrustStore

CA, OTHER, NODE = (IdentityKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
NOW = 1_000_000


def authority(key=CA, not_before=0, not_after=10 * NOW):
    return Authority(key.public, not_before, not_after)


def certificate(key=CA, node="edge-7", mesh="lab", not_before=NOW - 100, not_after=NOW + 100):
    return issue(key, NODE.public, node, mesh, serial=1, not_before=not_before, not_after=not_after)


@pytest.fixture
def store():
    return TrustStore("lab", [authority()])


def refused(store, certificate, now=NOW, node_id=None):
    with pytest.raises(TrustError) as caught:
        store.check(certificate, now, node_id)
    return caught.value


def test_a_certificate_of_an_authority_is_believed_in_its_time(store):
    store.check(certificate(), NOW)
    store.check(certificate(), NOW - 100, "edge-7")
    store.check(certificate(), NOW + 99.9)


def test_each_refusal_says_who_which_key_and_what_to_do(store):
    key, ours, theirs = (fingerprint(each.public) for each in (NODE, CA, OTHER))
    error = refused(store, certificate(), node_id="edge-8")
    assert error.reason == "id"
    assert f"node 'edge-8' shows a certificate for 'edge-7' (key {key})" in str(error)
    error = refused(store, certificate(mesh="prod"))
    assert (error.reason, error.node) == ("mesh", "edge-7")
    assert "of the mesh 'prod', and this one is 'lab'" in str(error)
    error = refused(store, certificate(OTHER))
    assert error.reason == "authority"
    assert ours in str(error)
    assert theirs in str(error)
    assert "zmesh invite edge-7" in str(error)
    error = refused(store, certificate(), NOW + 100)
    assert error.reason == "expired"
    assert "expired 0 s ago" in str(error)
    error = refused(store, certificate(), NOW - 101)
    assert error.reason == "not_yet_valid"
    assert "which clock is wrong?" in str(error)


def test_a_clock_that_is_months_ahead_is_said_in_months(store):
    assert "expired 13 months ago" in str(refused(store, certificate(), NOW + 100 + 400 * 86400))


def test_an_authority_is_trusted_in_its_own_time_only():
    store = TrustStore("lab", [authority(not_before=NOW - 10, not_after=NOW + 10)])
    store.check(certificate(), NOW)
    assert refused(store, certificate(), NOW - 11).reason == "not_yet_valid"
    assert refused(store, certificate(), NOW + 10).reason == "expired"


def test_two_authorities_are_trusted_at_once():
    store = TrustStore("lab", [authority(), authority(OTHER)])
    store.check(certificate(), NOW)
    store.check(certificate(OTHER), NOW)


def test_a_store_without_an_authority_believes_nothing():
    assert "trusted here is none" in str(refused(TrustStore("lab", []), certificate()))


@pytest.mark.parametrize("subject", ["edge-7", fingerprint(NODE.public)])
def test_what_was_revoked_is_believed_no_more(store, subject):
    assert store.revoke(Revocation.sign(CA, subject, NOW - 50, NOW + 1000, "stolen"))
    error = refused(store, certificate())
    assert error.reason == "revoked"
    assert "was revoked 50 s ago (stolen)" in str(error)
    assert fingerprint(CA.public) in str(error)


def test_a_revoked_id_may_join_anew_and_a_revoked_key_may_not(store):
    store.revoke(Revocation.sign(CA, "edge-7", NOW - 50, NOW + 1000))
    store.check(certificate(not_before=NOW - 10), NOW)
    store.revoke(Revocation.sign(CA, fingerprint(NODE.public), NOW - 50, NOW + 1000))
    assert refused(store, certificate(not_before=NOW - 10)).reason == "revoked"


def test_a_revocation_is_believed_from_an_authority_only(store):
    assert not store.revoke(Revocation.sign(OTHER, "edge-7", NOW, NOW + 1000))
    forged = Revocation.sign(CA, "edge-7", NOW, NOW + 1000)
    assert not store.revoke(Revocation("edge-8", forged.at, forged.until, "", forged.authority, forged.signature))
    store.check(certificate(), NOW)


def test_a_revocation_is_news_once_and_kept_until_its_end(store):
    revocation = Revocation.sign(CA, "edge-7", NOW, NOW + 1000)
    assert [store.revoke(revocation), store.revoke(revocation)] == [True, False]
    assert store.revoke(Revocation.sign(CA, "edge-7", NOW, NOW + 2000))
    store.expire(NOW + 1999)
    assert len(store.revocations) == 1
    store.expire(NOW + 2000)
    assert store.revocations == ()


def test_revocations_are_bounded(store, monkeypatch):
    monkeypatch.setattr("zmesh.identity.trust.MAX_REVOCATIONS", 3)
    news = [store.revoke(Revocation.sign(CA, f"node-{number}", NOW, NOW + 1)) for number in range(5)]
    assert news == [True] * 3 + [False] * 2
    assert MAX_REVOCATIONS > 3


@given(st.text("abc-", min_size=1, max_size=64), st.integers(0, NOW), st.integers(NOW, 1 << 61), st.text(max_size=80))
def test_a_revocation_is_read_as_it_was_written(subject, at, until, reason):
    revocation = Revocation.sign(CA, subject, at, until, reason)
    assert Revocation.decode(revocation.encode()) == revocation


@given(st.binary(max_size=300), st.data())
def test_garbage_and_what_was_changed_raise_trust_error_and_nothing_else(data, draw):
    sound = bytearray(Revocation.sign(CA, "edge-7", NOW, NOW + 1000, "stolen").encode())
    sound[draw.draw(st.integers(0, len(sound) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    for wrong in (data, bytes(sound), bytes(2000)):
        with pytest.raises(TrustError):
            Revocation.decode(wrong)
