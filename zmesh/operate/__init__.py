"""The state of nodes and of the mesh, for operators: the directives that show it, and how a program calls them.

`Operating` is the part of a Controller that asks nodes; `Inspection` answers at a node, from its tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.operate.inspection import Inspection
    from zmesh.operate.operating import TIMEOUT, Operating
    from zmesh.operate.status import (
        IdentityStatus,
        LinkFall,
        LinkReport,
        LoopStatus,
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
            "inspection": ("Inspection",),
            "operating": ("TIMEOUT", "Operating"),
            "status": (
                "IdentityStatus",
                "LinkFall",
                "LinkReport",
                "LoopStatus",
                "NodeStatus",
                "ProcessStatus",
                "RefusedLink",
                "StatusWarning",
                "WorkStatus",
            ),
        },
    )

__all__ = [
    "TIMEOUT",
    "IdentityStatus",
    "Inspection",
    "LinkFall",
    "LinkReport",
    "LoopStatus",
    "NodeStatus",
    "Operating",
    "ProcessStatus",
    "RefusedLink",
    "StatusWarning",
    "WorkStatus",
]
