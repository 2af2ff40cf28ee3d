"""Work on machines: commands that run at other nodes.

`Machines` is the part of a Controller that starts them, `RemoteProcess` is one of them; at the node that runs them,
`commands` is the plugin of the namespace `exec`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.remote.fleet import Outcome, Outcomes, Rules, State
    from zmesh.remote.machines import RUN, FleetOptions, Machines, RunOptions
    from zmesh.remote.records import HEAD, INPUT_WINDOW, Decoder, Kind, check_keys, number_of, pack, record, unpack
    from zmesh.remote.remote_process import STDOUT, RemoteProcess, Starting, Word, start_record
    from zmesh.remote.streams import StdinWriter
    from zmesh.remote.supervisor import session_members
    from zmesh.remote.targets import Target
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "fleet": ("Outcome", "Outcomes", "Rules", "State"),
            "machines": ("RUN", "FleetOptions", "Machines", "RunOptions"),
            "records": (
                "HEAD",
                "INPUT_WINDOW",
                "Decoder",
                "Kind",
                "check_keys",
                "number_of",
                "pack",
                "record",
                "unpack",
            ),
            "remote_process": ("STDOUT", "RemoteProcess", "Starting", "Word", "start_record"),
            "streams": ("StdinWriter",),
            "supervisor": ("session_members",),
            "targets": ("Target",),
        },
    )

__all__ = [
    "HEAD",
    "INPUT_WINDOW",
    "RUN",
    "STDOUT",
    "Decoder",
    "FleetOptions",
    "Kind",
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
    "check_keys",
    "number_of",
    "pack",
    "record",
    "session_members",
    "start_record",
    "unpack",
]
