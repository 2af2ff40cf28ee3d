"""A transfer while certificates are renewed and the authority changes: its longest pause, and links that are lost.

    python -m benchmarks.renewal [--json] [--check] [--bytes 1073741824] [--changes 20]

Two nodes with identities on TCP loopback, in this process: `edge` sends to a directive of `hub`, where the authority's
key lies, that reads all of it. The first transfer is left alone. In the second, each of `--changes` times as it goes
on, the certificate of one of the two is replaced by a new one and read by the running node, and every fourth time the
authority hands over to the next one, as `zmesh authority rotate` and `--finish` do. A pause is the time between two
blocks that are taken from the source.

With `--check` the exit status is 1 if a pause is above LIMIT seconds, a link was lost, or bytes are missing.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypedDict

import zmesh
from benchmarks import program
from zmesh import trust
from zmesh.identity import Identity, IdentityKey, Issuer, Profile, State, TrustStore

SCHEMA = "zmesh.bench.renewal/1"
LIMIT = 1.0
BLOCK = 256 * 1024
DAY = 86400
START_WITHIN = 60.0


class Result(TypedDict):
    """One measurement; pauses in seconds, the first without changes."""

    schema: str
    bytes: int
    changes: int
    left_alone_pause_s: float
    left_alone_s: float
    pause_s: float
    seconds: float
    links_lost: int
    complete: bool


class Lab:
    """A mesh of two: `hub`, which has the authority's key, and `edge`."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        self.hub = trust.init("lab", node_id="hub", listen=(url,), state=folder / "hub").identity
        issuer, key = Issuer.load(self.hub), IdentityKey.generate()
        self.edge = Identity.create(
            State(folder / "edge"),
            Profile("lab", "edge", (), (), self.hub.dial_urls()),
            key,
            issuer.issue(key.public, "edge", (), time.time()),
            TrustStore("lab", issuer.trust.authorities),
        )

    def change(self, number: int, hub: zmesh.Controller, edge: zmesh.Controller) -> None:
        """What commands do beside running nodes: renew one of the two, and every fourth time rotate the authority."""
        command = Identity.load(self.hub.where)
        issuer = Issuer.load(command)
        if number % 4 == 3:
            trust.begin_rotation(issuer, command)
            trust.finish_rotation(issuer)
        mine, node = (self.hub, hub) if number % 2 else (self.edge, edge)
        renewed = Identity.load(mine.where)
        renewed.renewed(issuer.issue(mine.key.public, mine.node_id, (), time.time(), (80 - number) * DAY))
        hub.reload()
        node.reload()


async def transfer(lab: Lab, hub: zmesh.Controller, edge: zmesh.Controller, size: int, changes: int) -> float:
    """Send so many bytes; the longest pause in seconds."""
    blocks = size // BLOCK
    at = {(number + 1) * blocks // (changes + 1): number for number in range(changes)}
    longest, before, block = 0.0, time.monotonic(), bytes(BLOCK)

    async def source() -> AsyncIterator[bytes]:
        nonlocal longest, before
        for number in range(blocks):
            now = time.monotonic()
            longest, before = max(longest, now - before), now
            if number in at:
                lab.change(at[number], hub, edge)
            yield block

    reply = await edge.request("hub", "bench:count", source(), timeout=None)
    assert reply is not None
    if int(reply.text()) != blocks * BLOCK:
        raise RuntimeError(f"{reply.text()} of {blocks * BLOCK} bytes have come")
    return longest


async def count(work: zmesh.Work) -> str:
    """Read all of a payload; its length."""
    total = 0
    async for part in work.payload:
        total += len(part)
    return str(total)


async def measure(size: int, changes: int) -> Result:
    """Start both nodes, and send twice."""
    with tempfile.TemporaryDirectory(prefix="zmesh-bench-") as folder:
        lab = Lab(Path(folder))
        hub, edge = (zmesh.Controller(identity=each) for each in (lab.hub, lab.edge))
        hub.directive("bench:count", stream=True)(count)
        async with hub, edge:
            await edge.wait_for("hub", START_WITHIN)
            await hub.wait_for("edge", START_WITHIN)
            began = time.monotonic()
            alone = await transfer(lab, hub, edge, size, 0)
            alone_s, began = time.monotonic() - began, time.monotonic()
            pause = await transfer(lab, hub, edge, size, changes)
            seconds = time.monotonic() - began
            lost = sum(each.stats().counters.get("link_lost", 0) for each in (hub, edge))
    return Result(
        schema=SCHEMA,
        bytes=size,
        changes=changes,
        left_alone_pause_s=round(alone, 3),
        left_alone_s=round(alone_s, 2),
        pause_s=round(pause, 3),
        seconds=round(seconds, 2),
        links_lost=lost,
        complete=True,
    )


def described(result: Result) -> str:
    """The result in words."""
    return (
        f"{result['bytes']:,} bytes under {result['changes']} changes of certificates and authorities in "
        f"{result['seconds']} s: the longest pause is {result['pause_s']} s, left alone "
        f"{result['left_alone_pause_s']} s (in {result['left_alone_s']} s); {result['links_lost']} links lost"
    )


def main() -> int:
    """Measure once and print it."""
    parser = program.parser(
        "benchmarks.renewal", __doc__ or "", SCHEMA, f"a pause is above {LIMIT:g} s, or a link lost"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--bytes", type=int, default=1 << 30, help="of each transfer (1073741824)")
    parser.add_argument("--changes", type=int, default=20, help="of a certificate meanwhile (20)")
    options = parser.parse_args()
    result = asyncio.run(measure(options.bytes, options.changes))
    missed = [f"a pause of {result['pause_s']} s"] if result["pause_s"] > LIMIT else []
    missed += [f"{result['links_lost']} links lost"] if result["links_lost"] else []
    return program.conclude(result, options, described(result), missed)


if __name__ == "__main__":
    sys.exit(main())
