"""Programs that end without closing their controller: they end at once, and print one warning."""

import subprocess
import sys
import textwrap

import pytest

from tests.own_process import without_blocks
from tests.waiting import WITHIN
from zmesh.testing import Mesh, eventually

WARNING = "was not closed before its program ended; use `async with Controller(...)`, `run` or `close`"
WARN = ("-W", "default", "-W", "ignore:unclosed event loop")
"""Python says what else is left open, but for the loop, which is the program's."""

PROGRAM = """
import asyncio, atexit, gc, sys, threading
import zmesh as receptor
from zmesh.testing import eventually

URL = sys.argv[1]


async def work(controller):
    replies = []
    controller.send("x", "hub", "echo:echo", replies.append)
    for _ in range(3):
        controller.send("60", "hub", "sleep:execute", replies.append)
        controller.send("60", "ctl", "sleep:execute", expect_response=False)
    await eventually(lambda: len(replies) == 2)
    print("at work", flush=True)


def controller_in(loop):
    config = receptor.ReceptorConfig(node_id="ctl", peers=[URL])
    return receptor.Controller(config, loop=loop)
"""

ENDINGS = {
    "its loop is left open": """
        loop = asyncio.new_event_loop()
        controller = controller_in(loop)
        loop.run_until_complete(work(controller))
    """,
    "its loop is closed": """
        loop = asyncio.new_event_loop()
        controller = controller_in(loop)
        loop.run_until_complete(work(controller))
        loop.close()
    """,
    "its loop is dropped": """
        def program():
            loop = asyncio.new_event_loop()
            controller = controller_in(loop)
            loop.run_until_complete(work(controller))
        program()
        gc.collect()
    """,
    "its loop is closed and dropped": """
        def program():
            loop = asyncio.new_event_loop()
            controller = controller_in(loop)
            loop.run_until_complete(work(controller))
            loop.close()
        program()
        gc.collect()
    """,
    "sys.exit is called in the loop": """
        async def main():
            await work(controller)
            sys.exit(7)
        loop = asyncio.new_event_loop()
        controller = controller_in(loop)
        loop.run_until_complete(main())
    """,
    "an error ends the program": """
        async def main():
            await work(controller)
            raise SystemExit(7)
        loop = asyncio.new_event_loop()
        controller = controller_in(loop)
        loop.run_until_complete(main())
    """,
    "its loop runs in another thread": """
        def program():
            asyncio.set_event_loop(loop)
            loop.create_task(work(controller)).add_done_callback(lambda task: done.set())
            loop.run_forever()
        done = threading.Event()
        loop = asyncio.new_event_loop()
        controller = controller_in(loop)
        threading.Thread(target=program, daemon=True).start()
        done.wait()
    """,
    "it is opened in a task and forgotten": """
        async def main():
            controller = receptor.Controller(receptor.ReceptorConfig(node_id="ctl", peers=[URL]))
            await controller.open()
            await work(controller)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
    """,
    "an exit handler of the program uses it": """
        loop = asyncio.new_event_loop()
        controller = controller_in(loop)
        loop.run_until_complete(work(controller))
        atexit.register(lambda: controller.send("late", "hub", "echo:echo"))
    """,
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_program_that_closes_nothing_ends_in_peace(ending, reports):
    async with Mesh("hub", tcp=True) as mesh:
        hub = mesh["hub"]
        seen = reports(hub.node)
        program = subprocess.Popen(
            [sys.executable, *WARN, "-c", PROGRAM + textwrap.dedent(ENDINGS[ending]), hub.listening[0]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        await eventually(lambda: program.poll() is not None)
        out, err = program.communicate(timeout=WITHIN)
        err = without_blocks(err)
        assert out == "at work\n", err
        assert program.returncode == (7 if "7" in ENDINGS[ending] else 0)
        assert [line for line in err.splitlines() if line] == [f"node 'ctl' {WARNING}"], err
        await eventually(lambda: hub.nodes() == ["hub"])
        lost = [report.detail for report in seen if report.event == "link_lost"]
        assert [detail.partition(":")[0] for detail in lost] == ["they left"]  # it said goodbye
        await eventually(lambda: hub.stats().serving == 0)  # and what it had asked for is cancelled
        assert not hub.links()


def test_a_program_that_closes_its_controller_prints_nothing():
    program = """
        import asyncio, zmesh

        async def main():
            async with zmesh.Controller(node_id="a") as mesh:
                print((await mesh.request("a", "echo:echo", "x")).text())

        asyncio.run(main())
    """
    ran = subprocess.run(
        [sys.executable, "-W", "default", "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert (ran.stdout, without_blocks(ran.stderr)) == ("x\n", "")


def test_tasks_that_are_destroyed_inside_of_a_block_close_the_node():
    """asyncio names the program's own task; of zmesh there is the warning alone."""
    program = """
        import asyncio, zmesh

        async def main():
            async with zmesh.Controller(node_id="a") as mesh:
                async with mesh.stream("a", "sleep:execute", "60") as replies:
                    started.set_result(None)
                    async for reply in replies:
                        pass

        loop = asyncio.new_event_loop()
        started = loop.create_future()
        task = loop.create_task(main())
        loop.run_until_complete(started)
        loop.close()
        del task, started, loop
        import gc; gc.collect()
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=180
    )
    assert ran.returncode == 0
    ours = [
        line
        for line in without_blocks(ran.stderr).splitlines()
        if not line.startswith(("Task was destroyed", "task: <Task pending"))
    ]
    assert [line for line in ours if line] == [f"node 'a' {WARNING}"], ran.stderr
