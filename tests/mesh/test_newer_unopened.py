"""The calls of `test_newer_arguments` at a controller that is not open: not yet, not any more, or not in this process.

As in `test_unopened`: nothing waits for what will never come.
"""

import asyncio
import contextlib

import pytest

import zmesh
import zmesh.sync
from tests import own_process
from tests.mesh.test_newer_arguments import CALLS, GOOD, bound
from tests.mesh.test_newer_blocking_arguments import ASYNC_ALONE, BLOCKING
from tests.waiting import WITHIN
from zmesh.testing import Mesh

NODE = zmesh.Config(node_id="ctl")
ASKS_NOBODY = {"expose", "job", "nodes", "watch"}
ASKING = sorted(CALLS.keys() - ASKS_NOBODY)
WAITS_FOR_JOB = ["wait", "status", "result", "cancel", "remove"]
TOO_MUCH = 65_536


async def taken(outcome):
    """All that a call gives, up to its end."""
    async with contextlib.AsyncExitStack() as stack:
        if hasattr(outcome, "__aenter__"):
            outcome = await stack.enter_async_context(outcome)
        elif hasattr(outcome, "__await__"):
            outcome = await outcome
        return [each async for each in outcome] if hasattr(outcome, "__aiter__") else []


async def refusal(mesh, name):
    """The text that a call fails with: for many nodes that of an outcome, for a trace that of its last step."""
    call = bound(getattr(mesh, name), {argument: GOOD[argument] for argument in CALLS[name]})
    async with asyncio.timeout(WITHIN):
        if name in ("run_many", "copy_many", "trace"):
            (outcome,) = await taken(call())
            return str(outcome.error)
        with pytest.raises(zmesh.Closed) as raised:
            await taken(call())
        return str(raised.value)


@pytest.mark.parametrize("name", ASKING)
async def test_what_would_wait_for_an_answer_is_refused_before_the_node_is_open(name):
    mesh = zmesh.Controller(NODE)
    assert "'ctl' is not open yet; call inside of `async with Controller(...)`" in await refusal(mesh, name)
    async with mesh:
        assert mesh.node.engine.stats() == dict.fromkeys(mesh.node.engine.stats(), 0)


@pytest.mark.parametrize("name", ASKING)
async def test_what_comes_after_the_end_is_refused(name):
    mesh = zmesh.Controller(NODE)
    async with mesh:
        pass
    assert "'ctl' is closed" in await refusal(mesh, name)


@pytest.mark.parametrize("wait", WAITS_FOR_JOB)
async def test_nothing_is_learned_of_a_job_before_the_node_is_open_and_after_its_end(wait):
    mesh = zmesh.Controller(NODE)
    job = mesh.job("far/0123456789abcdef")
    for text in ("not open yet", "is closed"):
        with pytest.raises(zmesh.Closed, match=text):
            async with asyncio.timeout(WITHIN):
                await getattr(job, wait)()
        if text == "not open yet":
            async with mesh:
                pass


@pytest.mark.parametrize("name", sorted(BLOCKING.keys() - ASKS_NOBODY))
def test_without_asyncio_every_call_is_refused_before_and_after(name):
    mesh = zmesh.sync.Controller(NODE)
    arguments = {each: GOOD[each] for each in BLOCKING[name] if each not in ASYNC_ALONE.get(name, ())}

    def call():
        outcome = bound(getattr(mesh, name), arguments)()
        with outcome as entered:
            list(entered)

    with pytest.raises(zmesh.Closed, match="not open yet"):
        call()
    with mesh:
        pass
    with pytest.raises(zmesh.Closed, match="is closed"):
        call()


@pytest.mark.parametrize("way", ["finished", "cancel", "block"])
async def test_nothing_is_waited_for_of_a_request_that_was_refused_when_it_was_sent(way):
    """As one that is sent while too much waits: it has not begun."""
    async with Mesh("ctl", max_waiting_bytes=TOO_MUCH) as mesh:
        ctl = mesh["ctl"]
        ctl.send(bytes(TOO_MUCH), "nobody", "echo:echo", expect_response=False)
        replies = ctl.stream("ctl", "echo:echo", "x", writable=way == "block")
        async with asyncio.timeout(WITHIN):
            with pytest.raises(zmesh.Overloaded):
                if way == "block":
                    await replies.__aenter__()
                replies.send()
            with pytest.raises(RuntimeError, match="was refused"):
                replies.send()
            with pytest.raises(RuntimeError, match="inside of the block"):
                await anext(replies)
            if way == "block":
                await replies.__aexit__(None, None, None)
                with pytest.raises(RuntimeError, match="inside of the block"):
                    await replies.write("y")
            else:
                assert await getattr(replies, way)() is None
            many = [each async for each in ctl.run_many(["ctl"], ["true"])]
        assert isinstance(many[0].error, zmesh.Overloaded)


SETTING = """
import asyncio, os, warnings
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
import zmesh
import tests.mesh.test_newer_unopened as these
"""
FORKED = """
async with zmesh.Controller(these.NODE) as mesh:
    child = os.fork()
    if child == 0:
        asyncio._set_running_loop(None)
        for name in these.ASKING:
            text = asyncio.run(these.refusal(mesh, name))
            assert "is a fork; make a Controller after forking" in text, (name, text)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    await mesh.ping_once("ctl", timeout=90)
"""


def test_a_forked_child_is_refused_every_call():
    own_process.run_coroutine(SETTING, FORKED)
