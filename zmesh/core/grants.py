"""Grants: what lets a leaf without a certificate of its own seal for itself.

A leaf at the own socket of its node, such as a command, has a key that it makes when it first needs it. Its node signs
a grant for it, which names the leaf, that key, the mesh and a time, and which the leaf shows in its key exchanges. So
other nodes seal for the leaf itself, and know it as `leaf@node`, which acts in the name of its node. A node can grant
names below its own only, since a grant is verified with the certificate of the node that the leaf's address names.

Both ends say in their HELLOs that they know grants. The leaf requests one in a GRANT, which its node answers with
another, and requests the next when half of the time is over. A leaf whose name has a dot gets none: such are the names
of leaves with a certificate.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from zmesh.core import wire
from zmesh.core.credentials import Credentials, Disbelieved, LeafKey
from zmesh.core.effects import Report
from zmesh.core.forwarding import Forwarding, KeyExchanges
from zmesh.core.limits import Limits
from zmesh.core.neighbours import Link
from zmesh.core.timers import WallClock
from zmesh.core.wire import Kind, Packet

REQUEST_AGAIN = 1.0
"""Seconds from one request for a grant to the next at the earliest, answered or not."""


class Grants:
    """The grants that a node gives to its leaves, or the one of this leaf, which has `leaf_key`.

    `in_use`: whether a leaf has exchanges with that name and incarnation.
    """

    def __init__(
        self,
        forwarding: Forwarding,
        credentials: Credentials | None,
        leaf_key: LeafKey | None,
        clock: WallClock,
        limits: Limits,
        in_use: Callable[[str, int], bool],
    ) -> None:
        self._forwarding = forwarding
        self._credentials = credentials
        self._leaf_key = leaf_key
        self._clock = clock
        self._limits = limits
        self._in_use = in_use
        if forwarding.key_exchanges is not None:
            forwarding.key_exchanges.in_use = in_use
        self._link: Link | None = None
        self._is_requested = False
        self._again_at = -math.inf

    # -- the leaf ------------------------------------------------------------------------------------------------

    def attached(self, link: Link) -> None:
        """This leaf sends everything over that link from now on."""
        if self._leaf_key is None:
            return
        forwarding, self._link = self._forwarding, link
        self._is_requested, self._again_at = False, -math.inf
        if not link.grants:
            forwarding.exchange_keys(None)
        elif forwarding.key_exchanges is None or forwarding.key_exchanges.home != link.node:
            exchanges = KeyExchanges(
                forwarding.node,
                forwarding.incarnation,
                None,
                self._clock,
                leaf=True,
                limits=self._limits,
                home=link.node,
            )
            exchanges.in_use = self._in_use
            forwarding.exchange_keys(exchanges)
            assert forwarding.end_to_end is not None
            forwarding.end_to_end.request_grant = self._request

    def _request(self, now: float) -> None:
        link, key = self._link, self._leaf_key
        if link is None or key is None or now < self._again_at:
            return
        self._is_requested, self._again_at = True, now + REQUEST_AGAIN
        self._forwarding.enqueue(link.id, wire.encode_link(Kind.GRANT, wire.Grant(key.public)))

    def _take(self, link: Link, grant: bytes, now: float) -> None:
        """The node of this leaf has sent a grant."""
        forwarding, key = self._forwarding, self._leaf_key
        exchanges, end_to_end = forwarding.key_exchanges, forwarding.end_to_end
        if link is not self._link or not self._is_requested or key is None or exchanges is None or end_to_end is None:
            forwarding.emit(Report("frame_dropped", link.node, link.id, "unexpected: GRANT"))
            return
        self._is_requested = False
        try:
            credentials = key.accept(grant, forwarding.node, link.node, self._clock.at(now))
        except Disbelieved as error:
            forwarding.emit(Report("frame_dropped", link.node, link.id, f"grant: {error.reason}: {error.text}"))
            end_to_end.refuse_waiting(error.text)
            return
        end_to_end.want(exchanges.take_grant(credentials, now))

    # -- both ends -----------------------------------------------------------------------------------------------

    def on_grant(self, link: Link, packet: Packet, now: float) -> None:
        """A GRANT has come on a link that is up. Raises WireError."""
        said = wire.decode_grant(packet.head)
        link.limiter.spend("key_exchanges", 1)
        if self._forwarding.leaf:
            self._take(link, said.grant, now)
            return
        if self._credentials is None or not link.grants or "." in link.node:
            self._forwarding.emit(Report("frame_dropped", link.node or None, link.id, "unexpected: GRANT"))
            return
        grant = self._credentials.grant(link.node, said.key, self._clock.at(now))
        self._forwarding.enqueue(link.id, wire.encode_link(Kind.GRANT, wire.Grant(said.key, grant)))
