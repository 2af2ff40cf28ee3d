"""Enough of wire version 1 to refuse a node that speaks it in words that it understands, and to be refused by it.

A frame of version 1 has three parts: a MessagePack array of version, kind, ttl, destination and source, a head that
ends with a CRC-32, and a body.
"""

from __future__ import annotations

import zlib

from zmesh.core.wire.fields import WireError, pack, read_array, read_int, unpack

VERSION_1 = 1
_PARTS = 3
_ARRAY_OF_FIVE = 0x95
_HELLO, _REFUSE = 1, 2
_MAX_TTL = 255
_MAX_HEAD = 64 * 1024
_SUM_BYTES = 4


class ForeignVersion(WireError):
    """A HELLO or REFUSE of a node that speaks another version; `refused`: it is a REFUSE, and `text` its reason."""

    reason = "version"

    def __init__(self, version: int, *, refused: bool = False, text: str = "") -> None:
        super().__init__(text or f"protocol version {version}")
        self.version = version
        self.refused = refused
        self.text = text


def check_version1(frames: tuple[bytes, ...] | list[bytes]) -> None:
    """Raise ForeignVersion for a HELLO or a REFUSE of version 1; harmless for all else."""
    if len(frames) != _PARTS or not frames[0] or frames[0][0] != _ARRAY_OF_FIVE:
        return
    version, kind, *_ = read_array(unpack(frames[0], 320), 5)
    version = read_int(version, 255)
    if kind == _HELLO:
        raise ForeignVersion(version)
    if kind == _REFUSE:
        text = "they speak another version"
        try:
            said = unpack(frames[1][:-_SUM_BYTES], _MAX_HEAD)[1]
            text = said if type(said) is str else text
        except (WireError, IndexError):
            pass
        raise ForeignVersion(version, refused=True, text=text)


def refuse_version1(text: str) -> tuple[bytes, bytes, bytes]:
    """A REFUSE of version 1, because of the version."""
    return _sealed(VERSION_1, _REFUSE, ("version", text, 0.0))


def hello_for_version1(version: int) -> tuple[bytes, bytes, bytes]:
    """A HELLO that a node of version 1 reads as one of `version`, and refuses with a reason."""
    return _sealed(version, _HELLO, ())


def _sealed(version: int, kind: int, head: tuple[object, ...]) -> tuple[bytes, bytes, bytes]:
    packed = pack(head)
    total = zlib.crc32(packed, zlib.crc32(b"", zlib.crc32(f"{kind}  ".encode())))
    return pack((version, kind, _MAX_TTL, "", "")), packed + total.to_bytes(_SUM_BYTES, "little"), b""
