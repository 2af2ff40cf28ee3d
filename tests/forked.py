"""Starts `zmesh` as a fork of a process that has imported it, which takes a tenth of the CPU time of a new interpreter.

It is a process as any other: a child of this one, with the arguments, environment, folder, streams and session that it
was given, in which `python -P -m zmesh_cli` runs and whose interpreter shuts down at its end. It differs in the modules
that it finds imported, and in /proc/PID/cmdline and /proc/PID/environ, which are those of the process it is a fork of.
"""

import atexit
import ctypes
import gc
import importlib
import inspect
import json
import os
import pkgutil
import runpy
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, ClassVar

COMMAND = [sys.executable, "-P", "-m", "zmesh_cli"]
READ_AT_START = ("PYTHON", "LANG", "LC_", "LD_", "MALLOC_", "TZ")
"""How variables begin that an interpreter or a library reads once, so that what is forked must have the same ones."""
_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")

_SET_CHILD_SUBREAPER = 36  # prctl(2)
_ONLY_STARTED = {"preexec_fn": None, "pass_fds": (), "umask": -1, "process_group": -1, "uid": None, "gid": None}
"""Options of Popen that only a new interpreter can be given, and what they are where they are not given."""


class Command(subprocess.Popen[bytes]):
    """A process that runs `zmesh` with `words`: a fork, or a new interpreter for what only that can be given.

    Another `command` than COMMAND is started as it is.
    """

    _servers: ClassVar[dict[frozenset[tuple[str, str]], "_Server | None"]] = {}

    def __init__(self, words: list[Any], command: list[str] = COMMAND, **options: Any) -> None:
        self._words = words if command == COMMAND else None
        super().__init__([*command, *words], **options)

    def _execute_child(self, *arguments: Any) -> None:
        """What Popen has done between making the pipes and closing their other ends."""
        start = super()._execute_child  # type: ignore[misc]
        given = inspect.signature(start).bind(*arguments).arguments
        environment: Mapping[str, str] = os.environ if given["env"] is None else given["env"]
        streams = [given["p2cread"], given["c2pwrite"], given["errwrite"]]
        if self._words is None or any(given[name] != default for name, default in _ONLY_STARTED.items()):
            return start(*arguments)
        if (server := self._server(environment)) is None:
            return start(*arguments)
        self.pid = server.fork(
            [number if stream == -1 else stream for number, stream in enumerate(streams)],
            {
                "words": [os.fsdecode(word) for word in self._words],
                "environment": dict(environment),
                "folder": os.fspath(given["cwd"] or os.getcwd()),
                "session": given["start_new_session"],
            },
        )
        self._child_created = True
        self._close_pipe_fds(*(given[name] for name in _PIPES))  # type: ignore[attr-defined]
        return None

    def _server(self, environment: Mapping[str, str]) -> "_Server | None":
        """What to fork; None for the first process with such variables, which may be the only one."""
        once = frozenset(item for item in environment.items() if item[0].startswith(READ_AT_START))
        if once not in self._servers:
            self._servers[once] = None
        elif self._servers[once] is None:
            self._servers[once] = _Server(environment)
        server = self._servers[once]
        return server if server is not None and server.is_ours() else None


def run(words: list[Any], *, input: bytes | None = None, timeout: float, **options: Any) -> Any:
    """As `subprocess.run` with `capture_output`."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Command(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def servers() -> set[int]:
    """The processes that are forked, which tests that count the children of this one leave out."""
    return {server.pid for server in Command._servers.values() if server is not None}


class _Server:
    """The process that is forked; it ends with this one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._adopt = ctypes.CDLL(None).prctl
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=dict(environment),
                pass_fds=[theirs.fileno()],
            )
        self.pid = self._process.pid
        self._parent = os.getpid()
        atexit.register(self._close)

    def is_ours(self) -> bool:
        """Whether it was started by this process, and not by one that this is a fork of."""
        return self._parent == os.getpid()

    def fork(self, streams: list[int], what: dict[str, Any]) -> int:
        """The process id of a new child of this process."""
        data = json.dumps(what).encode()
        with self._lock:
            # The server forks twice and lets its own child end, so that the other becomes one of this process.
            assert self._adopt(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
            try:
                socket.send_fds(self._channel, [len(data).to_bytes(4)], streams)
                self._channel.sendall(data)
                pid = int.from_bytes(_receive(self._channel, 4))
                _receive(self._channel, 1)
            finally:
                self._adopt(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        return pid

    def _close(self) -> None:
        if self.is_ours():
            self._channel.close()
            self._process.wait()


def _receive(channel: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = channel.recv(size - len(data))
        assert part, "the process that is forked has ended"
        data += part
    return data


# --- in the process that is forked ----------------------------------------------------------------------------------


def _serve(channel: socket.socket) -> None:
    """Fork for each request; returns in the new process alone, as what was asked for."""
    while True:
        size, streams, _, _ = socket.recv_fds(channel, 4, 3)
        if not size:
            os._exit(0)
        what = json.loads(_receive(channel, int.from_bytes(size)))
        between = os.fork()
        if between == 0:
            between = os.getpid()
            if pid := os.fork():
                channel.sendall(pid.to_bytes(4))
                os._exit(0)
            break
        os.waitpid(between, 0)
        channel.sendall(b"\n")
        for each in streams:
            os.close(each)
    channel.close()
    while os.getppid() == between:
        time.sleep(0.0005)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, max(streams) + 1)
    os.chdir(what["folder"])
    if what["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(what["environment"])
    sys.argv[1:] = what["words"]


def _import_all() -> None:
    """Import what a command may import, so that it finds it there."""
    import zmesh
    import zmesh_cli

    names = [module.name for module in pkgutil.iter_modules(zmesh_cli.__path__, "zmesh_cli.")]
    names += [module.name for module in pkgutil.walk_packages(zmesh.__path__, "zmesh.")]
    for name in names:
        if not name.startswith(("zmesh_cli.__main__", "zmesh.testing")):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _import_all()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    runpy._run_module_as_main("zmesh_cli")  # type: ignore[attr-defined]  # as `python -m` does
