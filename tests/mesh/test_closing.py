"""A node that is closed leaves nothing behind, also in the middle of everything. (That nothing is left is checked after
every test of this folder, by a fixture in conftest.py.)"""

import asyncio
import logging
import signal
import subprocess
import sys
import threading

import pytest

import zmesh
from tests.own_process import without_blocks
from tests.waiting import WITHIN
from zmesh.testing import Mesh, eventually
from zmesh.transport.context import open_transports


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch):
    """What a node gives up waiting for after a while it waits for without an end, and fails these tests."""
    monkeypatch.setattr("zmesh.serving.runner.CLOSE_WITHIN", 3600.0)


async def timed(coroutine):
    """The result. What would be waited for in vain lasts longer than this, so that the machine may be slow."""
    return await asyncio.wait_for(coroutine, WITHIN)


async def endings(requests):
    """How each of the requests ended: "done", or the code of its error."""
    ended = []
    for request in requests:
        try:
            await request.only_payload()
        except zmesh.MeshError as error:
            ended.append(error.code)
        else:
            ended.append("done")
    return ended


# --- at rest --------------------------------------------------------------------------------------------------------


async def test_a_node_that_did_nothing_leaves_nothing(census):
    before = census()
    async with Mesh("idle", tcp=True):
        assert census() != before
    assert not (census() - before)["transports"]


async def test_closing_leaves_no_thread_that_would_live_as_long_as_the_loop():
    """The loop may be the program's own, and live on."""
    before = {thread for thread in threading.enumerate() if thread.is_alive()}
    async with Mesh.chain("a", "b", tcp=True) as mesh:
        await mesh["a"].request("b", "echo:echo", b"x")
    assert {thread.name for thread in set(threading.enumerate()) - before} == set()


async def test_a_node_can_be_closed_twice_at_once_and_before_it_was_opened(census):
    before = census()
    node = zmesh.Controller(zmesh.Config(listen=["tcp://127.0.0.1:*"]))
    await node.open()
    await asyncio.gather(node.close(), node.close())
    await node.close()
    never = zmesh.Controller(zmesh.Config(listen=["tcp://127.0.0.1:*"]))
    await never.close()
    await eventually(lambda: not census() - before)  # ZeroMQ closes a socket's descriptor in a thread of its own


async def test_a_node_that_can_not_open_all_of_its_addresses_opens_none(census, free_port):
    async with Mesh("first", tcp=True) as mesh:
        taken = mesh["first"].listening[0]
        before = census()
        node = zmesh.Controller(
            zmesh.Config(listen=[f"tcp://127.0.0.1:{free_port}", taken], peers=["tcp://127.0.0.1:1", taken])
        )
        with pytest.raises(zmesh.AddressError, match=f"can't listen on {taken}: it is in use"):
            await node.open()
        await eventually(lambda: not census() - before)
        async with zmesh.Controller(zmesh.Config(listen=[f"tcp://127.0.0.1:{free_port}"])) as again:
            assert again.listening == [f"tcp://127.0.0.1:{free_port}"]


async def test_a_node_that_dials_nobody_or_a_black_hole_closes_at_once(server, monkeypatch):
    for module in ("connection", "dialler"):
        monkeypatch.setattr(f"zmesh.transport.{module}.CONNECT_WITHIN", 3600.0)
    monkeypatch.setattr("zmesh.transport.link_socket.HANDSHAKE_MS", 3_600_000)

    async def says_nothing(reader, writer):
        await asyncio.Event().wait()

    peers = [await server(says_nothing), "tcp://192.0.2.1:7323", "tcp://127.0.0.1:1", "ipc:///nowhere/at/all"]
    node = zmesh.Controller(zmesh.Config(peers=peers, insecure=True))
    await node.open()
    await node.ping_once(node.node_id)
    await timed(node.close())


# --- busy -----------------------------------------------------------------------------------------------------------


async def test_closing_in_the_middle_of_everything(tmp_path):
    """Work of all kinds, transfers both ways, requests that wait, a full link: all end, once, and nothing is left."""
    spool = tmp_path / "spool"
    spool.mkdir()
    release = threading.Event()

    async def drip(work):
        while True:
            yield bytes(60_000)

    def thread(work):
        while not work.cancelled:
            release.wait(0.01)

    async def refuses_to_read(work):
        async for _ in work.payload:
            await asyncio.Event().wait()

    async def endless():
        while True:
            yield bytes(60_000)
            await asyncio.sleep(0)

    async with Mesh.chain("a", "b", "c", tcp=True, spool_dir=str(spool)) as mesh:
        a, c = mesh["a"], mesh["c"]
        c.register("c:drip", drip)
        c.register("c:thread", thread)
        c.register("c:refuses", refuses_to_read, stream=True)
        requests = [
            a.stream("c", "sleep:execute", "3600").send(),
            a.stream("c", "c:thread").send(),
            a.stream("c", "c:refuses", endless()).send(),
            a.stream("c", "digest:sha256", endless()).send(),
            a.stream("c", "echo:echo", bytes(40_000_000)).send(),
            c.stream("a", "echo:echo", bytes(40_000_000)).send(),
            a.stream("nobody", "echo:echo", bytes(1_000_000)).send(),
            a.stream("nobody", "echo:echo", endless()).send(),
            *[a.stream("c", "sleep:execute", "3600").send() for _ in range(100)],
        ]
        handled = []
        for _ in range(10):
            a.send("3600", "c", "sleep:execute", handled.append)
        dripping = a.stream("c", "c:drip").send()
        replies = aiter(dripping)
        for _ in range(20):
            await anext(replies)
        await eventually(lambda: len(c.node.serving.runner.active()) >= 100)
        waiting = asyncio.create_task(endings(requests))
        await timed(mesh.close())
        with pytest.raises(zmesh.MeshError):
            while True:
                await anext(replies)
        ended = await timed(waiting)
        assert len(ended) == len(requests)
        assert set(ended) <= {"cancelled", "unreachable", "node_restarted", "overloaded"}
        assert [reply.header["eof"] for reply in handled] == [True] * 10
    assert list(spool.iterdir()) == []
    assert open_transports() == 0


@pytest.mark.parametrize("who", ["the client", "the forwarder", "the recipient"])
async def test_closing_one_node_of_three_in_the_middle_of_a_transfer(who):
    async with Mesh.chain("a", "b", "c", tcp=True, route_timeout=0.5) as mesh:
        got = 0

        async def swallow(work):
            nonlocal got
            async for chunk in work.payload:
                got += len(chunk)

        async def endless():
            while True:
                yield bytes(60_000)

        mesh["c"].register("c:swallow", swallow, stream=True)
        request = mesh["a"].stream("c", "c:swallow", endless()).send()
        await eventually(lambda: got > 1_000_000)
        await mesh.remove({"the client": "a", "the forwarder": "b", "the recipient": "c"}[who])
        (ended,) = await timed(endings([request]))
        assert ended in ("cancelled", "unreachable")
        if "c" in mesh.controllers:
            await eventually(lambda: mesh["c"].node.serving.runner.active() == [], timeout=60)


async def test_a_payload_whose_source_blocks_does_not_keep_a_node_from_closing():
    release = threading.Event()

    def blocks():
        yield b"the beginning"
        release.wait()

    async with Mesh("a") as mesh:
        request = mesh["a"].stream("a", "digest:sha256", blocks()).send()
        await eventually(lambda: mesh["a"].node.serving.runner.active())
        try:
            await timed(mesh["a"].close())
        finally:
            release.set()
        assert await endings([request]) == ["cancelled"]


async def test_a_handler_that_never_ends_does_not_keep_a_node_from_closing():
    async def forever(message):
        await asyncio.Event().wait()

    async with Mesh("a") as mesh:
        mesh["a"].send("x", "a", "echo:echo", forever)
        await mesh["a"].ping_once("a")
        await timed(mesh["a"].close())


async def test_a_task_of_a_node_that_fails_is_logged_and_ends_nothing_else(caplog):
    async with Mesh("a") as mesh:

        async def fails():
            raise LookupError("out of its depth")

        mesh["a"].node.tasks.spawn(fails(), "what nobody foresaw")
        assert (await mesh["a"].request("a", "echo:echo", b"still here")).text() == "still here"
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage().startswith("the task 'what nobody foresaw' failed")
    assert "LookupError: out of its depth" in record.getMessage()


async def test_an_address_that_is_taken_is_reported_once(free_port, caplog):
    url = f"tcp://127.0.0.1:{free_port}"
    async with zmesh.Controller(zmesh.Config(listen=(url,))):
        other = zmesh.Controller(zmesh.Config(node_id="a", listen=(url,)))
        with pytest.raises(zmesh.AddressError):
            await other.open()
        await timed(other.close())
    (record,) = [record for record in caplog.records if without_blocks(record.getMessage())]
    assert "in use" in record.getMessage()
    assert not record.exc_info, "its text says all"


async def test_work_that_ignores_being_cancelled_is_left_behind_after_a_while(caplog, monkeypatch):
    monkeypatch.setattr("zmesh.serving.runner.CLOSE_WITHIN", 0.3)
    release = threading.Event()

    def stubborn(work):
        release.wait()

    async with Mesh("a") as mesh:
        mesh["a"].register("a:stubborn", stubborn)
        request = mesh["a"].stream("a", "a:stubborn").send()
        await eventually(lambda: mesh["a"].node.serving.runner.active())
        await timed(mesh["a"].close())
        assert await endings([request]) == ["cancelled"]
    assert any("is left behind" in record.getMessage() for record in caplog.records)
    release.set()


async def test_sending_from_another_thread_while_the_node_closes_does_no_harm():
    async with Mesh("a", "b") as mesh:
        node = mesh["a"]
        outcomes = []

        def send():
            try:
                for _ in range(2_000):
                    node.send(b"x", "a", "echo:echo", expect_response=False)
            except Exception as error:
                outcomes.append(error)

        threads = [threading.Thread(target=send, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        await eventually(lambda: node.node.engine.stats()["peers"])
        await timed(node.close())
        await eventually(lambda: not any(thread.is_alive() for thread in threads))
        assert {type(outcome) for outcome in outcomes} <= {zmesh.Closed}


async def test_many_nodes_open_and_close_again_and_again(census):
    before = census()
    for _ in range(10):
        async with Mesh.ring(*"abcdef", tcp=True) as mesh:
            await mesh["a"].request("d", "echo:echo", b"x")
    await eventually(lambda: not census() - before)


# --- the end of a process -------------------------------------------------------------------------------------------

ENDS = {
    "an exception": "raise LookupError('enough')",
    "sys.exit": "sys.exit(3)",
    "falling off the end": "pass",
    "os.kill": "os.kill(os.getpid(), signal.SIGTERM)",
}


@pytest.mark.parametrize("how", ENDS)
def test_a_program_that_forgets_to_close_its_node_ends_all_the_same(how):
    source = f"""
import asyncio, os, signal, sys, zmesh
loop = asyncio.new_event_loop()
node = zmesh.Controller(zmesh.Config(node_id="a", listen=["tcp://127.0.0.1:*"], peers=["tcp://127.0.0.1:1"]), loop=loop)
async def main():
    print((await node.request("a", "echo:echo", "up")).text(), flush=True)
    node.send("3600", "a", "sleep:execute", lambda message: None)
loop.run_until_complete(main())
{ENDS[how]}
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=180)
    assert done.stdout == "up\n"
    expected = {"an exception": 1, "sys.exit": 3, "falling off the end": 0, "os.kill": -signal.SIGTERM}
    assert done.returncode == expected[how]


async def test_a_process_that_is_terminated_leaves_without_a_trace(process):
    node = await process("a")
    assert await node.ask("mesh.send(b'x', 'a', 'sleep:execute')")
    assert node.close() == 0
