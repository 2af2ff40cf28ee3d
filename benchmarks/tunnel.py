"""A TCP connection through a mesh, beside `ssh -L` and `socat`: round trips and bulk, over two hops.

    python -m benchmarks.tunnel [--json] [--check] [--rounds 10] [--mebibytes 64] [--plain]

Each of the ways leads from a port of this machine over a process in the middle to one that connects to a server here:
`zmesh forward` over a hub to another node, each with an identity, so that links are encrypted and payloads sealed;
`ssh -L` through a jump host (`-J`) to another sshd; two `socat`, which pass bytes on as they are; and `direct`, the
server alone. Round trips are of 64 bytes, one at a time over an open connection; medians of all in microseconds. Bulk
is one connection, in either direction; medians of the rounds in MB/s. All ways take turns, so that the load of the
machine meets each alike. `--plain` measures a mesh without identities, in plaintext.

With `--check` the exit status is 1 if a round trip takes longer than LATENCY times that of ssh, or if less than BULK
times the bytes of ssh get through.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from benchmarks.chains import Machine, at_least, machine, machine_line
from benchmarks.security import ROOT as IDENTITIES
from benchmarks.security import identities

SCHEMA = "zmesh.bench.tunnel/1"
LATENCY, BULK = 1.0, 0.5
COMMAND = (sys.executable, "-P", "-m", "zmesh_cli")
ROUND_TRIPS = 200
WARM_UP = 50
MESSAGE = b"x" * 64
MEBIBYTE = 1024 * 1024
ECHO, SEND, TAKE = b"e", b"s", b"t"
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
START_WITHIN = 30.0


class Way(TypedDict):
    """What was measured of one way: microseconds, and MB/s to the client and from it."""

    round_trip_us: float
    down: float
    up: float


class Result(TypedDict):
    """All ways, and the machine; `latency` and `bulk` are those of zmesh by those of ssh."""

    schema: str
    encrypted: bool
    ways: dict[str, Way]
    latency: float | None
    bulk: float | None
    machine: Machine


# -- the server -------------------------------------------------------------------------------------------------------


def serve() -> None:
    """Serve connections, each of which begins with what it wants, until stdin ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wanted, piece = connection.recv(1), bytes(256 * 1024)
        if wanted == ECHO:
            while data := connection.recv(65536):
                connection.sendall(data)
        elif wanted == SEND:
            for _ in range(int(connection.recv(16)) * 4):
                connection.sendall(piece)
        elif wanted == TAKE:
            taken = 0
            while data := connection.recv(256 * 1024):
                taken += len(data)
            connection.sendall(str(taken).encode())


@contextlib.contextmanager
def server() -> Iterator[int]:
    """The server in a process of its own; its port."""
    command = [sys.executable, "-m", "benchmarks.tunnel", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


# -- the ways ---------------------------------------------------------------------------------------------------------


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """Wait until something listens there."""
    until = time.monotonic() + START_WITHIN
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def running(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended at the end of the block."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def mesh(target: int, *, encrypted: bool) -> Iterator[int]:
    """`zmesh forward` over a hub to another node; the port here."""

    def state(name: str) -> str:
        return os.path.join(os.environ[IDENTITIES], name) if encrypted else "none"

    def ready(process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        while True:
            event = json.loads(process.stdout.readline())
            if event["event"] == "ready":
                return str(next(iter(event["listening"]), ""))

    with contextlib.ExitStack() as stack:
        if encrypted:
            stack.enter_context(identities(["hub", "edge", "desk"]))
        node = [*COMMAND, "node", "--json"]
        names = [] if encrypted else ["--id", "hub"]
        hub = stack.enter_context(running(*node, *names, "--listen", "tcp://127.0.0.1:*", ZMESH_STATE=state("hub")))
        url = ready(hub)
        names = [] if encrypted else ["--id", "edge"]
        allow = '{"tcp:connect": ["*"]}'
        edge = stack.enter_context(running(*node, *names, "--peer", url, ZMESH_STATE=state("edge"), ZMESH_ALLOW=allow))
        ready(edge)
        words = ("forward", "127.0.0.1:0", f"edge:127.0.0.1:{target}", "--json", "--peer", url)
        forward = stack.enter_context(running(*COMMAND, *words, ZMESH_STATE=state("desk")))
        yield int(ready(forward).rpartition(":")[2])


@contextlib.contextmanager
def ssh(target: int) -> Iterator[int]:
    """`ssh -L` through a jump host to another sshd; the port here."""
    assert SSHD is not None
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        os.makedirs("/run/sshd", exist_ok=True)
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        ports = {"hub": free_port(), "edge": free_port()}
        lines = ["StrictHostKeyChecking no", "UserKnownHostsFile /dev/null", f"IdentityFile {folder / 'user'}"]
        lines += ["LogLevel ERROR", "IdentitiesOnly yes"]
        for host, port in ports.items():
            stack.enter_context(
                running(SSHD, "-D", "-f", "/dev/null", "-p", str(port), "-o", "ListenAddress=127.0.0.1", "-h",
                        str(folder / "host"), "-o", f"AuthorizedKeysFile={folder / 'user.pub'}", "-o", "StrictModes=no",
                        "-o", "UsePAM=no", "-o", f"PidFile={folder / host}.pid")
            )  # fmt: skip
            wait_for(port)
            lines += [f"Host {host}", "HostName 127.0.0.1", f"Port {port}"]
        (folder / "config").write_text("\n".join(lines) + "\n")
        port = free_port()
        tunnel = ("-N", "-L", f"127.0.0.1:{port}:127.0.0.1:{target}", "-J", "hub", "edge")
        stack.enter_context(running("ssh", "-F", str(folder / "config"), *tunnel))
        wait_for(port)
        yield port


@contextlib.contextmanager
def socat(target: int) -> Iterator[int]:
    """Two socat, one after the other; the port here."""
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            port = free_port()
            listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay"
            stack.enter_context(running("socat", "-b", "65536", listen, f"TCP:127.0.0.1:{target},nodelay"))
            wait_for(port)
            target = port
        yield target


# -- measuring --------------------------------------------------------------------------------------------------------


def connect(port: int) -> socket.socket:
    """A connection to the server by one of the ways."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def round_trips(connection: socket.socket, count: int) -> list[float]:
    """The times of so many round trips, in seconds."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        connection.sendall(MESSAGE)
        received = 0
        while received < len(MESSAGE):
            received += len(connection.recv(len(MESSAGE)))
        times.append(time.perf_counter() - began)
    return times


def down(port: int, mebibytes: int) -> float:
    """Bytes a second to the client."""
    with connect(port) as connection:
        began, taken = time.perf_counter(), 0
        connection.sendall(SEND + str(mebibytes).encode())
        while data := connection.recv(256 * 1024):
            taken += len(data)
        assert taken == mebibytes * MEBIBYTE
        return taken / (time.perf_counter() - began)


def up(port: int, mebibytes: int) -> float:
    """Bytes a second from the client."""
    piece = bytes(256 * 1024)
    with connect(port) as connection:
        began = time.perf_counter()
        connection.sendall(TAKE)
        for _ in range(mebibytes * 4):
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        assert int(connection.recv(16)) == mebibytes * MEBIBYTE
        return mebibytes * MEBIBYTE / (time.perf_counter() - began)


def measure(rounds: int, mebibytes: int, *, encrypted: bool) -> Result:
    """All ways that there are programs for."""
    where = machine(os.getloadavg()[0])
    times: dict[str, list[float]] = defaultdict(list)
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(server())
        ports = {"direct": target, "zmesh": stack.enter_context(mesh(target, encrypted=encrypted))}
        if SSHD is not None and shutil.which("ssh"):
            ports["ssh"] = stack.enter_context(ssh(target))
        if shutil.which("socat"):
            ports["socat"] = stack.enter_context(socat(target))
        open_ones = {name: stack.enter_context(connect(port)) for name, port in ports.items()}
        for connection in open_ones.values():
            connection.sendall(ECHO)
            round_trips(connection, WARM_UP)
        for turn in range(rounds):
            for name, connection in open_ones.items():
                times[name] += round_trips(connection, ROUND_TRIPS)
            for name, port in ports.items():
                for way in (down, up):
                    rate = way(port, mebibytes)
                    if turn:  # the first transfer finds out what the path takes
                        rates[name, way.__name__].append(rate)
    ways: dict[str, Way] = {
        name: {
            "round_trip_us": round(statistics.median(times[name]) * 1e6, 1),
            "down": round(statistics.median(rates[name, "down"]) / 1e6, 1),
            "up": round(statistics.median(rates[name, "up"]) / 1e6, 1),
        }
        for name in ports
    }
    latency = bulk = None
    if "ssh" in ways:
        latency = round(ways["zmesh"]["round_trip_us"] / ways["ssh"]["round_trip_us"], 2)
        bulk = round(min(ways["zmesh"][way] / ways["ssh"][way] for way in ("down", "up")), 2)  # type: ignore[literal-required]
    return {"schema": SCHEMA, "encrypted": encrypted, "ways": ways, "latency": latency, "bulk": bulk, "machine": where}


def show(result: Result) -> str:
    """The result for people."""
    lines = [machine_line(result["machine"]), "        round trip     down       up"]
    for name, way in result["ways"].items():
        lines.append(f"{name:7} {way['round_trip_us']:8.0f} µs {way['down']:6.0f} MB/s {way['up']:6.0f} MB/s")
    if result["latency"] is not None:
        lines.append(f"zmesh by ssh: {result['latency']:.2f} of its round trip, {result['bulk']:.2f} of its bytes")
    return "\n".join(lines)


def missed(result: Result) -> list[str]:
    """The goals that do not hold."""
    goals = []
    if result["latency"] is not None and result["latency"] > LATENCY:
        goals.append(f"a round trip takes {result['latency']:g} of that of ssh, and {LATENCY:g} is the limit")
    if result["bulk"] is not None and result["bulk"] < BULK:
        goals.append(f"{result['bulk']:g} of the bytes of ssh get through, and {BULK:g} is the goal")
    return goals


def main() -> int:
    """Measure, and print."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m benchmarks.tunnel", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help=f"print one object of schema {SCHEMA}")
    parser.add_argument("--check", action="store_true", help="status 1 if a goal is missed")
    parser.add_argument("--rounds", type=at_least(2), default=10, help="turns of all ways; default 10")
    parser.add_argument("--mebibytes", type=at_least(1), default=64, help="bytes of a transfer; default 64")
    parser.add_argument("--plain", action="store_true", help="a mesh without identities")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
    result = measure(arguments.rounds, arguments.mebibytes, encrypted=not arguments.plain)
    print(json.dumps(result) if arguments.json else show(result))
    goals = missed(result)
    if arguments.check and goals:
        print(f"missed: {'; '.join(goals)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
