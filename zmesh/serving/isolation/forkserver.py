"""The keeper: a small process that makes the processes of isolated directives, and sees each one to its end.

A node can't fork: it has threads and sockets of ZeroMQ that would not survive in the copy. A new interpreter for each
call would take a tenth of a second and more. So the node starts this one, with nothing in it but zmesh and no threads,
and it forks for each call, which takes a few milliseconds. It kills what the node wants killed, because only the parent
knows for certain that a process id has not been given to another, and it tells how each one ended.

Each process leads a session of its own, and the keeper kills what is left of that when the process has ended. What a
process has started becomes the keeper's when its parent ends (PR_SET_CHILD_SUBREAPER), so the keeper knows when nothing
is left of a session, and only then tells the node. When the node is gone, however that came, its end of the socket is
closed; the keeper kills all that descends from it and ends. When the keeper itself is killed, Linux kills the processes
that it has forked (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
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

import cloudpickle  # noqa: F401  # here and once, not in each process
import msgpack

from zmesh.serving.isolation import worker

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_SPARE_BYTES = 16 * 1024 * 1024
_END_WITHIN = 3.0


class _Keeper:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, int] = {}
        self._files: dict[int, str] = {}
        self._leaving: dict[int, dict[str, Any]] = {}
        self._pids: dict[int, int] = {}
        self._here = os.getpid()
        self._prctl = getattr(ctypes.CDLL(None), "prctl", None)
        self._woken, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Do what the node says until it is gone."""
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, at: None)
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        if self._prctl is not None:
            self._prctl(_PR_SET_CHILD_SUBREAPER, 1)
        gc.freeze()  # so that collections in the copies touch as few shared pages as can be
        try:
            while self._turn():
                self._reap()
        except OSError:
            pass  # the node is gone in the middle of a word
        finally:
            self._end()

    def _turn(self) -> bool:
        for key, _ in self._selector.select():
            if key.fileobj is self._woken:
                with suppress(BlockingIOError):
                    self._woken.recv(4096)
                continue
            message, descriptors, _, _ = socket.recv_fds(self._control, 65536, 2)
            if not message:
                return False
            order = msgpack.unpackb(message)
            if "signal" not in order:
                self._start(order, descriptors)
            elif (pid := self._pids.get(order["id"])) is not None:
                self._signal(pid, order["signal"])
        return True

    def _start(self, order: dict[str, Any], descriptors: list[int]) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until the child can deal with it
        try:
            pid = os.fork()
        except OSError as error:
            self._tell({"id": order["id"], "error": str(error)})
        else:
            if pid == 0:
                self._become(order, descriptors)
            self._children[pid] = order["id"]
            self._pids[order["id"]] = pid
            self._files[pid] = order["file"]
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            for descriptor in descriptors:
                os.close(descriptor)

    def _become(self, order: dict[str, Any], descriptors: list[int]) -> None:
        """In the child: leave all of the keeper behind, take on the limits, and run the directive. Never returns."""
        try:
            os.setsid()
            if self._prctl is not None:
                self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self._here:
                os._exit(1)  # the keeper was killed before it was asked for
            signal.set_wakeup_fd(-1)
            for number in (*_IGNORED, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._selector.close()
            for connection in (self._control, self._woken, self._waker):
                connection.close()
            _limit(order)
            worker.main(socket.socket(fileno=descriptors[0]), descriptors[1] if descriptors[1:] else None)
        finally:
            os._exit(1)

    def _signal(self, pid: int, number: int) -> None:
        """To the process and to all of its session; it is not reaped yet, so the id is still its own."""
        try:
            os.killpg(pid, number)
        except ProcessLookupError:  # it has not come so far as to lead a group
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _reap(self) -> None:
        """Take note of what has ended, and tell of each process of which nothing is left."""
        while (pid := _ended()) is not None:
            id = self._children.pop(pid, None)
            if id is None:
                os.waitpid(pid, 0)  # what a process has started, and left to us when it ended
                continue
            self._pids.pop(id)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what it has started and left behind
            _, status, usage = os.wait4(pid, 0)
            code, cpu = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
            self._leaving[pid] = {"id": id, "code": code, "cpu": cpu}
        for group in list(self._leaving):
            try:
                os.waitid(os.P_PGID, group, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            except ChildProcessError:  # the last one of its session has ended
                with suppress(OSError):
                    os.unlink(self._files.pop(group))
                self._tell(self._leaving.pop(group))

    def _end(self) -> None:
        """Kill all that descends from the processes here, also what has left their sessions, and wait for its end."""
        end = time.monotonic() + _END_WITHIN
        while time.monotonic() < end:
            for pid in list(self._children):
                self._signal(pid, signal.SIGKILL)
            for pid in _own_children():
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

    def _tell(self, message: dict[str, Any]) -> None:
        self._control.send(msgpack.packb(message))


def _ended() -> int | None:
    """A child that has ended and is not reaped yet; None if there is none."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return None
    return None if ended is None else ended.si_pid


def _own_children() -> list[int]:
    """The children of this process, where Linux tells them."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _limit(order: dict[str, Any]) -> None:
    memory, cpu = order["max_memory_bytes"], order["max_cpu_seconds"]
    if memory is not None:  # the spare is for the report that it is used up
        _set(resource.RLIMIT_DATA, memory, memory + _SPARE_BYTES)
    if cpu is not None:
        _set(resource.RLIMIT_CPU, cpu, cpu + max(1, math.ceil(order["grace"])))


def _set(which: int, soft: int, hard: int) -> None:
    _, highest = resource.getrlimit(which)
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), min(hard, highest)
    resource.setrlimit(which, (soft, hard))


def keep(descriptor: int) -> None:
    """The keeper's life, with its end of the socket to the node."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)  # the node says when it is over
    with suppress(OSError):  # a program without a standard error has none to share
        os.dup2(2, 1)  # what a directive prints must not mix with what the node's program writes
    sys.stdout = sys.stderr
    with socket.socket(fileno=descriptor) as control:
        _Keeper(control).run()
