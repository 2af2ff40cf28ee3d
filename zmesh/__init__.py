"""zmesh: a broker-less messaging mesh over ZeroMQ.

async with zmesh.Controller(zmesh.Config(peers=["tcp://hub:7323"])) as mesh:
    print((await mesh.request("edge-7", "echo:echo", b"hello")).readall())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zmesh.config import Config, ReceptorConfig
    from zmesh.controller import Controller, Pong
    from zmesh.core.message import Message
    from zmesh.directives import directive
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
    from zmesh.fanout import Answer, Answers
    from zmesh.legacy import BUFFER_PAYLOAD, BYTES_PAYLOAD, FILE_PAYLOAD, plugin_export
    from zmesh.payload import Payload, PayloadLike
    from zmesh.request import Request
    from zmesh.router import Route
    from zmesh.work import Work

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
    "ExchangeError",
    "MeshError",
    "Message",
    "NodeOverloaded",
    "NodeRestarted",
    "NotAllowed",
    "Overloaded",
    "Payload",
    "PayloadLike",
    "Pong",
    "ReceptorConfig",
    "RemoteError",
    "Request",
    "Route",
    "TimedOut",
    "TooManyReplies",
    "UnknownDirective",
    "Unreachable",
    "Work",
    "directive",
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
    "zmesh.core.message": ("Message",),
    "zmesh.directives": ("directive",),
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
    "zmesh.fanout": (
        "Answer",
        "Answers",
    ),
    "zmesh.legacy": (
        "BUFFER_PAYLOAD",
        "BYTES_PAYLOAD",
        "FILE_PAYLOAD",
        "plugin_export",
    ),
    "zmesh.payload": (
        "Payload",
        "PayloadLike",
    ),
    "zmesh.request": ("Request",),
    "zmesh.router": ("Route",),
    "zmesh.work": ("Work",),
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
