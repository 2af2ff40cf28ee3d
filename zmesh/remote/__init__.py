"""Work on machines: commands that run at other nodes.

`Machines` is the part of a Controller that starts them, `RemoteProcess` is one of them; at the node that runs them,
`commands` is the plugin of the namespace `exec`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.remote.fleet import Outcome, Outcomes, Rules, State
    from zmesh.remote.machines import FleetOptions, Machines, RunOptions
    from zmesh.remote.remote_process import RemoteProcess, Starting, Word
    from zmesh.remote.streams import StdinWriter
    from zmesh.remote.targets import Target
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "fleet": ("Outcome", "Outcomes", "Rules", "State"),
            "machines": ("FleetOptions", "Machines", "RunOptions"),
            "remote_process": ("RemoteProcess", "Starting", "Word"),
            "streams": ("StdinWriter",),
            "targets": ("Target",),
        },
    )

__all__ = [
    "FleetOptions",
    "Machines",
    "Outcome",
    "Outcomes",
    "RemoteProcess",
    "Rules",
    "RunOptions",
    "Starting",
    "State",
    "StdinWriter",
    "Target",
    "Word",
]
