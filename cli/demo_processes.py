"""The processes of the demo, all of which end with it, even if it is killed.

Two pipes do that, since they close with the process that holds them. Each node ends when its stdin is closed, the other
end of which only the demo holds. And a small shell script reads a pipe that the demo and its nodes hold. At its end the
script terminates the command that was running, and deletes the folder that all of them worked in.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from zmesh import trust
from zmesh_cli.exit_codes import FAILED, Failure

ALLOW = (
    '{"tcp:connect": ["home"], "file:write": ["home"], "exec:run": ["home"], "job:*": ["home", "away"], '
    '"job-admin:read": ["away"]}'
)
"""Whom each node allows what takes over a machine: the commands that join at 'home', and at 'away' to see its jobs."""
COMMAND = (sys.executable, "-P", "-m", "zmesh_cli")
MESH = "demo"
START_WITHIN = 20.0
STOP_WITHIN = 3.0
LONGEST_LINE = 1024 * 1024

_CLEANER = (
    'trap "" INT TERM HUP; echo; while read line; do pid=$line; done; '
    'if [ "$pid" ]; then kill "$pid"; fi 2>/dev/null; rm -rf -- "$0"'
)


class Workplace:
    """The folder that a demo works in, and the pipe that the demo and its nodes hold."""

    def __init__(self, folder: str, pipe: int) -> None:
        self.folder = folder
        self.pipe = pipe

    def log(self, name: str) -> IO[str]:
        """A new file for the stderr of a node."""
        return open(os.path.join(self.folder, f"{name}.log"), "w+", encoding="utf-8")

    def running(self, pid: int | None) -> None:
        """Note the command to terminate if this process is killed, or (None) that it has ended."""
        os.write(self.pipe, b"\n" if pid is None else b"%d\n" % pid)


@contextlib.contextmanager
def workplace() -> Iterator[Workplace]:
    """A folder that is deleted afterwards, also if this process is killed."""
    folder = os.path.join(tempfile.gettempdir(), f"zmesh-demo-{os.urandom(6).hex()}")
    reading, writing = os.pipe()
    cleaner = subprocess.Popen(["/bin/sh", "-c", _CLEANER, folder], stdin=reading, stdout=subprocess.PIPE)
    os.close(reading)
    try:
        if cleaner.stdout is not None:
            cleaner.stdout.readline()  # it ignores Ctrl-C from here on
            cleaner.stdout.close()
        os.mkdir(folder, 0o700)
        yield Workplace(folder, writing)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(writing)
        with _sigint_ignored():
            cleaner.wait()


class Nodes:
    """The node processes of a demo, by name; `async with` stops them all. Their logs are in the folder."""

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._readers: list[asyncio.Task[None]] = []
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("ZMESH_") or name == "ZMESH_DEBUG"
        } | {"XDG_RUNTIME_DIR": place.folder, "TMPDIR": place.folder, "ZMESH_ALLOW": ALLOW}
        """The environment of nodes and commands: their sockets and spooled payloads stay in the folder of the demo."""
        self.urls: dict[str, str] = {}
        self.known: dict[str, set[str]] = {}
        """For each node, the others that it has a route to."""
        self._changed = asyncio.Event()
        self._identity: trust.Identity | None = None

    async def __aenter__(self) -> Nodes:
        return self

    async def __aexit__(self, *error: object) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        waits = [asyncio.ensure_future(process.wait()) for process in self._processes.values()]
        if waits:
            _, late = await asyncio.wait(waits, timeout=STOP_WITHIN)
            if late:
                for process in self._processes.values():
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                await asyncio.wait(late)
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def files(self, name: str) -> str:
        """The folder in which a node keeps what is copied to it."""
        return os.path.join(self._place.folder, f"{name}-files")

    def local(self, name: str) -> str:
        """The URL of a node's local socket, for commands."""
        return f"ipc://{self._place.folder}/zmesh/{name}.sock"

    async def start(self, name: str, *peers: str) -> None:
        """Start a node with links to those peers, the first one with a mesh of its own, which the others join; returns
        when it listens.
        """
        state = os.path.join(self._place.folder, name)
        if self._identity is None:
            self._identity = trust.init(MESH, node_id=name, state=state).identity
        else:
            ticket = trust.invite(self._identity, name, urls=[next(iter(self.urls.values())).partition("?")[0]])
            await trust.join(ticket, state=state)
        urls = [word for peer in peers for word in ("--peer", self.urls[peer])]
        os.mkdir(self.files(name), 0o700)
        settings = {
            "ZMESH_STATE": state,
            "ZMESH_PLUGINS": json.dumps({"file": {"write": [self.files(name)], "directory": self.files(name)}}),
        }
        with self._place.log(name) as log:
            process = self._processes[name] = await asyncio.create_subprocess_exec(
                *COMMAND,
                *("node", "--id", name, "--listen", "tcp://127.0.0.1:*", *urls, "--json", "--until-stdin-closes"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,
                env=self.environment | settings,
                pass_fds=(self._place.pipe,),
                limit=LONGEST_LINE,
            )
            ready = await asyncio.wait_for(self._line(process), START_WITHIN)
            if ready is None:
                log.seek(0)
                raise Failure(f"the node {name} did not start: {log.read().strip()}", FAILED)
        self.known[name] = set()
        self.urls[name] = ready["listening"][0]
        self._readers.append(asyncio.create_task(self._follow(name, process)))

    async def wait_for_routes(self, name: str, others: set[str]) -> None:
        """Wait until a node has routes to all of `others`."""
        async with asyncio.timeout(START_WITHIN):
            while not others <= self.known[name]:
                self._changed.clear()
                await self._changed.wait()

    def pid(self, name: str) -> int:
        """The process id of a node."""
        return self._processes[name].pid

    async def kill(self, name: str) -> None:
        """Kill a node with SIGKILL, and wait for its end."""
        self._processes[name].kill()
        await self._processes[name].wait()

    async def _follow(self, name: str, process: asyncio.subprocess.Process) -> None:
        """Read the events of a node until it ends."""
        while (event := await self._line(process)) is not None:
            if event["event"] == "node_joined":
                self.known[name].add(event["node"])
                self._changed.set()

    async def _line(self, process: asyncio.subprocess.Process) -> dict[str, Any] | None:
        line = await process.stdout.readline() if process.stdout is not None else b""
        return json.loads(line) if line else None


@contextlib.contextmanager
def _sigint_ignored() -> Iterator[None]:
    """Ignore Ctrl-C meanwhile."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
