"""The selected route to a destination, and a change of it."""

from __future__ import annotations

from typing import NamedTuple

from zmesh.core.message import LinkId, NodeId


class SelectedRoute(NamedTuple):
    """The selected route to one destination. `metric` and `hops` count from this node; `excess` is how much the metric
    exceeds the feasibility distance; `since` is when the next hop was selected.
    """

    link: LinkId
    incarnation: int
    seqno: int
    metric: int
    hops: int
    since: float
    excess: int = 0


class RouteChange(NamedTuple):
    """The selected route to `destination` was `before` and is `after`; None: there is none."""

    destination: NodeId
    before: SelectedRoute | None
    after: SelectedRoute | None
