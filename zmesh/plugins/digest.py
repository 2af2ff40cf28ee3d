"""`digest:sha256` hashes a payload as it arrives, so that one of any size takes neither memory nor disk."""

from __future__ import annotations

import hashlib

from zmesh.plugins import NoSettings
from zmesh.serving import Work, directive

settings = NoSettings


@directive(stream=True)
async def sha256(work: Work) -> str:
    """The SHA-256 digest of the payload, as 64 hex digits."""
    digest = hashlib.sha256()
    async for chunk in work.payload:
        digest.update(chunk)
    return digest.hexdigest()
