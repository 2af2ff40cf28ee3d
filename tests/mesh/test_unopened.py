"""A controller that is not open: not yet, or not any more. Nothing waits for what will never come."""

import asyncio
import threading

import pytest

import zmesh
import zmesh.sync
from tests.own_process import without_blocks
from tests.waiting import WITHIN
from zmesh.testing import Mesh, eventually

NODE = zmesh.Config(node_id="ctl")


def ignore(message):
    pass


async def enter(block):
    async with block:
        pass


async def iterate(iterable):
    async for _ in iterable:
        pass


WAITING = {
    "request": lambda mesh: mesh.request("far", "echo:echo", timeout=1),
    "stream": lambda mesh: enter(mesh.stream("far", "echo:echo", timeout=1)),
    "request_many": lambda mesh: mesh.request_many(["far"], "echo:echo", timeout=1),
    "send with a handler": lambda mesh: mesh.send("x", "far", "echo:echo", ignore, timeout=1),
    "ping with a handler": lambda mesh: mesh.ping("far", ignore, timeout=1),
    "ping_once": lambda mesh: mesh.ping_once("far"),
    "cancel_at": lambda mesh: mesh.cancel_at("far", "0" * 32),
    "recv": lambda mesh: mesh.recv(),
    "iterating over recv": lambda mesh: iterate(mesh.recv()),
    "reachable": lambda mesh: mesh.wait_for("far"),
    "reachable itself": lambda mesh: mesh.wait_for("ctl", 1),
}
EVENTS = {"events": lambda mesh: iterate(mesh.events())}
SETTING_UP = {
    "enable_server": lambda mesh: mesh.enable_server(["tcp://127.0.0.1:*"]),
    "add_peer": lambda mesh: mesh.add_peer("tcp://127.0.0.1:1"),
    "register": lambda mesh: mesh.register("a:b", ignore),
    "open": lambda mesh: mesh.open(),
    "send": lambda mesh: mesh.send("x", "far", "echo:echo"),
}


async def outcome(call, mesh):
    done = call(mesh)
    if hasattr(done, "__await__"):
        await done


@pytest.mark.parametrize("call", [*WAITING, *EVENTS])
async def test_what_would_wait_for_an_answer_is_refused_before_the_node_is_open(call):
    mesh = zmesh.Controller(NODE)
    with pytest.raises(zmesh.Closed, match=r"'ctl' is not open yet; .*`async with Controller.*`run`") as raised:
        await outcome((WAITING | EVENTS)[call], mesh)
    assert raised.value.node == "ctl"
    async with mesh:
        assert mesh.node.engine.stats() == dict.fromkeys(mesh.node.engine.stats(), 0)


@pytest.mark.parametrize("call", [call for call in (*WAITING, *SETTING_UP) if call != "request_many"])
async def test_what_comes_after_the_end_is_refused(call):
    mesh = zmesh.Controller(NODE)
    async with mesh:
        pass
    with pytest.raises(zmesh.Closed, match="'ctl' is closed"):
        await outcome((WAITING | SETTING_UP)[call], mesh)
    assert [event async for event in mesh.events()] == []
    assert [type(answer.error) async for answer in mesh.request_many(["far"], "echo:echo")] == [zmesh.Closed]


async def test_what_is_sent_without_a_handler_goes_out_when_the_node_opens():
    async with Mesh("far") as others:
        mesh = zmesh.Controller(zmesh.Config(node_id="ctl", peers=others["far"].listening))
        sent = mesh.send("early", "far", "echo:echo")
        async with mesh:
            assert (await mesh.recv()).header["in_response_to"] == sent.message_id


async def test_what_is_asked_before_the_given_loop_has_opened_the_node_goes_out():
    async with Mesh("far") as others:
        config = zmesh.Config(node_id="ctl", peers=others["far"].listening)
        mesh = zmesh.Controller(config, loop=asyncio.get_running_loop())
        replies = []
        mesh.send("handled", "far", "echo:echo", replies.append)
        request = mesh.stream("far", "echo:echo", "asked", timeout=WITHIN).send()
        answers = mesh.request_many(["far"], "echo:echo", "many")
        assert (await request.only_payload()).text() == "asked"
        assert [answer.payload.text() async for answer in answers] == ["many"]
        await eventually(lambda: len(replies) == 2)
        await mesh.close()


def test_tasks_that_were_made_before_run_may_ask_at_once():
    """They begin before the node is open, which it will be."""
    mesh = zmesh.Controller(NODE)
    answers = []

    async def ask():
        answers.append((await mesh.request("ctl", "echo:echo", "early", timeout=WITHIN)).text())
        mesh.stop()

    mesh.loop.create_task(ask())
    mesh.run()
    assert answers == ["early"]


@pytest.mark.parametrize("call", ["request", "request_many", "recv", "reachable"])
def test_what_is_awaited_in_another_loop_than_the_nodes_is_refused(call):
    with asyncio.Runner() as runner:
        mesh = zmesh.Controller(NODE, loop=runner.get_loop())
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(outcome(WAITING[call], mesh))
        runner.run(mesh.close())


# --- recv and the end -----------------------------------------------------------------------------------------------


async def test_recv_raises_closed_when_the_node_closes():
    mesh = zmesh.Controller(NODE)
    await mesh.open()

    async def receive():
        return await mesh.recv()

    receiving = asyncio.create_task(receive())
    iterating = asyncio.create_task(iterate(mesh.recv()))
    await mesh.ping_once("ctl")
    await mesh.close()
    with pytest.raises(zmesh.Closed, match="'ctl' is closed"):
        await receiving
    assert await iterating is None


async def test_what_has_come_is_received_after_the_end_and_then_no_more():
    mesh = zmesh.Controller(NODE)
    async with mesh:
        mesh.send("x", "ctl", "echo:echo")
        mesh.send("x", "ctl", "sleep:execute")
        await mesh.ping_once("ctl")
    received = []
    with pytest.raises(zmesh.Closed):
        while True:
            received.append(await mesh.recv())
    assert [message.header["eof"] for message in received] == [False, True, True]


def test_a_task_that_still_receives_when_run_is_over_ends_without_a_word(caplog):
    mesh = zmesh.Controller(NODE)

    async def receive():
        await mesh.recv()

    tasks = []

    async def main():
        tasks.append(asyncio.create_task(receive()))
        await mesh.ping_once("ctl")

    mesh.run(main)
    assert tasks[0].cancelled()
    assert [line for line in caplog.messages if without_blocks(line)] == []


# --- awaiting again -------------------------------------------------------------------------------------------------


async def test_a_request_is_a_coroutine_which_a_task_can_be_made_of_and_is_awaited_once():
    async with Mesh("far") as mesh:
        request = mesh["far"].request("far", "echo:echo", "x")
        assert asyncio.iscoroutine(request)
        assert (await request).text() == "x"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await request
        task = asyncio.create_task(mesh["far"].request("far", "echo:echo", "y"))
        assert (await task).text() == "y"
        assert (await task).text() == "y"


async def test_a_request_that_is_not_awaited_is_not_sent():
    async with Mesh("far") as mesh:
        request = mesh["far"].request("far", "echo:echo", "x")
        await mesh["far"].ping_once("far")
        assert mesh["far"].stats().requests == 0
        request.close()


# --- run ------------------------------------------------------------------------------------------------------------


async def nothing():
    pass


@pytest.mark.parametrize("main", [5, lambda: 5])
def test_run_refuses_what_is_no_coroutine_function(main):
    with pytest.raises(TypeError, match="run takes a coroutine function"):
        zmesh.Controller(NODE).run(main)


def test_run_of_a_node_without_a_command_says_what_a_command_is():
    with pytest.raises(TypeError, match="takes a command as a list of its words"):
        zmesh.Controller(NODE).run("far")


def test_run_is_refused_a_second_time():
    mesh = zmesh.Controller(NODE)
    mesh.run(nothing)
    for main in (nothing, nothing()):
        with pytest.raises(zmesh.Closed, match="make another"):
            mesh.run(main)


async def test_run_is_refused_where_its_loop_runs_already():
    mesh = zmesh.Controller(NODE)
    for main in (nothing, nothing()):
        with pytest.raises(RuntimeError, match="async with"):
            mesh.run(main)


def test_a_controller_refuses_what_is_no_configuration_and_no_loop():
    for arguments in ((5,), ({"node_id": "a"},), (NODE, "loop"), (NODE, threading.current_thread())):
        with pytest.raises(TypeError):
            zmesh.Controller(*arguments)
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(zmesh.ConfigError, match="closed"):
        zmesh.Controller(NODE, loop=loop)


# --- without asyncio ------------------------------------------------------------------------------------------------

SYNC = {
    "request": lambda mesh: mesh.request("far", "echo:echo"),
    "stream": lambda mesh: mesh.stream("far", "echo:echo"),
    "request_many": lambda mesh: mesh.request_many(["far"], "echo:echo"),
    "send": lambda mesh: mesh.send("x", "far", "echo:echo"),
    "ping": lambda mesh: mesh.ping("far"),
    "ping_once": lambda mesh: mesh.ping_once("far"),
    "recv": lambda mesh: mesh.recv(),
    "cancel": lambda mesh: mesh.cancel("0" * 32),
    "cancel_at": lambda mesh: mesh.cancel_at("far", "0" * 32),
    "events": lambda mesh: mesh.events(),
    "nodes": lambda mesh: mesh.nodes(),
    "routes": lambda mesh: mesh.routes(),
    "edges": lambda mesh: mesh.edges(),
    "capabilities": lambda mesh: mesh.capabilities(),
    "tags": lambda mesh: mesh.tags(),
    "duplicates": lambda mesh: mesh.duplicates(),
    "links": lambda mesh: mesh.links(),
    "stats": lambda mesh: mesh.stats(),
    "wait_for": lambda mesh: mesh.wait_for("far"),
}


@pytest.mark.parametrize("call", SYNC)
def test_without_asyncio_every_call_is_refused_before_and_after(call):
    mesh = zmesh.sync.Controller(NODE)
    with pytest.raises(zmesh.Closed, match="not open yet"):
        SYNC[call](mesh)
    with mesh:
        pass
    with pytest.raises(zmesh.Closed):
        SYNC[call](mesh)


def test_without_asyncio_recv_hears_that_the_node_closes():
    mesh = zmesh.sync.Controller(NODE)
    mesh.open()
    outcomes = []

    def receive():
        try:
            mesh.recv()
        except zmesh.Closed as error:
            outcomes.append(str(error))

    thread = threading.Thread(target=receive)
    thread.start()
    mesh.ping_once("ctl")
    mesh.close()
    thread.join(WITHIN)
    assert len(outcomes) == 1
