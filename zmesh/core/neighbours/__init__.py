"""Adjacent nodes: the links to them, the handshake that opens a link, and the keepalive that watches it.

Others use the `Neighbours` of a node, the `Link` that it hands out, and the events of links that it returns.
"""

from zmesh.core.neighbours.authentication import Authentication
from zmesh.core.neighbours.links import COST_STEP, SUSPECT_COST, Link, Links, State, rtt_penalty
from zmesh.core.neighbours.neighbours import Accepted, Ended, LinkEvent, Neighbours
from zmesh.core.neighbours.rate_limits import MIN_RESENT, RateExceeded

__all__ = [
    "COST_STEP",
    "MIN_RESENT",
    "SUSPECT_COST",
    "Accepted",
    "Authentication",
    "Ended",
    "Link",
    "LinkEvent",
    "Links",
    "Neighbours",
    "RateExceeded",
    "State",
    "rtt_penalty",
]
