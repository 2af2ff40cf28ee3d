"""`zmesh nc`: standard input and output as the two directions of a connection to a port at a node."""

from __future__ import annotations

import asyncio

from zmesh import RemoteEndpoint
from zmesh_cli.exit_codes import DONE, FAILED, Failure
from zmesh_cli.input import Input
from zmesh_cli.local_sockets import Place
from zmesh_cli.session import Session
from zmesh_cli.terminal import STDIN, Output, is_terminal

READ_BYTES = 256 * 1024


async def nc(place: Place, node: str, port: str, *, route_timeout: float | None) -> int:
    """Join standard input and output to the port until both directions have ended."""
    remote = RemoteEndpoint.of(f"{node}:{port}")
    stdin, stdout = Input(STDIN), Output()
    async with Session(place, node, None, route_timeout=route_timeout) as session:
        host, number = remote.endpoint or (None, None)
        reader, writer = await session.unless_not_found(
            session.controller.open_connection(
                node, host, number, service=remote.service or None, limit=READ_BYTES, route_timeout=route_timeout
            )
        )
        session.has_arrived = lambda: True
        sending = asyncio.create_task(_send(stdin, writer))
        try:
            while data := await reader.read(READ_BYTES):
                await stdout.payload(data)
            if not is_terminal(STDIN):
                await sending
        except ConnectionResetError as error:
            raise Failure(f"the connection to {remote} was reset: {error.strerror}", FAILED) from None
        finally:
            sending.cancel()
            await asyncio.wait((sending,))
            writer.close()
    return DONE


async def _send(stdin: Input, writer: asyncio.StreamWriter) -> None:
    while data := await stdin.read(READ_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
