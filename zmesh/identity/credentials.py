"""The credentials of one node: what its engine is given of keys, certificates and trust (`zmesh.core.credentials`)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from functools import lru_cache

from zmesh.core.credentials import Certified, Disbelieved, PeerIdentity, PrivateKey, Unsealable
from zmesh.core.message import Address, NodeId
from zmesh.errors import ConfigError
from zmesh.identity.certificates import Certificate, read_certificate
from zmesh.identity.grant import Grant, Granted, given, read_given, read_shown
from zmesh.identity.keys import IdentityKey, fingerprint, is_signed
from zmesh.identity.sealing import KEY_BYTES, KEY_ID_BYTES, ExchangeKey, Session, cipher_of, direction_key
from zmesh.identity.trust import Endorsement, Revocation, TrustError, TrustStore

DIGEST_BYTES = 16
MAX_KNOWN = 16384
"""Certificates that are kept as they were read."""

_REVOCATION, _ENDORSEMENT = b"r", b"e"
_PREFIX = "ssh-ed25519-cert-v01@openssh.com "


class KeyCredentials:
    """The common part of the credentials of nodes and of leaves with a grant: key, certificate or grant, and trust."""

    def __init__(
        self, key: IdentityKey, trust: TrustStore, random: Callable[[int], bytes], *, prefers_chacha20: bool
    ) -> None:
        self.key = key
        self.trust = trust
        self._random = random
        self._prefers_chacha20 = prefers_chacha20
        self._own: Certified

    @property
    def mesh(self) -> str:
        """The name of the mesh."""
        return self.trust.mesh

    @property
    def own(self) -> Certified:
        """The certificate of this node."""
        return self._own

    def _new_exchange_key(self) -> ExchangeKey:
        return ExchangeKey(self._random(KEY_BYTES), prefers_chacha20=self._prefers_chacha20)

    def new_key(self) -> ExchangeKey:
        """A new key, for one key exchange."""
        return self._new_exchange_key()

    def agree(self, key: PrivateKey, theirs: bytes, here: tuple[str, int], there: tuple[str, int]) -> Session:
        """The session of a key of `new_key` and that of the other end, each with its name and incarnation.

        Raises Disbelieved.
        """
        assert isinstance(key, ExchangeKey)
        return self._session(key, theirs, here, there)

    def _session(
        self,
        private: ExchangeKey,
        theirs: bytes,
        here: tuple[str, int],
        there: tuple[str, int],
        counter: int = 0,
        highest: int = 0,
    ) -> Session:
        own = private.public
        try:
            secret = private.shared(theirs)
        except Unsealable as error:
            raise Disbelieved(error.reason, f"node {there[0]!r} has an exchange key that can't be used") from None
        cipher = cipher_of(own, theirs)
        seals = direction_key(secret, self.mesh, here, there, cipher)
        opens = direction_key(secret, self.mesh, there, here, cipher)
        return Session(seals, opens, own[:KEY_ID_BYTES], theirs[:KEY_ID_BYTES], counter, highest, cipher)

    def sign(self, data: bytes) -> bytes:
        """The signature of this node's key, 64 bytes."""
        return self.key.sign(data)

    def is_signed(self, by: Certified, signature: bytes, data: bytes) -> bool:
        """Whether that is the signature of the certificate's key."""
        return is_signed(by.public, signature, data)

    def read(self, data: bytes) -> Certified:
        """Read a certificate in its binary form. Raises Disbelieved."""
        try:
            return _read(data)
        except ConfigError as error:
            raise Disbelieved("certificate", f"a node shows {error}") from None

    def read_grant(self, data: bytes, leaf: NodeId, home: NodeId) -> Certified:
        """Read the grant of a leaf by its node: the leaf's key, and the identity of the node. Raises Disbelieved."""
        try:
            grant, certificate = read_shown(data)
            certified = self.read(certificate)
            home_certificate = certified.details
            assert isinstance(home_certificate, Certificate)
            grant.check(self.mesh, leaf, home, home_certificate)
        except TrustError as error:
            raise Disbelieved(error.reason, str(error)) from None
        until = min(certified.valid_until, float(grant.not_after))
        return Certified(certified.identity, certified.digest, data, grant.key, until, Granted(grant, home_certificate))

    def check(self, certified: Certified, node: NodeId, wall: float, their_wall: float | None = None) -> None:
        """Raise Disbelieved unless the certificate, or the grant, is that of the node and valid at the time `wall`."""
        details, here = certified.details, self._own.identity.id
        try:
            if isinstance(details, Granted):
                self.trust.check(details.certificate, wall, node, here=here, their_clock=their_wall)
                details.grant.check_time(wall, here=here, their_clock=their_wall)
            else:
                assert isinstance(details, Certificate)
                self.trust.check(details, wall, node, here=here, their_clock=their_wall)
        except TrustError as error:
            raise Disbelieved(error.reason, str(error)) from None


class NodeCredentials(KeyCredentials):
    """The credentials of the node that `certificate` was made for, whose key is `key`. Raises ConfigError if it is not.

    `trust` may change at any time; the engine's `trust_changed` has it look again. `random` returns so many random
    bytes, of which the private X25519 keys are made. `prefers_chacha20`: this machine is slow at AES.
    """

    def __init__(
        self,
        key: IdentityKey,
        certificate: Certificate,
        trust: TrustStore,
        random: Callable[[int], bytes],
        *,
        prefers_chacha20: bool = False,
    ) -> None:
        super().__init__(key, trust, random, prefers_chacha20=prefers_chacha20)
        self._exchange = self._new_exchange_key()
        self._former = self._exchange
        self._serial = 0
        self.renew(certificate)

    def renew(self, certificate: Certificate) -> None:
        """Use another certificate for the same key from now on. Raises ConfigError if it is for another one."""
        if certificate.public != self.key.public:
            raise ConfigError(
                f"the certificate is for the key {fingerprint(certificate.public)}, and the key of this node is "
                f"{fingerprint(self.key.public)}"
            )
        self.certificate = certificate
        self._own = self.read(to_binary(certificate))

    @property
    def exchange_key(self) -> bytes:
        """The public X25519 key that others seal for, 32 bytes, and a byte if ChaCha20-Poly1305 is preferred."""
        return self._exchange.public

    def rotate(self) -> None:
        """Make another exchange key. The former one opens what others still seal for it, until the next rotation."""
        self._former, self._exchange = self._exchange, self._new_exchange_key()

    def session(
        self,
        own: bytes,
        theirs: bytes,
        here: tuple[NodeId, int],
        there: tuple[NodeId, int],
        counter: int = 0,
        highest: int = 0,
    ) -> Session:
        """A session of two public exchange keys; `here` and `there`: node and incarnation. Raises Disbelieved."""
        private = self._exchange if own == self._exchange.public else self._former
        return self._session(private, theirs, here, there, counter, highest)

    def grant(self, leaf: NodeId, key: bytes, wall: float) -> bytes:
        """A grant for a leaf of this node with this Ed25519 key, and the authorities to trust, as bytes.

        `wall`: the time, in seconds since 1970.
        """
        self._serial = max(self._serial + 1, int(1000 * wall))
        grant = Grant.sign(self.key, self.mesh, self.certificate.node_id, leaf, key, wall, self._serial)
        return given(grant, self._own.data, self.mesh, self.trust.authorities)

    def statements(self) -> Iterable[bytes]:
        """The revocations and endorsements that are believed, as they are sent to others."""
        trust = self.trust
        yield from (_REVOCATION + each.encode() for each in trust.revocations if not trust.is_revoked(each.authority))
        yield from (_ENDORSEMENT + each.encode() for each in trust.endorsements if not trust.is_revoked(each.by))

    def endorsements(self) -> list[bytes]:
        """The endorsements of authorities, first those that the own certificate needs where an older one is known.

        The others let a leaf, which gets no statements, believe the nodes beyond the one that it dials.
        """
        chain, wanted = dict[bytes, None](), [self.certificate.authority]
        for public in wanted:
            for each in self.trust.endorsements:
                if each.authority.public == public and not self.trust.is_revoked(each.by):
                    chain.setdefault(_ENDORSEMENT + each.encode())
                    if each.by not in wanted:
                        wanted.append(each.by)
        others = (
            _ENDORSEMENT + each.encode() for each in self.trust.endorsements if not self.trust.is_revoked(each.by)
        )
        return [*reversed(chain), *(each for each in others if each not in chain)]

    def learn(self, statement: bytes) -> str:
        """Accept a statement from another node; its text for a report, or "" if it is no news. Raises Disbelieved."""
        kind, data, trust = statement[:1], statement[1:], self.trust
        try:
            if kind == _REVOCATION:
                revocation = Revocation.decode(data)
                trust.demand_authority(revocation.authority)
                why = f" ({revocation.reason})" if revocation.reason else ""
                return f"{revocation.subject} was revoked{why}" if trust.revoke(revocation) else ""
            if kind == _ENDORSEMENT:
                endorsement = Endorsement.decode(data)
                trust.demand_authority(endorsement.by)
                return f"authority {endorsement.authority.fingerprint}" if trust.endorse(endorsement) else ""
        except TrustError as error:
            raise Disbelieved(error.reason, str(error)) from None
        raise Disbelieved("statement", "a statement of an unknown kind")


class GrantedCredentials(KeyCredentials):
    """The credentials of the leaf `leaf` of the node `home`, by what that has sent (`given`). Raises Disbelieved.

    `wall`: the time, in seconds since 1970; `key`, `random` and `prefers_chacha20` as for NodeCredentials.
    """

    def __init__(
        self,
        key: IdentityKey,
        data: bytes,
        leaf: NodeId,
        home: NodeId,
        wall: float,
        random: Callable[[int], bytes],
        *,
        prefers_chacha20: bool = False,
    ) -> None:
        try:
            mesh, authorities, shown = read_given(data)
        except TrustError as error:
            raise Disbelieved(error.reason, str(error)) from None
        super().__init__(key, TrustStore(mesh, authorities), random, prefers_chacha20=prefers_chacha20)
        self._own = self.read_grant(shown, leaf, home)
        if self._own.public != key.public:
            raise Disbelieved("signature", f"node {home!r} has sent a grant for another key than that of {leaf!r}")
        self.check(self._own, home, wall)


def to_binary(certificate: Certificate) -> bytes:
    """A certificate as it travels: without the name of its kind, and not in base64."""
    return base64.b64decode(certificate.line.split()[1])


@lru_cache(maxsize=MAX_KNOWN)
def _read(data: bytes) -> Certified:
    certificate = read_certificate(_PREFIX + base64.b64encode(data).decode())
    identity = PeerIdentity(NodeId(Address(certificate.node_id)), certificate.tags, fingerprint(certificate.public))
    digest = hashlib.sha256(data).digest()[:DIGEST_BYTES]
    return Certified(identity, digest, data, certificate.public, float(certificate.not_after), certificate)
