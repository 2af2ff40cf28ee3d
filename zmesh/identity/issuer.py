"""Issuer: the keys of the mesh's authority, at the node that holds them, and what they have signed.

    authority/1          the private key of the first authority, as OpenSSH has it, with a passphrase or without
    authority/2          that of the next one, while it takes over or after it has
    authority/1.pub      its public key, which is read without the passphrase; alone, if the key lies in ssh-agent
    authority/current    the number of the one that signs
    issued.json          the last certificate of each node, so that it is known who lacks the next authority

An SSH certificate authority takes the place of this: `ssh-keygen -s` signs, and these files are not there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from zmesh.identity.agent import key_in_agent
from zmesh.identity.certificates import Certificate, check_names, issue
from zmesh.identity.identity import Identity, read_json, whole
from zmesh.identity.invites import Invites
from zmesh.identity.keys import BadKey, IdentityKey, fingerprint, public_from_openssh, public_to_openssh
from zmesh.identity.state import State, StateError
from zmesh.identity.trust import YEAR, Authority, Endorsement, Revocation, TrustError, TrustStore

FOLDER = "authority"
CURRENT = f"{FOLDER}/current"
ISSUED = "issued.json"
VALIDITY = 90 * 86400
"""Seconds that a certificate is valid, unless it is said otherwise."""
EARLY = 3600
"""Seconds by which certificates and authorities are valid before they are made, for clocks that are behind."""
AUTHORITY_VALIDITY = 10 * YEAR
MAX_ISSUED = 50_000


class Issued(NamedTuple):
    """The last certificate of a key; times in seconds since 1970, keys as fingerprints."""

    node_id: str
    tags: tuple[str, ...]
    key: str
    authority: str
    serial: int
    not_after: int


class Issuer:
    """Signs for one mesh. `locked`: the key has a passphrase, which was not given."""

    def __init__(self, state: State, trust: TrustStore, key: IdentityKey, next_key: IdentityKey | None = None) -> None:
        self.state = state
        self.trust = trust
        self.key = key
        self.next_key = next_key
        self.invites = Invites(state)

    @staticmethod
    def is_at(state: State) -> bool:
        """Whether the authority's key lies in this folder."""
        return CURRENT in state

    @classmethod
    def create(
        cls, state: State, mesh: str, now: float, passphrase: str | None = None, agent_key: bytes | None = None
    ) -> Self:
        """Make the first authority of a mesh; or (`agent_key`) take the key in ssh-agent with that public half.

        Raises StateError if there is one, and AgentError.
        """
        if CURRENT in state:
            raise StateError(f"{state.folder / FOLDER} holds an authority already, and it is not overwritten")
        key = _make_key(state, 1, mesh, passphrase, agent_key)
        state.write(CURRENT, b"1\n")
        return cls(state, TrustStore(mesh, [new_authority(key.public, now)]), key)

    @staticmethod
    def public_keys(state: State) -> tuple[bytes | None, bytes | None]:
        """The public keys of the authority that signs and of the next one, without a passphrase. Raises StateError."""
        number = _current(state)
        return _read_public(state, number), _read_public(state, number + 1)

    @classmethod
    def load(cls, identity: Identity, passphrase: str | None = None) -> Self:
        """Read the authority's key beside an identity. Raises StateError if there is none, or it is locked."""
        state = identity.state
        if state is None or CURRENT not in state:
            raise StateError(
                f"the authority's key does not lie in {identity.where}; this works where 'zmesh init' was run"
            )
        number = _current(state)
        key = _read_key(state, number, passphrase)
        if key is None:
            raise StateError(
                f"{state.folder / FOLDER / str(number)} is missing, and so is its public key; restore them"
            )
        return cls(state, identity.trust, key, _read_key(state, number + 1, passphrase))

    @property
    def public(self) -> bytes:
        """The public key of the authority that signs."""
        return self.key.public

    @property
    def where(self) -> Path:
        """The file of the key that signs."""
        return self.state.folder / FOLDER / str(_current(self.state))

    # -- certificates --------------------------------------------------------------------------------------------

    def issue(
        self, public: bytes, node_id: str, tags: tuple[str, ...], now: float, validity: float = VALIDITY
    ) -> Certificate:
        """Sign a certificate for that key, valid from an hour ago on for `validity` seconds from `now`, and note it.

        Raises ConfigError for a name that can't be one, and StateError for an authority that has expired.
        """
        check_names(node_id, self.trust.mesh, tags)
        authority = next((each for each in self.trust.authorities if each.public == self.public), None)
        if authority is None or now >= authority.not_after:
            raise StateError(f"the authority {fingerprint(self.public)} is not valid any more; zmesh authority rotate")
        revoked = [each.at for each in self.trust.revocations if each.subject == node_id]
        certificate = issue(
            self.key,
            public,
            node_id,
            self.trust.mesh,
            tags=tags,
            serial=int.from_bytes(os.urandom(8)) >> 1,
            not_before=max(int(now) - EARLY, *revoked, 0),  # later than what has revoked the name
            not_after=min(int(now + validity), authority.not_after),
        )
        self._note(certificate, now)
        return certificate

    def renew(self, certificate: Certificate, now: float) -> Certificate:
        """A new certificate for the key, id and tags of one that may have expired, and was not revoked.

        Raises TrustError, ConfigError.
        """
        self.trust.check(certificate, now, renewing=True)
        if certificate.authority == self.public and certificate.remaining(now) > 0.9:
            return certificate
        return self.issue(certificate.public, certificate.node_id, certificate.tags, now)

    def issued(self) -> list[Issued]:
        """The last certificate of each key, by node id. Raises StateError."""
        data = self.state.read_secret(ISSUED)
        if data is None:
            return []
        where = str(self.state.folder / ISSUED)
        try:
            return sorted(map(_issued, read_json(data, where)["issued"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"{where} is damaged: {error!r}") from None

    def _note(self, certificate: Certificate, now: float) -> None:
        noted = Issued(
            certificate.node_id,
            certificate.tags,
            fingerprint(certificate.public),
            fingerprint(certificate.authority),
            certificate.serial,
            certificate.not_after,
        )
        with self.state.locked():
            kept = [
                each
                for each in self.issued()
                if (each.node_id, each.key) != (noted.node_id, noted.key) and each.not_after + YEAR > now
            ]
            self._write([*kept[-MAX_ISSUED + 1 :], noted])

    def _write(self, issued: Iterable[Issued]) -> None:
        data = json.dumps({"version": 1, "issued": [each._asdict() for each in issued]}, indent=1)
        self.state.write(ISSUED, data.encode() + b"\n", secret=True)

    # -- revocation and rotation ---------------------------------------------------------------------------------

    def revoke(self, subject: str, now: float, reason: str = "") -> Revocation:
        """Sign a revocation of a node id or a key's fingerprint, and take it in. Raises TrustError if it changes
        nothing.

        It lasts as long as an authority does, since an expired certificate may be renewed at any time.
        """
        revocation = Revocation.sign(self.key, subject, int(now), int(now) + AUTHORITY_VALIDITY, reason)
        if not self.trust.revoke(revocation):
            raise TrustError(
                "revoked", f"{subject!r} was revoked already, or there is no room for one more", node=subject
            )
        return revocation

    def begin_rotation(self, now: float, passphrase: str | None = None, agent_key: bytes | None = None) -> Endorsement:
        """Make the next authority, endorsed by the present one; or (`agent_key`) take that key of ssh-agent.

        Raises StateError if there is a next one already, and AgentError.
        """
        if self.next_key is not None:
            raise StateError("the next authority is there already")
        key = _make_key(self.state, _current(self.state) + 1, self.trust.mesh, passphrase, agent_key)
        self.next_key = key
        endorsement = Endorsement.sign(self.key, new_authority(key.public, now))
        self.trust.endorse(endorsement)
        present = next(each for each in self.trust.authorities if each.public == self.public)
        self.trust.endorse(Endorsement.sign(key, present))  # for those who join later, and know the next one only
        return endorsement

    def switch(self) -> None:
        """Have the next authority sign from now on. Raises StateError if there is none."""
        if self.next_key is None:
            raise StateError("there is no next authority; zmesh authority rotate makes one")
        self.state.write(CURRENT, f"{_current(self.state) + 1}\n".encode())
        self.key, self.next_key = self.next_key, None

    def public_lines(self) -> list[str]:
        """The public keys of all authorities of the mesh, as lines of OpenSSH."""
        return [public_to_openssh(each.public, f"authority of {self.trust.mesh}") for each in self.trust.authorities]


def new_authority(public: bytes, now: float) -> Authority:
    """An authority that is valid from an hour before `now` (seconds since 1970) on, for ten years after it."""
    return Authority(public, int(now) - EARLY, int(now) + AUTHORITY_VALIDITY)


def _current(state: State) -> int:
    data = (state.read(CURRENT) or b"").strip()
    if not data.isdigit():
        raise StateError(f"{state.folder / CURRENT} is damaged: it holds a number")
    return int(data)


def _make_key(state: State, number: int, mesh: str, passphrase: str | None, agent_key: bytes | None) -> IdentityKey:
    """A new key in a file, or the one in ssh-agent with that public half, of which no file holds more than that."""
    if agent_key is not None:
        key = key_in_agent(agent_key, state.folder / FOLDER / str(number))
    else:
        key = IdentityKey.generate()
        state.create(f"{FOLDER}/{number}", key.to_openssh(passphrase), secret=True)
    _write_public(state, number, key, mesh)
    return key


def _write_public(state: State, number: int, key: IdentityKey, mesh: str) -> None:
    state.write(f"{FOLDER}/{number}.pub", public_to_openssh(key.public, f"authority of {mesh}").encode() + b"\n")


def _read_public(state: State, number: int) -> bytes | None:
    data = state.read(f"{FOLDER}/{number}.pub")
    return None if data is None else public_from_openssh(data)


def _read_key(state: State, number: int, passphrase: str | None) -> IdentityKey | None:
    data = state.read_secret(f"{FOLDER}/{number}")
    where = state.folder / FOLDER / str(number)
    if data is None:
        public = _read_public(state, number)
        return key_in_agent(public, where) if public is not None else None
    try:
        return IdentityKey.from_openssh(data, passphrase)
    except BadKey as error:
        if passphrase is None and "assword" in str(error):
            raise LockedKey(f"{where} has a passphrase; give it in ZMESH_PASSPHRASE") from None
        raise StateError(f"{where}: {error}") from None


class LockedKey(StateError):
    """The authority's key has a passphrase, which was not given."""


def _issued(fields: Mapping[str, Any]) -> Issued:
    return Issued(
        str(fields["node_id"]),
        tuple(map(str, fields["tags"])),
        str(fields["key"]),
        str(fields["authority"]),
        whole(fields["serial"]),
        whole(fields["not_after"]),
    )
