"""Observers of the requests of a node, at both of their ends: for metrics and traces.

There are none unless the settings have one; a request then pays for looking whether there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Protocol

Ended = Callable[[str, str], None]
"""Called once when a request ends at its side, with the code of zmesh.errors and the text, both "" for success."""


class ClientRequest(Protocol):
    """A request that is about to be sent; `metadata` may be replaced by an observer."""

    recipient: str
    metadata: Mapping[str, str]

    @property
    def message_id(self) -> str:
        """The message id, 32 hex digits."""


class ServerRequest(Protocol):
    """A request that has come in; its work runs in `context`, if an observer sets one."""

    directive: str
    metadata: Mapping[str, str]
    context: Context | None

    @property
    def sender(self) -> str:
        """The id of the node that sent it, of an ephemeral one `ID@NODE`."""

    @property
    def message_id(self) -> str:
        """The message id, 32 hex digits."""


class RequestObserver(Protocol):
    """Observes the requests of one node; called on the node's loop. What it raises ends the request."""

    def sending(self, request: ClientRequest, directive: str) -> Ended:
        """Observe a request that this node sends; returns the callback for its end."""

    def accepted(self, request: ServerRequest) -> Ended:
        """Observe a request that has come in at this node; returns the callback for its end."""
