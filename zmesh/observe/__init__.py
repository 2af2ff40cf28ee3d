"""Observation of a node: routes (`Router`), typed events (`Events`), counters (`Telemetry`) and its log (`Journal`).

Reads the engine's reports and tables, and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.observe.events import (
        CertificateExpiring,
        CertificateRenewed,
        ClockSet,
        ConfigurationChanged,
        DestinationUnreachable,
        DialFailed,
        DuplicateId,
        Event,
        Events,
        EventsLost,
        IdTaken,
        LinkLost,
        LinkRefused,
        LinkUp,
        NodeJoined,
        NodeLeft,
        RouteChanged,
        TrustChanged,
        event_of,
    )
    from zmesh.observe.journal import Journal, Neighbour
    from zmesh.observe.link_history import LinkHistory
    from zmesh.observe.mesh_view import MeshView
    from zmesh.observe.observation import Observation
    from zmesh.observe.request_observer import ClientRequest, Ended, RequestObserver, ServerRequest
    from zmesh.observe.router import Route, Router, Tags
    from zmesh.observe.stats import LinkStatus, Stats, links_of, stats_of
    from zmesh.observe.telemetry import Telemetry
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "events": (
                "CertificateExpiring",
                "CertificateRenewed",
                "ClockSet",
                "ConfigurationChanged",
                "DestinationUnreachable",
                "DialFailed",
                "DuplicateId",
                "Event",
                "Events",
                "EventsLost",
                "IdTaken",
                "LinkLost",
                "LinkRefused",
                "LinkUp",
                "NodeJoined",
                "NodeLeft",
                "RouteChanged",
                "TrustChanged",
                "event_of",
            ),
            "journal": ("Journal", "Neighbour"),
            "mesh_view": ("MeshView",),
            "observation": ("Observation",),
            "link_history": ("LinkHistory",),
            "request_observer": ("ClientRequest", "Ended", "RequestObserver", "ServerRequest"),
            "router": ("Route", "Router", "Tags"),
            "stats": ("LinkStatus", "Stats", "links_of", "stats_of"),
            "telemetry": ("Telemetry",),
        },
    )

__all__ = [
    "CertificateExpiring",
    "CertificateRenewed",
    "ClientRequest",
    "ClockSet",
    "ConfigurationChanged",
    "DestinationUnreachable",
    "DialFailed",
    "DuplicateId",
    "Ended",
    "Event",
    "Events",
    "EventsLost",
    "IdTaken",
    "Journal",
    "LinkHistory",
    "LinkLost",
    "LinkRefused",
    "LinkStatus",
    "LinkUp",
    "MeshView",
    "Neighbour",
    "NodeJoined",
    "NodeLeft",
    "Observation",
    "RequestObserver",
    "Route",
    "RouteChanged",
    "Router",
    "ServerRequest",
    "Stats",
    "Tags",
    "Telemetry",
    "TrustChanged",
    "event_of",
    "links_of",
    "stats_of",
]
