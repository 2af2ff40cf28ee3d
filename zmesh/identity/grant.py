"""Grants: a node vouches for a leaf at its own socket, such as a command, by its name and its key, for an hour.

A grant is signed with the key of the node's certificate, and shown together with that certificate. It can name a leaf
of that node only. It holds from an hour before it was made, as certificates do, so that clocks may differ by that much.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import msgpack

from zmesh.identity.certificates import Certificate
from zmesh.identity.keys import PUBLIC_BYTES, SIGNATURE_BYTES, IdentityKey, fingerprint, is_signed
from zmesh.identity.trust import MAX_AUTHORITIES, Authority, TrustError, ago, clocks, span

LIFETIME = 3600
"""Seconds that a grant is valid for after it was made, and before."""

MAX_GRANT = 512
MAX_SHOWN = 4096
_DOMAIN = b"zmesh grant 1\0"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
"""The name of a leaf; one with a dot is that of a leaf with a certificate."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The grant of a node, `home`, for its leaf. `not_before` and `not_after` in seconds since 1970.

    `serial` is higher in each grant of the node; `signature` is that of the node's Ed25519 key.
    """

    mesh: str
    home: str
    leaf: str
    key: bytes
    not_before: int
    not_after: int
    serial: int
    signature: bytes = b""

    @classmethod
    def sign(cls, by: IdentityKey, mesh: str, home: str, leaf: str, key: bytes, now: float, serial: int) -> Self:
        """A grant made at `now`, seconds since 1970, for the leaf with that Ed25519 key."""
        begins = max(0, int(now) - LIFETIME)
        fields = (mesh, home, leaf, key, begins, int(now) + LIFETIME, serial)
        return cls(*fields, by.sign(_DOMAIN + msgpack.packb(fields)))

    def encode(self) -> bytes:
        """The grant as bytes."""
        return msgpack.packb((*self._signed(), self.signature))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a grant, whose signature `check` looks at. Raises TrustError."""
        kinds = (str, str, str, bytes, int, int, int, bytes)
        found = cls(*_unpacked(data, MAX_GRANT, kinds))
        spans = 0 <= found.not_before <= found.not_after < 1 << 62 and 0 <= found.serial < 1 << 62
        lengths = (len(found.key), len(found.signature)) == (PUBLIC_BYTES, SIGNATURE_BYTES)
        if not spans or not lengths or not _NAME.match(found.leaf) or not 0 < len(found.home) <= 64:
            raise TrustError("signature", "a grant with a field out of its limits")
        return found

    def check(self, mesh: str, leaf: str, home: str, certificate: Certificate) -> None:
        """Raise TrustError unless the certificate's node has made this grant, for that leaf of its own."""
        who = f"leaf {leaf!r} of node {home!r}"
        if certificate.node_id != home or self.home != home or self.leaf != leaf:
            text = (
                f"{who} shows a grant for {self.leaf!r} of {self.home!r} with the certificate of "
                f"{certificate.node_id!r}; a node grants names to its own leaves only"
            )
            raise TrustError("id", text, node=home)
        if self.mesh != mesh:
            raise TrustError(
                "mesh", f"{who} shows a grant of the mesh {self.mesh!r}, and this one is {mesh!r}", node=home
            )
        signed = _DOMAIN + msgpack.packb(self._signed())
        if self.not_after - self.not_before > 2 * LIFETIME or not is_signed(certificate.public, self.signature, signed):
            text = (
                f"{who} shows a grant that node {home!r} (key {fingerprint(certificate.public)}) has not signed, or "
                f"for more than {LIFETIME} s; if {home!r} is lying, zmesh revoke {home}, and zmesh invite it anew"
            )
            raise TrustError("signature", text, node=home)

    def check_time(self, now: float, *, here: str = "", their_clock: float | None = None) -> None:
        """Raise TrustError unless the grant is valid at `now`; the rest as in TrustStore.check."""
        who = f"the grant of leaf {self.leaf!r} by node {self.home!r}"
        differ = clocks(self.home, here, now, their_clock)
        if now < self.not_before:
            remedy = f"{differ}: set the one that is wrong" if differ else "; which clock is wrong?"
            text = f"{who} is valid in {span(self.not_before - now)} only{remedy}"
            raise TrustError("not_yet_valid", text, node=self.home)
        if now >= self.not_after:
            again = "; a command gets another when it is started again"
            remedy = f"{differ}: set the one that is wrong" if differ else again
            text = f"{who} expired {ago(now - self.not_after)}{remedy}"
            raise TrustError("expired", text, node=self.home)

    def _signed(self) -> tuple[object, ...]:
        return (self.mesh, self.home, self.leaf, self.key, self.not_before, self.not_after, self.serial)


class Granted(NamedTuple):
    """A grant that was read, with the certificate of its node."""

    grant: Grant
    certificate: Certificate


def given(grant: Grant, certificate: bytes, mesh: str, authorities: Iterable[Authority]) -> bytes:
    """The message of a node to its leaf: the grant and certificate to show to others, and the authorities to trust."""
    return msgpack.packb((mesh, tuple(map(tuple, authorities)), msgpack.packb((grant.encode(), certificate))))


def read_given(data: bytes) -> tuple[str, list[Authority], bytes]:
    """The mesh, its authorities, and what the leaf shows. Raises TrustError."""
    mesh, rows, shown = _unpacked(data, 2 * MAX_SHOWN, (str, tuple, bytes))
    if not 0 < len(rows) <= MAX_AUTHORITIES:
        raise TrustError("authority", f"{len(rows)} authorities, where 1 to {MAX_AUTHORITIES} are allowed")
    authorities = []
    for row in rows:
        if type(row) is not tuple or tuple(map(type, row)) != (bytes, int, int) or len(row[0]) != PUBLIC_BYTES:
            raise TrustError("authority", "an authority with a field of the wrong kind")
        authorities.append(Authority(*row))
    return mesh, authorities, shown


def read_shown(data: bytes) -> tuple[Grant, bytes]:
    """The grant that a leaf shows, and the certificate of its node in binary form. Raises TrustError."""
    grant, certificate = _unpacked(data, MAX_SHOWN, (bytes, bytes))
    return Grant.decode(grant), certificate


def _unpacked(data: bytes, most: int, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    if len(data) > most:
        raise TrustError("signature", f"a grant of {len(data)} bytes, where {most} are allowed")
    try:
        fields = msgpack.unpackb(data, use_list=False, max_map_len=0, max_ext_len=0)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise TrustError("signature", f"a grant that can't be read: {error}") from None
    if type(fields) is not tuple or tuple(map(type, fields)) != kinds:
        raise TrustError("signature", "a grant with a field of the wrong kind")
    return fields
