"""Connecting to a TCP port for another node: the name is resolved here, and each address checked against `[tcp]`."""

from __future__ import annotations

import socket

from zmesh.errors import (
    ConnectFailed,
    ConnectRefused,
    ConnectTimedOut,
    HostNotFound,
    HostUnreachable,
    NodeOverloaded,
    NotAllowed,
)
from zmesh.transport import Candidate, DialError, DialFailure, connect_first, resolve
from zmesh.tunnel.addresses import Endpoint
from zmesh.tunnel.settings import TcpSettings

_KINDS: dict[DialFailure, type[ConnectFailed]] = {
    DialFailure.REFUSED: ConnectRefused,
    DialFailure.TIMED_OUT: ConnectTimedOut,
    DialFailure.NO_ROUTE: HostUnreachable,
    DialFailure.UNRESOLVED: HostNotFound,
    DialFailure.RESOLVE_TIMED_OUT: HostNotFound,
}


async def dial(endpoint: Endpoint, settings: TcpSettings, node: str, *, any_target: bool = False) -> socket.socket:
    """A connection to the endpoint, by the first of its addresses that answers (RFC 8305).

    Raises NotAllowed for what `[tcp] targets` does not have, unless `any_target`; ConnectFailed; and NodeOverloaded
    where descriptors or threads have run out.
    """
    candidates = await addresses(endpoint, settings, node, any_target=any_target)
    try:
        _, sock = await connect_first(candidates, settings.connect_timeout)
    except DialError as error:
        raise _failed(error, endpoint, node) from None
    return sock


async def addresses(
    endpoint: Endpoint, settings: TcpSettings, node: str, *, any_target: bool = False
) -> list[Candidate]:
    """The addresses of the endpoint that may be connected to. Raises as `dial` does."""
    host, port = endpoint
    by_name = any_target or settings.allows_name(endpoint)
    try:
        found = await resolve(host)
    except DialError as error:
        if not by_name and error.failure != DialFailure.RESOURCES:
            raise not_a_target(endpoint, node) from None  # it does not say which names there are
        raise _failed(error, endpoint, node) from None
    allowed = [each for each in found if by_name or settings.allows_address(each.host, port)]
    if not allowed:
        raise not_a_target(endpoint, node)
    return [Candidate(each.family, each.socket_address(port), each.endpoint(port)) for each in allowed]


def not_a_target(endpoint: Endpoint, node: str) -> NotAllowed:
    """The error for an endpoint that `[tcp] targets` does not have."""
    return NotAllowed(
        f'node {node!r} connects to no {endpoint}: its configuration would, with "{endpoint}" among the targets of '
        "[tcp]"
    )


def _failed(error: DialError, endpoint: Endpoint, node: str) -> ConnectFailed | NodeOverloaded:
    text = f"node {node!r} can't connect to {endpoint}: {error.reason}"
    if error.failure == DialFailure.RESOURCES:
        return NodeOverloaded(text, limit="system_resources")
    return _KINDS.get(error.failure, ConnectFailed)(text)
