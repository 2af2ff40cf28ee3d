"""The context that the transports of a process share."""

import platform
import subprocess
import sys

import pytest

from zmesh.transport.context import open_transports


async def test_the_context_is_there_as_long_as_any_transport_is(transports):
    first, second = transports(), transports()
    assert open_transports() == 2
    assert first.context is second.context
    await first.close()
    assert open_transports() == 1
    second.listen("tcp://127.0.0.1:*")
    await second.close()
    assert open_transports() == 0
    assert transports().context is not first.context


FREED_AND_TAKEN_AGAIN = """
import asyncio, resource
from zmesh.testing import Mesh

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        chunks = [bytes(range(256)) * 256 for _ in range(24)]
        del chunks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

async def main():
    print(page_faults())
    async with Mesh.chain("a"):
        page_faults()
        print(page_faults())

asyncio.run(main())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc gives back and takes again")
def test_memory_of_chunks_is_kept_for_those_that_follow():
    done = subprocess.run([sys.executable, "-c", FREED_AND_TAKEN_AGAIN], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < 1000 < before
