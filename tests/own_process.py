"""Runs Python code in a process of its own, with warnings as errors."""

import contextlib
import os
import re
import resource
import subprocess
import sys

import pytest

_BLOCKED = re.compile(r"^(WARNING )?\S+: event loop blocked for .*\n?", re.MULTILINE)


def without_blocks(stderr):
    """What a process has printed, but for lines about its loop, which any busy machine may stop for a second."""
    return _BLOCKED.sub("", stderr)


def run(code, *arguments, quiet=True):
    """Run `code` to its end; its (stdout, stderr) without blocks. An error, or anything there if `quiet`, fails."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    stderr = without_blocks(done.stderr)
    if done.returncode or (quiet and stderr):
        pytest.fail(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout, stderr


def run_coroutine(setting, body, *, quiet=True):
    """`run` for the body of a coroutine, after the imports and definitions of `setting`."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return run(f"{setting}\nimport asyncio\nasync def main():\n{lines}\nasyncio.run(main())", quiet=quiet)


@contextlib.contextmanager
def no_descriptors(spare=0, *, fill=False):
    """For code in such a process: a limit that leaves `spare` free descriptors below it.

    What is closed below them is free again, unless they are the only ones to be had (`fill`).
    """
    used = set(map(int, os.listdir("/proc/self/fd")))
    limit, free = 1, 0
    while free < spare or (fill and limit <= max(used)):
        free += limit not in used
        limit += 1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    fillers = []
    with contextlib.suppress(OSError):
        while fill:
            fillers.append(os.open(os.devnull, os.O_RDONLY))
    try:
        while spare and fillers:
            os.close(fillers.pop())
            spare -= 1
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in fillers:
            os.close(each)
