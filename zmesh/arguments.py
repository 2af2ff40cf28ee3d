"""Checks of the arguments of public calls, made before anything of the call is registered.

All of them raise TypeError for a value of the wrong type, and ConfigError, which is a ValueError too, for one out of
its limits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from zmesh.core.message import (
    MAX_CONTENT_TYPE,
    MAX_DIRECTIVE,
    MAX_METADATA,
    MAX_METADATA_ENTRIES,
    MAX_RESET_CODE,
    is_address,
    is_directive,
)
from zmesh.errors import AddressError, ConfigError

MAX_TIMEOUT = 1e9
"""Seconds of the longest timeout, some thirty years; None is no limit."""

_CONTENT_TYPE = re.compile(r"[!#$&^_.+\w-]+/[!#$&^_.+\w-]+( *;[ -~]*)?", re.ASCII)
_HEX = re.compile(r"[0-9a-fA-F]{32}")
_DECIMAL = re.compile(r"[0-9]{1,39}")
_UNPRINTABLE = re.compile("[\x00-\x20\x7f\ud800-\udfff]")


def check_timeout(timeout: object, name: str = "timeout") -> None:
    """Accept None, or a number of seconds from 0 to MAX_TIMEOUT; `name` is the argument's."""
    if timeout is None:
        return
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool):
        raise TypeError(f"{name} is a number of seconds or None, not {shown(timeout)}")
    if not 0 <= timeout <= MAX_TIMEOUT:
        raise ConfigError(f"{name} is from 0 to {MAX_TIMEOUT:g} seconds, or None for no limit, not {shown(timeout)}")


def check_directive(directive: object) -> None:
    """Accept `namespace:action`."""
    if not isinstance(directive, str):
        raise TypeError(f"a directive is a str, not {shown(directive)}")
    if not is_directive(directive):
        raise ConfigError(
            f"{shown(directive)} is no directive; it must look like namespace:action, in up to {MAX_DIRECTIVE} "
            "characters"
        )


def check_node(node: object) -> None:
    """Accept a node id, or `leaf@node`."""
    if not isinstance(node, str):
        raise TypeError(f"a node id is a str, not {shown(node)}")
    if not is_address(node):
        raise ConfigError(f"{shown(node)} is no node id: 1 to 64 characters of A-Z a-z 0-9 . _ -", node=node)


def check_limit(limit: object) -> None:
    """Accept a number of nodes that may be asked at a time, 1 or more."""
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(f"limit is how many nodes are asked at a time, an int, not {shown(limit)}")
    if limit < 1:
        raise ConfigError(f"limit is how many nodes are asked at a time, 1 or more, not {shown(limit)}")


def check_reset_code(code: object) -> None:
    """Accept an int from 0 to MAX_RESET_CODE."""
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"the code of a reset is an int, not {shown(code)}")
    if not 0 <= code <= MAX_RESET_CODE:
        raise ConfigError(f"the code of a reset is from 0 to {MAX_RESET_CODE}, not {shown(code)}")


def check_handler(handler: object) -> None:
    """Accept None, or what can be called."""
    if handler is not None and not callable(handler):
        raise TypeError(f"a response handler is a function that takes the message, not {shown(handler)}")


def check_content_type(content_type: object) -> None:
    """Accept None, or a media type such as `image/png` or `text/plain; charset=latin-1` (RFC 6838)."""
    if content_type is None:
        return
    if not isinstance(content_type, str):
        raise TypeError(f"content_type is a str such as image/png or None, not {shown(content_type)}")
    if len(content_type) > MAX_CONTENT_TYPE or not _CONTENT_TYPE.fullmatch(content_type):
        raise ConfigError(
            f"content_type is a media type such as image/png, of up to {MAX_CONTENT_TYPE} characters, not "
            f"{shown(content_type)}"
        )


def check_metadata(metadata: object) -> Mapping[str, str]:
    """A copy of a mapping of text to text within the limits of the wire (`message.MAX_METADATA`); empty for None."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata maps str to str, so it can't be {shown(metadata)}")
    checked: dict[str, str] = {}
    size = 0
    for key, text in metadata.items():
        for each in (key, text):
            if not isinstance(each, str):
                raise TypeError(f"metadata maps str to str, but has {shown(each)}")
            if not is_encodable(each):
                raise ConfigError(f"metadata is sent as UTF-8, which can't express {shown(each)}")
            size += len(each.encode())
        checked[str(key)] = str(text)
    if size > MAX_METADATA:
        raise ConfigError(f"metadata is up to {MAX_METADATA} bytes in all, not {size}; send more as the payload")
    if len(checked) > MAX_METADATA_ENTRIES:
        raise ConfigError(
            f"metadata has up to {MAX_METADATA_ENTRIES} entries, not {len(checked)}; send more as the payload"
        )
    return checked


def check_url(url: object) -> None:
    """Accept text without blanks and control characters; `zmesh.transport` parses it. Raises AddressError."""
    if not isinstance(url, str):
        raise TypeError(f"an address is a str such as tcp://host:7323, not {shown(url)}")
    if _UNPRINTABLE.search(url):
        raise AddressError(f"{shown(url)} is no address: it has a blank or a character that can't be printed")


def parse_message_id(text: str | int) -> str | None:
    """The message id as 32 lower-case hex digits, from these or the number that a ping lists; None if it is neither."""
    word = str(text)
    if isinstance(text, str) and _HEX.fullmatch(word):
        return word.lower()
    if not _DECIMAL.fullmatch(word) or int(word) >= 1 << 128:
        return None
    return f"{int(word):032x}"


def check_message_id(message_id: object) -> str:
    """The message id as 32 hex digits. Raises ConfigError, and TypeError."""
    if not isinstance(message_id, (str, int)) or isinstance(message_id, bool):
        raise TypeError(f"a message id is a str of 32 hex digits, not {shown(message_id)}")
    known = isinstance(message_id, str) or 0 <= message_id < 1 << 128
    named = parse_message_id(message_id) if known else None
    if named is None:
        raise ConfigError(f"{shown(message_id)} is no message id: 32 hex digits, or the number that a ping lists")
    return named


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can express the text, which has no lone surrogates then."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object) -> str:
    """The `repr` of a value for an error's text, cut to 100 characters; its type's name if that is not built in."""
    if value is None or isinstance(value, bool):
        return repr(value)
    if type(value) is int:
        return repr(value) if abs(value) < 1 << 128 else f"an int of {value.bit_length()} bits"
    if type(value) is float:
        return repr(value)
    if type(value) in (str, bytes):
        text = repr(value[:100])  # type: ignore[index]
        return text if len(value) <= 100 else f"{text}..."  # type: ignore[arg-type]
    return type(value).__name__
