"""`Node.close_now`: a node that its program has not closed gives back all that it holds, without its loop."""

import asyncio
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading

import pytest

import zmesh
from tests.own_process import without_blocks
from zmesh.testing import Mesh, eventually
from zmesh.transport.context import open_transports

WARNING = "node 'a' was not closed before its program ended"


@pytest.fixture(autouse=True)
def unraisable(monkeypatch):
    """What a destructor or a garbage collection would print."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hook: seen.append(hook.exc_value))
    yield seen
    gc.collect()
    assert seen == []


def warnings_of(caplog):
    """But for what a slow machine may say before: that a peer is not there, and that the loop was blocked."""
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [line for line in lines if "can't reach" not in line and without_blocks(line)]


def open_in(loop, **config):
    mesh = zmesh.Controller(zmesh.Config(node_id="a", listen=["tcp://127.0.0.1:*"], **config))
    loop.run_until_complete(mesh.open())
    return mesh


@pytest.mark.parametrize("closes_loop", [True, False])
def test_it_closes_a_node_whose_loop_runs_no_more(closes_loop, caplog):
    transports, threads = open_transports(), threading.enumerate()
    loop = asyncio.new_event_loop()
    mesh = open_in(loop, peers=["tcp://127.0.0.1:1"])
    node = mesh._node
    if closes_loop:
        loop.close()
    assert node.close_now()
    assert node.closed
    assert mesh.listening == []
    assert open_transports() == transports
    assert {thread.name for thread in threading.enumerate() if thread not in threads} == set()
    assert not node.close_now()
    assert len(warnings_of(caplog)) == 1
    assert warnings_of(caplog)[0].startswith(WARNING)
    if not closes_loop:
        loop.run_until_complete(asyncio.sleep(0.01))
        assert not asyncio.all_tasks(loop)
        loop.close()


def test_it_does_nothing_to_a_node_that_is_closed_or_was_never_opened(caplog):
    loop = asyncio.new_event_loop()
    mesh = open_in(loop)
    loop.run_until_complete(mesh.close())
    assert not mesh._node.close_now()
    unopened = zmesh.Controller(zmesh.Config(node_id="a"))
    unopened.send(b"x", "b", "echo:echo", expect_response=False)
    assert not unopened._node.close_now()
    with pytest.raises(zmesh.Closed):
        unopened.send(b"x", "b", "echo:echo", expect_response=False)
    loop.close()
    assert warnings_of(caplog) == []


def test_a_node_that_is_collected_with_its_loop_closes_itself(caplog):
    transports = open_transports()
    loop = asyncio.new_event_loop()
    mesh = open_in(loop)
    loop.close()
    coroutine = mesh._node._task.get_coro()
    mesh._node._task._log_destroy_pending = False
    coroutine.close()  # as the garbage collector does with the coroutine of a task that nothing refers to
    assert mesh._node.closed
    assert open_transports() == transports
    assert [text for text in warnings_of(caplog) if text.startswith(WARNING)]


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("closes_loop", [True, False])
async def test_work_is_cancelled_its_client_learns_of_it_and_neighbours_get_a_goodbye(kind, closes_loop):
    begun, seen = threading.Event(), []
    release = threading.Event()

    def serve():
        loop = asyncio.new_event_loop()
        server = zmesh.Controller(zmesh.Config(node_id="a", peers=[hub]))

        async def waits(work):
            try:
                begun.set()
                await asyncio.sleep(3600)
            finally:
                seen.append(work.cancelled)

        def blocks(work):
            begun.set()
            release.wait()
            seen.append(work.cancelled)

        server.register("t:waits", waits if kind == "async" else blocks)

        async def until_begun():
            await server.open()
            await eventually(begun.is_set)

        loop.run_until_complete(until_begun())
        if closes_loop:
            loop.close()
        assert server._node.close_now()
        if not closes_loop:
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(asyncio.sleep(0.01))
            loop.close()

    async with Mesh("b", tcp=True) as mesh:
        hub = mesh["b"].listening[0]
        thread = threading.Thread(target=serve)
        thread.start()
        await mesh["b"].wait_for("a", timeout=90)
        with pytest.raises(zmesh.Cancelled, match="t:waits was cancelled"):
            await mesh["b"].request("a", "t:waits")
        await eventually(lambda: "a" not in mesh["b"].nodes())
        release.set()
        await asyncio.to_thread(thread.join)
        await eventually(lambda: seen == [True])


def test_isolated_work_is_killed(tmp_path):
    marker = tmp_path / "begun"

    def waits(work):
        import pathlib
        import time

        pathlib.Path(work.payload.text()).touch()
        time.sleep(3600)

    async def main():
        await mesh.open()
        mesh.send(str(marker), "a", "t:waits", expect_response=False)
        await eventually(marker.exists)

    loop = asyncio.new_event_loop()
    mesh = zmesh.Controller(zmesh.Config(node_id="a"))
    mesh.register("t:waits", waits, isolate=True)
    loop.run_until_complete(main())
    pid = mesh._node.serving.runner._processes._fork_server._process.pid
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False
    loop.close()
    assert mesh._node.close_now()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


PROGRAM = """
    import asyncio, atexit, sys
    import zmesh

    def program(how):
        async def main():
            await mesh.open()
            mesh.send(b"x", "nobody", "echo:echo", handler)
            work = mesh.request("a", "t:waits")
            asyncio.ensure_future(work)._log_destroy_pending = False
            await asyncio.sleep(0.1)
            if how == "sys.exit":
                sys.exit(7)

        async def waits(work):
            await asyncio.sleep(3600)

        def handler(message):
            print("the handler was called")

        loop = asyncio.new_event_loop()
        mesh = zmesh.Controller(zmesh.Config(node_id="a", listen=["tcp://127.0.0.1:*"], peers=["tcp://127.0.0.1:1"]))
        mesh.register("t:waits", waits)
        atexit.register(mesh._node.close_now)
        loop.run_until_complete(main())
        if how == "closed loop":
            loop.close()

    program(sys.argv[1])
"""


@pytest.mark.parametrize("how", ["loop left open", "closed loop", "sys.exit"])
def test_at_the_end_of_an_interpreter_one_warning_is_all_that_is_printed(how):
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), how], capture_output=True, text=True, timeout=180, check=False
    )
    assert ran.returncode == (7 if how == "sys.exit" else 0)
    lines = without_blocks(ran.stderr).splitlines()
    lines = [line for line in lines if "can't reach tcp://127.0.0.1:1" not in line]
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith(WARNING)
    assert ran.stdout == ""
