"""The state of nodes and of the mesh, for operators: the directives that show it, and how a program calls them.

`Operating` is the part of a Controller that asks nodes; `Inspection` answers at a node, from its tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.operate.bounded import Bounded
    from zmesh.operate.inspection import Inspection
    from zmesh.operate.members import (
        GraphLink,
        GraphNode,
        Member,
        MemberList,
        MeshGraph,
        PingResult,
    )
    from zmesh.operate.operating import EVERYONE, HOP_TIMEOUT, TIMEOUT, Operating
    from zmesh.operate.paths import Hop, RouteExplanation, RouteLoss, RouteOffer, TraceStep
    from zmesh.operate.status import (
        IdentityStatus,
        LinkFall,
        LinkReport,
        LoopStatus,
        NodeLoad,
        NodeStatus,
        ProcessStatus,
        RefusedLink,
        StatusWarning,
        WorkStatus,
    )
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "bounded": ("Bounded",),
            "inspection": ("Inspection",),
            "members": (
                "GraphLink",
                "GraphNode",
                "Member",
                "MemberList",
                "MeshGraph",
                "PingResult",
            ),
            "operating": (
                "EVERYONE",
                "HOP_TIMEOUT",
                "TIMEOUT",
                "Operating",
            ),
            "paths": (
                "Hop",
                "RouteExplanation",
                "RouteLoss",
                "RouteOffer",
                "TraceStep",
            ),
            "status": (
                "IdentityStatus",
                "LinkFall",
                "LinkReport",
                "LoopStatus",
                "NodeLoad",
                "NodeStatus",
                "ProcessStatus",
                "RefusedLink",
                "StatusWarning",
                "WorkStatus",
            ),
        },
    )

__all__ = [
    "EVERYONE",
    "HOP_TIMEOUT",
    "TIMEOUT",
    "Bounded",
    "GraphLink",
    "GraphNode",
    "Hop",
    "IdentityStatus",
    "Inspection",
    "LinkFall",
    "LinkReport",
    "LoopStatus",
    "Member",
    "MemberList",
    "MeshGraph",
    "NodeLoad",
    "NodeStatus",
    "Operating",
    "PingResult",
    "ProcessStatus",
    "RefusedLink",
    "RouteExplanation",
    "RouteLoss",
    "RouteOffer",
    "StatusWarning",
    "TraceStep",
    "WorkStatus",
]
