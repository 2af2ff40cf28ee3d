"""The state of nodes and of the mesh, for operators: the directives that show it, and how a program calls them.

`Operating` is the part of a Controller that asks nodes; `Inspection` answers at a node, from its tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.operate.bounded import Bounded
    from zmesh.operate.bundle import Bundle, BundleSummary, NodeReport, RouteRow, RouteTable
    from zmesh.operate.bundle_file import read_bundle
    from zmesh.operate.diagnosing import EXAMINED_WITHIN, Diagnosing
    from zmesh.operate.diagnosis import Check, Diagnosis
    from zmesh.operate.examiner import Examiner
    from zmesh.operate.host import Host
    from zmesh.operate.inspection import Inspection
    from zmesh.operate.members import (
        GraphLink,
        GraphNode,
        Member,
        MemberList,
        MeshGraph,
        PingResult,
    )
    from zmesh.operate.node_event import NodeEvent
    from zmesh.operate.node_reader import NodeReader
    from zmesh.operate.node_settings import NodeSettings, ShownSetting
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
        RequestsTaken,
        StatusWarning,
        WorkStatus,
    )
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "bounded": ("Bounded",),
            "bundle": ("Bundle", "BundleSummary", "NodeReport", "RouteRow", "RouteTable"),
            "bundle_file": ("read_bundle",),
            "host": ("Host",),
            "inspection": ("Inspection",),
            "node_reader": ("NodeReader",),
            "members": (
                "GraphLink",
                "GraphNode",
                "Member",
                "MemberList",
                "MeshGraph",
                "PingResult",
            ),
            "node_event": ("NodeEvent",),
            "node_settings": ("NodeSettings", "ShownSetting"),
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
            "diagnosing": ("EXAMINED_WITHIN", "Diagnosing"),
            "diagnosis": ("Check", "Diagnosis"),
            "examiner": ("Examiner",),
            "status": (
                "IdentityStatus",
                "LinkFall",
                "LinkReport",
                "LoopStatus",
                "NodeLoad",
                "NodeStatus",
                "ProcessStatus",
                "RefusedLink",
                "RequestsTaken",
                "StatusWarning",
                "WorkStatus",
            ),
        },
    )

__all__ = [
    "EVERYONE",
    "EXAMINED_WITHIN",
    "HOP_TIMEOUT",
    "TIMEOUT",
    "Bounded",
    "Bundle",
    "BundleSummary",
    "Check",
    "Diagnosing",
    "Diagnosis",
    "Examiner",
    "GraphLink",
    "GraphNode",
    "Hop",
    "Host",
    "IdentityStatus",
    "Inspection",
    "LinkFall",
    "LinkReport",
    "LoopStatus",
    "Member",
    "MemberList",
    "MeshGraph",
    "NodeEvent",
    "NodeLoad",
    "NodeReader",
    "NodeReport",
    "NodeSettings",
    "NodeStatus",
    "Operating",
    "PingResult",
    "ProcessStatus",
    "RefusedLink",
    "RequestsTaken",
    "RouteExplanation",
    "RouteLoss",
    "RouteOffer",
    "RouteRow",
    "RouteTable",
    "ShownSetting",
    "StatusWarning",
    "TraceStep",
    "WorkStatus",
    "read_bundle",
]
