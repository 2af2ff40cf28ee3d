"""Typed readers of single MessagePack values. Each checks the type and the limit, and raises WireError.

They are called for every field of every frame, so each does one comparison and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgpack

from zmesh.core.message import Address, NodeId, is_address, is_node_id
from zmesh.core.wire.limits import MAX_NEIGHBOURS, MAX_NUMBER, MAX_RECORD, MAX_TEXT

CRITICAL = 128
"""Numbers of extensions from here on have to be known to the receiver."""

MAX_EXTENSIONS = 16
MAX_EXTENSION = 1024

pack: Callable[[object], bytes] = msgpack.Packer(autoreset=True, use_bin_type=True).pack


class WireError(Exception):
    """Bytes from outside that violate the protocol. `reason`: one word for counters."""

    reason = "garbage"


class ChecksumError(WireError):
    """A frame whose checksum is wrong."""

    reason = "checksum"


NO_EXTENSIONS: Mapping[int, bytes] = {}
_NONE_KNOWN: Mapping[int, int] = {}


class UnknownExtension(WireError):
    """A message with an extension that its receiver has to know, and does not."""

    reason = "unknown_extension"


def unpack(data: bytes, limit: int, max_map_len: int = 0) -> list[object]:
    """Unpack an array from at most `limit` bytes; maps in it have `max_map_len` pairs at most."""
    if len(data) > limit:
        raise WireError(f"{len(data)} bytes where {limit} are allowed")
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            use_list=True,
            strict_map_key=False,
            max_str_len=4 * MAX_TEXT,  # in bytes of UTF-8; read_text counts characters
            max_bin_len=MAX_RECORD,
            max_array_len=2 * MAX_NEIGHBOURS,
            max_map_len=max_map_len,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise WireError(f"not MessagePack: {error}") from None
    if type(value) is not list:
        raise WireError("not an array")
    return value


def read_array(value: object, count: int) -> list[object]:
    """An array of exactly `count` values."""
    if type(value) is not list or len(value) != count:
        raise WireError(f"not an array of {count}")
    return value


def read_items(value: object, limit: int) -> list[object]:
    """An array of at most `limit` values."""
    if type(value) is not list or len(value) > limit:
        raise WireError(f"not an array of at most {limit}")
    return value


def read_int(value: object, high: int) -> int:
    """An integer from 0 to `high`."""
    if type(value) is not int or not 0 <= value <= high:
        raise WireError(f"not an integer from 0 to {high}")
    return value


def read_number(value: object) -> float:
    """A number, integer or float."""
    if type(value) is int:  # MessagePack has none of more than 64 bits
        return float(value)
    if type(value) is not float or not -MAX_NUMBER < value < MAX_NUMBER:
        raise WireError("not a number")
    return value


def read_bool(value: object) -> bool:
    """A bool; other truthy values are rejected."""
    if type(value) is not bool:
        raise WireError("not a boolean")
    return value


def read_text(value: object, limit: int) -> str:
    """A text of at most `limit` characters."""
    if type(value) is not str or len(value) > limit:
        raise WireError(f"not a text of at most {limit} characters")
    return value


def read_node(value: object) -> NodeId:
    """A node id."""
    if type(value) is not str or not is_node_id(value):
        raise WireError("not a node id")
    return NodeId(Address(value))


def read_address(value: object) -> Address:
    """A node id, or `leaf@node`."""
    if type(value) is not str or not is_address(value):
        raise WireError("not an address")
    return Address(value)


def read_extensions(value: object, known: Mapping[int, int] = _NONE_KNOWN) -> Mapping[int, bytes]:
    """An extension map; `known`: how long each known one may be. Raises UnknownExtension, or else WireError."""
    if type(value) is not dict or len(value) > MAX_EXTENSIONS:
        raise WireError(f"not a map of at most {MAX_EXTENSIONS} extensions")
    unknown = 0
    for number, content in value.items():
        if type(number) is not int or not 0 <= number <= 255 or type(content) is not bytes:
            raise WireError("not an extension")
        if len(content) > known.get(number, MAX_EXTENSION):
            limit = known.get(number, MAX_EXTENSION)
            raise WireError(f"an extension of {len(content)} bytes where {limit} are allowed")
        if number >= CRITICAL and number not in known:
            unknown = unknown or number
    if unknown:
        raise UnknownExtension(f"the extension {unknown} is critical, and unknown here")
    return value
