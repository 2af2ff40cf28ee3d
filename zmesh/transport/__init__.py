"""ZeroMQ sockets of one node: `Transport` listens, dials, sends, receives and closes; the only user of pyzmq.

Plain TCP connections that others want are made as those of links are: `resolve`, `connect_first`.

A listen address is one ROUTER, a peer is one DEALER, and each connection is a link with a number of its own: a DEALER's
reconnection is a new link, and so is each routing id of a ROUTER. Events go to a `TransportHandler`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.transport.address import Target, parse_peer, parse_url
    from zmesh.transport.blocked_loop import BlockedLoopKeepalive
    from zmesh.transport.context import libzmq_version
    from zmesh.transport.curve import LinkSecurity
    from zmesh.transport.dial_status import DialError, DialFailure, DialState, DialStatus
    from zmesh.transport.happy_eyeballs import Candidate, connect_first
    from zmesh.transport.link_socket import TransportHandler
    from zmesh.transport.measurement import curve_speed, path_mtu
    from zmesh.transport.resolver import resolve
    from zmesh.transport.transport import Transport
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "address": ("Target", "parse_peer", "parse_url"),
            "blocked_loop": ("BlockedLoopKeepalive",),
            "context": ("libzmq_version",),
            "curve": ("LinkSecurity",),
            "dial_status": ("DialError", "DialFailure", "DialState", "DialStatus"),
            "happy_eyeballs": ("Candidate", "connect_first"),
            "link_socket": ("TransportHandler",),
            "measurement": ("curve_speed", "path_mtu"),
            "resolver": ("resolve",),
            "transport": ("Transport",),
        },
    )

__all__ = [
    "BlockedLoopKeepalive",
    "Candidate",
    "DialError",
    "DialFailure",
    "DialState",
    "DialStatus",
    "LinkSecurity",
    "Target",
    "Transport",
    "TransportHandler",
    "connect_first",
    "curve_speed",
    "libzmq_version",
    "parse_peer",
    "parse_url",
    "path_mtu",
    "resolve",
]
