"""A mesh on this machine that has faults, for tests and for people who want to find them.

    python -m tests.operate.faulty_mesh

starts it in a folder of its own, prints what to set in a shell, and waits for Ctrl-C. Each fault is a node:

    late    its clock is twenty minutes behind
    old     its certificate expires tomorrow, and no node can renew it
    full    the disk with its spool folder is full (where this user may mount one)
    slow    its link takes a third of a second there and back
    twin    another machine was cloned from it, key and all, and its supervisor starts the node there again and again
    shut    it has a second peer, whose port a firewall drops all packets for

All are members of the mesh `lab` and dial `hub`; the authority's key lies in a folder that no node uses.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tests import forked
from tests.forked import COMMAND, Command
from tests.ports import FreePorts
from tests.waiting import WITHIN, until
from zmesh.identity import Identity, IdentityKey, Issuer, Profile, State, TrustStore
from zmesh.trust import init

DAY = 86400.0
VALIDITY = 90 * DAY
LATE = 20 * 60.0
WRONG_CLOCK = """
import time
real = time.time
time.time = lambda: real() - {seconds}
time.time_ns = lambda: int(time.time() * 1e9)
from zmesh_cli.main import main
main()
"""
FULL_DISK = """
mount -t tmpfs -o size=256k zmesh-test "$0" && head -c 1M /dev/zero >"$0/backup.tar" 2>/dev/null
exec "$@"
"""


SLOW = """
import asyncio, sys
from zmesh.testing.proxy import Proxy
async def main():
    async with Proxy(sys.argv[1]) as proxy:
        proxy.slow(delay=0.17)
        print(proxy.url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())
"""
CLONE = """trap 'kill $!; wait; exit' TERM; while :; do "$@" & wait $!; sleep 1 & wait $!; done"""


def _may_mount() -> bool:
    return (
        bool(shutil.which("unshare")) and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    )


MAY_MOUNT = _may_mount()
FAULTS = ("late", "old", *(("full",) if MAY_MOUNT else ()), "slow", "twin", "shut")


class FaultyMesh:
    """The nodes of the mesh `lab`, as processes in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("ZMESH_")}
        self.environment |= {"XDG_RUNTIME_DIR": str(folder), "XDG_CONFIG_HOME": str(folder / "config")}
        self._processes: list[Command] = []
        self._stack = ExitStack()
        self.blocked = ""
        authority = init("lab", node_id="authority", state=folder / "authority").identity
        self._issuer = Issuer.load(authority)
        self.url = f"tcp://127.0.0.1:{self._stack.enter_context(closing(FreePorts()))()}"
        self._hub = self._identity("hub", listen=(self.url,))

    def start(self, fault: str | None = None) -> None:
        """Start the hub or, by its name, a node with a fault; returns when it listens."""
        match fault:
            case None:
                self._run("hub", COMMAND)
            case "late":
                self._identity("late")
                self._run("late", [sys.executable, "-P", "-c", WRONG_CLOCK.format(seconds=LATE)])
            case "old":
                self._identity("old", age=VALIDITY - DAY)
                self._run("old", COMMAND)
            case "full":
                self._identity("full")
                disk = self.folder / "disk"
                disk.mkdir()
                words = ["unshare", "-m", "sh", "-c", FULL_DISK, str(disk), *COMMAND]
                self._run("full", words, ZMESH_SPOOL_DIR=str(disk))
            case "slow":
                self._identity("slow", peers=(self._proxied(),))
                self._run("slow", COMMAND)
            case "twin":
                self._identity("twin")
                shutil.copytree(self.folder / "twin", self.folder / "clone")
                self._run("twin", COMMAND)
                self._start("clone", ["sh", "-c", CLONE, "sh", *COMMAND])
            case "shut":
                self.blocked = self._black_hole()
                self._identity("shut", peers=(*self._hub.dial_urls(), self.blocked))
                self._run("shut", COMMAND)

    def _proxied(self) -> str:
        """The URL of the hub behind a proxy that makes the link to it slow."""
        words = [sys.executable, "-P", "-c", SLOW, self.url]
        proxy = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stack.enter_context(proxy)  # it ends with its stdin
        assert proxy.stdout is not None
        key = self._hub.dial_urls()[0].partition("?")[2]
        return f"{proxy.stdout.readline().strip()}?{key}"

    def _black_hole(self) -> str:
        """The URL of a port that answers no connection, as behind a firewall that drops packets: its backlog is full,
        so the kernel drops them (listen(2))."""
        hole = self._stack.enter_context(socket.socket())
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for _ in range(4):
            waiting = self._stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(hole.getsockname())
        key = self._hub.dial_urls()[0].partition("?")[2]
        return f"tcp://127.0.0.1:{hole.getsockname()[1]}?{key}"

    def zmesh(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command that joins at the hub."""
        environment = {**self.environment, "ZMESH_PEER": "hub"}
        return forked.run([*words], env=environment, timeout=WITHIN)

    def close(self) -> None:
        """End all nodes."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            process.wait(WITHIN)
        self._stack.close()

    def _identity(
        self, name: str, *, age: float = 10 * DAY, listen: tuple[str, ...] = (), peers: tuple[str, ...] = ()
    ) -> Identity:
        key, made = IdentityKey.generate(), time.time() - age
        certificate = self._issuer.issue(key.public, name, (), made, VALIDITY)
        peers = peers or (() if listen else self._hub.dial_urls())
        profile = Profile("lab", name, listen, listen, peers)
        trust = TrustStore("lab", self._issuer.trust.authorities)
        return Identity.create(State(self.folder / name), profile, key, certificate, trust)

    def _run(self, name: str, command: list[str], **variables: str) -> None:
        process, log = self._start(name, command, **variables), self.folder / f"{name}.log"

        def is_ready() -> bool:
            text = log.read_text()
            assert process.poll() is None, text
            return '"event":"ready"' in text

        until(is_ready, WITHIN)

    def _start(self, name: str, command: list[str], **variables: str) -> Command:
        state = {"ZMESH_STATE": str(self.folder / name), **variables}
        with (self.folder / f"{name}.log").open("wb") as out:
            process = Command(["node", "--json"], command, stdout=out, stderr=out, env=self.environment | state)
        self._processes.append(process)
        return process


@contextmanager
def faulty_mesh(*faults: str) -> Iterator[FaultyMesh]:
    """A mesh with these faults."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="zmesh-faults-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        mesh = FaultyMesh(folder)
        stack.callback(mesh.close)
        mesh.start()
        for fault in faults:
            mesh.start(fault)
        yield mesh


if __name__ == "__main__":
    with faulty_mesh(*FAULTS) as mesh:
        print(f"export XDG_RUNTIME_DIR={mesh.folder} XDG_CONFIG_HOME={mesh.folder}/config ZMESH_PEER=hub")
        print(f"There are {len(FAULTS)} faults among the nodes: zmesh nodes, zmesh status NODE, zmesh doctor NODE")
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass
