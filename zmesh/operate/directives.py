"""The names of the built-in directives that show a node and the mesh."""

from __future__ import annotations

STATUS = "zmesh:status"
LOAD = "zmesh:load"
MEMBERS = "zmesh:members"
GRAPH = "zmesh:graph"
WHY = "zmesh:why"
HOP = "zmesh:hop"
DOCTOR = "zmesh:doctor"
EVENTS = "zmesh:events"
SETTINGS = "zmesh:settings"
