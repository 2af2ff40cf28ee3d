"""Isolated directives: `Processes` runs each call in a worker process of its own, forked by a fork server.

`Isolation` says how the worker loads the function and which limits the directive requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.serving.isolation.limits import ImportPath, Isolation, pickle_function, requested_limits
    from zmesh.serving.isolation.processes import Processes
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "limits": ("ImportPath", "Isolation", "pickle_function", "requested_limits"),
            "processes": ("Processes",),
        },
    )

__all__ = ["ImportPath", "Isolation", "Processes", "pickle_function", "requested_limits"]
