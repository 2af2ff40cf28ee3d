"""CRC-32, that of zlib and Ethernet (ISO 3309): zlib-ng's, which computes it with the processor's vector instructions.

Where zlib-ng has no wheel, Python's own zlib gives the same values, some fifteen times slower for a long body.
"""

from __future__ import annotations

try:
    from zlib_ng.zlib_ng import crc32
except ImportError:
    from zlib import crc32

__all__ = ["crc32"]
