"""Payloads of any size: `encode` makes bytes or a `Source` of what is sent, a `Payload` reads what was received.

Received payloads are complete (`BufferedPayload`, in memory or spooled to a file) or read while the rest arrives
(`StreamedPayload`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.payloads.buffered import DISK_THREADS, BufferedPayload
    from zmesh.payloads.feeding import Desk, send_source
    from zmesh.payloads.payload import CHUNK, Payload, PayloadLike, StreamedPayload, encode
    from zmesh.payloads.source import ChunkSource, Source, source_of
    from zmesh.payloads.spool import Spool, default_folder
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "buffered": ("DISK_THREADS", "BufferedPayload"),
            "feeding": ("Desk", "send_source"),
            "payload": ("CHUNK", "Payload", "PayloadLike", "StreamedPayload", "encode"),
            "source": ("ChunkSource", "Source", "source_of"),
            "spool": ("Spool", "default_folder"),
        },
    )

__all__ = [
    "CHUNK",
    "DISK_THREADS",
    "BufferedPayload",
    "ChunkSource",
    "Desk",
    "Payload",
    "PayloadLike",
    "Source",
    "Spool",
    "StreamedPayload",
    "default_folder",
    "encode",
    "send_source",
    "source_of",
]
