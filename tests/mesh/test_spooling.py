"""A large reply that nobody has read lies in a temporary file, which is gone whatever becomes of it."""

import asyncio
import contextlib
import gc
import os
from pathlib import Path

import pytest

import zmesh
from zmesh.payloads.buffered import SPOOL_AFTER
from zmesh.testing import Mesh, eventually

MEGABYTE = 1 << 20


@pytest.fixture
async def mesh(tmp_path):
    """Two nodes that spool into `tmp_path`; `b:halves` sends half of a large reply, and the rest when it may."""
    async with Mesh.chain("a", "b", tcp=True, spool_dir=str(tmp_path)) as pair:
        pair.go_on = asyncio.Event()

        async def halves():
            for _ in range(20 * MEGABYTE // 50_000):
                yield bytes(50_000)
            await pair.go_on.wait()
            yield bytes(MEGABYTE)

        async def one_reply(work):
            return halves()

        pair["b"].register("b:halves", one_reply)
        yield pair


def spooled(folder):
    """The sizes of the files in the folder that this process has open, with a name or without."""
    sizes = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(folder)):
                sizes.append(os.stat(f"/proc/self/fd/{descriptor}").st_size)
        except OSError:
            continue
    return sizes


async def half_spooled(folder):
    await eventually(lambda: sum(spooled(folder)) > 15 * MEGABYTE)


async def test_it_is_8_mib_that_a_reply_may_hold_in_memory(tmp_path):
    assert SPOOL_AFTER == 8 * MEGABYTE
    async with Mesh.chain("a", "b", tcp=True, spool_dir=str(tmp_path)) as mesh:
        mesh["b"].register("b:give", lambda work: bytes(int(work.payload.text())))
        payload = await mesh["a"].request("b", "b:give", str(SPOOL_AFTER))
        assert (len(payload), spooled(tmp_path)) == (SPOOL_AFTER, [])
        payload = await mesh["a"].request("b", "b:give", str(SPOOL_AFTER + 1))
        assert len(payload) == SPOOL_AFTER + 1
        assert len(spooled(tmp_path)) == 1
        payload.close()
        assert spooled(tmp_path) == []


@pytest.mark.parametrize(
    "how", ["read and dropped", "closed", "never taken", "cancelled", "node closed", "task cancelled"]
)
async def test_the_file_is_gone_on_every_way_out(mesh, tmp_path, how):
    request = mesh["a"].stream("b", "b:halves").send()
    if how in ("read and dropped", "closed", "never taken"):
        mesh.go_on.set()
        if how == "never taken":
            await eventually(lambda: request.ended)
            assert len(spooled(tmp_path)) == 1
            del request
        else:
            payload = await request.only_payload()
            assert len(spooled(tmp_path)) == 1
            if how == "closed":
                payload.close()
            del payload, request
    else:
        await half_spooled(tmp_path)
        if how == "cancelled":
            assert isinstance(await request.cancel(), zmesh.Cancelled)
        elif how == "node closed":
            await mesh.remove("a")
        else:
            task = asyncio.ensure_future(request.only_payload())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    def is_gone():
        gc.collect()  # also once the thread that has written it lets go of it
        return spooled(tmp_path) == []

    await eventually(is_gone)
    assert list(tmp_path.iterdir()) == []


async def test_nothing_is_left_of_a_process_that_was_killed(process, tmp_path):
    worker = await process("worker", more=HALVES)
    killed = await process("killed", peers=worker.listening, spool_dir=str(tmp_path))
    await killed.ask("mesh.wait_for('worker')")
    killed.start("mesh.request('worker', 'w:halves')")
    folder = Path(f"/proc/{killed.process.pid}/fd")

    def size():
        found = 0
        for descriptor in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # it is closed again
                if os.readlink(descriptor).startswith(str(tmp_path)):
                    found += os.stat(descriptor).st_size
        return found

    await eventually(lambda: size() > 15 * MEGABYTE)
    killed.kill()
    assert list(tmp_path.iterdir()) == []


HALVES = """
async def halves():
    for _ in range(400):
        yield bytes(50_000)
    await asyncio.Event().wait()

async def one_reply(work):
    return halves()

opened = zmesh.Controller.open

async def open_with(self):
    self.register("w:halves", one_reply)
    await opened(self)

zmesh.Controller.open = open_with
"""
