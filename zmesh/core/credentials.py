"""The interface of an identity: its certificate, its signatures, and the verification of those of others.

The core does no cryptography: `zmesh.identity` implements `Credentials`, and the shell hands one to the engine. Without
it a node is unauthenticated, and so are its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from zmesh.core.message import NodeId

SWEEP = 10.0
"""Seconds between two looks at whether the certificates of neighbours are still believed."""


class PeerIdentity(NamedTuple):
    """The proven identity of another node: its id, the tags of its certificate, and its key's fingerprint."""

    id: NodeId
    tags: tuple[str, ...]
    key: str


class Certified(NamedTuple):
    """A certificate that was read, and is signed by the authority that it names; `check` says whether to believe it.

    `digest` is what others call it by, `data` its bytes, `public` the Ed25519 key, `valid_until` in seconds since 1970,
    and `details` what the credentials keep of it.
    """

    identity: PeerIdentity
    digest: bytes
    data: bytes
    public: bytes
    valid_until: float
    details: object


class Disbelieved(Exception):
    """A certificate or a signature that is not believed. `reason` is one of REASONS; the text names node and remedy."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class Unsealable(Exception):
    """A packet that was sealed for another node, was changed, or has come before. `reason` in a word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Session(Protocol):
    """Seals packets for one other node, and opens those of it. `route`: what is authenticated and not sealed."""

    counter: int
    """How many packets were sealed, which no packet's number exceeds."""

    highest: int
    """The highest number of a packet that has come."""

    def seal(self, route: bytes, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        """The head and the body, sealed."""

    def open(self, route: bytes, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        """The head and the body in plain. Raises Unsealable."""

    def reopen(self, route: bytes, head: bytes) -> bytes:
        """A head that was sealed here, in plain. Raises Unsealable."""


class PrivateKey(Protocol):
    """An X25519 key that was made for one key exchange."""

    public: bytes
    """The public key that the other end is sent; it says which cipher this node prefers, too."""


REASONS = (
    "no_certificate",
    "certificate",
    "mesh",
    "authority",
    "not_yet_valid",
    "expired",
    "revoked",
    "id",
    "signature",
)
"""Why a node is not believed; as the reason of a REFUSE, too."""


class KeyCredentials(Protocol):
    """Common part of a node with an identity and a leaf with a grant. All times are seconds since 1970."""

    @property
    def mesh(self) -> str:
        """The name of the mesh."""

    @property
    def own(self) -> Certified:
        """The certificate of this node, or the grant of this leaf."""

    def new_key(self) -> PrivateKey:
        """A new key, for one key exchange."""

    def agree(self, key: PrivateKey, theirs: bytes, here: tuple[str, int], there: tuple[str, int]) -> Session:
        """The session of a key of `new_key` and that of the other end. `here` and `there`: their names (`wire.name_of`)
        and incarnations. Raises Disbelieved.
        """

    def sign(self, data: bytes) -> bytes:
        """The signature of this node's key, 64 bytes."""

    def is_signed(self, by: Certified, signature: bytes, data: bytes) -> bool:
        """Whether that is the signature of the certificate's key."""

    def read(self, data: bytes) -> Certified:
        """Read the certificate of another node. Raises Disbelieved."""

    def read_grant(self, data: bytes, leaf: NodeId, home: NodeId) -> Certified:
        """Read the grant of a leaf by its node: the leaf's key, and the identity of the node. Raises Disbelieved."""

    def check(self, certified: Certified, node: NodeId, wall: float, their_wall: float | None = None) -> None:
        """Raise Disbelieved unless the certificate is to be believed of that node at the time `wall`.

        `their_wall`: what the other node's clock shows, if that is known.
        """


class Credentials(KeyCredentials, Protocol):
    """The identity of this node, and what it believes of others."""

    @property
    def exchange_key(self) -> bytes:
        """The public X25519 key that others seal for, and which cipher this node prefers; it begins with its id."""

    def rotate(self) -> None:
        """Make another exchange key. The former one opens what others still seal for it, until the next rotation."""

    def session(
        self,
        own: bytes,
        theirs: bytes,
        here: tuple[NodeId, int],
        there: tuple[NodeId, int],
        counter: int,
        highest: int,
    ) -> Session:
        """A session of two public exchange keys; `here` and `there`: node and incarnation. Raises Disbelieved.

        `counter` and `highest`: those of a former session of the same keys, or more.
        """

    def grant(self, leaf: NodeId, key: bytes, wall: float) -> bytes:
        """A grant with which a leaf of this node with this Ed25519 key can seal for itself, and whom it is to trust."""

    def statements(self) -> Iterable[bytes]:
        """Statements that authorities have signed for all nodes, revocations and endorsements, as sent to others."""

    def endorsements(self) -> list[bytes]:
        """The endorsements of authorities, first those that the own certificate needs where an older one is known."""

    def learn(self, statement: bytes) -> str:
        """Believe a statement from another node; what it says, or "" if that is no news. Raises Disbelieved."""


class LeafKey(Protocol):
    """The Ed25519 key of a leaf without a certificate of its own, made when it is first needed."""

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""

    def accept(self, data: bytes, leaf: NodeId, home: NodeId, wall: float) -> KeyCredentials:
        """The credentials of the leaf by what its node has sent (`Credentials.grant`). Raises Disbelieved."""
