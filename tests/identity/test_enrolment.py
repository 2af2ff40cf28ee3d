"""Redeeming a ticket and renewing a certificate, as values: who gets what, and each refusal."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.errors import ConfigError
from zmesh.identity import (
    IdentityKey,
    Invite,
    Issuer,
    State,
    Ticket,
    TrustError,
    answer,
    fingerprint,
    join_request,
    read_answer,
    refusal,
    renew_request,
    take_trust,
    trust_fields,
)

NOW = 1_800_000_000.0
HOUR, DAY = 3600, 86400


@pytest.fixture
def issuer(tmp_path):
    return Issuer.create(State(tmp_path / "lab"), "lab", NOW)


def invite(issuer, node_id="edge-7", *, tags=("gpu",), token=b"t" * 16):
    ticket = Ticket(
        "lab", node_id, ("tcp://hub:1",), hashlib.sha256(issuer.public).digest(), bytes(32), token, int(NOW) + HOUR
    )
    issuer.invites.add(Invite(node_id, tags, ticket.token_hash, int(NOW), ticket.expires))
    return ticket


def travelled(value):
    """What arrives of it as JSON."""
    return json.loads(json.dumps(value))


def redeem(issuer, ticket, key, now=NOW):
    fields = answer(issuer, travelled(join_request(ticket, key)), now)
    return read_answer(travelled(fields), key, ticket.node_id, ticket.mesh, ticket.authority, now)


def refused(issuer, ticket, key, now=NOW):
    with pytest.raises(TrustError) as caught:
        answer(issuer, join_request(ticket, key), now)
    assert fingerprint(key.public) in str(caught.value), "which key"
    assert repr(ticket.node_id) in str(caught.value), "who"
    return str(caught.value)


def test_a_ticket_gives_a_certificate_with_the_tags_of_its_invite(issuer):
    key = IdentityKey.generate()
    got = redeem(issuer, invite(issuer), key)
    assert (got.certificate.node_id, got.certificate.tags) == ("edge-7", ("gpu",))
    assert got.certificate.public == key.public
    assert got.trust.authorities == issuer.trust.authorities


def test_the_same_key_may_redeem_it_again_and_another_is_refused(issuer):
    ticket, key = invite(issuer), IdentityKey.generate()
    redeem(issuer, ticket, key)
    redeem(issuer, ticket, key, NOW + 2 * HOUR)
    text = refused(issuer, ticket, IdentityKey.generate(), NOW + 120)
    assert f"the token was used 2 min ago by another key, {fingerprint(key.public)}" in text
    assert text.endswith("; zmesh invite edge-7 makes another ticket")


def test_used_expired_unknown_and_misnamed_tokens_are_distinguished(issuer):
    key, ticket = IdentityKey.generate(), invite(issuer)
    assert "the token expired 2 h ago" in refused(issuer, ticket, key, NOW + 3 * HOUR)
    assert "the token is for another name, 'edge-7'" in refused(issuer, ticket._replace(node_id="edge-8"), key)
    assert "the token is not known here" in refused(issuer, ticket._replace(token=b"x" * 16), key)
    assert issuer.invites.remove("edge-7") == 1
    assert "taken back" in refused(issuer, ticket, key)


def test_a_ticket_of_another_mesh_is_refused(issuer):
    assert "for the mesh 'prod', and this one is 'lab'" in refused(
        issuer, invite(issuer)._replace(mesh="prod"), IdentityKey.generate()
    )


def test_a_key_that_was_revoked_joins_no_more(issuer):
    ticket, key = invite(issuer), IdentityKey.generate()
    issuer.revoke(fingerprint(key.public), NOW)
    assert "was revoked; delete the state there and join anew" in refused(issuer, ticket, key)
    redeem(issuer, ticket, IdentityKey.generate())


def test_nobody_enrols_a_key_that_they_do_not_hold(issuer):
    ticket, mine, other = invite(issuer), IdentityKey.generate(), IdentityKey.generate()
    request = join_request(ticket, mine) | {"key": join_request(ticket, other)["key"]}
    with pytest.raises(TrustError, match="does not hold the key") as caught:
        answer(issuer, request, NOW)
    assert caught.value.reason == "signature"
    assert issuer.invites.all()[0].status(NOW) == "open"


def test_an_answer_for_another_authority_or_key_is_not_believed(issuer, tmp_path):
    ticket, key = invite(issuer), IdentityKey.generate()
    fields = answer(issuer, join_request(ticket, key), NOW)
    with pytest.raises(TrustError, match="another authority than the ticket names"):
        read_answer(fields, key, "edge-7", "lab", bytes(32), NOW)
    with pytest.raises(TrustError, match="for another key"):
        read_answer(fields, IdentityKey.generate(), "edge-7", "lab", ticket.authority, NOW)
    with pytest.raises(TrustError, match="each node has one of its own"):
        read_answer(fields, key, "edge-8", "lab", ticket.authority, NOW)


@pytest.mark.parametrize("time", [float("inf"), float("nan"), 1e18, -1, 1 << 64, True, "1", None])
def test_an_answer_with_a_time_that_is_none_is_malformed(issuer, time):
    """JSON has 1e999, which Python reads as infinite; the fuzzer found it."""
    ticket, key = invite(issuer), IdentityKey.generate()
    fields = answer(issuer, join_request(ticket, key), NOW)
    fields["authorities"][0]["not_after"] = time
    with pytest.raises(TrustError, match="malformed answer"):
        read_answer(travelled(fields), key, "edge-7", "lab", ticket.authority, NOW)


def test_a_refusal_arrives_with_its_reason(issuer):
    for error, reason in ((TrustError("token", "used"), "token"), (ConfigError("bad"), "config")):
        with pytest.raises(TrustError) as caught:
            read_answer(travelled(refusal(error)), IdentityKey.generate(), "edge-7", "lab", bytes(32), NOW)
        assert caught.value.reason == reason
        assert str(caught.value) == str(error)


def test_a_certificate_is_renewed_by_its_key_alone(issuer):
    key = IdentityKey.generate()
    certificate = redeem(issuer, invite(issuer), key).certificate
    late = NOW + 100 * DAY
    pin = hashlib.sha256(issuer.public).digest()
    got = read_answer(answer(issuer, travelled(renew_request(certificate, key)), late), key, "edge-7", "lab", pin, late)
    assert got.certificate.not_after == late + 90 * DAY
    assert got.certificate.tags == ("gpu",)
    stranger = renew_request(certificate, IdentityKey.generate())
    with pytest.raises(TrustError, match="does not hold the key"):
        answer(issuer, stranger, late)


def test_news_about_trust_is_taken_from_authorities_alone(issuer, tmp_path):
    stranger = Issuer.create(State(tmp_path / "other"), "lab", NOW)
    mine = redeem(issuer, invite(issuer), IdentityKey.generate()).trust
    stranger.begin_rotation(NOW)
    stranger.revoke("hub", NOW)
    assert not take_trust(mine, travelled(trust_fields(stranger.trust)))
    issuer.begin_rotation(NOW)
    issuer.revoke("edge-9", NOW)
    assert take_trust(mine, travelled(trust_fields(issuer.trust)))
    assert not take_trust(mine, travelled(trust_fields(issuer.trust)))
    assert len(mine.authorities) == 2
    assert [each.subject for each in mine.revocations] == ["edge-9"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = ("mesh", "node_id", "token", "key", "signature", "certificate", "authorities", "endorsements", "revocations")


@given(st.dictionaries(st.sampled_from(NAMES), VALUES) | VALUES)
def test_a_request_of_any_shape_raises_errors_of_trust_alone(tmp_path_factory, value):
    issuer = Issuer.create(State(tmp_path_factory.mktemp("lab") / "lab"), "lab", NOW)
    with pytest.raises((TrustError, ConfigError)):
        answer(issuer, value, NOW)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES) | VALUES)
def test_an_answer_of_any_shape_raises_errors_of_trust_alone(value):
    with pytest.raises(TrustError):
        read_answer(value, IdentityKey.from_seed(bytes(32)), "edge-7", "lab", bytes(32), NOW)
