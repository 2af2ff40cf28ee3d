"""The resources in use of the process of a node: memory, file descriptors, threads, CPU time."""

from __future__ import annotations

import os
import platform
import resource
import socket
import sys
import threading
import time

from zmesh.operate.json_form import Seconds
from zmesh.operate.status import ProcessStatus

_CGROUP_LIMIT = "/sys/fs/cgroup/memory.max"


def process_status() -> ProcessStatus:
    """The state of this process."""
    return ProcessStatus(
        pid=os.getpid(),
        host=socket.gethostname(),
        python=platform.python_version(),
        memory_bytes=memory_bytes(),
        memory_limit_bytes=_memory_limit(),
        descriptors=descriptors(),
        descriptor_limit=_limit(resource.RLIMIT_NOFILE),
        threads=threading.active_count(),
        cpu=Seconds(time.process_time()),
    )


def memory_bytes() -> int:
    """The resident memory of this process; its peak where there is no /proc."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def descriptors() -> int:
    """How many file descriptors are open; 0 if the system does not say."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(folder)) - 1
        except OSError:  # there is none left to look, or no such folder
            continue
    return 0


def _memory_limit() -> int | None:
    """The lower one of the limits of the control group and of the address space; None: there is none."""
    limits = [_limit(resource.RLIMIT_AS)]
    try:
        with open(_CGROUP_LIMIT, "rb") as file:
            text = file.read().strip()
            limits.append(int(text) if text.isdigit() else None)
    except OSError:
        pass
    return min((limit for limit in limits if limit is not None), default=None)


def _limit(kind: int) -> int | None:
    soft = resource.getrlimit(kind)[0]
    return None if soft == resource.RLIM_INFINITY else soft
