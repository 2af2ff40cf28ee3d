"""The forwarding plane: which link each frame leaves on, the queues of links that are full, and the notes to sources.

Others use the `Forwarding` of a node, the `NextHop` that it returns, its `Batches`, and the `Sealing` and the
`KeyExchanges` that a node with an identity has.
"""

from zmesh.core.forwarding.batches import Batches
from zmesh.core.forwarding.forwarding import DRAIN, LAGGING_BYTES, Forwarding, NextHop
from zmesh.core.forwarding.key_exchanges import KeyExchanges
from zmesh.core.forwarding.sealing import Sealing

__all__ = ["DRAIN", "LAGGING_BYTES", "Batches", "Forwarding", "KeyExchanges", "NextHop", "Sealing"]
