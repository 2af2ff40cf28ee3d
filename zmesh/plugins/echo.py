"""`echo:echo` sends the payload back, as one reply; `echo:stream` each piece of it, as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from zmesh.payloads import Payload, Response
from zmesh.plugins import NoSettings
from zmesh.serving import Work, directive

settings = NoSettings


@directive
async def echo(work: Work) -> Payload | Response:
    """The payload, unchanged, of any size."""
    return Response(work.payload, metadata=work.metadata) if work.metadata else work.payload


@directive(stream=True)
async def stream(work: Work) -> AsyncIterator[bytes]:
    """Each piece of the payload in a reply of its own, while the rest is still to come."""
    async for piece in work:
        yield piece
