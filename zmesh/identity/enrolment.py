"""Enrolment and renewal as values: what a node sends to the authority's node, what that checks, and what comes back.

A request to join has the token, the node's public key and a signature by it, so that no node enrols a key that it does
not hold. A request to renew has the certificate, which may have expired, and a signature by its key. The answer has the
certificate and whom to trust. The node that has joined checks it against the authority that its ticket names.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from zmesh.errors import ConfigError
from zmesh.identity.certificates import Certificate, read_certificate
from zmesh.identity.identity import Identity, authority_fields, read_authorities
from zmesh.identity.issuer import Issuer
from zmesh.identity.keys import IdentityKey, fingerprint, is_signed, public_from_openssh, public_to_openssh
from zmesh.identity.tickets import Ticket, hash_of
from zmesh.identity.trust import Authority, Endorsement, Revocation, TrustError, TrustStore

_JOINS = b"zmesh enrol 1\0"
_RENEWS = b"zmesh renew 1\0"
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, binascii.Error)


class Answer(NamedTuple):
    """The answer to a node that joins: its certificate, and a trust store."""

    certificate: Certificate
    trust: TrustStore


def join_request(ticket: Ticket, key: IdentityKey) -> dict[str, object]:
    """The payload by which a ticket is redeemed."""
    return {
        "version": 1,
        "mesh": ticket.mesh,
        "node_id": ticket.node_id,
        "token": ticket.token.hex(),
        "key": public_to_openssh(key.public),
        "signature": key.sign(_JOINS + _hashed(ticket.mesh, ticket.node_id, hash_of(ticket.token))).hex(),
    }


def renew_request(certificate: Certificate, key: IdentityKey) -> dict[str, object]:
    """The payload by which a certificate is renewed."""
    signature = key.sign(_RENEWS + certificate.line.encode())
    return {"version": 1, "certificate": certificate.line, "signature": signature.hex()}


def answer(issuer: Issuer, request: object, now: float) -> dict[str, object]:
    """The answer to either request, at `now` (seconds since 1970).

    Raises TrustError for a request that is malformed or not believed, and ConfigError as `Issuer.issue` does.
    """
    fields: Mapping[str, Any] = request if isinstance(request, Mapping) else {}
    try:
        issued = _renewed(issuer, fields, now) if "certificate" in fields else _enrolled(issuer, fields, now)
    except _MALFORMED as error:
        if isinstance(error, (ConfigError, TrustError)):
            raise
        raise TrustError("signature", f"a request to enrol that can't be read: {error!r}") from None
    return {"version": 1, "certificate": issued.line, **trust_fields(issuer.trust)}


def _enrolled(issuer: Issuer, fields: Mapping[str, Any], now: float) -> Certificate:
    mesh, node_id = str(fields["mesh"]), str(fields["node_id"])
    token, public = bytes.fromhex(fields["token"]), public_from_openssh(str(fields["key"]))
    key = fingerprint(public)
    if mesh != issuer.trust.mesh:
        text = f"{node_id!r} (key {key}) has a ticket for the mesh {mesh!r}, and this one is {issuer.trust.mesh!r}"
        raise TrustError("mesh", f"{text}; zmesh invite {node_id} makes one for it", node=node_id)
    if not is_signed(public, bytes.fromhex(fields["signature"]), _JOINS + _hashed(mesh, node_id, hash_of(token))):
        raise TrustError("signature", f"{node_id!r} does not hold the key {key} that it wants to enrol", node=node_id)
    invite = issuer.invites.check(token, node_id, public, now)
    if any(each.subject == key for each in issuer.trust.revocations):
        text = f"the key {key} of {node_id!r} was revoked; delete the state there and join anew, which makes another"
        raise TrustError("revoked", text, node=node_id)
    issuer.invites.use(invite, public, now)
    return issuer.issue(public, node_id, invite.tags, now)


def _renewed(issuer: Issuer, fields: Mapping[str, Any], now: float) -> Certificate:
    certificate = read_certificate(str(fields["certificate"]))
    if not is_signed(certificate.public, bytes.fromhex(fields["signature"]), _RENEWS + certificate.line.encode()):
        who, key = certificate.node_id, fingerprint(certificate.public)
        text = f"{who!r} does not hold the key {key} of the certificate that it wants to renew"
        raise TrustError("signature", text, node=who)
    return issuer.renew(certificate, now)


def read_answer(fields: object, key: IdentityKey, node_id: str, mesh: str, pinned: bytes, now: float) -> Answer:
    """The answer at the node that has asked; `pinned` is the SHA-256 of the authority's key, as its ticket has it.

    Raises TrustError for a refusal, for a malformed answer, and for a certificate that is not believed.
    """
    try:
        if not isinstance(fields, Mapping):
            raise TypeError("no JSON object")
        raise_refusal(fields)
        certificate = read_certificate(str(fields["certificate"]))
        trust = read_trust_fields(fields, mesh, pinned)
    except (*_MALFORMED, ConfigError) as error:
        raise TrustError("signature", f"the hub sent a malformed answer: {error!r}") from None
    if trust is None:
        text = "the hub answers for another authority than the ticket names; was the ticket changed on its way?"
        raise TrustError("authority", text, node=node_id)
    if certificate.public != key.public:
        raise TrustError("id", "the hub sent a certificate for another key", node=node_id)
    trust.check(certificate, now, node_id)
    return Answer(certificate, trust)


def read_renewal(identity: Identity, fields: object, now: float) -> Certificate:
    """The certificate in the answer to a request to renew; whom else to trust is taken in. Raises TrustError."""
    try:
        if not isinstance(fields, Mapping):
            raise TypeError("no JSON object")
        raise_refusal(fields)
        certificate = read_certificate(str(fields["certificate"]))
        take_trust(identity.trust, fields)
    except (*_MALFORMED, ConfigError) as error:
        raise TrustError("signature", f"a malformed answer to a request to renew: {error!r}") from None
    if certificate.public != identity.key.public:
        raise TrustError("id", "a certificate for another key was sent", node=identity.node_id)
    identity.trust.check(certificate, now, identity.node_id)
    return certificate


def raise_refusal(fields: Mapping[str, Any]) -> None:
    """Raise TrustError for an answer that refuses."""
    refused = fields.get("refused")
    if isinstance(refused, Mapping):
        raise TrustError(str(refused.get("reason", ""))[:64], str(refused.get("text", ""))[:1000])


def refusal(error: TrustError | ConfigError) -> dict[str, object]:
    """The answer that refuses, for an error."""
    reason = error.reason if isinstance(error, TrustError) else error.code
    return {"version": 1, "refused": {"reason": reason, "text": str(error)}}


def signed_fields(certificate: Certificate, trust: TrustStore, peers: tuple[str, ...]) -> dict[str, object]:
    """The file with which a node joins without a network, as JSON values."""
    return {"version": 1, "certificate": certificate.line, "peers": list(peers), **trust_fields(trust)}


def read_signed(fields: Mapping[str, Any]) -> tuple[Certificate, TrustStore, tuple[str, ...]]:
    """The certificate, whom to trust and whom to dial, of the file of `signed_fields`. Raises TrustError."""
    try:
        certificate = read_certificate(str(fields["certificate"]))
        trust = TrustStore(certificate.mesh, read_authorities(fields["authorities"]))
        take_trust(trust, fields)
        return certificate, trust, tuple(map(str, fields["peers"]))
    except (*_MALFORMED, ConfigError) as error:
        raise TrustError("signature", f"a signed file that can't be read: {error!r}") from None


def trust_fields(trust: TrustStore) -> dict[str, object]:
    """Authorities and statements of a trust store, as JSON values; an authority before it signs each but the first."""
    return {
        "authorities": list(map(authority_fields, trust.authorities)),
        "endorsements": [base64.b64encode(each.encode()).decode() for each in trust.endorsements],
        "revocations": [base64.b64encode(each.encode()).decode() for each in trust.revocations],
    }


def read_trust_fields(fields: Mapping[str, Any], mesh: str, pinned: bytes) -> TrustStore | None:
    """A trust store that begins with the pinned authority; None if that is not among them. Raises as `take_trust`."""
    first = next((each for each in read_authorities(fields["authorities"]) if _pin(each) == pinned), None)
    if first is None:
        return None
    trust = TrustStore(mesh, [first])
    take_trust(trust, fields)
    return trust


def take_trust(trust: TrustStore, fields: Mapping[str, Any]) -> bool:
    """Take in endorsements and revocations that authorities of this store have signed; True if any was news.

    Raises TrustError, ValueError, TypeError or KeyError for malformed fields.
    """
    endorsements = [Endorsement.decode(base64.b64decode(each)) for each in fields.get("endorsements", ())]
    revocations = [Revocation.decode(base64.b64decode(each)) for each in fields.get("revocations", ())]
    news = 0
    while more := sum(map(trust.endorse, endorsements)):  # one may make the next one believed
        news += more
    return news + sum(map(trust.revoke, revocations)) > 0


def _pin(authority: Authority) -> bytes:
    return hashlib.sha256(authority.public).digest()


def _hashed(*parts: str | bytes) -> bytes:
    """One digest of several values, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(4, "big") + data)
    return digest.digest()
