"""The modern way in: `async with`, `request` iterated and awaited, `ping_once`, plugins in code."""

import asyncio

import pytest

import zmesh
import zmesh as receptor
from zmesh.testing import Mesh, eventually


@pytest.fixture
async def hub():
    """A node to talk to, and its URL."""
    config = zmesh.Config(node_id="hub", listen=["tcp://127.0.0.1:*"])
    async with zmesh.Controller(config) as controller:

        async def count(work):
            for number in range(int(work.payload.text())):
                yield str(number)

        async def fails(work):
            yield "not yet"
            raise ValueError("now")

        controller.register("hub:count", count)
        controller.register("hub:fails", fails)
        yield controller


@pytest.fixture
async def mesh(hub):
    async with zmesh.Controller(zmesh.Config(node_id="ctl", peers=hub.listening)) as controller:
        yield controller


async def test_a_controller_is_open_inside_of_async_with_and_closed_after_it(hub):
    controller = zmesh.Controller(zmesh.Config(node_id="ctl", peers=hub.listening, listen=["tcp://127.0.0.1:*"]))
    async with controller as mesh:
        assert mesh is controller
        assert mesh.listening[0].startswith("tcp://127.0.0.1:")
        assert (await mesh.request("hub", "echo:echo", b"hello")).readall() == b"hello"
    assert controller.listening == []
    with pytest.raises(zmesh.Closed):
        controller.send("x", "hub", "echo:echo")
    await eventually(lambda: hub.node.router.get_nodes() == ["hub"])


async def test_async_with_closes_the_controller_when_its_body_raises(hub):
    controller = zmesh.Controller(zmesh.Config(peers=hub.listening))
    with pytest.raises(LookupError):
        async with controller:
            raise LookupError
    with pytest.raises(zmesh.Closed):
        controller.send("x", "hub", "echo:echo")


async def test_async_with_raises_when_an_address_is_taken(hub):
    with pytest.raises(zmesh.AddressError, match="in use"):
        async with zmesh.Controller(zmesh.Config(listen=hub.listening)):
            pytest.fail("it must not be open")


async def test_a_request_is_sent_while_the_link_is_still_coming_up(hub):
    async with zmesh.Controller(zmesh.Config(peers=hub.listening)) as mesh:
        assert (await mesh.request("hub", "echo:echo", "early")).text() == "early"


async def test_a_stream_can_be_iterated_reply_by_reply(mesh):
    replies = []
    async with mesh.stream("hub", "hub:count", "5") as stream:
        async for reply in stream:
            assert reply.header["in_response_to"] == stream.message_id
            assert not reply.header["eof"]
            replies.append(reply.payload.readall())
    assert replies == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_stream_raises_at_its_end_if_the_work_failed(mesh):
    replies = []
    with pytest.raises(zmesh.RemoteError, match="ValueError: now") as raised:
        async with mesh.stream("hub", "hub:fails") as stream:
            async for reply in stream:
                replies.append(reply.payload.readall())
    assert replies == [b"not yet"]
    assert raised.value.node == "hub"


async def test_a_request_can_be_awaited_for_its_one_payload(mesh):
    payload = await mesh.request("hub", "echo:echo", b"hello")
    assert isinstance(payload, zmesh.Payload)
    assert payload.readall() == b"hello"
    assert (await mesh.request("hub", "hub:count", "1")).text() == "0"
    assert await mesh.request("hub", "hub:count", "0") is None


async def test_a_request_with_more_than_one_reply_can_not_be_awaited(mesh):
    with pytest.raises(zmesh.MeshError, match="more than one reply"):
        await mesh.request("hub", "hub:count", "2")


@pytest.mark.parametrize(
    ("recipient", "directive", "payload", "error", "timeout"),
    [
        ("hub", "hub:fails", None, receptor.RemoteError, 90),
        ("hub", "hub:nothing", None, receptor.UnknownDirective, 90),
        ("hub", "sleep:execute", "600", receptor.TimedOut, 0.3),
        ("nobody", "echo:echo", None, receptor.TimedOut, 0.3),
    ],
)
async def test_an_awaited_request_raises_what_went_wrong(mesh, recipient, directive, payload, error, timeout):
    with pytest.raises(error) as raised:
        await mesh.request(recipient, directive, payload, timeout=timeout)
    assert raised.value.node == recipient
    assert len(raised.value.message_id) == 32


async def test_a_node_that_nobody_knows_is_unreachable(hub):
    async with zmesh.Controller(zmesh.Config(peers=hub.listening, route_timeout=0.2)) as mesh:
        await mesh.wait_for("hub", timeout=90)
        with pytest.raises(zmesh.Unreachable, match="no route to 'hubb'.*did you mean 'hub'"):
            await mesh.request("hubb", "echo:echo", b"hello")


async def test_leaving_the_iteration_early_cancels_the_work(mesh, hub):
    async def ticks(work):
        while True:
            yield "tick"

    hub.register("hub:ticks", ticks)
    async with mesh.stream("hub", "hub:ticks") as replies:
        async for reply in replies:
            assert reply.payload.text() == "tick"
            break
    assert hub.node.serving.runner.active() == []


async def test_cancelling_the_task_that_waits_cancels_the_work(mesh, hub):
    async def wait():
        await mesh.request("hub", "sleep:execute", "3600")

    task = asyncio.create_task(wait())
    await eventually(lambda: hub.node.serving.runner.active())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: hub.node.serving.runner.active() == [])


async def test_ping_once_tells_round_trip_hops_and_work(mesh):
    pong = await mesh.ping_once("hub")
    assert (pong.node, pong.hops, pong.active_work) == ("hub", 1, ())
    assert pong.rtt > 0
    assert (await mesh.ping_once("ctl")).hops == 0


async def test_the_example_of_the_design_works_on_three_nodes():
    async with Mesh.chain("node-a", "node-c", "node-b") as nodes:
        mesh = nodes["node-a"]
        answer = await mesh.request("node-b", "echo:echo", b"hello")
        assert answer.readall() == b"hello"
        async with mesh.stream("node-b", "echo:echo", b"hi") as replies:
            assert [reply.payload.readall() async for reply in replies] == [b"hi"]
        assert (await mesh.ping_once("node-b")).hops == 2


async def test_a_directive_of_one_s_own_is_a_decorated_function_or_registered(mesh, hub):
    @zmesh.directive
    async def upper(work):
        return work.payload.text().upper()

    def lower(work):
        return work.payload.text().lower()

    hub.register("text:upper", upper)
    hub.register("text:lower", lower)
    assert (await mesh.request("hub", "text:upper", "Mixed")).text() == "MIXED"
    assert (await mesh.request("hub", "text:lower", "Mixed")).text() == "mixed"


async def test_replies_that_nobody_handles_can_be_received(mesh):
    message_id = await mesh.send("x", "hub", "echo:echo")
    first = await mesh.recv()
    assert (first.header["in_response_to"], first.payload.readall()) == (message_id, b"x")
    assert (await mesh.recv()).header["eof"]


async def test_several_controllers_live_in_one_loop():
    async with Mesh.star("hub", "a", "b", "c") as mesh:
        answers = await asyncio.gather(
            *(mesh[one].request(other, "echo:echo", one + other) for one in "abc" for other in "abc")
        )
        assert [answer.text() for answer in answers] == [one + other for one in "abc" for other in "abc"]
