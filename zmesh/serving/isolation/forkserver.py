"""Fork server: a single-threaded process that forks, signals and reaps the worker processes of isolated directives.

A node can't fork: its threads and ZeroMQ sockets would not survive in the copy. A new interpreter for each call would
take a tenth of a second or more. So the node starts one process with only zmesh loaded and no threads, which forks a
worker for each call in a few milliseconds. The fork server also sends the signals that the node requests, because only
the parent can be certain that a process id has not been reused, and reports the exit status of each worker.

Each worker leads its own session, and the fork server kills the rest of the session when the worker has exited.
Descendants of a worker are reparented to the fork server (PR_SET_CHILD_SUBREAPER), so it knows when a session is empty
and reports the exit only then. When the node's end of the socket is closed, for whatever reason, the fork server kills
all its descendants and exits. When the fork server itself is killed, Linux kills its workers (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import errno
import gc
import math
import os
import resource
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

import cloudpickle  # noqa: F401  # loaded before forking, not in each worker
import msgpack

from zmesh.serving.isolation import worker

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_SPARE_BYTES = 16 * 1024 * 1024
_KILL_WITHIN = 3.0


class ForkServer:
    """Forks workers on request of the node at the other end of `control`, and reports their exits."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, int] = {}
        self._files: dict[int, str] = {}
        self._exited: dict[int, dict[str, Any]] = {}
        self._pids: dict[int, int] = {}
        self._pid = os.getpid()
        self._prctl = getattr(ctypes.CDLL(None), "prctl", None)
        self._woken, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Serve the node's requests until it closes the socket."""
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, at: None)
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        if self._prctl is not None:
            self._prctl(_PR_SET_CHILD_SUBREAPER, 1)
        gc.freeze()  # keeps collections in the workers from copying shared pages
        try:
            while self._poll():
                self._reap()
        except OSError:
            pass  # the node closed the socket
        finally:
            self._kill_all()

    def _poll(self) -> bool:
        for key, _ in self._selector.select():
            if key.fileobj is self._woken:
                with suppress(BlockingIOError):
                    self._woken.recv(4096)
                continue
            message, descriptors, flags, _ = socket.recv_fds(self._control, 65536, 2)
            if not message:
                return False
            request = msgpack.unpackb(message)
            if flags & socket.MSG_CTRUNC:  # the kernel drops descriptors for which there is no room (unix(7))
                self._report({"id": request["id"], "error": os.strerror(errno.EMFILE)})
                for descriptor in descriptors:
                    os.close(descriptor)
            elif "signal" not in request:
                self._start(request, descriptors)
            elif (pid := self._pids.get(request["id"])) is not None:
                self._signal(pid, request["signal"])
        return True

    def _start(self, request: dict[str, Any], descriptors: list[int]) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until the worker has installed its handler
        try:
            pid = os.fork()
        except OSError as error:
            self._report({"id": request["id"], "error": str(error)})
        else:
            if pid == 0:
                self._run_worker(request, descriptors)
            self._children[pid] = request["id"]
            self._pids[request["id"]] = pid
            self._files[pid] = request["file"]
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            for descriptor in descriptors:
                os.close(descriptor)

    def _run_worker(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """In the child: drop the fork server's state, apply the limits and run the directive. Never returns."""
        try:
            os.setsid()
            if self._prctl is not None:
                self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self._pid:
                os._exit(1)  # the fork server was killed before PR_SET_PDEATHSIG was set
            signal.set_wakeup_fd(-1)
            for number in (*_IGNORED, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._selector.close()
            for connection in (self._control, self._woken, self._waker):
                connection.close()
            _set_limits(request)
            worker.main(socket.socket(fileno=descriptors[0]), descriptors[1] if descriptors[1:] else None)
        finally:
            os._exit(1)

    def _signal(self, pid: int, number: int) -> None:
        """Signal a worker and its session; it is not reaped yet, so the process id has not been reused."""
        try:
            os.killpg(pid, number)
        except ProcessLookupError:  # the worker has not called setsid yet
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _reap(self) -> None:
        """Reap exited processes and report each worker whose session is empty."""
        while (pid := _exited_child()) is not None:
            id = self._children.pop(pid, None)
            if id is None:
                os.waitpid(pid, 0)  # an orphaned descendant of a worker
                continue
            self._pids.pop(id)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # the rest of its session
            _, status, usage = os.wait4(pid, 0)
            code, cpu = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
            self._exited[pid] = {"id": id, "code": code, "cpu": cpu}
        for group in list(self._exited):
            try:
                os.waitid(os.P_PGID, group, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            except ChildProcessError:  # the session is empty
                with suppress(OSError):
                    os.unlink(self._files.pop(group))
                self._report(self._exited.pop(group))

    def _kill_all(self) -> None:
        """Kill all descendants, including those that left their sessions, and reap them."""
        end = time.monotonic() + _KILL_WITHIN
        while time.monotonic() < end:
            for pid in list(self._children):
                self._signal(pid, signal.SIGKILL)
            for pid in _child_pids():
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                break
            time.sleep(0.001)
        for file in self._files.values():
            with suppress(OSError):
                os.unlink(file)

    def _report(self, message: dict[str, Any]) -> None:
        self._control.send(msgpack.packb(message))


def _exited_child() -> int | None:
    """The process id of a child that has exited and is not reaped yet; None if there is none."""
    try:
        exited = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return None
    return None if exited is None else exited.si_pid


def _child_pids() -> list[int]:
    """The process ids of this process's children (Linux; empty elsewhere)."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _set_limits(request: dict[str, Any]) -> None:
    memory, cpu = request["max_memory_bytes"], request["max_cpu_seconds"]
    if memory is not None:  # the spare is for reporting the MemoryError
        _set(resource.RLIMIT_DATA, memory, memory + _SPARE_BYTES)
    if cpu is not None:
        _set(resource.RLIMIT_CPU, cpu, cpu + max(1, math.ceil(request["grace"])))


def _set(which: int, soft: int, hard: int) -> None:
    _, highest = resource.getrlimit(which)
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), min(hard, highest)
    resource.setrlimit(which, (soft, hard))


def serve(descriptor: int) -> None:
    """Run the fork server on its end of the socket to the node, until the node closes it."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)  # the node closes the socket to end this process
    with suppress(OSError):  # the program may have no standard error
        os.dup2(2, 1)  # output of directives must not mix with the program's standard output
    sys.stdout = sys.stderr
    with socket.socket(fileno=descriptor) as control:
        ForkServer(control).run()
