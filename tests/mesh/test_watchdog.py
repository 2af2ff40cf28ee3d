"""User code that blocks the event loop of a node: links stay up, the result arrives, and the log names the code."""

import asyncio
import contextlib
import logging
import sys
import threading
import time

import pytest

import zmesh
import zmesh.sync
from tests.waiting import WITHIN, until
from zmesh.core import wire
from zmesh.core.delivery import client_exchange
from zmesh.core.wire import Kind
from zmesh.runtime.watchdog import StackLocation, Watchdog, stack_location, watchdogs
from zmesh.testing import Mesh, eventually
from zmesh.transport import blocked_loop
from zmesh.transport.gate import Gate
from zmesh.transport.resolver import Resolver

HEARTBEAT = 1.0
KEEPALIVE = wire.encode_keepalive("its event loop has been blocked for 3 s in t:f (f.py:1)")
BLOCK = 4.5 * HEARTBEAT
"""Seconds: half as long again as a silent link lives."""


def sleep(seconds):
    time.sleep(seconds)


async def blocks(work):
    """What a directive should not do."""
    sleep(float(work.payload.text()))
    return b"done"


async def blocks_later(work):
    await asyncio.sleep(0)
    sleep(float(work.payload.text()))
    yield b"done"


async def spins(work):
    """The same without giving the interpreter's lock away for long."""
    end = time.monotonic() + float(work.payload.text())
    while time.monotonic() < end:
        pass
    return b"done"


@contextlib.asynccontextmanager
async def blockable(hub, **settings):
    """A node in a thread with a loop of its own, and a neighbour of the hub."""
    config = zmesh.Config(node_id="busy", heartbeat=HEARTBEAT, peers=hub.listening, **settings)
    busy = zmesh.sync.Controller(config)
    for function in (blocks, blocks_later, spins):
        busy.register(f"t:{function.__name__}", function)
    await asyncio.to_thread(busy.open)
    try:
        if not config.ephemeral:
            await hub.wait_for("busy", timeout=WITHIN)
        yield busy
    finally:
        await asyncio.to_thread(busy.close)


@pytest.fixture
async def hub():
    async with Mesh("hub", tcp=True, heartbeat=HEARTBEAT) as mesh:
        yield mesh["hub"]


@pytest.mark.parametrize("function", [blocks, blocks_later, spins])
async def test_the_links_of_a_blocked_node_live_on_and_its_result_arrives(hub, reports, caplog, function):
    async with blockable(hub) as busy:
        heard, own = reports(hub.node), reports(busy._mesh.node)
        for _ in range(2):
            payload = await hub.request("busy", f"t:{function.__name__}", str(BLOCK), timeout=WITHIN)
            assert payload.text() == "done"
        await eventually(lambda: busy._mesh.node.telemetry.counts["loop_blocked"] > 1)
        await hub.ping_once("busy", timeout=WITHIN)
        assert not [report for report in [*heard, *own] if report.event in ("link_lost", "node_left")]
    where = f" s in t:{function.__name__} ({__file__}:"  # a busy machine may block the loop elsewhere, too
    lines = [record.getMessage() for record in caplog.records if where in record.getMessage()]
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("busy: event loop blocked for ")


async def test_a_node_that_stays_blocked_is_let_go_and_its_neighbours_know_why(hub, reports, monkeypatch):
    monkeypatch.setattr(blocked_loop, "LINKS_KEPT", 2 * HEARTBEAT)
    async with blockable(hub):
        heard = reports(hub.node)
        payload = await hub.request("busy", "t:blocks", str(BLOCK), timeout=WITHIN)
        assert payload.text() == "done", "the exchange outlives the link"
        lost = [report for report in heard if report.event == "link_lost"]
        assert lost[0].detail.startswith("they left: its event loop has been blocked for")
        assert "t:blocks (" in lost[0].detail


@pytest.mark.parametrize("hops", [1, 2])
async def test_a_timeout_during_a_block_names_what_blocks_the_node(hub, hops):
    async with blockable(hub), contextlib.AsyncExitStack() as stack:
        client = hub
        if hops == 2:
            client = await stack.enter_async_context(
                zmesh.Controller(node_id="far", heartbeat=HEARTBEAT, peers=hub.listening)
            )
            await client.wait_for("busy", timeout=WITHIN)
        with pytest.raises(zmesh.TimedOut) as caught:
            await client.request("busy", "t:blocks", str(2 * BLOCK), timeout=BLOCK)
        assert "node 'busy': its event loop has been blocked for" in str(caught.value)
        assert "t:blocks (" in str(caught.value)


async def test_a_request_that_had_arrived_learns_of_the_block_two_hops_away(hub, monkeypatch):
    monkeypatch.setattr(client_exchange, "LAST_PROBE_BEFORE", BLOCK / 2)
    begins, goes_on = asyncio.Event(), threading.Event()

    async def blocks_when_acknowledged(work):
        await begins.wait()
        goes_on.wait(WITHIN)

    far = zmesh.Controller(node_id="far", heartbeat=HEARTBEAT, peers=hub.listening)
    async with blockable(hub) as busy, far:
        await asyncio.to_thread(busy.register, "t:later", blocks_when_acknowledged)
        await far.wait_for("busy", timeout=WITHIN)
        request = far.stream("busy", "t:later", timeout=2 * BLOCK).send()
        await eventually(lambda: not far.node.engine.is_handing_over)
        busy._mesh.loop.call_soon_threadsafe(begins.set)
        with pytest.raises(zmesh.TimedOut) as caught:
            await request.only_payload()
        goes_on.set()
    assert "the request had reached 'busy'; node 'busy': its event loop has been blocked for" in str(caught.value)


async def test_a_leaf_that_blocks_its_own_loop_still_gets_its_replies(hub):
    async with blockable(hub, ephemeral=True) as leaf:

        async def ask_and_block():
            request = leaf._mesh.stream("hub", "echo:echo", b"x", timeout=WITHIN).send()
            sleep(BLOCK)
            return (await request.only_payload()).text()

        assert await asyncio.to_thread(leaf._do, ask_and_block) == "x"


async def test_a_name_server_that_keeps_silent_while_a_name_is_to_be_listened_on_costs_no_link(
    hub, reports, monkeypatch
):
    """`enable_server`, and a reload, wait for the name on the loop, though for no longer than a limit."""
    monkeypatch.setattr("zmesh.transport.resolver.RESOLVE_WITHIN", BLOCK)
    released = threading.Event()
    try:
        async with blockable(hub) as busy:
            heard, own = reports(hub.node), reports(busy._mesh.node)

            async def listen():
                busy._mesh.node._transport.resolver = Resolver(lambda host: released.wait(WITHIN) and [])
                with pytest.raises(zmesh.AddressError, match="no name server answered for 'localhost'"):
                    busy._mesh.enable_server(["tcp://localhost:*"])

            await asyncio.to_thread(busy._do, listen)
            await hub.ping_once("busy", timeout=WITHIN)
            assert not [report for report in [*heard, *own] if report.event in ("link_lost", "node_left")]
    finally:
        released.set()


async def test_what_is_no_directive_is_named_by_its_function(hub, caplog):
    async with blockable(hub) as busy:

        async def other():
            sleep(1.5)

        await asyncio.to_thread(busy._do, other)
        await eventually(lambda: " s in sleep (" in caplog.text)  # a busy machine may block the loop elsewhere, too
        await eventually(lambda: busy._mesh.node.telemetry.counts["loop_blocked"])


async def test_a_block_that_does_not_end_is_logged_while_it_lasts(hub, caplog, monkeypatch):
    monkeypatch.setattr(blocked_loop, "STILL_BLOCKED_AFTER", 0.5)
    released = threading.Event()
    async with blockable(hub) as busy:

        async def other():
            released.wait(WITHIN)

        where = f" s so far in {other.__qualname__} ("  # a busy machine may block the loop elsewhere, too
        blocked = asyncio.create_task(asyncio.to_thread(busy._do, other))
        try:
            await eventually(lambda: where in caplog.text)
        finally:
            released.set()
        await blocked
    assert caplog.text.count(where) == 1


async def test_a_loop_that_is_blocked_in_a_handler_of_the_log_does_not_hang_the_watchdog(hub, monkeypatch):
    monkeypatch.setattr(blocked_loop, "STILL_BLOCKED_AFTER", 0.5)
    released = threading.Event()

    class Stuck(logging.Handler):
        def emit(self, record):
            if record.getMessage() == "stuck":
                released.wait(WITHIN)

    logger = logging.getLogger("zmesh")
    handler = Stuck()
    logger.addHandler(handler)
    try:
        async with blockable(hub) as busy:

            async def logs():
                logger.warning("stuck")

            blocked = asyncio.create_task(asyncio.to_thread(busy._do, logs))
            await asyncio.sleep(BLOCK)  # in which the link would be lost
            assert hub.node.router.get_nodes() == ["busy", "hub"]
            released.set()
            await blocked
    finally:
        logger.removeHandler(handler)


async def test_a_node_leaves_no_watchdog_behind_and_those_of_one_loop_share_it():
    def dogs():
        return [thread for thread in threading.enumerate() if thread.name == "zmesh watchdog"]

    before = len(dogs())
    async with Mesh("a", "b", "c") as mesh:
        assert len(dogs()) == before + 1
        await mesh.remove("a")
        assert len(dogs()) == before + 1
    assert len(dogs()) == before
    assert asyncio.get_running_loop() not in watchdogs._by_loop


async def test_a_node_lives_without_a_watchdog_where_no_thread_can_be_started(monkeypatch, caplog):
    def refuse(thread):
        if thread.name == "zmesh watchdog":
            raise RuntimeError("can't start new thread")
        start(thread)

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", refuse)
    async with Mesh("a") as mesh:
        await mesh["a"].ping_once("a", timeout=WITHIN)
    assert "no thread can be started to watch the event loop: can't start new thread" in caplog.text


async def test_what_fails_while_a_loop_is_blocked_and_afterwards_is_logged_and_the_watchdog_goes_on(caplog):
    caplog.set_level(logging.DEBUG, "zmesh.runtime.watchdog")

    class Failing:
        def __init__(self):
            self.calls = 0
            self.twice = threading.Event()

        def while_blocked(self, seconds, where):
            self.calls += 1
            if self.calls == 2:
                self.twice.set()
            raise RuntimeError("the tables have changed")

        def after_block(self, seconds, where):
            self.calls = 0
            raise RuntimeError("the log fails")

    failing = Failing()
    watchdogs.add(failing, 0.1)
    assert failing.twice.wait(WITHIN)  # which blocks the loop
    watchdog = watchdogs._by_loop[asyncio.get_running_loop()]
    await eventually(lambda: watchdog._answered and failing.calls == 0)
    watchdogs.remove(failing)
    watchdogs.remove(failing)
    assert "RuntimeError: the tables have changed" in caplog.text
    assert "RuntimeError: the log fails" in caplog.text


def test_a_thread_that_waits_for_events_is_nowhere():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        until(lambda: stack_location(sys._current_frames()[thread.ident]) is None)
        assert stack_location(None) is None
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_place_is_the_innermost_line_that_is_no_library_s():
    def inner():
        started.set()
        released.wait(WITHIN)

    started, released = threading.Event(), threading.Event()
    thread = threading.Thread(target=inner)
    thread.start()
    started.wait(WITHIN)
    place = stack_location(sys._current_frames()[thread.ident])
    released.set()
    thread.join()
    line = inner.__code__.co_firstlineno
    names = [StackLocation(f"{inner.__qualname__} ({__file__}:{line + after})", False) for after in (1, 2)]
    assert place in names


def test_a_keepalive_asks_for_nothing():
    packet = wire.read_packet(KEEPALIVE)
    assert packet.kind == Kind.RESEND
    assert wire.decode_resend(packet.head) == wire.Resend(False, False)
    assert wire.decode_keepalive(packet.body) == "its event loop has been blocked for 3 s in t:f (f.py:1)"


# --- the gate -------------------------------------------------------------------------------------------------------


async def test_the_sockets_are_lent_while_the_loop_s_thread_is_elsewhere_only():
    gate = Gate()

    def visit():
        with gate.enter() as entered:
            assert gate.shut
            return entered

    def within(module):
        scope = {"__name__": module}
        exec("def call(function): return function()", scope)
        return scope["call"]

    visiting = threading.Thread
    found = []
    port = "zmesh.transport.link_socket"
    stacks = [
        [],
        ["zmesh.node"],
        [port],
        [port, "user"],
        [port, "zmesh.serving.runner", "user"],
        ["zmesh.serving.runner", port],
        [None],
        [port, "zmesh.transport.resolver"],
    ]
    for modules in stacks:

        def run():
            thread = visiting(target=lambda: found.append(visit()))
            thread.start()
            thread.join()

        function = run
        for module in reversed(modules):
            function = (lambda call, inner: lambda: call(inner))(within(module), function)
        function()
    assert found == [True, True, False, False, True, False, True, True]
    assert not gate.shut


async def test_frames_that_a_guest_sends_never_tear_those_of_the_loop(reports):
    """As many keepalives as another thread can send, while they leave the loop room, and as much as the loop can."""
    async with Mesh.chain("a", "b", tcp=True) as mesh:
        dropped = [reports(mesh[node].node) for node in "ab"]
        stop = threading.Event()
        sent = dict.fromkeys("ab", 0)

        def visit():
            while not stop.is_set():
                for node in "ab":
                    transport = mesh[node].node._transport
                    links = [link for link in list(transport.links) if not transport.is_full(link)]
                    sent[node] += transport.send_from_thread(links, KEEPALIVE)

        async def poll():  # what came, and whose signal the guest has swallowed
            while True:
                for node in "ab":
                    mesh[node].node._transport.poll_all()
                await asyncio.sleep(0.01)

        thread = threading.Thread(target=visit)
        thread.start()
        polling = asyncio.create_task(poll())
        try:
            for size in [10, 100_000]:
                body = b"x" * size
                for _ in range(20):
                    requests = [mesh["a"].stream("b", "echo:echo", body, timeout=WITHIN).send() for _ in range(10)]
                    assert [len(await request.only_payload()) for request in requests] == [size] * 10
        finally:
            stop.set()
            thread.join()
            polling.cancel()
        assert all(sent.values()), "the gate was open at times"
        assert not [report for seen in dropped for report in seen if report.event in ("frame_dropped", "link_lost")]


def test_a_forked_child_knows_none_of_the_watchdogs_of_its_parent():
    loop = asyncio.new_event_loop()
    watchdogs._by_loop[loop] = Watchdog(loop)
    try:
        watchdogs._forget()
        assert not watchdogs._by_loop
    finally:
        watchdogs._by_loop.pop(loop, None)
        loop.close()
