"""Ctrl-C ends `run` at once, whatever the program is doing."""

import re
import signal

import pytest

COMPLAINTS = re.compile(r"\b(?!Cancelled)\w*Error|\w*Warning|Task .*|never \w+|node ctl: .*|Unclosed")

BEGINNING = """
    import asyncio, signal, sys, time
    import zmesh as receptor
    import zmesh.lifecycle, zmesh.node, zmesh.runtime.node_thread

    zmesh.node.HANDLERS_END_WITHIN = 3600.0  # what waits for these is not "at once", and fails
    zmesh.lifecycle.AT_EXIT_WITHIN = zmesh.runtime.node_thread.AT_EXIT_WITHIN = 3600.0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
    controller = receptor.Controller(receptor.ReceptorConfig(node_id="ctl"))
    controller.add_peer(sys.argv[1])

    async def connected():
        await controller.wait_for("depot")
        print("ready")
"""

PROGRAMS = {
    "without main": """
        controller.loop.create_task(connected())
        controller.run()
    """,
    "main awaits": """
        async def main():
            await connected()
            await asyncio.Event().wait()
        controller.run(main)
    """,
    "main sleeps in plain code": """
        async def main():
            await connected()
            time.sleep(3600)
        controller.run(main)
    """,
    "main is busy": """
        async def main():
            await connected()
            while True:
                pass
        controller.run(main)
    """,
    "a task sleeps in plain code": """
        async def task():
            await connected()
            time.sleep(3600)
        controller.loop.create_task(task())
        controller.run()
    """,
    "a plain handler sleeps": """
        def handler(message):
            print("ready")
            time.sleep(3600)
        async def main():
            controller.send("x", "depot", "echo:echo", response_handler=handler)
        controller.run(main)
    """,
    "an async handler sleeps in plain code": """
        async def handler(message):
            print("ready")
            time.sleep(3600)
        async def main():
            controller.send("x", "depot", "echo:echo", response_handler=handler)
        controller.run(main)
    """,
    "main has returned and a reply is awaited": """
        async def main():
            await connected()
            controller.send("3600", "depot", "sleep:execute", response_handler=print)
        controller.run(main)
    """,
    "main has returned and a message can't be handed over": """
        async def main():
            await connected()
            controller.send("x", "nobody", "echo:echo")
        controller.run(main)
    """,
    "a payload is being read": """
        def payload():
            yield b"beginning"
            print("ready")
            time.sleep(3600)
        async def main():
            controller.send(payload(), "depot", "digest:sha256")
        controller.run(main)
    """,
    "an object is being destroyed": """
        class Slow:
            def __del__(self):
                print("ready")
                time.sleep(2)
        async def main():
            controller.send("x", "depot", "echo:echo")
            Slow()
            await asyncio.Event().wait()
        controller.run(main)
    """,
    "in a loop of the program's own": """
        loop = asyncio.new_event_loop()
        controller = receptor.Controller(receptor.ReceptorConfig(node_id="ctl"), loop=loop)
        controller.add_peer(sys.argv[1])
        async def main():
            await connected()
            await asyncio.Event().wait()
        try:
            controller.run(main)
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
    """,
    "work runs here": """
        async def work(work):
            await asyncio.Event().wait()
        controller.register("here:wait", work)
        async def main():
            controller.send("x", "ctl", "here:wait", response_handler=print)
            await connected()
            await asyncio.Event().wait()
        controller.run(main)
    """,
}


def dedent(source):
    return "\n".join(line.removeprefix("    ") for line in source.splitlines())


@pytest.mark.parametrize("name", PROGRAMS)
def test_ctrl_c_ends_run_at_once(program, depot, name):
    running = program(dedent(BEGINNING) + dedent(dedent(PROGRAMS[name])), depot.url)
    assert running.line() == "ready", running.stderr
    running.interrupt()
    assert running.end() == -signal.SIGINT, running.stderr
    assert running.stderr.endswith("\nKeyboardInterrupt\n")
    assert COMPLAINTS.findall(running.stderr) == [], running.stderr
    depot.eventually(lambda: depot.controller.receptor.router.get_nodes() == ["depot"])


def test_ctrl_c_ends_run_when_it_strikes_main_in_the_middle_of_sending(program, depot):
    """Then what the node knows of its exchanges contradicts itself, and it can't take its leave of them."""
    running = program(
        dedent(BEGINNING)
        + dedent(
            dedent("""
        def strike(frame, event, argument):
            if frame.f_code.co_qualname == "Sender.add":
                sys.setprofile(None)
                raise KeyboardInterrupt
        async def main():
            await connected()
            sys.setprofile(strike)
            controller.send("3600", "depot", "sleep:execute", response_handler=print)
        controller.run(main)
        """)
        ),
        depot.url,
    )
    assert running.line() == "ready", running.stderr
    assert running.end() == -signal.SIGINT, running.stderr
    assert running.stderr.endswith("\nKeyboardInterrupt\n")
    assert COMPLAINTS.findall(running.stderr) == [], running.stderr


def test_a_program_may_catch_ctrl_c_around_run(program, depot):
    running = program(
        dedent(BEGINNING)
        + dedent(
            dedent("""
        controller.loop.create_task(connected())
        try:
            controller.run()
        except KeyboardInterrupt:
            print("good night")
        """)
        ),
        depot.url,
    )
    assert running.line() == "ready"
    running.interrupt()
    assert running.end() == 0
    assert running.line() == "good night"
    assert running.stderr == ""


EXITS = {
    "a plain handler": """
        def handler(message):
            sys.exit(3)
        async def main():
            controller.send("x", "depot", "echo:echo", response_handler=handler)
            await asyncio.Event().wait()
    """,
    "an async handler, when main has returned": """
        async def handler(message):
            await asyncio.sleep(0)
            sys.exit(3)
        async def main():
            controller.send("x", "depot", "echo:echo", response_handler=handler)
    """,
    "a task": """
        async def task():
            await connected()
            sys.exit(3)
        controller.loop.create_task(task())
        main = None
    """,
    "main": """
        async def main():
            await connected()
            sys.exit(3)
    """,
}


@pytest.mark.parametrize("name", EXITS)
def test_a_program_may_exit_from_wherever_it_is(program, depot, name):
    running = program(dedent(BEGINNING) + dedent(dedent(EXITS[name])) + "\ncontroller.run(main)\n", depot.url)
    assert running.end() == 3
    assert running.stderr == ""
    depot.eventually(lambda: depot.controller.receptor.router.get_nodes() == ["depot"])


def test_the_others_know_at_once_that_an_interrupted_program_has_left(program, elsewhere):
    """It says goodbye; nobody has to wait until it is silent for three heartbeats."""
    depot = elsewhere("depot", heartbeat=60.0)
    running = program(dedent(BEGINNING) + dedent(dedent(PROGRAMS["main awaits"])), depot.url)
    assert running.line() == "ready"
    lost = []
    depot.call(lambda: depot.controller.node.watch(lost.append))
    running.interrupt()
    depot.eventually(lambda: [report.detail for report in lost if report.event == "link_lost"])
    assert [report.detail for report in lost if report.event == "link_lost"] == ["they left: leaving"]
