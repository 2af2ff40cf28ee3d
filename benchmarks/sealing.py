"""What sealing costs a packet, in place of its checksum: made at the source, and checked or opened at the end.

    python -m benchmarks.sealing [--json] [--check] [--rounds 200]

For bodies of several sizes: `crc`, a packet in plain with its CRC-32, made, read and verified; `aes`, the same sealed
with AES-256-GCM and opened; `chacha`, with ChaCha20-Poly1305. The three take turns; the least of the rounds counts.
`share` is what AES adds beside the time that one chunk of that size takes in a transfer at RATE, which is what two
nodes of zmesh reach on loopback with CURVE.

With `--check` the exit status is 1 if `share` is above LIMIT for chunks of 64 KiB or more.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import TypedDict

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from benchmarks import program
from zmesh.core import wire
from zmesh.core.wire import Kind
from zmesh.identity.sealing import Cipher, Session

SCHEMA = "zmesh.bench.sealing/1"
SIZES = (0, 1024, 64 * 1024, 256 * 1024, 1024 * 1024)
RATE = 85e6
"""Bytes a second of a transfer over two forwarders (benchmarks.security); a higher one makes the share larger."""
LIMIT = 0.03
HEAD = wire.encode_chunk(bytes(16), True, 1, 0, 1, 0, 1, 1)


class Row(TypedDict):
    """One size of body; times of one packet in microseconds."""

    bytes: int
    crc_us: float
    aes_us: float
    chacha_us: float
    share: float


class Result(TypedDict):
    """One measurement."""

    schema: str
    rows: list[Row]


def in_plain(body: bytes) -> Callable[[], None]:
    """A packet with a checksum, from end to end."""

    def once() -> None:
        frames = wire.encode_packet(Kind.CHUNK, "b", "a", HEAD, body)
        wire.verify(frames, wire.decode_packet(frames))

    return once


def sealed(body: bytes, cipher: Cipher) -> Callable[[], None]:
    """A packet that is sealed, from end to end."""
    keys = bytes(32), bytes(range(32))
    source = Session(*keys, b"aaaa", b"bbbb", cipher=cipher)
    end = Session(*reversed(keys), b"bbbb", b"aaaa", cipher=cipher)
    route = wire.authenticated(Kind.CHUNK, "b", "a")

    def once() -> None:
        frames = wire.encode_sealed(Kind.CHUNK, "b", "a", *source.seal(route, HEAD, body))
        packet = wire.decode_packet(frames)
        end.open(route, packet.head, packet.body)

    return once


def measure(rounds: int) -> Result:
    """All sizes."""
    rows = []
    for size in SIZES:
        body = bytes(size)
        kinds = in_plain(body), sealed(body, AESGCM), sealed(body, ChaCha20Poly1305)
        times: list[list[float]] = [[], [], []]
        for _ in range(rounds):
            for kind, spent in zip(kinds, times, strict=True):
                began = time.perf_counter()
                kind()
                spent.append(time.perf_counter() - began)
        crc, aes, chacha = (1e6 * min(spent) for spent in times)
        share = (aes - crc) / (1e6 * size / RATE) if size else 0.0
        rows.append(
            Row(bytes=size, crc_us=round(crc, 1), aes_us=round(aes, 1), chacha_us=round(chacha, 1), share=share)
        )
    return Result(schema=SCHEMA, rows=rows)


def described(result: Result) -> str:
    """The result as a table."""
    lines = ["    bytes      crc      aes   chacha   share of a chunk's time"]
    for row in result["rows"]:
        share = f"{row['share']:.1%}" if row["bytes"] else ""
        lines.append(f"{row['bytes']:9,} {row['crc_us']:8} {row['aes_us']:8} {row['chacha_us']:8}   {share}")
    return "\n".join(lines)


def main() -> int:
    """Measure once and print it."""
    parser = program.parser("benchmarks.sealing", __doc__ or "", SCHEMA, f"AES adds more than {LIMIT:.0%}% to a chunk")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=200, help="of each kind and size (200)")
    options = parser.parse_args()
    result = measure(options.rounds)
    large = [row for row in result["rows"] if row["bytes"] >= 64 * 1024]
    missed = [f"{row['share']:.1%} at {row['bytes']} bytes" for row in large if row["share"] > LIMIT]
    return program.conclude(result, options, described(result), missed)


if __name__ == "__main__":
    sys.exit(main())
