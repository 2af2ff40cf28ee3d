"""zmesh: a broker-less messaging mesh over ZeroMQ.

async with zmesh.Controller(zmesh.Config(peers=["tcp://hub:7323"])) as mesh:
    print((await mesh.request("edge-7", "echo:echo", b"hello")).readall())
"""

from zmesh.config import Config
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

ReceptorConfig = Config

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
