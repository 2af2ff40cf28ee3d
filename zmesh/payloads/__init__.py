"""Payloads of any size: `encode` makes bytes or a `Source` of what is sent, a `Payload` reads what was received.

Received payloads are complete (`BufferedPayload`, in memory or spooled to a file) or read while the rest arrives
(`StreamedPayload`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.lazy import lazy_attributes

if TYPE_CHECKING:
    from zmesh.payloads.buffered import BufferedPayload
    from zmesh.payloads.content import BYTES, JSON, TEXT
    from zmesh.payloads.feeding import StreamFeeder
    from zmesh.payloads.payload import CHUNK, Payload, PayloadLike, content_type_of, encode
    from zmesh.payloads.pieces import PayloadOfPieces
    from zmesh.payloads.response import Outgoing, Response, outgoing
    from zmesh.payloads.source import ChunkSource, Source, piece_of, source_of
    from zmesh.payloads.spool import Spool, default_folder
    from zmesh.payloads.storage import PayloadStorage
    from zmesh.payloads.streamed import StreamedPayload
    from zmesh.payloads.writing import OutboundWriter
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "buffered": ("BufferedPayload",),
            "content": ("BYTES", "JSON", "TEXT"),
            "feeding": ("StreamFeeder",),
            "pieces": ("PayloadOfPieces",),
            "response": ("Outgoing", "Response", "outgoing"),
            "payload": ("CHUNK", "Payload", "PayloadLike", "content_type_of", "encode"),
            "source": ("ChunkSource", "Source", "piece_of", "source_of"),
            "spool": ("Spool", "default_folder"),
            "storage": ("PayloadStorage",),
            "streamed": ("StreamedPayload",),
            "writing": ("OutboundWriter",),
        },
    )

__all__ = [
    "BYTES",
    "CHUNK",
    "JSON",
    "TEXT",
    "BufferedPayload",
    "ChunkSource",
    "OutboundWriter",
    "Outgoing",
    "Payload",
    "PayloadLike",
    "PayloadOfPieces",
    "PayloadStorage",
    "Response",
    "Source",
    "Spool",
    "StreamFeeder",
    "StreamedPayload",
    "content_type_of",
    "default_folder",
    "encode",
    "outgoing",
    "piece_of",
    "source_of",
]
