"""Nothing waits for ever once the node is closed, however it was closed."""

import asyncio
import contextlib
import threading

import pytest

import zmesh
import zmesh.sync
from tests.waiting import WITHIN
from zmesh.testing import Mesh, eventually


async def take_all(stream):
    async with stream as replies:
        async for reply in replies:
            async for _ in reply.payload:
                pass


async def finished(mesh):
    replies = mesh.stream("far", "far:waits").send()
    raise await replies.finished()


async def cancelled(mesh):
    replies = mesh.stream("far", "far:stubborn").send()
    await eventually(lambda: mesh.peer.serving >= 1)
    raise await replies.cancel()


async def many(mesh):
    async for answer in mesh.request_many(["far", "nobody"], "far:waits"):
        if answer.error is not None:
            raise answer.error


async def iterate(stream):
    async for _ in stream:
        pass


async def command(mesh):
    async with mesh.run("far", ["sleep", "600"]) as process:
        await process.wait()


async def output_of_command(mesh):
    async with mesh.run("far", ["sleep", "600"]) as process:
        async for _ in process.output():
            pass


async def command_at_many(mesh):
    async for outcome in mesh.run_many(["far", "nobody"], ["sleep", "600"]):
        if outcome.error is not None:
            raise outcome.error


async def job(mesh):
    await (await mesh.submit("far", ["sleep", "600"])).wait()


async def output_of_job(mesh):
    async for _ in (await mesh.submit("far", ["sleep", "600"])).output():
        pass


WAITS = {
    "request": lambda mesh: mesh.request("far", "far:waits"),
    "request to nobody": lambda mesh: mesh.request("nobody", "far:waits"),
    "stream": lambda mesh: take_all(mesh.stream("far", "far:waits")),
    "stream of one endless reply": lambda mesh: take_all(mesh.stream("far", "far:endless", buffered=False)),
    "finished": finished,
    "cancel": cancelled,
    "request_many": many,
    "ping_once": lambda mesh: mesh.ping_once("nobody", None),
    "cancel_at": lambda mesh: mesh.cancel_at("nobody", "0" * 32, None),
    "recv": lambda mesh: receive(mesh),
    "iterating over recv": lambda mesh: iterate(mesh.recv()),
    "events": lambda mesh: iterate(mesh.events()),
    "wait_for": lambda mesh: mesh.wait_for("nobody"),
    "drain": lambda mesh: mesh.node.drain(),
    "command": command,
    "output of a command": output_of_command,
    "command at many": command_at_many,
    "job": job,
    "output of a job": output_of_job,
    "job at nobody": lambda mesh: mesh.job("nobody/0123456789abcdef").wait(),
    "copy": lambda mesh: mesh.copy(__file__, "nobody:/tmp/copy", route_timeout=3600),
    "connection": lambda mesh: mesh.open_connection("nobody", port=1, route_timeout=3600),
    "events of a node": lambda mesh: iterate(mesh.events_of("far", follow=True)),
    "status": lambda mesh: mesh.status("nobody", timeout=3600, route_timeout=3600),
}
ENDS_QUIETLY = {"iterating over recv", "events", "drain"}


async def receive(mesh):
    return await mesh.recv()


@contextlib.asynccontextmanager
async def far_node(folder):
    allow = {"exec:*": ["*"], "job:*": ["*"]}
    async with Mesh("far", tcp=True, allow=allow, plugins={"job": {"folder": str(folder)}}) as others:
        far = others["far"]

        async def waits(work):
            await asyncio.Event().wait()

        async def stubborn(work):
            while not over.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await over.wait()

        async def endless(work):
            async def pieces():
                while True:
                    yield bytes(1000)
                    await asyncio.sleep(0.01)

            return pieces()

        over = asyncio.Event()
        for function in (waits, stubborn, endless):
            far.register(f"far:{function.__name__}", function)
        try:
            yield far
        finally:
            over.set()


def abort(mesh):
    mesh.node.abort()


def close_now(mesh):
    mesh.node.close_now()


async def close(mesh):
    await mesh.close()


@pytest.mark.parametrize("end", [close, zmesh.Controller.stop, abort, close_now], ids=lambda end: end.__name__)
@pytest.mark.parametrize("wait", WAITS)
async def test_what_waits_when_the_node_is_closed_ends(wait, end, tmp_path):
    async with far_node(tmp_path) as far:
        mesh = zmesh.Controller(node_id="ctl", peers=far.listening)
        await mesh.open()
        await mesh.wait_for("far", WITHIN)
        mesh.send(b"x", "nobody", "echo:echo", expect_response=False)  # so that it is not drained

        class Peer:
            serving = property(lambda self: far.stats().serving)

        mesh.peer = Peer()
        waiting = asyncio.ensure_future(WAITS[wait](mesh))
        await eventually(lambda: wait != "cancel" or mesh.peer.serving >= 1)
        await asyncio.sleep(0.2)
        assert not waiting.done()
        outcome = end(mesh)
        if outcome is not None:
            await outcome
        done, _ = await asyncio.wait((waiting,), timeout=WITHIN)
        assert done, "it waits for ever"
        if wait in ENDS_QUIETLY:
            assert waiting.exception() is None
        else:
            assert isinstance(waiting.exception(), (zmesh.Closed, zmesh.Cancelled))
        with contextlib.suppress(zmesh.MeshError, asyncio.CancelledError):
            await asyncio.wait_for(mesh.close(), WITHIN)


SYNC_WAITS = {
    "request": lambda mesh: mesh.request("far", "far:waits"),
    "stream": lambda mesh: next(mesh.stream("far", "far:waits").__enter__()),
    "request_many": lambda mesh: [answer for answer in mesh.request_many(["nobody"], "echo:echo") if raised(answer)],
    "ping_once": lambda mesh: mesh.ping_once("nobody", None),
    "recv": lambda mesh: mesh.recv(),
    "events": lambda mesh: list(mesh.events()),
    "wait_for": lambda mesh: mesh.wait_for("nobody"),
}


def raised(answer):
    if answer.error is not None:
        raise answer.error


@pytest.mark.parametrize("wait", SYNC_WAITS)
async def test_what_waits_in_a_thread_when_the_node_is_closed_ends(wait, tmp_path):
    async with far_node(tmp_path) as far:
        mesh = zmesh.sync.Controller(node_id="ctl", peers=far.listening)
        await asyncio.to_thread(mesh.open)
        await asyncio.to_thread(mesh.wait_for, "far", WITHIN)
        outcome = []

        def call():
            try:
                outcome.append(SYNC_WAITS[wait](mesh))
            except zmesh.MeshError as error:
                outcome.append(error)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        await asyncio.sleep(0.2)
        assert not outcome
        await asyncio.to_thread(mesh.close)
        await asyncio.to_thread(thread.join, WITHIN)
        assert len(outcome) == 1
        assert wait == "events" or isinstance(outcome[0], (zmesh.Closed, zmesh.Cancelled))
