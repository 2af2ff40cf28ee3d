"""The key of a leaf without a certificate, such as a command at its node's own socket.

It is made, and `cryptography` imported, when the first packet for another node needs it: most commands talk to their
own node only, or to a mesh without identities.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from zmesh.core.credentials import KeyCredentials
from zmesh.core.message import NodeId

if TYPE_CHECKING:
    from zmesh.identity.keys import IdentityKey


class LeafKey:
    """A key that is made when it is first needed, of `random`, which returns so many random bytes."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random

    @cached_property
    def _key(self) -> IdentityKey:
        from zmesh.identity.keys import IdentityKey

        return IdentityKey.from_seed(self._random(32))

    @property
    def public(self) -> bytes:
        """The public Ed25519 key, 32 bytes."""
        return self._key.public

    def accept(self, data: bytes, leaf: NodeId, home: NodeId, wall: float) -> KeyCredentials:
        """The credentials of the leaf by what its node has sent. Raises Disbelieved."""
        from zmesh.identity.credentials import GrantedCredentials
        from zmesh.identity.processor import is_slow_at_aes

        slow = is_slow_at_aes()
        return GrantedCredentials(self._key, data, leaf, home, wall, self._random, prefers_chacha20=slow)
