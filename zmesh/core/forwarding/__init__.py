"""The forwarding plane: which link each frame leaves on, the queues of links that are full, and the notes to sources.

Others use the `Forwarding` of a node, and the `NextHop` that it returns.
"""

from zmesh.core.forwarding.forwarding import DRAIN, LAGGING_BYTES, Forwarding, NextHop

__all__ = ["DRAIN", "LAGGING_BYTES", "Forwarding", "NextHop"]
