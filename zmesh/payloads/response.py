"""The replies of a directive: a payload alone, or one with metadata and a content type of the program's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zmesh.arguments import check_content_type, check_metadata
from zmesh.core.message import NO_METADATA
from zmesh.payloads.payload import PayloadLike, content_type_of, encode
from zmesh.payloads.source import Source


class Response:
    """A reply with metadata, or with a content type other than that of its payload; a directive returns or yields it.

    `metadata` maps text to text, up to 8192 bytes of UTF-8 in all. Without `content_type` the reply has the one that
    follows from the payload. A Response whose payload is None is an empty reply, while None alone is no reply.

    Raises TypeError and ConfigError for what can't be sent as metadata or content type.
    """

    __slots__ = ("content_type", "metadata", "payload")

    def __init__(
        self,
        payload: PayloadLike = None,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        check_content_type(content_type)
        self.metadata = check_metadata(metadata)
        self.content_type = content_type
        self.payload = payload

    def __repr__(self) -> str:
        return f"<Response with {len(self.metadata)} entries of metadata>"


class Outgoing(NamedTuple):
    """An encoded reply: its content, content type ("" for bytes) and metadata."""

    body: bytes | Source
    content_type: str = ""
    metadata: Mapping[str, str] = NO_METADATA

    def close(self) -> None:
        """Release its source, if it has one: it will not be sent."""
        if isinstance(self.body, Source):
            self.body.close()


def outgoing(reply: PayloadLike | Response | Outgoing) -> Outgoing:
    """Encode what a directive returned or yielded. Raises as `encode` does."""
    if type(reply) is bytes:
        return Outgoing(reply)
    if isinstance(reply, Outgoing):
        return reply
    if isinstance(reply, Response):
        content_type = content_type_of(reply.payload) if reply.content_type is None else reply.content_type
        return Outgoing(encode(reply.payload), content_type, reply.metadata)
    return Outgoing(encode(reply), content_type_of(reply))
