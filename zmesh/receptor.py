"""The names of Receptor 1.x, for programs that were written for it: `import zmesh.receptor as receptor`.

Controller        the Controller of zmesh, which has Receptor's methods: `enable_server`, `add_peer`, `send`, `ping`,
                  `recv`, `run`, and the properties `receptor` (with `receptor.router`) and `loop`
ReceptorConfig    another name for Config
Message           what a response handler takes, with `header` and `payload`
plugin_export, BYTES_PAYLOAD, BUFFER_PAYLOAD, FILE_PAYLOAD
                  marks for the functions of a plugin

`import zmesh as receptor` works as well: zmesh has these names too, and all errors. New programs use `request` and
`stream` of the Controller instead of `send` and `recv`.
"""

from __future__ import annotations

from zmesh.config import Config
from zmesh.controller import Controller
from zmesh.core.message import Message
from zmesh.errors import (
    AddressError,
    Cancelled,
    Closed,
    ConfigError,
    ExchangeError,
    InvalidPayload,
    MeshError,
    NodeOverloaded,
    NodeRestarted,
    NotAllowed,
    Overloaded,
    RemoteError,
    StreamClosed,
    TimedOut,
    TooManyReplies,
    UnknownDirective,
    Unreachable,
)
from zmesh.serving import BUFFER_PAYLOAD, BYTES_PAYLOAD, FILE_PAYLOAD, plugin_export

ReceptorConfig = Config

__all__ = [
    "BUFFER_PAYLOAD",
    "BYTES_PAYLOAD",
    "FILE_PAYLOAD",
    "AddressError",
    "Cancelled",
    "Closed",
    "Config",
    "ConfigError",
    "Controller",
    "ExchangeError",
    "InvalidPayload",
    "MeshError",
    "Message",
    "NodeOverloaded",
    "NodeRestarted",
    "NotAllowed",
    "Overloaded",
    "ReceptorConfig",
    "RemoteError",
    "StreamClosed",
    "TimedOut",
    "TooManyReplies",
    "UnknownDirective",
    "Unreachable",
    "plugin_export",
]
