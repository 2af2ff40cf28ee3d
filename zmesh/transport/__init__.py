"""ZeroMQ sockets: listen, dial, send, drain, hang up, close. Here, and nowhere else, is ZeroMQ spoken.

A listen address is one ROUTER, a peer is one DEALER. A connection is a *link* with a number of its own. On a ROUTER
that is a routing id that libzmq made up, on a DEALER one connection between two monitor events: whatever comes after a
reconnect belongs to a new link.
"""

from zmesh.transport.address import Target, parse_url
from zmesh.transport.context import open_transports
from zmesh.transport.dial_status import DialFailure, DialState, DialStatus
from zmesh.transport.link_socket import TransportHandler
from zmesh.transport.transport import Transport

__all__ = [
    "DialFailure",
    "DialState",
    "DialStatus",
    "Target",
    "Transport",
    "TransportHandler",
    "open_transports",
    "parse_url",
]
