"""Processes of commands that were running when their node ended: named so that they can be ended by its next run."""

from __future__ import annotations

import os
import signal
import time

from zmesh.remote import session_members

END_WITHIN = 5.0
"""Seconds that processes may take to be gone after SIGKILL."""


def boot_id() -> str:
    """The id of this boot of the machine and of the PID namespace; empty where the system has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def named_here(pid: int) -> str:
    """The name of a process as `name_of` gives it, with `boot_id` before it."""
    return f"{name_of(pid)}:{boot_id()}"


def runs_here(name: str) -> bool:
    """Whether a process of `named_here` runs."""
    pid, started, boot = name.split(":", 2)
    if boot != boot_id() or not started or _started(int(pid)) != started:
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read(1024).rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):  # it has ended just now
        return False


def name_of(pid: int) -> str:
    """The name of a process and its session that no other has while the machine runs: its id and when it started."""
    return f"{pid}:{_started(pid) or ''}"


def end(names: list[str]) -> None:
    """Kill those sessions, and wait until they are gone."""
    left = {pid for pid in map(_session_of, names) if pid is not None}
    over = time.monotonic() + END_WITHIN
    while left and time.monotonic() < over:
        for pid in list(left):
            found = session_members(pid)
            for process, _ in found:
                try:
                    os.kill(process, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    pass
            if not found:
                left.discard(pid)
        if left:
            time.sleep(0.01)


def _session_of(name: str) -> int | None:
    """The session that a name is of, unless its id is that of another one by now."""
    pid, _, started = name.partition(":")
    if not pid.isdigit():
        return None
    now = _started(int(pid))
    return int(pid) if now is None or now == started else None


def _started(pid: int) -> str | None:
    """When the process started, in ticks since the machine did; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read(1024).rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return None
