"""`zmesh forward` and `zmesh expose`: a port here that leads to a node, and a name for a port at one."""

from __future__ import annotations

import asyncio
import contextlib

from zmesh import Endpoint, Forward, RemoteEndpoint
from zmesh.errors import ConfigError
from zmesh_cli.exit_codes import DONE, FAILED, USAGE, Failure
from zmesh_cli.input import Input
from zmesh_cli.local_sockets import Place
from zmesh_cli.session import Session
from zmesh_cli.terminal import STDIN, Output, print_error, print_line, record

EXPOSE = "tcp:expose"
CHECK_WITHIN = 10.0
"""Seconds for the node to say whether it would connect."""


async def forward(
    place: Place, listen: str, to: str, *, route_timeout: float | None, as_json: bool, until_eof: bool
) -> int:
    """Forward until a signal (or, with `until_eof`, the end of stdin); the exit code."""
    Endpoint.of(listen, zero=True)
    node, errors = RemoteEndpoint.of(to).node, _Errors()
    async with Session(place, node, None, route_timeout=route_timeout) as session:
        controller = session.controller
        await session.unless_not_found(controller.check_forward(to, CHECK_WITHIN))
        async with controller.forward(listen, to, route_timeout=route_timeout, on_error=errors.on_error) as port:
            await _ready(port, as_json=as_json)
            if until_eof:
                while await Input(STDIN).read(4096):
                    pass
            else:
                await asyncio.get_running_loop().create_future()
    return DONE


async def expose(place: Place, name: str, port: str, *, as_json: bool) -> int:
    """Have the node where this command joins expose a port by a name, until a signal."""
    host, number = Endpoint.of(port)
    metadata = {"name": _checked(name), "host": host, "port": str(number)}
    async with (
        Session(place, None) as session,
        session.controller.stream(session.target, EXPOSE, metadata=metadata) as replies,
    ):
        async for _ in replies:
            if as_json:
                line = record("zmesh.expose/1", event="ready", node=session.target, name=name, port=port)
                await Output().text(line)
            else:
                print_line(f"{session.target}:{name} leads to {Endpoint(host, number)} there; Ctrl-C withdraws it")
    return FAILED


def _checked(name: str) -> str:
    """The name of a service. Raises Failure."""
    service = ""
    with contextlib.suppress(ConfigError):
        service = RemoteEndpoint.of(f"node:{name}").service
    if not service:
        text = "it has 1 to 63 of a-z, 0-9 and '-', a letter among them"
        raise Failure(f"{name!r} can't be the name of a service: {text}", USAGE)
    return service


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
