"""The dashboard: a web page on loopback that shows a mesh live, served by a process of its own.

`Dashboard` serves it for a Controller, or anything else that answers as one does (`Source`). All that the page shows
comes from the built-in directives of `zmesh.operate`, under their permissions. It needs the extra `web`; without that,
importing `Dashboard` is an ImportError that says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.dashboard.server import Dashboard
    from zmesh.dashboard.source import Source
else:
    __getattr__ = lazy_attributes(__name__, {"server": ("Dashboard",), "source": ("Source",)})

__all__ = ["Dashboard", "Source"]
