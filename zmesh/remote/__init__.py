"""Work on machines: commands that run at other nodes.

`Machines` is the part of a Controller that starts them, `RemoteProcess` is one of them; at the node that runs them,
`commands` is the plugin of the namespace `exec`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.remote.machines import Machines, RunOptions
    from zmesh.remote.remote_process import RemoteProcess, Starting
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "machines": ("Machines", "RunOptions"),
            "remote_process": ("RemoteProcess", "Starting"),
        },
    )

__all__ = ["Machines", "RemoteProcess", "RunOptions", "Starting"]
