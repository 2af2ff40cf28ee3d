"""The sentence on delivery over bad connections: each send ends once, its work ran once, its replies are whole."""

import asyncio
import random
import zlib

import pytest

import zmesh
from zmesh.testing import Mesh, eventually

HEARTBEAT = 0.25
SILENCE = 3 * HEARTBEAT
MEGABYTE = 1_000_000


def payload_of(size, seed=1):
    payload = random.Random(seed).randbytes(size)
    return payload, f"{size} {zlib.crc32(payload)}"


def dropped(node, reason):
    return node.node.telemetry.counts[f"frame_dropped:{reason}"]


@pytest.fixture
async def line(before, callee):
    """The nodes `caller` and `callee`, of which the first dials the second through `proxy`; `work` is done there."""
    async with Mesh("callee", "caller", tcp=True, heartbeat=HEARTBEAT) as mesh:
        mesh.caller, mesh.callee = mesh["caller"], mesh["callee"]
        mesh.work = callee(mesh.callee)
        mesh.proxy = await before(mesh.callee)
        mesh.caller.add_peer(mesh.proxy.url)
        await mesh.settle()
        yield mesh


@pytest.fixture
async def diamond(before, callee):
    """Two ways from `caller` to `callee`: a cheap one by way of `near`, through `proxy`, and a dear one by `spare`."""
    async with Mesh("callee", "near", "spare", "caller", tcp=True, heartbeat=HEARTBEAT) as mesh:
        mesh.caller, mesh.callee = mesh["caller"], mesh["callee"]
        mesh.work = callee(mesh.callee)
        mesh.proxy = await before(mesh["near"])
        mesh.caller.add_peer(mesh.proxy.url)
        await mesh.connect("near", "callee")
        for end in (mesh.caller, mesh.callee):  # each counts the cost of what it dials
            end.add_peer(f"{mesh['spare'].listening[0]}?cost=1000")
        await mesh.settle()
        await eventually(lambda: mesh.caller.node.router.next_hop("callee") == "near")
        await eventually(lambda: mesh.callee.node.router.next_hop("caller") == "near")
        yield mesh


# --- another path ---------------------------------------------------------------------------------------------------


async def test_the_death_of_a_forwarder_in_the_middle_costs_a_transfer_a_pause_and_no_more(process, callee):
    """Its connections end with it. To notice its silence would take three heartbeats, half a minute here."""
    payload, answer = payload_of(24 * MEGABYTE)
    heartbeat = 90.0
    async with Mesh("callee", "near", "caller", tcp=True, heartbeat=heartbeat) as mesh:
        await mesh.connect("caller", "near")
        work = callee(mesh["callee"])
        url = mesh["callee"].listening[0]
        middle = await process("middle", url, heartbeat=heartbeat)
        spare = await process("spare", f"{url}?cost=500", heartbeat=heartbeat)
        mesh["near"].add_peer(middle.url)
        mesh["near"].add_peer(f"{spare.url}?cost=500")
        await eventually(
            lambda: mesh["caller"].node.router.get_nodes() == ["callee", "caller", "middle", "near", "spare"]
        )
        await eventually(lambda: mesh["near"].node.router.next_hop("callee") == "middle")
        request = mesh["caller"].stream("callee", "callee:take", payload).send()
        await eventually(lambda: work.read > 4 * MEGABYTE)
        await middle.kill()
        assert work.read < len(payload)
        assert (await request.only_payload()).text() == answer
        assert mesh["near"].node.router.next_hop("callee") == "spare"
    assert work.runs == {"take": 1}
    assert work.slowest < heartbeat


@pytest.mark.parametrize("fault", ["swallow", "freeze"])
async def test_a_way_that_falls_silent_in_a_transfer_is_left_for_the_other(diamond, fault):
    payload, answer = payload_of(12 * MEGABYTE)
    request = diamond.caller.stream("callee", "callee:take", payload).send()
    await eventually(lambda: diamond.work.read > 2 * MEGABYTE)
    getattr(diamond.proxy, fault)()
    assert (await asyncio.wait_for(request.only_payload(), 60)).text() == answer
    assert diamond.caller.node.router.next_hop("callee") == "spare"
    assert diamond.work.runs == {"take": 1}


@pytest.mark.parametrize("lane", ["forth", "back"])
async def test_a_way_that_is_dead_in_one_direction_is_left_for_the_other(diamond, lane):
    payload, _ = payload_of(6 * MEGABYTE)
    request = diamond.caller.stream("callee", "callee:give", payload).send()
    await eventually(lambda: getattr(diamond.proxy, lane).passed > MEGABYTE)
    getattr(diamond.proxy, lane).dead = True
    answer = await asyncio.wait_for(request.only_payload(), 60)
    assert answer.readall() == payload
    answer.close()
    assert diamond.work.runs == {"give": 1}


# --- the same path again --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [True, False])
async def test_replies_are_whole_and_in_order_however_often_their_link_is_cut(line, replies, reset):
    handler = replies()
    line.caller.send("300", "callee", "callee:count", handler)
    for _ in range(5):
        count = len(handler.messages)
        await eventually(lambda count=count: len(handler.messages) > count + 20)
        line.proxy.cut(reset=reset)
    assert await handler.whole() == [str(number) for number in range(300)]
    assert line.work.runs == {"count": 1}
    await eventually(lambda: line.proxy.connections >= 6)  # all may have been on its way before the last cut


@pytest.mark.parametrize("lane", ["forth", "back"])
async def test_what_is_lost_in_one_direction_is_sent_again_and_reaches_nobody_twice(line, replies, lane):
    handler = replies()
    line.caller.send("200", "callee", "callee:count", handler)
    await eventually(lambda: len(handler.messages) > 20)
    way, connections = getattr(line.proxy, lane), line.proxy.connections
    way.dead = True
    second = replies()
    line.caller.send("20", "callee", "callee:count", second)
    # a slow machine may find the link silent, and begin another one in vain, before as much is sent again
    await eventually(lambda: way.swallowed > 2000 or line.proxy.connections > connections)
    line.proxy.heal()
    assert await handler.whole() == [str(number) for number in range(200)]
    assert await second.whole() == [str(number) for number in range(20)]
    assert line.work.runs == {"count": 2}


async def test_a_request_whose_every_acknowledgement_is_lost_runs_once(before, callee, replies):
    """The link stays up meanwhile, so that what is sent again arrives as a copy."""
    async with Mesh("callee", "caller", tcp=True, heartbeat=30.0) as mesh:
        work = callee(mesh["callee"])
        proxy = await before(mesh["callee"])
        mesh["caller"].add_peer(proxy.url)
        await mesh.settle()
        proxy.back.dead = True
        handler = replies()
        mesh["caller"].send("5", "callee", "callee:count", handler)
        await eventually(lambda: work.runs["count"])
        passed = proxy.forth.passed
        await eventually(lambda: proxy.forth.passed > passed + 200)  # the request has been sent again
        await eventually(lambda: proxy.back.swallowed > 1000)
        proxy.heal()
        assert await handler.whole() == list("01234")
        assert work.runs == {"count": 1}


# --- late, slow -----------------------------------------------------------------------------------------------------


async def test_a_delay_costs_time_and_nothing_is_sent_twice(line):
    line.proxy.slow(delay=0.05)
    payload, answer = payload_of(2 * MEGABYTE)
    for _ in range(3):
        assert (await line.caller.ping_once("callee")).rtt >= 0.1
    passed = line.proxy.forth.passed
    assert (await line.caller.request("callee", "callee:take", payload)).text() == answer
    assert line.proxy.forth.passed - passed < 1.1 * len(payload)


async def test_a_throttled_link_is_used_by_a_transfer_and_small_requests_and_stays_up(line):
    line.proxy.slow(rate=1.5 * MEGABYTE)
    payload, answer = payload_of(3 * MEGABYTE)
    request = line.caller.stream("callee", "callee:take", payload).send()
    await eventually(lambda: line.work.read)
    texts = [(await line.caller.request("callee", "callee:give", str(n), timeout=60)).text() for n in range(3)]
    assert texts == ["0", "1", "2"]
    assert (await request.only_payload()).text() == answer
    assert line.work.runs == {"take": 1, "give": 3}
    assert line.proxy.connections == 1


# --- a bit turned over ----------------------------------------------------------------------------------------------


async def test_bits_that_are_turned_over_in_transfers_reach_nobody(line):
    """They hit payload, heads, routes and the framing of ZeroMQ, which then reads lengths that are none."""
    rng = random.Random(7)
    payload, _ = payload_of(3 * MEGABYTE)
    for _ in range(3):
        request = line.caller.stream("callee", "callee:give", payload).send()
        for lane in line.proxy.lanes:
            lane.flip(after=rng.randrange(2 * MEGABYTE))
        answer = await asyncio.wait_for(request.only_payload(), 60)
        assert answer.readall() == payload
        answer.close()
    assert line.work.runs == {"give": 3}
    assert dropped(line.callee, "checksum") + dropped(line.caller, "checksum") + line.proxy.connections > 1


async def test_bits_that_are_turned_over_in_small_messages_reach_nobody(line, replies):
    rng = random.Random(11)
    handlers = []
    for _ in range(12):
        for lane in line.proxy.lanes:
            lane.flip(after=rng.randrange(400))
        handlers.append(replies())
        line.caller.send("30", "callee", "callee:count", handlers[-1])
        await eventually(lambda: len(handlers[-1].messages) > 5, timeout=60)
    for handler in handlers:
        assert await handler.whole() == [str(number) for number in range(30)]
    assert line.work.runs == {"count": 12}


@pytest.mark.parametrize("lane", ["forth", "back"])
async def test_a_link_comes_up_although_bits_are_turned_over_while_it_opens(line, lane):
    for after in (0, 11, 40, 66, 80):
        getattr(line.proxy, lane).flip(after=after)
        line.proxy.cut()
        await eventually(lambda: not line.caller.node.router.next_hop("callee"))
        await line.settle(timeout=60)
        assert (await line.caller.request("callee", "callee:give", "there", timeout=60)).text() == "there"
    assert line.work.runs == {"give": 5}


# --- the other end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", ["neighbour", "far", "leaf"])
async def test_a_request_to_a_node_that_restarts_ends_when_it_is_back(process, caller):
    async with Mesh("hub", tcp=True, heartbeat=HEARTBEAT, route_timeout=600.0) as mesh:
        hub = mesh["hub"]
        node = hub if caller == "neighbour" else await mesh.add("caller", "hub", ephemeral=caller == "leaf")
        worker = await process("worker", hub.listening[0], heartbeat=HEARTBEAT)
        await eventually(lambda: "worker" in hub.node.router.get_nodes())
        request = node.stream("worker", "sleep:execute", "3600").send()
        while not (await node.ping_once("worker")).active_work:
            pass
        await worker.kill()
        await process("worker", hub.listening[0], heartbeat=HEARTBEAT)
        with pytest.raises(zmesh.NodeRestarted, match="node 'worker' has restarted and lost the request"):
            await asyncio.wait_for(request.only_payload(), 60)


@pytest.mark.parametrize("timed", [True, False])
async def test_work_at_a_node_that_is_gone_for_good_ends_at_its_time_and_says_that_the_node_had_it(process, timed):
    route_timeout = 600.0 if timed else 2.0
    async with Mesh.chain("near", "caller", tcp=True, heartbeat=HEARTBEAT, route_timeout=route_timeout) as mesh:
        caller = mesh["caller"]
        worker = await process("worker", mesh["near"].listening[0], heartbeat=HEARTBEAT)
        await eventually(lambda: "worker" in caller.node.router.get_nodes())
        loop = asyncio.get_running_loop()
        given = 0

        async def endless():
            nonlocal given
            given = 0
            while True:
                yield bytes(100_000)
                given += 100_000

        began = loop.time()
        async with caller.stream("worker", "digest:sha256", endless()):
            await eventually(lambda: given > 4 * MEGABYTE)
        timeout = 1.5 + 5 * (loop.time() - began) if timed else None  # enough for the same once more
        began = loop.time()
        given = 0
        request = caller.stream("worker", "digest:sha256", endless(), timeout=timeout).send()
        await eventually(lambda: given > 4 * MEGABYTE)  # more than a window, so some of it was acknowledged
        await worker.kill()
        killed = loop.time()
        text = r"no route to 'worker' after \S+ s(, none for the last \S+ s)?; the request had reached 'worker'; "
        text += r"'worker' left \d+ s ago"
        with pytest.raises(zmesh.Unreachable, match=text):
            await asyncio.wait_for(request.only_payload(), 60)
        due = killed + route_timeout if timeout is None else began + timeout
        assert loop.time() >= due - 0.1


async def test_a_request_that_is_lost_on_the_way_names_the_last_node_that_it_reached(before, callee):
    """What lies behind that node swallows all, and the request's time is up before anybody has noticed."""
    async with Mesh("callee", "near", "caller", tcp=True, heartbeat=5.0) as mesh:
        await mesh.connect("caller", "near")
        work = callee(mesh["callee"])
        proxy = await before(mesh["callee"])
        mesh["near"].add_peer(proxy.url)
        await mesh.settle()
        proxy.swallow()
        with pytest.raises(zmesh.TimedOut, match=r"from 'callee' within \S+ s; the last node on the path was 'near'"):
            await mesh["caller"].request("callee", "callee:give", "lost", timeout=2.0)
        assert not work.runs


# --- no route yet ---------------------------------------------------------------------------------------------------


async def test_what_is_sent_before_there_is_a_route_waits_and_goes_when_there_is_one(before, callee, replies):
    async with Mesh("callee", "caller", tcp=True, heartbeat=HEARTBEAT) as mesh:
        work = callee(mesh["callee"])
        proxy = await before(mesh["callee"])
        proxy.refusing = True
        mesh["caller"].add_peer(proxy.url)
        handler = replies()
        payload, answer = payload_of(2 * MEGABYTE)
        mesh["caller"].send("10", "callee", "callee:count", handler)
        request = mesh["caller"].stream("callee", "callee:take", payload).send()
        await eventually(lambda: proxy.connections >= 3)
        assert not handler.messages
        proxy.heal()
        assert (await request.only_payload()).text() == answer
        assert await handler.whole() == [str(number) for number in range(10)]
        assert work.runs == {"count": 1, "take": 1}


async def test_a_name_that_no_node_has_is_unreachable_at_last_and_the_nearest_names_are_listed():
    async with Mesh.chain("edge-7", "hub", "caller", tcp=True, route_timeout=0.5) as mesh:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(zmesh.Unreachable, match=r"no route to 'edge-9'.*did you mean 'edge-7'"):
            await mesh["caller"].request("edge-9", "echo:echo", "hello")
        assert loop.time() - began >= 0.5
        began = loop.time()
        with pytest.raises(zmesh.TimedOut, match=r"no route to 'edge-9'.*did you mean 'edge-7'"):
            await mesh["caller"].request("edge-9", "echo:echo", "hello", timeout=0.2)
        assert loop.time() - began >= 0.2
