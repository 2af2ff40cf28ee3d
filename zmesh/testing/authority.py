"""An authority for tests: credentials for any node, with real keys and certificates that a seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterable

from zmesh.identity import (
    Authority,
    Certificate,
    Endorsement,
    IdentityKey,
    NodeCredentials,
    Revocation,
    TrustStore,
    issue,
)

DAY = 86400
YEAR = 365 * DAY


class TestAuthority:
    """One authority of the mesh `mesh`, valid from `begins` on for 150 years (seconds since 1970)."""

    __test__ = False

    def __init__(self, seed: int = 0, mesh: str = "lab", begins: int = 0) -> None:
        self._random = random.Random(f"authority {seed}")
        self.mesh = mesh
        self.begins = begins
        self.key = IdentityKey.from_seed(self._random.randbytes(32))
        self.authority = Authority(self.key.public, begins, begins + 150 * YEAR)
        self._serial = 0
        self.states: dict[str, NodeCredentials] = {}
        """The credentials of the nodes that were `installed`, by id."""

    def key_of(self, id: str) -> IdentityKey:
        """A new key for a node."""
        return IdentityKey.from_seed(self._random.randbytes(32))

    def certificate(
        self, id: str, key: IdentityKey, *, tags: tuple[str, ...] = (), begins: int | None = None, days: int = 90
    ) -> Certificate:
        """A certificate for that key, valid for `days` from `begins` (seconds since 1970; None: the authority's)."""
        self._serial += 1
        begins = self.begins if begins is None else begins
        return issue(
            self.key, key.public, id, self.mesh, tags=tags, serial=self._serial, not_before=begins,
            not_after=begins + days * DAY,
        )  # fmt: skip

    def trust(self, *others: TestAuthority, revocations: Iterable[Revocation] = ()) -> TrustStore:
        """The trust store of a node that trusts this authority and `others`."""
        return TrustStore(self.mesh, [self.authority, *(other.authority for other in others)], revocations)

    def credentials(
        self, id: str, *, tags: tuple[str, ...] = (), begins: int | None = None, days: int = 90
    ) -> NodeCredentials:
        """Credentials of a node with a new key."""
        key = self.key_of(id)
        return NodeCredentials(
            key,
            self.certificate(id, key, tags=tags, begins=begins, days=days),
            self.trust(),
            self._random.randbytes,
        )

    def installed(self, id: str, *, days: int = 90, prefers_chacha20: bool = False) -> NodeCredentials:
        """Credentials of a node whose key, certificate and trust outlive its restarts; as an option of the simulator's
        nodes.
        """
        if id not in self.states:
            self.states[id] = self.credentials(id, days=days)
        before = self.states[id]
        made = NodeCredentials(
            before.key,
            before.certificate,
            before.trust,
            self._random.randbytes,
            prefers_chacha20=prefers_chacha20,
        )
        self.states[id] = made
        return made

    def endorse(self, other: TestAuthority) -> Endorsement:
        """Vouch for another authority."""
        return Endorsement.sign(self.key, other.authority)

    def renew(self, id: str, *, begins: int | None = None, days: int = 90) -> None:
        """Give a node that was `installed` another certificate of this authority, for the key that it has."""
        state = self.states[id]
        state.renew(self.certificate(id, state.key, begins=begins, days=days))

    def revoke(self, subject: str, at: int, reason: str = "") -> Revocation:
        """A revocation that holds for a year."""
        return Revocation.sign(self.key, subject, at, at + YEAR, reason)
