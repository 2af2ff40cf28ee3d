"""Fixtures of the tests of the command line: the installed command as a subprocess, and nodes that run it."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import forked
from tests.forked import COMMAND, Command
from tests.ports import FreePorts
from tests.waiting import WITHIN, until

YOUNG = "import zmesh_cli.session; zmesh_cli.session.SETTLED = 600.0"
"""Has a command wait for unknown nodes as in a mesh that is still forming, however long they take to start."""


class Node:
    """A process of `zmesh node --json` that listens; `event` reads its events."""

    def __init__(
        self, words: list[str], environment: dict[str, str], command: list[str] = COMMAND, **options: Any
    ) -> None:
        self.errors = tempfile.TemporaryFile()
        self.process = Command(
            ["node", "--json", *words],
            command,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            **{"stdin": subprocess.DEVNULL, **options},
        )
        self._rest = b""
        self.ready: dict[str, Any] = {}

    @property
    def url(self) -> str:
        """The first of the URLs that it listens on."""
        return str(self.ready["listening"][0])

    @property
    def pid(self) -> int:
        return self.process.pid

    def event(self, name: str, within: float = WITHIN) -> dict[str, Any]:
        """The next event of that name; others are skipped."""
        until = time.monotonic() + within
        while (event := self.next_event(until - time.monotonic(), name))["event"] != name:
            pass
        return event

    def next_event(self, within: float = WITHIN, name: str = "event") -> dict[str, Any]:
        """The next event of any name; a failure says that `name` did not come."""
        until = time.monotonic() + within
        stdout = self.process.stdout
        assert stdout is not None
        while b"\n" not in self._rest:
            assert select.select([stdout], [], [], max(0.0, until - time.monotonic()))[0], f"no {name}"
            data = os.read(stdout.fileno(), 65536)
            assert data, f"it ended before {name}: {self.complaints()}"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        assert event["schema"] == "zmesh.node/1"
        return event

    def learns_of(self, names: set[str]) -> None:
        """Read its events until these nodes have joined."""
        missing = set(names)
        while missing:
            missing.discard(self.event("node_joined")["node"])

    def complaints(self) -> str:
        """The text on its stderr so far."""
        self.errors.seek(0)
        return self.errors.read().decode()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(WITHIN)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WITHIN)
        for file in (self.process.stdin, self.process.stdout, self.errors):
            if file is not None:
                file.close()


class Shell:
    """Runs `zmesh` with an environment of its own, without the sockets of other nodes of this machine."""

    command = COMMAND
    young = YOUNG

    def __init__(self, folder: Path, bytecode: dict[str, str]) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.nodes: list[Node] = []
        self.started: list[subprocess.Popen[bytes]] = []
        self.free_ports = FreePorts()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("ZMESH_")}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.environment.pop("COLUMNS", None)
        self.environment |= bytecode
        self.environment |= {
            "XDG_RUNTIME_DIR": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "TMPDIR": str(folder),
            "TEST_MARK": self.mark,
            "PYTHONWARNINGS": "error,default::ResourceWarning",
        }

    def run(
        self, *words: str, stdin: bytes | int = b"", environment: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `zmesh` to its end, which must print no traceback."""
        source: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        done = forked.run([*words], timeout=WITHIN, env=self.environment | (environment or {}), **source, **options)
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done

    def run_joined(self, *words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run `zmesh` with a short --timeout, and again if that has passed before it has joined, on a slow machine."""
        while b"no node answers at" in (done := self.run(*words, **options)).stderr:
            assert done.returncode == 3
        return done

    def start(
        self, *words: str, environment: dict[str, str] | None = None, setup: str = "", **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start `zmesh`, after the statement `setup` if there is one; the caller waits for it."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        options = {**pipes, **options, "env": self.environment | (environment or {})}
        if setup:
            program = [sys.executable, "-P", "-c", f"{setup}\nfrom zmesh_cli.main import main; main()"]
            process: subprocess.Popen[bytes] = subprocess.Popen([*program, *words], **options)
        else:
            process = Command([*words], **options)
        self.started.append(process)
        return process

    def node(self, name: str, *words: str, listen: str | None = "tcp://127.0.0.1:*", **options: Any) -> Node:
        """Start a node; returns when it is ready."""
        where = ["--listen", listen] if listen is not None else []
        node = Node(["--id", name, *where, *words], self.environment, **options)
        self.nodes.append(node)
        node.ready = node.event("ready")
        return node

    def node_of_context(self, *words: str, **options: Any) -> Node:
        """Start a node with the identity of the current context; returns when it is ready."""
        node = Node([*words], self.environment, **options)
        self.nodes.append(node)
        node.ready = node.event("ready")
        return node

    def chain(self, *names: str) -> list[Node]:
        """Start nodes of which each dials the one before it; returns when all have routes to all.

        Nobody else is given the port of one that has ended, so that it can be started there again.
        """
        nodes: list[Node] = []
        for name in names:
            dial = ["--peer", nodes[-1].url] if nodes else []
            nodes.append(self.node(name, *dial, listen=self.free_url()))
        for node, name in zip(nodes, names, strict=True):
            node.learns_of({*names} - {name})
        return nodes

    def free_url(self) -> str:
        """A URL on which nobody listens, and whose port is given to nobody else until this is closed."""
        return f"tcp://127.0.0.1:{self.free_ports()}"

    def left(self) -> list[str]:
        """The processes that this shell has started, directly or not, and that still run."""
        found = []
        ours = {process.pid for process in self.started if process.poll() is None}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                marked = f"TEST_MARK={self.mark}".encode() in (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                words = os.fsdecode((folder / "cmdline").read_bytes().replace(b"\0", b" "))
            except OSError:
                continue
            if (marked or int(folder.name) in ours) and state != "Z":
                found.append(words)
        return found

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        for process in self.started:  # which a test that has failed may have left
            if process.poll() is None:
                process.kill()
            process.wait(WITHIN)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
        self.free_ports.close()


@pytest.fixture(scope="session")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which commands find their modules compiled, as when zmesh is installed."""
    return {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("bytecode"))} if sys.dont_write_bytecode else {}


@pytest.fixture(scope="module")
def new_shell(bytecode: dict[str, str]) -> Iterator[Callable[[], Shell]]:
    """Makes shells; everything that they have started ends with the module."""
    shells = []

    def make() -> Shell:
        shell = Shell(Path(tempfile.mkdtemp(prefix="zmesh-test-")), bytecode)
        shells.append(shell)
        return shell

    yield make
    for shell in shells:
        shell.close()
        shutil.rmtree(shell.folder)


@pytest.fixture
def shell(bytecode: dict[str, str]) -> Iterator[Shell]:
    """A shell for one test."""
    shell = Shell(Path(tempfile.mkdtemp(prefix="zmesh-test-")), bytecode)
    yield shell
    shell.close()
    shutil.rmtree(shell.folder)


@pytest.fixture(scope="module")
def mesh(new_shell: Callable[[], Shell]) -> Shell:
    """A shell beside a chain of three nodes, `hub`, `mid` and `far`, whose commands join at `hub`. Change nothing."""
    shell = new_shell()
    hub = shell.chain("hub", "mid", "far")[0]
    shell.environment["ZMESH_PEER"] = hub.url
    return shell


def _lines(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="session")
def lines() -> Callable[[subprocess.CompletedProcess[bytes]], list[dict[str, Any]]]:
    """Reads what a command with --json has printed."""
    return _lines


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], object]], None]:
    """Waits until something is true."""

    return partial(until, timeout=WITHIN)
