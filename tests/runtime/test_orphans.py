"""What directives leave behind in process 1, or in a subreaper: no zombies, and no stolen exit statuses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.own_process import without_blocks

PROGRAM = """
import asyncio, ctypes, multiprocessing, os, subprocess, sys, time
import zmesh
from zmesh.runtime import orphans
from zmesh.testing import eventually

orphans.PERIOD, orphans.GRACE = 0.2, 0.3  # each look searches all objects, which takes long on a busy machine
if "subreaper" in sys.argv:
    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
else:
    assert os.getpid() == 1

def zombies():
    return {pid for pid in orphans._children() if orphans._is_zombie(pid)}

def leave_orphans(work):
    "They end when the pipe does, which is after their parents."
    reader, writer = os.pipe()
    two = f"cat <&{reader} & cat <&{reader} & true"
    for _ in range(3):
        subprocess.run(["sh", "-c", two], check=True, pass_fds=[reader])
    os.close(reader)
    os.close(writer)

def five():
    sys.exit(5)

async def main():
    async with zmesh.Controller(zmesh.Config(node_id="a")) as mesh:
        mesh.register("t:leave", leave_orphans)
        known = subprocess.Popen(["sh", "-c", "exit 7"])
        awaited = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
        process = multiprocessing.get_context("fork").Process(target=five)
        process.start()
        forked = os.fork()
        if forked == 0:
            os._exit(9)
        await mesh.request("a", "t:leave")
        reaper = mesh.node._reaper
        await eventually(lambda: reaper.reaped == 6, timeout=60)
        await eventually(lambda: {known.pid, forked, process.pid} <= zombies(), timeout=60)
        seen = dict(reaper._seen)
        await eventually(lambda: reaper._seen.get(known.pid, 0) > seen.get(known.pid, 0), timeout=60)
        assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 9
        assert known.wait() == 7
        assert await awaited.wait() == 3
        process.join()
        assert process.exitcode == 5
        assert not zombies()
    assert reaper._timer is None
    print("well")

asyncio.run(main())
"""


def run(*command):
    may_fork = "-Wignore::DeprecationWarning"  # from 3.12 on, forking a process with threads is warned of
    result = subprocess.run([*command, may_fork, "-c", PROGRAM, *(["subreaper"] if len(command) == 1 else [])],
                            capture_output=True, text=True, check=False, timeout=200, cwd="/")  # fmt: skip
    assert (result.stdout, without_blocks(result.stderr)) == ("well\n", "")


@pytest.mark.timeout(220)
def test_a_subreaper_reaps_orphans_and_nothing_that_somebody_knows():
    run(sys.executable)


@pytest.mark.timeout(220)
def test_process_1_of_a_container_reaps_orphans_and_nothing_that_somebody_knows():
    enter = ["unshare", "--pid", "--fork", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process namespace can be made here")
    run(*enter, sys.executable)


def test_an_ordinary_process_gets_no_orphans():
    from zmesh.runtime.orphans import adopts

    assert os.getpid() != 1
    assert not adopts()
    assert Path("/proc/self/task").exists()
