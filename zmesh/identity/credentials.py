"""The credentials of one node: what its engine is given of keys, certificates and trust (`zmesh.core.credentials`)."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache

from zmesh.core.credentials import Certified, Disbelieved, PeerIdentity
from zmesh.core.message import Address, NodeId
from zmesh.errors import ConfigError
from zmesh.identity.certificates import Certificate, read_certificate
from zmesh.identity.keys import IdentityKey, fingerprint, is_signed
from zmesh.identity.sealing import ExchangeKey
from zmesh.identity.trust import TrustError, TrustStore

DIGEST_BYTES = 16
MAX_KNOWN = 16384
"""Certificates that are kept as they were read."""

_PREFIX = "ssh-ed25519-cert-v01@openssh.com "


class NodeCredentials:
    """The credentials of the node that `certificate` was made for, whose key is `key`. Raises ConfigError if it is not.

    `trust` may change at any time; the engine's `trust_changed` has it look again. `exchange`: 32 random bytes, the
    private X25519 key of this incarnation.
    """

    def __init__(self, key: IdentityKey, certificate: Certificate, trust: TrustStore, exchange: bytes) -> None:
        self._key = key
        self.trust = trust
        self._exchange = ExchangeKey(exchange)
        self.renew(certificate)

    def renew(self, certificate: Certificate) -> None:
        """Use another certificate for the same key from now on. Raises ConfigError if it is for another one."""
        if certificate.public != self._key.public:
            raise ConfigError(
                f"the certificate is for the key {fingerprint(certificate.public)}, and the key of this node is "
                f"{fingerprint(self._key.public)}"
            )
        self._own = self.read(to_binary(certificate))

    @property
    def mesh(self) -> str:
        """The name of the mesh."""
        return self.trust.mesh

    @property
    def own(self) -> Certified:
        """The certificate of this node."""
        return self._own

    @property
    def exchange_key(self) -> bytes:
        """The public X25519 key of this incarnation, 32 bytes."""
        return self._exchange.public

    def sign(self, data: bytes) -> bytes:
        """The signature of this node's key, 64 bytes."""
        return self._key.sign(data)

    def is_signed(self, by: Certified, signature: bytes, data: bytes) -> bool:
        """Whether that is the signature of the certificate's key."""
        return is_signed(by.public, signature, data)

    def read(self, data: bytes) -> Certified:
        """Read a certificate in its binary form. Raises Disbelieved."""
        try:
            return _read(data)
        except ConfigError as error:
            raise Disbelieved("certificate", f"a node shows {error}") from None

    def check(self, certified: Certified, node: NodeId, wall: float, their_wall: float | None = None) -> None:
        """Raise Disbelieved unless the certificate is to be believed of that node at the time `wall`."""
        certificate = certified.details
        assert isinstance(certificate, Certificate)
        try:
            self.trust.check(certificate, wall, node, here=self._own.identity.id, their_clock=their_wall)
        except TrustError as error:
            raise Disbelieved(error.reason, str(error)) from None


def to_binary(certificate: Certificate) -> bytes:
    """A certificate as it travels: without the name of its kind, and not in base64."""
    return base64.b64decode(certificate.line.split()[1])


@lru_cache(maxsize=MAX_KNOWN)
def _read(data: bytes) -> Certified:
    certificate = read_certificate(_PREFIX + base64.b64encode(data).decode())
    identity = PeerIdentity(NodeId(Address(certificate.node_id)), certificate.tags, fingerprint(certificate.public))
    digest = hashlib.sha256(data).digest()[:DIGEST_BYTES]
    return Certified(identity, digest, data, certificate.public, float(certificate.not_after), certificate)
