"""`echo:echo` sends the payload back, as one reply, with its content type and metadata."""

from __future__ import annotations

from zmesh.payloads import Payload, Response
from zmesh.plugins import NoSettings
from zmesh.serving import Work, directive

settings = NoSettings


@directive
async def echo(work: Work) -> Payload | Response:
    """The payload, unchanged, of any size."""
    return Response(work.payload, metadata=work.metadata) if work.metadata else work.payload
