"""zmesh: a broker-less messaging mesh over ZeroMQ.

async with zmesh.Controller(zmesh.Config(peers=["tcp://hub:7323"])) as mesh:
    print((await mesh.request("edge-7", "echo:echo", b"hello")).readall())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zmesh.config import Config, ReceptorConfig
    from zmesh.controller import Controller, Pong
    from zmesh.core.limits import Limits
    from zmesh.core.message import Message
    from zmesh.errors import (
        AddressError,
        Cancelled,
        Closed,
        ConfigError,
        ExchangeError,
        MeshError,
        NodeOverloaded,
        NodeRestarted,
        NotAllowed,
        Overloaded,
        RemoteError,
        TimedOut,
        TooManyReplies,
        UnknownDirective,
        Unreachable,
    )
    from zmesh.observe.events import (
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
    )
    from zmesh.observe.router import Route
    from zmesh.observe.stats import LinkStatus, Stats
    from zmesh.payloads.payload import Payload, PayloadLike
    from zmesh.payloads.source import Source
    from zmesh.requests.exchange import Reply
    from zmesh.requests.fanout import Answer, Answers
    from zmesh.requests.reply_stream import ReplyStream
    from zmesh.serving.builtins import parse_message_id
    from zmesh.serving.directives import directive
    from zmesh.serving.receptor_plugins import BUFFER_PAYLOAD, BYTES_PAYLOAD, FILE_PAYLOAD, plugin_export
    from zmesh.serving.work import Work

__version__ = "0.1.0"

__all__ = [
    "BUFFER_PAYLOAD",
    "BYTES_PAYLOAD",
    "FILE_PAYLOAD",
    "AddressError",
    "Answer",
    "Answers",
    "Cancelled",
    "Closed",
    "Config",
    "ConfigError",
    "Controller",
    "DestinationUnreachable",
    "DialFailed",
    "DuplicateId",
    "Event",
    "Events",
    "EventsLost",
    "ExchangeError",
    "IdTaken",
    "Limits",
    "LinkLost",
    "LinkRefused",
    "LinkStatus",
    "LinkUp",
    "MeshError",
    "Message",
    "NodeJoined",
    "NodeLeft",
    "NodeOverloaded",
    "NodeRestarted",
    "NotAllowed",
    "Overloaded",
    "Payload",
    "PayloadLike",
    "Pong",
    "ReceptorConfig",
    "RemoteError",
    "Reply",
    "ReplyStream",
    "Route",
    "RouteChanged",
    "Source",
    "Stats",
    "TimedOut",
    "TooManyReplies",
    "UnknownDirective",
    "Unreachable",
    "Work",
    "directive",
    "parse_message_id",
    "plugin_export",
]

_NAMES = {
    "zmesh.config": (
        "Config",
        "ReceptorConfig",
    ),
    "zmesh.controller": (
        "Controller",
        "Pong",
    ),
    "zmesh.core.limits": ("Limits",),
    "zmesh.core.message": ("Message",),
    "zmesh.errors": (
        "AddressError",
        "Cancelled",
        "Closed",
        "ConfigError",
        "ExchangeError",
        "MeshError",
        "NodeOverloaded",
        "NodeRestarted",
        "NotAllowed",
        "Overloaded",
        "RemoteError",
        "TimedOut",
        "TooManyReplies",
        "UnknownDirective",
        "Unreachable",
    ),
    "zmesh.observe.events": (
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
    ),
    "zmesh.observe.router": ("Route",),
    "zmesh.observe.stats": (
        "LinkStatus",
        "Stats",
    ),
    "zmesh.payloads.payload": (
        "Payload",
        "PayloadLike",
    ),
    "zmesh.payloads.source": ("Source",),
    "zmesh.requests.exchange": ("Reply",),
    "zmesh.requests.fanout": (
        "Answer",
        "Answers",
    ),
    "zmesh.requests.reply_stream": ("ReplyStream",),
    "zmesh.serving.builtins": ("parse_message_id",),
    "zmesh.serving.directives": ("directive",),
    "zmesh.serving.receptor_plugins": (
        "BUFFER_PAYLOAD",
        "BYTES_PAYLOAD",
        "FILE_PAYLOAD",
        "plugin_export",
    ),
    "zmesh.serving.work": ("Work",),
}
"""Where each public name lives; its module is loaded when the name is first used (PEP 562)."""


_MODULES = ("errors", "sync", "testing")
"""Modules that are loaded when they are first used, too."""


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"zmesh.{name}")
    if name in __all__:
        for module, names in _NAMES.items():
            if name in names:
                value = globals()[name] = getattr(import_module(module), name)
                return value
    raise AttributeError(f"module 'zmesh' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
