"""Certificates: OpenSSH host certificates that bind a node id, tags and a mesh's name to an Ed25519 key.

The format is `ssh-ed25519-cert-v01@openssh.com` (OpenSSH, PROTOCOL.certkeys). The principals are the node id, then a
`tag:NAME` for each tag. The critical option `mesh@zmesh` holds the mesh's name, so that a certificate of zmesh can't be
used for SSH and one for SSH can't be used here. `ssh-keygen -L` shows one, and an SSH authority issues one by

    ssh-keygen -s CA -h -I edge-7 -n edge-7,tag:gpu -O critical:mesh@zmesh=lab node.pub
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_public_identity,
)

from zmesh.errors import ConfigError
from zmesh.identity.keys import IdentityKey

MESH_OPTION = b"mesh@zmesh"
TAG = "tag:"
MAX_CERTIFICATE = 4096
MAX_TAGS = 32
MAX_MESH_NAME = 64
MAX_TAG = 64
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


class BadCertificate(ConfigError):
    """Bytes that are no certificate of zmesh: of another kind, badly signed, or with a field that can't be used."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate whose signature was verified; whether its authority is trusted is for a TrustStore to say.

    `public` and `authority` are Ed25519 public keys of 32 bytes, `not_before` and `not_after` seconds since 1970, and
    `line` is the certificate as one line of text.
    """

    node_id: str
    tags: tuple[str, ...]
    mesh: str
    public: bytes
    authority: bytes
    serial: int
    key_id: str
    not_before: int
    not_after: int
    line: str

    def remaining(self, now: float) -> float:
        """The part of its validity that is left at `now` (seconds since 1970), from 1 to 0."""
        length = max(1, self.not_after - self.not_before)
        return min(1.0, max(0.0, (self.not_after - now) / length))


def issue(
    authority: IdentityKey,
    public: bytes,
    node_id: str,
    mesh: str,
    *,
    tags: tuple[str, ...] = (),
    serial: int,
    not_before: int,
    not_after: int,
) -> Certificate:
    """Sign a certificate for that public key of 32 bytes, valid from `not_before` to `not_after`, seconds since 1970.

    Raises ConfigError for a node id, mesh name or tag that can't be one.
    """
    check_names(node_id, mesh, tags)
    builder = (
        SSHCertificateBuilder()
        .public_key(Ed25519PublicKey.from_public_bytes(public))
        .serial(serial)
        .type(SSHCertificateType.HOST)
        .key_id(node_id.encode())
        .valid_principals([node_id.encode(), *(f"{TAG}{tag}".encode() for tag in tags)])
        .valid_after(not_before)
        .valid_before(not_after)
        .add_critical_option(MESH_OPTION, mesh.encode())
    )
    return read_certificate(builder.sign(authority.private).public_bytes())


def read_certificate(data: bytes | str) -> Certificate:
    """Read a certificate, one line of OpenSSH, and verify its signature. Raises ConfigError if it is none of zmesh."""
    line = data.encode(errors="replace") if isinstance(data, str) else data
    if len(line) > MAX_CERTIFICATE:
        raise BadCertificate(f"a certificate of {len(line)} bytes, where {MAX_CERTIFICATE} are allowed")
    try:
        read = load_ssh_public_identity(line.strip())
        if not isinstance(read, SSHCertificate):
            raise BadCertificate("a key without a certificate")
        read.verify_cert_signature()
        return _certificate(read, line.strip())
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        if isinstance(error, BadCertificate):
            raise
        raise BadCertificate(f"not a certificate: {str(error) or 'its signature does not fit'}") from None


def _certificate(read: SSHCertificate, line: bytes) -> Certificate:
    public, authority = read.public_key(), read.signature_key()
    if not isinstance(public, Ed25519PublicKey) or not isinstance(authority, Ed25519PublicKey):
        raise BadCertificate("a certificate of another kind of key than Ed25519")
    if read.type is not SSHCertificateType.HOST:
        raise BadCertificate("a certificate for a user, where one for a host is needed (ssh-keygen -h)")
    options = dict(read.critical_options)
    mesh = _text(options.pop(MESH_OPTION, b""))
    if options:
        raise BadCertificate(f"a certificate with the critical option {_text(next(iter(options)))!r}")
    principals = [_text(principal) for principal in read.valid_principals]
    if not principals:
        raise BadCertificate("a certificate without a principal; the first one is the node id")
    node_id, *others = principals
    tags = tuple(other.removeprefix(TAG) for other in others if other.startswith(TAG))
    if len(tags) != len(others):
        raise BadCertificate(f"a certificate of two ids: {principals}")
    check_names(node_id, mesh, tags)
    return Certificate(
        node_id,
        tags,
        mesh,
        public.public_bytes(Encoding.Raw, PublicFormat.Raw),
        authority.public_bytes(Encoding.Raw, PublicFormat.Raw),
        read.serial,
        _text(read.key_id),
        read.valid_after,
        read.valid_before,
        b" ".join(line.split()[:2]).decode(),
    )


def check_names(node_id: str, mesh: str, tags: tuple[str, ...]) -> None:
    """Raises ConfigError for a node id, mesh name or tag that can't be one."""
    if not _NAME.match(node_id):
        raise BadCertificate(f"{node_id!r} is no node id: 1 to 64 of A-Z, a-z, 0-9, dot, underscore and hyphen")
    if not _NAME.match(mesh):
        raise BadCertificate(
            f"{mesh!r} is no mesh name: 1 to 64 of A-Z, a-z, 0-9, dot, underscore and hyphen"
            if mesh
            else "a certificate without a mesh's name (ssh-keygen -O critical:mesh@zmesh=NAME), as for SSH"
        )
    if len(tags) > MAX_TAGS:
        raise BadCertificate(f"{len(tags)} tags, where {MAX_TAGS} are allowed")
    for tag in tags:
        if not _NAME.match(tag):
            raise BadCertificate(f"{tag!r} is no tag: 1 to 64 of A-Z, a-z, 0-9, dot, underscore and hyphen")


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
