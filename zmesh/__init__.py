"""zmesh: a broker-less messaging mesh over ZeroMQ.

async with zmesh.Controller(peers=["tcp://hub:7323"]) as mesh:
    print((await mesh.request("edge-7", "echo:echo", b"hello")).readall())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zmesh.version import __version__ as __version__

if TYPE_CHECKING:
    from zmesh.arguments import parse_message_id
    from zmesh.config import Config
    from zmesh.controller import Controller
    from zmesh.core.limits import Limits
    from zmesh.core.message import Message, is_address, is_node_id
    from zmesh.errors import (
        AddressError,
        Cancelled,
        Closed,
        CommandFailed,
        ConfigError,
        ConnectFailed,
        ConnectRefused,
        ConnectTimedOut,
        CopyFailed,
        ExchangeError,
        HostNotFound,
        HostUnreachable,
        InvalidPayload,
        KeysRefused,
        MeshError,
        NodeOverloaded,
        NodeRestarted,
        NotAllowed,
        NotTrusted,
        Overloaded,
        RemoteError,
        StreamClosed,
        TimedOut,
        TooManyReplies,
        UnknownDirective,
        Unreachable,
    )
    from zmesh.files import Copied, NodePath, Progress
    from zmesh.jobs import Job, JobId, JobOutput, JobState, JobStatus, contact_lost
    from zmesh.observe import (
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
        LinkStatus,
        LinkUp,
        NodeJoined,
        NodeLeft,
        Route,
        RouteChanged,
        Stats,
        Tags,
        TrustChanged,
    )
    from zmesh.operate import (
        BundleSummary,
        Check,
        Diagnosis,
        GraphLink,
        GraphNode,
        Hop,
        IdentityStatus,
        LinkFall,
        LinkReport,
        LoopStatus,
        Member,
        MemberList,
        MeshGraph,
        NodeEvent,
        NodeLoad,
        NodeReport,
        NodeSettings,
        NodeStatus,
        PingResult,
        ProcessStatus,
        RefusedLink,
        RequestsTaken,
        RouteExplanation,
        RouteLoss,
        RouteOffer,
        RouteRow,
        RouteTable,
        ShownSetting,
        StatusWarning,
        TraceStep,
        WorkStatus,
    )
    from zmesh.payloads import Payload, PayloadLike, Response, Source
    from zmesh.receptor import ReceptorConfig as ReceptorConfig
    from zmesh.reconfiguration import Reloaded
    from zmesh.remote import Outcome, Outcomes, RemoteProcess, State, Target
    from zmesh.requests import ActiveWork, Answer, Answers, Pong, Replies, Reply, ReplyStream, ResponseHandler, Sent
    from zmesh.serving import BUFFER_PAYLOAD as BUFFER_PAYLOAD
    from zmesh.serving import BYTES_PAYLOAD as BYTES_PAYLOAD
    from zmesh.serving import FILE_PAYLOAD as FILE_PAYLOAD
    from zmesh.serving import Work, directive
    from zmesh.serving import plugin_export as plugin_export
    from zmesh.tunnel import Endpoint, Exposed, Forward, RemoteEndpoint

__all__ = [
    "ActiveWork",
    "AddressError",
    "Answer",
    "Answers",
    "BundleSummary",
    "Cancelled",
    "CertificateExpiring",
    "CertificateRenewed",
    "Check",
    "ClockSet",
    "Closed",
    "CommandFailed",
    "Config",
    "ConfigError",
    "ConfigurationChanged",
    "ConnectFailed",
    "ConnectRefused",
    "ConnectTimedOut",
    "Controller",
    "Copied",
    "CopyFailed",
    "DestinationUnreachable",
    "Diagnosis",
    "DialFailed",
    "DuplicateId",
    "Endpoint",
    "Event",
    "Events",
    "EventsLost",
    "ExchangeError",
    "Exposed",
    "Forward",
    "GraphLink",
    "GraphNode",
    "Hop",
    "HostNotFound",
    "HostUnreachable",
    "IdTaken",
    "IdentityStatus",
    "InvalidPayload",
    "Job",
    "JobId",
    "JobOutput",
    "JobState",
    "JobStatus",
    "KeysRefused",
    "Limits",
    "LinkFall",
    "LinkLost",
    "LinkRefused",
    "LinkReport",
    "LinkStatus",
    "LinkUp",
    "LoopStatus",
    "Member",
    "MemberList",
    "MeshError",
    "MeshGraph",
    "Message",
    "NodeEvent",
    "NodeJoined",
    "NodeLeft",
    "NodeLoad",
    "NodeOverloaded",
    "NodePath",
    "NodeReport",
    "NodeRestarted",
    "NodeSettings",
    "NodeStatus",
    "NotAllowed",
    "NotTrusted",
    "Outcome",
    "Outcomes",
    "Overloaded",
    "Payload",
    "PayloadLike",
    "PingResult",
    "Pong",
    "ProcessStatus",
    "Progress",
    "RefusedLink",
    "Reloaded",
    "RemoteEndpoint",
    "RemoteError",
    "RemoteProcess",
    "Replies",
    "Reply",
    "ReplyStream",
    "RequestsTaken",
    "Response",
    "ResponseHandler",
    "Route",
    "RouteChanged",
    "RouteExplanation",
    "RouteLoss",
    "RouteOffer",
    "RouteRow",
    "RouteTable",
    "Sent",
    "ShownSetting",
    "Source",
    "State",
    "Stats",
    "StatusWarning",
    "StreamClosed",
    "Tags",
    "Target",
    "TimedOut",
    "TooManyReplies",
    "TraceStep",
    "TrustChanged",
    "UnknownDirective",
    "Unreachable",
    "Work",
    "WorkStatus",
    "contact_lost",
    "directive",
    "is_address",
    "is_node_id",
    "parse_message_id",
]

_NAMES = {
    "zmesh.arguments": ("parse_message_id",),
    "zmesh.config": ("Config",),
    "zmesh.controller": ("Controller",),
    "zmesh.core.limits": ("Limits",),
    "zmesh.core.message": ("Message", "is_address", "is_node_id"),
    "zmesh.errors": (
        "AddressError",
        "Cancelled",
        "Closed",
        "CommandFailed",
        "ConfigError",
        "CopyFailed",
        "ConnectFailed",
        "ConnectRefused",
        "ConnectTimedOut",
        "ExchangeError",
        "HostNotFound",
        "HostUnreachable",
        "InvalidPayload",
        "KeysRefused",
        "MeshError",
        "NodeOverloaded",
        "NodeRestarted",
        "NotAllowed",
        "NotTrusted",
        "Overloaded",
        "RemoteError",
        "StreamClosed",
        "TimedOut",
        "TooManyReplies",
        "UnknownDirective",
        "Unreachable",
    ),
    "zmesh.files.places": ("NodePath",),
    "zmesh.files.progress": ("Copied", "Progress"),
    "zmesh.jobs.job": ("Job", "JobOutput"),
    "zmesh.jobs.states": ("JobId", "JobState", "JobStatus", "contact_lost"),
    "zmesh.observe.events": (
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
    ),
    "zmesh.observe.router": ("Route", "Tags"),
    "zmesh.observe.stats": (
        "LinkStatus",
        "Stats",
    ),
    "zmesh.operate.members": (
        "GraphLink",
        "GraphNode",
        "Member",
        "MemberList",
        "MeshGraph",
        "PingResult",
    ),
    "zmesh.operate.paths": (
        "Hop",
        "RouteExplanation",
        "RouteLoss",
        "RouteOffer",
        "TraceStep",
    ),
    "zmesh.operate.bundle": ("BundleSummary", "NodeReport", "RouteRow", "RouteTable"),
    "zmesh.operate.node_settings": ("NodeSettings", "ShownSetting"),
    "zmesh.operate.diagnosis": ("Check", "Diagnosis"),
    "zmesh.operate.node_event": ("NodeEvent",),
    "zmesh.operate.status": (
        "NodeLoad",
        "IdentityStatus",
        "LinkFall",
        "LinkReport",
        "LoopStatus",
        "NodeStatus",
        "ProcessStatus",
        "RefusedLink",
        "RequestsTaken",
        "StatusWarning",
        "WorkStatus",
    ),
    "zmesh.payloads.response": ("Response",),
    "zmesh.payloads.payload": (
        "Payload",
        "PayloadLike",
    ),
    "zmesh.payloads.source": ("Source",),
    "zmesh.reconfiguration": ("Reloaded",),
    "zmesh.remote.remote_process": ("RemoteProcess",),
    "zmesh.remote.fleet": ("Outcome", "Outcomes", "State"),
    "zmesh.remote.targets": ("Target",),
    "zmesh.requests.exchange": (
        "Reply",
        "ResponseHandler",
    ),
    "zmesh.requests.fanout": (
        "Answer",
        "Answers",
    ),
    "zmesh.requests.inbox": ("Replies",),
    "zmesh.requests.ping": (
        "ActiveWork",
        "Pong",
    ),
    "zmesh.requests.reply_stream": ("ReplyStream",),
    "zmesh.requests.sent": ("Sent",),
    "zmesh.serving.directives": ("directive",),
    "zmesh.serving.work": ("Work",),
    "zmesh.tunnel.addresses": ("Endpoint", "RemoteEndpoint"),
    "zmesh.tunnel.exposed": ("Exposed",),
    "zmesh.tunnel.forward": ("Forward",),
}
"""The module of each public name; it is loaded when the name is first used (PEP 562)."""

_RECEPTOR_NAMES = {
    "zmesh.receptor": ("ReceptorConfig",),
    "zmesh.serving.receptor_plugins": (
        "BUFFER_PAYLOAD",
        "BYTES_PAYLOAD",
        "FILE_PAYLOAD",
        "plugin_export",
    ),
}
"""The names of Receptor that zmesh has too, for `import zmesh as receptor`; zmesh.receptor has all of them."""

_MODULES = ("errors", "receptor", "sync", "testing", "trust")
"""Modules that are loaded when they are first used, too."""


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"zmesh.{name}")
    for table in (_NAMES, _RECEPTOR_NAMES):
        for module, names in table.items():
            if name in names:
                value = globals()[name] = getattr(import_module(module), name)
                return value
    raise AttributeError(f"module 'zmesh' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
