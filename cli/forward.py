"""`zmesh forward`: a port of this machine that leads to a port at a node, for as long as the command runs."""

from __future__ import annotations

import asyncio

from zmesh import Endpoint, Forward, RemoteEndpoint
from zmesh_cli.exit_codes import INTERRUPTED
from zmesh_cli.local_sockets import Place
from zmesh_cli.session import Session
from zmesh_cli.terminal import Output, print_error, print_line, record

CHECK_WITHIN = 10.0
"""Seconds for the node to say whether it would connect."""


async def forward(place: Place, listen: str, to: str, *, route_timeout: float | None, as_json: bool) -> int:
    """Forward until a signal."""
    Endpoint.of(listen, zero=True)
    node = RemoteEndpoint.of(to).node
    async with Session(place, node, None, route_timeout=route_timeout) as session:
        await session.unless_not_found(session.controller.check_forward(to, CHECK_WITHIN))
        async with session.controller.forward(
            listen, to, route_timeout=route_timeout, on_error=_Errors().on_error
        ) as port:
            await _ready(port, as_json=as_json)
            await asyncio.get_running_loop().create_future()
    return INTERRUPTED


async def _ready(forward: Forward, *, as_json: bool) -> None:
    addresses = list(map(str, forward.addresses))
    if as_json:
        await Output().text(record("zmesh.forward/1", event="ready", listening=addresses, to=str(forward.to)))
    else:
        print_line(f"{' and '.join(addresses)} leads to {forward.to}; Ctrl-C stops it")


class _Errors:
    """Prints why connections could not be made; one reason once until another one comes."""

    def __init__(self) -> None:
        self._last = ""

    def on_error(self, error: Exception) -> None:
        """Print it."""
        if str(error) != self._last:
            self._last = str(error)
            print_error(self._last)
