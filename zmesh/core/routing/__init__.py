"""The control plane: loop-free distance-vector routes after RFC 8966, and the records that every node floods.

Others use the `Routing` of a node, and the values that it takes and returns.
"""

from zmesh.core.routing.duplicates import describe_links
from zmesh.core.routing.explanation import Explanation, Loss, Offer, OfferState
from zmesh.core.routing.routes import KEEP_DISTANCE
from zmesh.core.routing.routing import Adjacencies, Routing
from zmesh.core.routing.selected_route import RouteChange, SelectedRoute

__all__ = [
    "KEEP_DISTANCE",
    "Adjacencies",
    "Explanation",
    "Loss",
    "Offer",
    "OfferState",
    "RouteChange",
    "Routing",
    "SelectedRoute",
    "describe_links",
]
