"""The server's side of an exchange: directives, the work that they run, built-ins and Receptor plugins.

`Serving` receives the requests of a node and runs them by its `Directives`; a function gets a `Work`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.serving.builtins import CANCEL, PING, Builtins, stamp
    from zmesh.serving.directives import Directives, directive
    from zmesh.serving.failure_log import FailureLog
    from zmesh.serving.member_quota import MemberQuota, member_of
    from zmesh.serving.options import DirectiveOptions
    from zmesh.serving.plugin import NodePlugin, OpenStream, Requesting
    from zmesh.serving.receptor_plugins import BUFFER_PAYLOAD, BYTES_PAYLOAD, FILE_PAYLOAD, plugin_export
    from zmesh.serving.serving import Serving
    from zmesh.serving.settings import Place, read_settings
    from zmesh.serving.work import ReplySink, Work
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "builtins": ("CANCEL", "PING", "Builtins", "stamp"),
            "directives": ("Directives", "directive"),
            "failure_log": ("FailureLog",),
            "member_quota": ("MemberQuota", "member_of"),
            "options": ("DirectiveOptions",),
            "plugin": ("NodePlugin", "OpenStream", "Requesting"),
            "receptor_plugins": ("BUFFER_PAYLOAD", "BYTES_PAYLOAD", "FILE_PAYLOAD", "plugin_export"),
            "serving": ("Serving",),
            "settings": ("Place", "read_settings"),
            "work": ("ReplySink", "Work"),
        },
    )

__all__ = [
    "BUFFER_PAYLOAD",
    "BYTES_PAYLOAD",
    "CANCEL",
    "FILE_PAYLOAD",
    "PING",
    "Builtins",
    "DirectiveOptions",
    "Directives",
    "FailureLog",
    "MemberQuota",
    "NodePlugin",
    "OpenStream",
    "Place",
    "ReplySink",
    "Requesting",
    "Serving",
    "Work",
    "directive",
    "member_of",
    "plugin_export",
    "read_settings",
    "stamp",
]
