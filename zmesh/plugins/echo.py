"""`echo:echo` sends the payload back, as one reply."""

from __future__ import annotations

from zmesh.payloads import Payload
from zmesh.plugins import NoSettings
from zmesh.serving import Work, directive

settings = NoSettings


@directive
async def echo(work: Work) -> Payload:
    """The payload, unchanged, of any size."""
    return work.payload
