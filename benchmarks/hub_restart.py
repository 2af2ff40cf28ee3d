"""How long it takes until all neighbours of a hub are back after it was killed: CURVE, certificates, signed records.

    python -m benchmarks.hub_restart [--json] [--check] [--neighbours 500] [--processes 2]

The hub is a real node with an identity, in a process of its own, which is killed (SIGKILL) and started again at the
same port. The neighbours are sockets that say what nodes say (benchmarks.hub), each with a CURVE key, a certificate
and a signed record, and they try to connect again every second, as a node does where nothing listens. The clock runs
from the start of the second process on, and ends when all links are up and the hub has a route to, and the record of,
each.

With `--check` the exit status is 1 if that takes more than LIMIT seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict

import zmq

import zmesh
from benchmarks.hub import HUB, Neighbour
from zmesh.core import wire
from zmesh.core.wire import Kind
from zmesh.identity import Identity, IdentityKey, NodeCredentials, Profile, State
from zmesh.identity.tickets import key_from_text, key_of
from zmesh.testing.authority import DAY, TestAuthority
from zmesh.transport.curve import KeyPair

SCHEMA = "zmesh.bench.hub_restart/1"
LIMIT = 10.0
START_WITHIN = 240.0
REDIAL_MS = 1000
POLL = 0.02


class Result(TypedDict):
    """One measurement, in seconds since the second start: the hub listens; all its neighbours are back."""

    schema: str
    neighbours: int
    first_s: float
    listens_s: float
    back_s: float


def authority() -> TestAuthority:
    """The authority, the same in all processes of today."""
    return TestAuthority(begins=int(time.time()) // DAY * DAY - DAY)


class Member(Neighbour):
    """A neighbour with a certificate: encrypted, its HELLO and its record signed."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], url: str, node: str, made_by: TestAuthority, listener: bytes
    ) -> None:
        key = IdentityKey.generate()
        trust = made_by.trust()
        self.credentials = NodeCredentials(key, made_by.certificate(node, key), trust, os.urandom)
        self.own = KeyPair.generate()
        self.listener = listener
        super().__init__(context, url, node, swings=False)

    def open(self, context: zmq.Context[zmq.Socket[bytes]], url: str) -> None:
        """Connect, encrypted."""
        self.socket = context.socket(zmq.DEALER)
        self.socket.set(zmq.RECONNECT_IVL, REDIAL_MS)
        self.socket.set(zmq.CURVE_SERVERKEY, self.listener)
        self.socket.set(zmq.CURVE_PUBLICKEY, self.own.public)
        self.socket.set(zmq.CURVE_SECRETKEY, self.own.secret)
        self.socket.connect(url)

    def greet(self) -> None:
        """Say HELLO, signed for this connection."""
        credentials, at = self.credentials, int(1000 * time.time())
        channel = self.own.public + self.listener
        signed = wire.signed_by_dialler(credentials.mesh, channel, at, self.node, self.incarnation)
        proof = wire.encode_proof(wire.Proof(at, credentials.sign(signed), credentials.own.data))
        hello = wire.Hello(self.node, self.incarnation, time.time(), False, 1, 0, extensions={wire.IDENTITY: proof})
        self._say(Kind.HELLO, hello)

    def record(self) -> wire.Record:
        """Its record, signed."""
        credentials = self.credentials
        record = super().record()._replace(public_key=credentials.exchange_key)
        digest = credentials.own.digest
        signature = credentials.sign(wire.signed_record(credentials.mesh, record, digest))
        return record._replace(extensions={wire.SIGNATURE: wire.encode_signature(digest, signature)})

    def hear(self, now: float) -> None:
        """Read one message; an empty one keeps the link alive while the hub's loop is blocked."""
        parts = self.socket.recv_multipart()
        if parts[0]:
            self.take(wire.read_packet(parts), now)

    def take(self, packet: wire.Packet, now: float) -> None:
        """Take in one packet; an ASK comes from a hub that does not know this connection."""
        if packet.kind == Kind.ASK:
            self.greet()
        elif packet.kind == Kind.CERTIFICATE_REQUEST:
            for frames in wire.encode_certificates([self.credentials.own.data]):
                self._send(frames)
        else:
            super().take(packet, now)


def serve(url: str, first: int, count: int) -> None:
    """Be `count` neighbours of the hub until stdin ends."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 4096)
    poller = zmq.Poller()
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    made_by, listener = authority(), key_from_text(key_of(url) or "")
    address = url.partition("?")[0]
    members = {}
    for number in range(first, first + count):
        member = Member(context, address, f"n{number}", made_by, listener)
        members[member.socket] = member
        poller.register(member.socket, zmq.POLLIN)
    while True:
        wait = min(1.0, max(0.0, min(member.due() for member in members.values()) - time.monotonic()))
        for source, _ in poller.poll(math.ceil(1000 * wait)):
            if isinstance(source, int):
                context.destroy(0)
                return
            members[source].hear(time.monotonic())
        now = time.monotonic()
        for member in members.values():
            if member.due() <= now:
                member.act(now)


async def be_the_hub(state: str, url: str, neighbours: int) -> None:
    """Run the hub until it is killed; two lines say when it listens, and when all neighbours are there."""
    config = zmesh.Config(identity=state, listen=[url])
    async with zmesh.Controller(config) as hub:
        print(hub.listening[0], flush=True)
        engine = hub.node.engine
        while not (  # noqa: ASYNC110  # no event says it, and it has to be cheap
            len(engine.links()) == len(engine.routing.destinations()) == neighbours
            and len(engine.records()) == neighbours + 1
        ):
            await asyncio.sleep(POLL)
        print("all", flush=True)
        await asyncio.Event().wait()


async def _start_hub(state: str, url: str, neighbours: int) -> asyncio.subprocess.Process:
    words = ("-m", "benchmarks.hub_restart", "--hub", state, url, str(neighbours))
    return await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def measure(neighbours: int, processes: int) -> Result:
    """Start the hub and its neighbours, kill the hub, start it again."""
    with TemporaryDirectory(prefix="zmesh-bench-") as folder:
        made_by, key = authority(), IdentityKey.generate()
        state = State(Path(folder) / "hub")
        Identity.create(state, Profile("lab", HUB), key, made_by.certificate(HUB, key), made_by.trust())
        children: list[asyncio.subprocess.Process] = []
        hub = await _start_hub(str(state.folder), "tcp://127.0.0.1:*", neighbours)
        try:
            async with asyncio.timeout(START_WITHIN):
                url, began = await _line(hub), time.monotonic()
                for number in range(processes):
                    first, end = number * neighbours // processes, (number + 1) * neighbours // processes
                    words = ("-m", "benchmarks.hub_restart", "--serve", url, str(first), str(end - first))
                    pipe = asyncio.subprocess.PIPE
                    children.append(await asyncio.create_subprocess_exec(sys.executable, *words, stdin=pipe))
                await _line(hub)
                first_s = time.monotonic() - began
                hub.send_signal(signal.SIGKILL)
                await hub.wait()
                began = time.monotonic()
                hub = await _start_hub(str(state.folder), url.partition("?")[0], neighbours)
                await _line(hub)
                listens_s = time.monotonic() - began
                await _line(hub)
                back_s = time.monotonic() - began
        finally:
            if hub.returncode is None:
                hub.kill()
            await hub.wait()
            for child in children:
                if child.stdin is not None:
                    child.stdin.close()
            await asyncio.gather(*(child.wait() for child in children))
    return Result(
        schema=SCHEMA,
        neighbours=neighbours,
        first_s=round(first_s, 2),
        listens_s=round(listens_s, 2),
        back_s=round(back_s, 2),
    )


def main() -> int:
    """Measure once and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hub_restart", description=__doc__.partition("\n")[0])
    parser.add_argument("--neighbours", type=int, default=500, help="of the hub (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="that the neighbours share (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one object instead of a line of text")
    parser.add_argument("--check", action="store_true", help=f"fail above {LIMIT:g} s")
    parser.add_argument("--serve", nargs=3, metavar=("URL", "FIRST", "COUNT"), help=argparse.SUPPRESS)
    parser.add_argument("--hub", nargs=3, metavar=("STATE", "URL", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]), int(options.serve[2]))
        return 0
    if options.hub:
        asyncio.run(be_the_hub(options.hub[0], options.hub[1], int(options.hub[2])))
        return 0
    result = asyncio.run(measure(options.neighbours, options.processes))
    if options.json:
        print(json.dumps(result))
    else:
        print(
            f"{result['neighbours']} neighbours are back {result['back_s']} s after the hub was started again "
            f"(it listens after {result['listens_s']} s; the first start took {result['first_s']} s)"
        )
    return 1 if options.check and result["back_s"] > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
