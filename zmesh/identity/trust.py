"""Which certificates are believed: those of the mesh's authorities, in their time, and not revoked.

Two authorities may be trusted at once, so that one can take over from the other. A revocation names a node id or a
key's fingerprint; it is signed by an authority, reaches all nodes, and is kept until the time that it names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import msgpack

from zmesh.errors import NotTrusted
from zmesh.identity.certificates import Certificate
from zmesh.identity.keys import PUBLIC_BYTES, SIGNATURE_BYTES, IdentityKey, fingerprint, is_signed

YEAR = 365 * 86400
MAX_AUTHORITIES = 8
MAX_REVOCATIONS = 10_000
MAX_REVOCATION = 1024
MAX_ENDORSEMENT = 512
CLOCKS_AGREE = 300.0
"""Seconds by which clocks may differ without being named as the reason of a refusal."""

_DOMAIN = b"zmesh revocation 1\0"
_ENDORSES = b"zmesh authority 1\0"


class TrustError(NotTrusted):
    """A certificate, a token or a statement that is not believed.

    `reason` is one of REASONS, or what the hub gave as reason of a refusal; the text has the node, the key and the
    remedy.
    """

    def __init__(self, reason: str, text: str, *, node: str | None = None) -> None:
        super().__init__(text, node=node)
        self.reason = reason


REASONS = ("mesh", "authority", "not_yet_valid", "expired", "revoked", "id", "signature", "token")
"""The reasons for which a certificate or a token is not believed."""


class Authority(NamedTuple):
    """A public key that signs certificates of the mesh, from `not_before` to `not_after` (seconds since 1970)."""

    public: bytes
    not_before: int
    not_after: int

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the key, as `ssh-keygen -l` shows it."""
        return fingerprint(self.public)


@dataclass(frozen=True, slots=True)
class Revocation:
    """The revocation of a node id, or of a key by its fingerprint; `at` and `until` in seconds since 1970."""

    subject: str
    at: int
    until: int
    reason: str
    authority: bytes
    signature: bytes

    @classmethod
    def sign(cls, authority: IdentityKey, subject: str, at: int, until: int, reason: str = "") -> Self:
        """A revocation, signed. `subject`: a node id or a fingerprint (`SHA256:...`)."""
        signature = authority.sign(_DOMAIN + _packed(subject, at, until, reason))
        return cls(subject, at, until, reason, authority.public, signature)

    @property
    def is_valid(self) -> bool:
        """Whether the signature is that of the authority it names."""
        signed = _DOMAIN + _packed(self.subject, self.at, self.until, self.reason)
        return is_signed(self.authority, self.signature, signed)

    def encode(self) -> bytes:
        """The revocation as bytes, for the mesh and for a file."""
        fields = (self.subject, self.at, self.until, self.reason, self.authority, self.signature)
        return msgpack.packb(fields)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a revocation. Raises TrustError if it is malformed or badly signed."""
        fields = _fields(data, MAX_REVOCATION, "a revocation", (str, int, int, str, bytes, bytes))
        found = cls(*fields)
        if not 0 <= found.at <= found.until < 1 << 62 or not 0 < len(found.subject) <= 64 or len(found.reason) > 256:
            raise TrustError("signature", "a revocation with a field out of its limits")
        if (len(found.authority), len(found.signature)) != (PUBLIC_BYTES, SIGNATURE_BYTES) or not found.is_valid:
            raise TrustError("signature", f"a revocation of {found.subject!r} whose signature does not fit")
        return found


@dataclass(frozen=True, slots=True)
class Endorsement:
    """An authority that another one vouches for, so that nodes which trust that one trust both."""

    authority: Authority
    by: bytes
    signature: bytes

    @classmethod
    def sign(cls, by: IdentityKey, authority: Authority) -> Self:
        """An endorsement by a key that is an authority itself."""
        return cls(authority, by.public, by.sign(_ENDORSES + msgpack.packb(tuple(authority))))

    @property
    def is_valid(self) -> bool:
        """Whether the signature is that of the authority it names."""
        return is_signed(self.by, self.signature, _ENDORSES + msgpack.packb(tuple(self.authority)))

    def encode(self) -> bytes:
        """The endorsement as bytes, for the mesh and for a file."""
        return msgpack.packb((*self.authority, self.by, self.signature))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read an endorsement. Raises TrustError if it is malformed or badly signed."""
        fields = _fields(data, MAX_ENDORSEMENT, "an endorsement", (bytes, int, int, bytes, bytes))
        public, not_before, not_after, by, signature = fields
        found = cls(Authority(public, not_before, not_after), by, signature)
        lengths = (len(public), len(by), len(signature))
        if not 0 <= not_before <= not_after < 1 << 62 or lengths != (PUBLIC_BYTES, PUBLIC_BYTES, SIGNATURE_BYTES):
            raise TrustError("signature", "an endorsement with a field out of its limits")
        if not found.is_valid:
            raise TrustError("signature", "an endorsement whose signature does not fit")
        return found


class TrustStore:
    """The trust of one node: the mesh's name, its authorities, endorsements and revocations."""

    def __init__(
        self,
        mesh: str,
        authorities: Iterable[Authority],
        revocations: Iterable[Revocation] = (),
        endorsements: Iterable[Endorsement] = (),
    ) -> None:
        self.mesh = mesh
        self._authorities: dict[bytes, Authority] = {each.public: each for each in authorities}
        self._endorsements: dict[tuple[bytes, bytes], Endorsement] = {}
        self._revoked: dict[str, Revocation] = {}
        for endorsement in endorsements:
            self.endorse(endorsement)
        for revocation in revocations:
            self.revoke(revocation)

    @property
    def authorities(self) -> tuple[Authority, ...]:
        """The authorities that are trusted, those that were given first."""
        return tuple(self._authorities.values())

    @property
    def revocations(self) -> tuple[Revocation, ...]:
        """All that were taken in and have not expired."""
        return tuple(self._revoked.values())

    @property
    def endorsements(self) -> tuple[Endorsement, ...]:
        """The endorsements that were taken in."""
        return tuple(self._endorsements.values())

    def endorse(self, endorsement: Endorsement) -> bool:
        """Trust one more authority, which one that is trusted already endorses; True if the endorsement is news.

        One for an authority that is trusted already is kept for nodes that know only the other one.
        """
        new, by = endorsement.authority, endorsement.by
        if by not in self._authorities or self.is_revoked(by) or (new.public, by) in self._endorsements:
            return False
        if new.public not in self._authorities and len(self._authorities) >= MAX_AUTHORITIES:
            return False
        if not endorsement.is_valid:
            return False
        self._authorities.setdefault(new.public, new)
        self._endorsements[new.public, by] = endorsement
        return True

    def is_revoked(self, public: bytes) -> bool:
        """Whether that key, of an authority, was revoked."""
        return bool(self._revoked) and fingerprint(public) in self._revoked

    def demand_authority(self, public: bytes) -> None:
        """Raise TrustError unless that key is an authority that is trusted."""
        if public not in self._authorities or self.is_revoked(public):
            text = f"signed by {fingerprint(public)}, which is no authority that is trusted here"
            raise TrustError("authority", text)

    def revoke(self, revocation: Revocation) -> bool:
        """Take in a revocation; True if it is news. False also if its key is no authority here, or there is no room."""
        known = self._revoked.get(revocation.subject)
        if known is not None and (known.until, known.signature) >= (revocation.until, revocation.signature):
            return False  # before its signature is verified, which takes a tenth of a millisecond
        if revocation.authority not in self._authorities or not revocation.is_valid:
            return False
        if known is None and len(self._revoked) >= MAX_REVOCATIONS:
            return False
        self._revoked[revocation.subject] = revocation
        return True

    def expire(self, now: float) -> None:
        """Forget the revocations whose `until` is not after `now` (seconds since 1970)."""
        self._revoked = {subject: each for subject, each in self._revoked.items() if each.until > now}

    def check(
        self,
        certificate: Certificate,
        now: float,
        node_id: str | None = None,
        *,
        here: str = "",
        their_clock: float | None = None,
        renewing: bool = False,
    ) -> None:
        """Raise TrustError unless the certificate is believed at `now` (seconds since 1970), and for that node id.

        `here`: the node that checks, and `their_clock`: what the other node's clock shows, for the text. `renewing`: it
        may have expired, as one that is to be renewed.
        """
        who = certificate.node_id
        key = fingerprint(certificate.public)
        if node_id is not None and who != node_id:
            text = f"node {node_id!r} shows a certificate for {who!r} (key {key}); each node has one of its own"
            raise TrustError("id", text, node=node_id)
        if certificate.mesh != self.mesh:
            text = (
                f"node {who!r} is of the mesh {certificate.mesh!r}, and this one is {self.mesh!r}; join this one first"
            )
            raise TrustError("mesh", text, node=who)
        authority = self._authorities.get(certificate.authority)
        if authority is None:
            trusted = ", ".join(each.fingerprint for each in self.authorities) or "none"
            text = (
                f"node {who!r} shows a certificate of the authority {fingerprint(certificate.authority)}, and trusted "
                f"here is {trusted}; zmesh invite {who} makes a ticket for this mesh"
            )
            raise TrustError("authority", text, node=who)
        if not renewing:
            self._check_time(certificate, authority, now, clocks(who, here, now, their_clock))
        for subject in (who, key, authority.fingerprint):
            revocation = self._revoked.get(subject)
            if revocation is not None and revocation.until > now and _covers(revocation, certificate):
                why = f" ({revocation.reason})" if revocation.reason else ""
                text = (
                    f"node {who!r} (key {key}) was revoked {ago(now - revocation.at)}{why} by the authority "
                    f"{fingerprint(revocation.authority)}; zmesh invite {who} lets it join anew"
                )
                raise TrustError("revoked", text, node=who)

    def _check_time(self, certificate: Certificate, authority: Authority, now: float, clocks: str) -> None:
        who = certificate.node_id
        begins = max(certificate.not_before, authority.not_before)
        ends = min(certificate.not_after, authority.not_after)
        if now < begins:
            why = clocks or "; which clock is wrong?"
            text = f"the certificate of node {who!r} is valid in {span(begins - now)} only{why}"
            raise TrustError("not_yet_valid", text, node=who)
        if now >= ends:
            text = (
                f"the certificate of node {who!r} (key {fingerprint(certificate.public)}) expired {ago(now - ends)}"
                f"{clocks}; zmesh invite {who} makes a ticket for a new one"
            )
            raise TrustError("expired", text, node=who)


def _fields(data: bytes, limit: int, what: str, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    """Decode the fields of a statement, of those types, from at most `limit` bytes. Raises TrustError."""
    if len(data) > limit:
        raise TrustError("signature", f"{what} of {len(data)} bytes, where {limit} are allowed")
    try:
        fields = msgpack.unpackb(data, use_list=False, max_map_len=0, max_ext_len=0)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise TrustError("signature", f"{what} that can't be read: {error}") from None
    if type(fields) is not tuple or tuple(map(type, fields)) != kinds:
        raise TrustError("signature", f"{what} with a field of the wrong kind")
    return fields


def _covers(revocation: Revocation, certificate: Certificate) -> bool:
    """A key stays revoked; of an id, what was signed before. A certificate made later is a new decision."""
    return revocation.subject != certificate.node_id or certificate.not_before < revocation.at


def clocks(who: str, here: str, now: float, their_clock: float | None) -> str:
    """How far the two clocks differ, if that may be the reason."""
    if their_clock is None or abs(now - their_clock) < CLOCKS_AGREE:
        return ""
    direction = "behind" if now < their_clock else "ahead of"
    return f"; the clock of {here!r} is {span(abs(now - their_clock))} {direction} that of {who!r}"


def _packed(subject: str, at: int, until: int, reason: str) -> bytes:
    return msgpack.packb((subject, at, until, reason))


def span(seconds: float) -> str:
    """A length of time in words."""
    for unit, length in (("months", 30 * 86400), ("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def ago(seconds: float) -> str:
    """How long ago something was, in words."""
    return f"{span(seconds)} ago"
