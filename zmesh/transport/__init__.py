"""ZeroMQ sockets: listen, dial, send, drain, hang up, close. Here, and nowhere else, is ZeroMQ spoken.

A listen address is one ROUTER, a peer is one DEALER. A connection is a *link* with a number of its own. On a ROUTER
that is a routing id that libzmq made up, on a DEALER one connection between two monitor events: whatever comes after a
reconnect belongs to a new link.
"""

from zmesh.transport.address import Target, parse_url
from zmesh.transport.context import open_transports
from zmesh.transport.dials import Dial, DialState, Failure
from zmesh.transport.port import Handler
from zmesh.transport.sockets import Transport

__all__ = ["Dial", "DialState", "Failure", "Handler", "Target", "Transport", "open_transports", "parse_url"]
