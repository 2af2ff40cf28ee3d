"""Content types: which one a payload is sent with, and the value that a received one stands for.

The three that zmesh sets by itself are JSON, TEXT and BYTES. On the wire an empty content type stands for BYTES. A
program may give any other; what it stands for is the program's business, and its value is the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from zmesh.errors import InvalidPayload

JSON = "application/json"
TEXT = "text/plain"
"""Text in UTF-8, unless a parameter `charset` says otherwise."""

BYTES = "application/octet-stream"

JSON_TYPES = (dict, list, tuple, int, float, Mapping)
"""The types that are sent as JSON."""


_CHARSETS = {"utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "ascii", "iso-8859-1": "latin-1", "latin-1": "latin-1"}
"""The charsets that are decoded. A sender chooses among these alone, since some decoders take quadratic time."""


def value_of(content: bytes, content_type: str) -> Any:
    """The value that bytes of this content type stand for: that of JSON, a str for text, or else the bytes.

    The media type is compared without case (RFC 2045). Raises InvalidPayload for what is not of its content type.
    """
    media_type, _, parameters = content_type.partition(";")
    match media_type.strip().lower():
        case "application/json":
            return _json(content)
        case "text/plain":
            charset = _CHARSETS.get(_charset(parameters))
            return content if charset is None else _text(content, charset)
        case _:
            return content


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise _invalid(JSON, reason)


def _text(content: bytes, charset: str) -> str:
    try:
        return content.decode(charset)
    except UnicodeDecodeError as error:
        raise _invalid(TEXT, str(error)) from None


def _invalid(content_type: str, reason: str) -> InvalidPayload:
    return InvalidPayload(f"the payload came as {content_type}, but is none: {reason}; `readall` gives its bytes")


def _charset(parameters: str) -> str:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return "utf-8"
