"""The functions of the holder of the authority's key: invite, sign, revoke, and hand over to the next key."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import NamedTuple

from zmesh.errors import ConfigError
from zmesh.identity import (
    Authority,
    Identity,
    Invite,
    Invites,
    Issued,
    Issuer,
    Revocation,
    State,
    StateError,
    Ticket,
    check_names,
    fingerprint,
    key_from_text,
    key_of,
    new_token,
    public_from_openssh,
    public_to_openssh,
    signed_fields,
    without_key,
)
from zmesh.trust.addresses import check_urls

INVITE_FOR = 3600.0
"""Seconds that a ticket may be redeemed."""
MAX_INVITE_FOR = 30 * 86400.0


class Standing(NamedTuple):
    """An authority of the mesh: `signs` now, is `next`, or was before; the node ids whose last certificate is by it."""

    authority: Authority
    signs: bool
    is_next: bool
    revoked: bool
    nodes: tuple[str, ...]


def invite(
    identity: Identity,
    node_id: str,
    *,
    tags: Sequence[str] = (),
    expires: float = INVITE_FOR,
    urls: Sequence[str] = (),
) -> Ticket:
    """A ticket for one node, to be redeemed within `expires` seconds at the authority's node or a peer of it.

    Raises StateError where the authority's key does not lie, and ConfigError for what can't be a name, tag or URL.
    """
    state = identity.state
    if state is None or not Issuer.is_at(state):
        raise StateError(
            f"the authority's key does not lie in {identity.where}; tickets are made where 'zmesh init' was run"
        )
    check_names(node_id, identity.mesh, tuple(tags))
    if not 60 <= expires <= MAX_INVITE_FOR:
        raise ConfigError(f"a ticket lasts from 60 s to {MAX_INVITE_FOR / 86400:.0f} d, not {expires:g} s")
    check_urls(dialled=urls)
    reached, curve = _reached_at(identity, tuple(urls))
    now = int(time.time())
    signing, _ = Issuer.public_keys(state)
    ticket = Ticket(
        identity.mesh,
        node_id,
        reached,
        hashlib.sha256(signing or identity.certificate.authority).digest(),
        curve,
        new_token(),
        now + int(expires),
    )
    Invites(state).add(Invite(node_id, tuple(tags), ticket.token_hash, now, ticket.expires))
    return ticket


def invites(identity: Identity) -> list[Invite]:
    """The tickets that are out, and those that were used or have expired in the last day. Raises StateError."""
    return Invites(_state_of(identity)).all()


def remove_invites(identity: Identity, node_id: str) -> int:
    """Withdraw the tickets for a node id; how many there were. Raises StateError."""
    return Invites(_state_of(identity)).remove(node_id)


def holders(identity: Identity, node_id: str) -> list[Issued]:
    """The certificates of a node id that are valid, by key. Raises StateError."""
    now = time.time()
    issued = _reader(identity).issued()
    revoked = {each.subject for each in identity.trust.revocations}
    return [each for each in issued if each.node_id == node_id and each.not_after > now and each.key not in revoked]


def sign(
    issuer: Issuer, identity: Identity, public_line: str, node_id: str | None = None, *, tags: Sequence[str] = ()
) -> dict[str, object]:
    """The file, as JSON values, with which a node joins offline: its certificate, the authorities, the peers.

    `public_line`: the public key as `zmesh join --offline` prints it, whose comment is the node id unless that is
    given. Raises ConfigError.
    """
    public = public_from_openssh(public_line)
    words = public_line.split()
    chosen = node_id if node_id is not None else (words[2] if len(words) == 3 else "")
    certificate = issuer.issue(public, chosen, tuple(tags), time.time())
    return signed_fields(certificate, issuer.trust, identity.dial_urls())


def revoke(issuer: Issuer, identity: Identity, subject: str, reason: str = "") -> Revocation:
    """Revoke a node id, or a key by its fingerprint, and write that.

    It reaches other nodes once a node with this identity has read it (`zmesh reload`). Raises ConfigError for this node
    or the key that signs, TrustError if it was revoked already, and StateError.
    """
    if subject.startswith("SHA256:"):
        if subject in {fingerprint(issuer.public), identity.fingerprint}:
            raise ConfigError(f"{subject} is the key that signs here, or this node's own; rotate first")
    elif subject == identity.node_id:
        raise ConfigError(f"{subject!r} is this node itself, which signs; revoke it at another one")
    else:
        check_names(subject, identity.mesh, ())
    revocation = issuer.revoke(subject, time.time(), reason)
    identity.save_trust()
    return revocation


def standings(identity: Identity) -> list[Standing]:
    """The authorities of the mesh, and for each the nodes whose last certificate is by it. Raises StateError."""
    state, now = _state_of(identity), time.time()
    holds = Issuer.is_at(state)
    issued = [each for each in _reader(identity).issued() if each.not_after > now] if holds else []
    revoked = {each.subject for each in identity.trust.revocations}
    signing, upcoming = Issuer.public_keys(state) if holds else (None, None)
    return [
        Standing(
            each,
            each.public == signing,
            each.public == upcoming,
            each.fingerprint in revoked,
            tuple(sorted({one.node_id for one in issued if one.authority == each.fingerprint})),
        )
        for each in identity.trust.authorities
    ]


def begin_rotation(
    issuer: Issuer, identity: Identity, passphrase: str | None = None, agent_key: str | None = None
) -> Authority:
    """Make the next authority, which the present one endorses, and write that.

    `agent_key`: a line of OpenSSH, the public half of a key in ssh-agent that is to be the next one. Raises StateError,
    and ConfigError for a malformed line or a key that the agent does not have.
    """
    public = public_from_openssh(agent_key) if agent_key is not None else None
    endorsement = issuer.begin_rotation(time.time(), passphrase, public)
    identity.save_trust()
    return endorsement.authority


def finish_rotation(issuer: Issuer) -> str:
    """Have the next authority sign from now on; its fingerprint. Raises StateError if there is none."""
    issuer.switch()
    return fingerprint(issuer.public)


def _state_of(identity: Identity) -> State:
    if identity.state is None:
        raise StateError("the identity lies in memory alone")
    return identity.state


def _reader(identity: Identity) -> Issuer:
    """The notes of what was signed, for which no key is needed."""
    return Issuer(_state_of(identity), identity.trust, identity.key)


def _reached_at(identity: Identity, urls: tuple[str, ...]) -> tuple[tuple[str, ...], bytes]:
    """The URLs of a ticket, and the CURVE key of the node there: of this one, or of a peer that passes requests on."""
    own = urls or identity.profile.urls
    if own:
        return tuple(map(without_key, own)), identity.curve.public
    for peer in identity.profile.peers:
        key = key_of(peer)
        if key is not None:
            same = [without_key(each) for each in identity.profile.peers if key_of(each) == key]
            return tuple(same), key_from_text(key)
    raise ConfigError(
        "nobody can dial this node, as it listens nowhere; where it does: zmesh invite NAME --url tcp://ADDRESS:PORT"
    )


def public_line(public: bytes) -> str:
    """A public key as a line of OpenSSH."""
    return public_to_openssh(public)
