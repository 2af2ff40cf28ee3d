"""Identity: all that one node knows about itself and its mesh, as it lies in a folder of state.

    identity.key         the node's Ed25519 private key, as OpenSSH has it
    identity-cert.pub    its certificate (ssh-keygen -L shows it)
    curve.key            the secret half of the CURVE key of its listeners, in hex
    trust.json           the authorities that are trusted, and what was revoked
    policy.toml          [allow]: who may call what here
    mesh.json            the mesh's name, the node id, and the URLs to listen on and to dial

`mesh.json` is written last, so that a folder which has it has the others too.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from zmesh.errors import ConfigError
from zmesh.identity.certificates import Certificate, read_certificate
from zmesh.identity.credentials import NodeCredentials
from zmesh.identity.keys import IdentityKey, fingerprint, public_from_openssh, public_to_openssh
from zmesh.identity.policy import Policy
from zmesh.identity.processor import is_slow_at_aes
from zmesh.identity.state import PROFILE, State, StateError
from zmesh.identity.tickets import key_of, with_key
from zmesh.identity.trust import Authority, Endorsement, Revocation, TrustError, TrustStore

KEY = "identity.key"
CERTIFICATE = "identity-cert.pub"
CURVE = "curve.key"
TRUST = "trust.json"
POLICY = "policy.toml"
FILES = (KEY, CERTIFICATE, CURVE, TRUST, POLICY, PROFILE)

_POLICY = b"""# Who may call which directives of this node: patterns to node ids, "tag:NAME", or "*" for every member.
# Without a rule any member may call a directive, except those that take over the machine (exec, file, job, job-admin
# and tcp) and zmesh:settings.
# zmesh reload (or SIGHUP) makes a running node read this file again.
[allow]
# "exec:*" = ["ops", "tag:admin"]
"""


class CurveKeys(NamedTuple):
    """The key pair of the listeners of a node (Curve25519, as libzmq's CURVE has it), 32 bytes each."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"CurveKeys(public={self.public.hex()})"

    @classmethod
    def generate(cls) -> Self:
        """A new pair from the system's source of randomness."""
        return cls._of(X25519PrivateKey.generate())

    @classmethod
    def from_secret(cls, secret: bytes) -> Self:
        """The pair of a secret key of 32 bytes. Raises ValueError."""
        return cls._of(X25519PrivateKey.from_private_bytes(secret))

    @classmethod
    def _of(cls, key: X25519PrivateKey) -> Self:
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return cls(public, key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))


class Profile(NamedTuple):
    """The public part of an identity: the mesh, the node id, and three lists of URLs: those to listen on (`listen`),
    those that others dial (`urls`), and those to dial (`peers`).
    """

    mesh: str
    node_id: str
    listen: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The profile as mesh.json."""
        return json.dumps({"version": 1, **self._asdict()}, indent=2).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes, where: str) -> Self:
        """Read mesh.json. Raises StateError."""
        fields = read_json(data, where)
        mesh, node_id = fields.get("mesh"), fields.get("node_id")
        lists = [fields.get(name, []) for name in ("listen", "urls", "peers")]
        are_texts = all(isinstance(each, list) and all(isinstance(url, str) for url in each) for each in lists)
        if not (isinstance(mesh, str) and isinstance(node_id, str) and are_texts):
            raise StateError(f"{where} is damaged: a field has the wrong type")
        return cls(mesh, node_id, *map(tuple, lists))


class Identity:
    """One node's keys, certificate, trust and permissions. `state` is their folder; None: in memory only.

    Raises ConfigError if the certificate is not for this key, node id and mesh.
    """

    def __init__(
        self,
        profile: Profile,
        key: IdentityKey,
        certificate: Certificate,
        curve: CurveKeys,
        trust: TrustStore,
        policy: Policy | None = None,
        state: State | None = None,
    ) -> None:
        self.profile = profile
        self.key = key
        self.certificate = certificate
        self.curve = curve
        self.trust = trust
        self.policy = Policy() if policy is None else policy
        self.state = state
        self._check(certificate)

    def _check(self, certificate: Certificate) -> None:
        if certificate.public != self.key.public:
            raise StateError(f"the certificate in {self.where} is for another key than the one there")
        if (certificate.node_id, certificate.mesh) != (self.profile.node_id, self.profile.mesh):
            raise StateError(f"the certificate in {self.where} is for another node or mesh than {PROFILE} there says")

    @property
    def where(self) -> str:
        """The folder of the state, for messages."""
        return str(self.state.folder) if self.state is not None else "memory"

    @property
    def node_id(self) -> str:
        """The node id."""
        return self.profile.node_id

    @property
    def mesh(self) -> str:
        """The name of the mesh."""
        return self.profile.mesh

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that the certificate gives."""
        return self.certificate.tags

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the node's key, as `ssh-keygen -l` shows it."""
        return fingerprint(self.key.public)

    @property
    def renews_at(self) -> float:
        """When to renew the certificate, in seconds since 1970: after two thirds of its validity, give or take a
        twentieth that depends on the key, so that the nodes of a fleet that was set up on one day spread out.
        """
        certificate = self.certificate
        jitter = int.from_bytes(hashlib.sha256(certificate.public).digest()[:2]) / 65536 - 0.5
        return certificate.not_before + (2 / 3 + jitter / 10) * (certificate.not_after - certificate.not_before)

    def dial_urls(self) -> tuple[str, ...]:
        """The URLs at which a command with this identity dials the mesh: the peers, or the hub's own ones."""
        own = tuple(with_key(url, self.curve.public) for url in self.profile.urls)
        return self.profile.peers or own

    def keyed(self, url: str) -> str:
        """A URL to dial, with the CURVE key of the listener there if it has none and that is known."""
        if not url.startswith(("tcp://", "rnps://")) or key_of(url) is not None:
            return url
        address = url.partition("://")[2].partition("?")[0]
        for known in (*self.profile.peers, *(with_key(each, self.curve.public) for each in self._own_urls())):
            key = key_of(known)
            if key is not None and known.partition("://")[2].partition("?")[0] == address:
                return f"{url}{'&' if '?' in url else '?'}key={key}"
        return url

    def _own_urls(self) -> tuple[str, ...]:
        return (*self.profile.urls, *self.profile.listen)

    def credentials(self) -> NodeCredentials:
        """The credentials of one incarnation of the node, for its engine."""
        return NodeCredentials(self.key, self.certificate, self.trust, os.urandom, prefers_chacha20=is_slow_at_aes())

    # -- folders -------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, state: State | Path | str) -> Self:
        """Read an identity. Raises ConfigError for a folder that holds none, and for what is damaged or badly kept."""
        state = state if isinstance(state, State) else State(state)
        data = state.read(PROFILE)
        if data is None:
            raise StateError(
                f"there is no identity in {state.folder}; 'zmesh init' makes a mesh, 'zmesh join zm1...' joins one"
            )
        profile = Profile.decode(data, str(state.folder / PROFILE))
        secret = _needed(state, CURVE, state.read_secret(CURVE)).strip()
        try:
            curve = CurveKeys.from_secret(bytes.fromhex(secret.decode()))
        except ValueError:
            raise StateError(f"{state.folder / CURVE} holds no key: 64 hex digits") from None
        return cls(
            profile,
            IdentityKey.from_openssh(_needed(state, KEY, state.read_secret(KEY))),
            read_certificate(_needed(state, CERTIFICATE, state.read(CERTIFICATE))),
            curve,
            read_trust(_needed(state, TRUST, state.read(TRUST)), profile.mesh, str(state.folder / TRUST)),
            read_policy(state),
            state,
        )

    @classmethod
    def create(
        cls, state: State, profile: Profile, key: IdentityKey, certificate: Certificate, trust: TrustStore
    ) -> Self:
        """Write a new identity to a folder that holds none; all of it or nothing. Raises StateError."""
        if PROFILE in state:
            raise StateError(f"{state.folder} holds an identity already, and it is not overwritten")
        made = cls(profile, key, certificate, CurveKeys.generate(), trust, None, state)
        with state.all_or_nothing(*FILES):
            state.write(KEY, key.to_openssh(), secret=True)
            state.write(CURVE, made.curve.secret.hex().encode() + b"\n", secret=True)
            state.write(CERTIFICATE, certificate.line.encode() + b"\n")
            made.save_trust()
            if POLICY not in state:
                state.write(POLICY, _POLICY)
            made.save_profile(profile)
        return made

    def read(self) -> Self | None:
        """The identity in the folder as it is now, for `reload`; None without one. It blocks; any thread may call it.

        Raises ConfigError.
        """
        return self.load(self.state) if self.state is not None else None

    def reload(self, read: Self | None = None) -> None:
        """Take over certificate, trust, permissions and profile from what `read` has returned; None: read them now.

        Raises ConfigError, also if the folder holds another identity now, and then keeps what it had.
        """
        read = self.read() if read is None else read
        if read is None:
            return
        if (read.key.public, read.node_id, read.mesh) != (self.key.public, self.node_id, self.mesh):
            raise StateError(f"{self.where} holds another identity than this node runs with; start it anew")
        read.merge(self.trust)  # what came over the mesh, and could not be written
        self.certificate, self.trust, self.policy, self.profile = (
            read.certificate,
            read.trust,
            read.policy,
            read.profile,
        )

    def renewed(self, certificate: Certificate) -> None:
        """Write a newer certificate for the same key, and use it. Raises ConfigError if it is for another key."""
        self._check(certificate)
        if self.state is not None:
            self.state.write(CERTIFICATE, certificate.line.encode() + b"\n")
        self.certificate = certificate

    def save_trust(self) -> None:
        """Write what is trusted and what was revoked, with what another process has written. Raises StateError."""
        self.merge(self.saving_trust()())

    def saving_trust(self) -> Callable[[], TrustStore | None]:
        """A function that writes the trust of this moment, as `save_trust` does; it blocks, and any thread may call it.

        It returns what another process has written, for `merge`. Raises StateError.
        """
        state, data = self.state, write_trust(self.trust)

        def save() -> TrustStore | None:
            if state is None:
                return None
            own, found = read_trust(data, self.mesh, TRUST), None
            with state.locked():
                with contextlib.suppress(StateError):  # what is damaged or missing is written anew
                    found = read_trust(_needed(state, TRUST, state.read(TRUST)), self.mesh, TRUST)
                    _merge(own, found)
                state.write(TRUST, write_trust(own))
            return found

        return save

    def merge(self, other: TrustStore | None) -> None:
        """Add the authorities, endorsements and revocations of another trust store."""
        if other is not None:
            _merge(self.trust, other)

    def save_profile(self, profile: Profile) -> None:
        """Write the profile. Raises StateError."""
        self.profile = profile
        if self.state is not None:
            self.state.write(PROFILE, profile.encode())


def _merge(trust: TrustStore, other: TrustStore) -> None:
    for endorsement in other.endorsements:
        trust.endorse(endorsement)
    for revocation in other.revocations:
        trust.revoke(revocation)


def read_policy(state: State) -> Policy:
    """The permissions in policy.toml; without that file none. Raises ConfigError."""
    data = state.read(POLICY)
    if data is None:
        return Policy()
    where = state.folder / POLICY
    try:
        tables = tomllib.loads(data.decode())
        unknown = next((name for name in tables if name != "allow"), None)
        if unknown is not None:
            raise ConfigError(f"no table is called {unknown!r}; there is [allow]")
        allow = tables.get("allow", {})
        if not isinstance(allow, dict):
            raise ConfigError("[allow] is a table")
        return Policy(allow)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StateError(f"{where} is not TOML: {error}") from None
    except ConfigError as error:
        raise StateError(f"{where}: {error}") from None


def write_trust(trust: TrustStore) -> bytes:
    """The authorities and revocations as trust.json."""
    fields = {
        "version": 1,
        "authorities": list(map(authority_fields, trust.authorities)),
        "endorsements": [base64.b64encode(each.encode()).decode() for each in trust.endorsements],
        "revocations": [base64.b64encode(each.encode()).decode() for each in trust.revocations],
    }
    return json.dumps(fields, indent=1).encode() + b"\n"


def read_trust(data: bytes, mesh: str, where: str) -> TrustStore:
    """Read trust.json. Raises StateError."""
    fields = read_json(data, where)
    try:
        authorities = read_authorities(fields["authorities"])
        endorsements = [Endorsement.decode(base64.b64decode(each)) for each in fields.get("endorsements", [])]
        revocations = [Revocation.decode(base64.b64decode(each)) for each in fields.get("revocations", [])]
    except (KeyError, TypeError, ValueError, TrustError) as error:
        raise StateError(f"{where} is damaged: {error}") from None
    return TrustStore(mesh, authorities, revocations, endorsements)


def authority_fields(authority: Authority) -> dict[str, object]:
    """An authority as JSON values."""
    return {
        "key": public_to_openssh(authority.public),
        "not_before": authority.not_before,
        "not_after": authority.not_after,
    }


def read_authorities(fields: Iterable[Any]) -> list[Authority]:
    """Authorities from JSON values. Raises KeyError, TypeError, ValueError, and ConfigError for a malformed key."""
    return [
        Authority(public_from_openssh(each["key"]), whole(each["not_before"]), whole(each["not_after"]))
        for each in fields
    ]


def whole(value: object) -> int:
    """A number of seconds or of a certificate from a JSON value, which may be infinite there. Raises ValueError."""
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError(f"{value!r:.40} is no whole number from 0 up")
    return value


def read_json(data: bytes, where: str) -> Mapping[str, Any]:
    """A JSON object. Raises StateError."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StateError(f"{where} is damaged: {error}") from None
    if not isinstance(fields, dict):
        raise StateError(f"{where} is damaged: it is no JSON object")
    return fields


def _needed(state: State, name: str, data: bytes | None) -> bytes:
    if data is None:
        raise StateError(f"{state.folder / name} is missing; restore it, or let this node join anew")
    return data
