"""The guide, fourth part: what a controller knows of the mesh, and pings."""

import asyncio
import json
import time

import pytest

import zmesh as receptor
from zmesh.testing import Mesh, eventually

BUILT_IN = {"digest:sha256", "echo:echo", "echo:stream", "http:execute", "sleep:execute"}


@pytest.fixture
async def chain():
    async with Mesh.chain("ctl", "hub", "edge") as mesh:
        yield mesh


# --- nodes, edges, capabilities -------------------------------------------------------------------------------------


def test_a_controller_can_be_asked_about_the_mesh_once_it_runs(depot):
    controller = receptor.Controller(receptor.ReceptorConfig(node_id="ctl"))
    controller.add_peer(depot.url)

    async def main():
        router = controller.receptor.router
        await eventually(lambda: len(router.node_capabilities()) == 2 and router.get_edges())
        return router.get_nodes(), router.get_edges(), router.node_capabilities()

    nodes, edges, capabilities = controller.run(main)
    assert list(nodes) == ["ctl", "depot"]
    assert [edge[:2] for edge in edges] == [("ctl", "depot")]
    assert set(capabilities["depot"]) >= BUILT_IN | {"depot:store", "depot:count"}


def test_a_controller_alone_knows_itself():
    controller = receptor.Controller(receptor.ReceptorConfig(node_id="ctl"))

    async def main():
        router = controller.receptor.router
        return router.get_nodes(), router.get_edges(), list(router.node_capabilities())

    assert controller.run(main) == (["ctl"], [], ["ctl"])


async def test_the_whole_mesh_is_known_not_only_the_neighbours(chain):
    for controller in chain.controllers.values():
        router = controller.receptor.router
        assert set(router.get_nodes()) == {"ctl", "hub", "edge"}
        await eventually(lambda router=router: len(router.get_edges()) == 2)
        assert {edge[:2] for edge in router.get_edges()} == {("ctl", "hub"), ("edge", "hub")}
        assert all(edge[2] > 0 for edge in router.get_edges())
        assert set(router.node_capabilities()) == {"ctl", "hub", "edge"}
    assert chain["ctl"].receptor is chain["ctl"].node
    assert chain["ctl"].receptor.router is chain["ctl"].node.router


async def test_a_new_capability_is_known_everywhere(chain):
    async def weigh(work):
        return len(work.payload)

    chain["edge"].register("scales:weigh", weigh)
    router = chain["ctl"].receptor.router
    await eventually(lambda: "scales:weigh" in router.node_capabilities()["edge"])
    assert "scales:weigh" not in router.node_capabilities()["hub"]


async def test_nodes_that_leave_are_known_no_more(chain):
    await chain.remove("edge")
    router = chain["ctl"].receptor.router
    await eventually(lambda: router.get_nodes() == ["ctl", "hub"])
    await eventually(lambda: set(router.node_capabilities()) == {"ctl", "hub"})
    await eventually(lambda: [edge[:2] for edge in router.get_edges()] == [("ctl", "hub")])


async def test_routes_tell_the_way(chain):
    router = chain["ctl"].receptor.router
    assert router.next_hop("edge") == "hub"
    assert router.next_hop("ctl") is None
    assert router.next_hop("nobody") is None
    assert [(route.destination, route.next_hop, route.hops) for route in router.routes()] == [
        ("edge", "hub", 2),
        ("hub", "hub", 1),
    ]


# --- pings ----------------------------------------------------------------------------------------------------------


async def ping(controller, node):
    """The JSON of a ping's reply, as a handler of the guide reads it."""
    answers = []

    def handle_ping_response(message):
        answers.append(message.payload.readall().decode())

    message_id = await controller.ping(node, response_handler=handle_ping_response)
    assert len(message_id) == 32
    await eventually(lambda: len(answers) == 2)
    assert answers[1] == ""
    return json.loads(answers[0])


async def test_a_ping_tells_when_it_was_sent_and_answered_and_what_runs_there(chain):
    before = time.time()
    answer = await ping(chain["ctl"], "edge")
    assert set(answer) == {"initial_time", "response_time", "active_work"}
    initial, response = answer["initial_time"], answer["response_time"]
    assert set(initial) == set(response) == {"_type", "value"}
    assert initial["_type"] == response["_type"] == "datetime.datetime"
    assert before <= initial["value"] <= response["value"] <= time.time()
    assert answer["active_work"] == []


async def test_a_ping_lists_the_work_that_runs_while_it_runs(chain):
    ends = []
    first = await chain["ctl"].send("3600", "edge", "sleep:execute", response_handler=ends.append)
    second = await chain["hub"].send("3600", "edge", "sleep:execute", response_handler=ends.append)
    work = []
    while len(work) < 2:
        work = (await ping(chain["ctl"], "edge"))["active_work"]
    expected = [
        {"id": int(first, 16), "message_id": first, "directive": "sleep:execute", "sender": "ctl"},
        {"id": int(second, 16), "message_id": second, "directive": "sleep:execute", "sender": "hub"},
    ]
    assert sorted(work, key=lambda each: each["sender"]) == expected
    assert (await ping(chain["ctl"], "hub"))["active_work"] == []
    chain["ctl"].cancel(first)
    chain["hub"].cancel(second)
    await eventually(lambda: len(ends) == 2)
    assert (await ping(chain["ctl"], "edge"))["active_work"] == []


def test_a_ping_may_be_sent_without_awaiting_it_and_run_waits_for_the_answer(depot):
    controller = receptor.Controller(receptor.ReceptorConfig())
    controller.add_peer(depot.url)
    answers = []

    async def main():
        controller.ping("depot", response_handler=lambda message: answers.append(message.payload.readall()))

    controller.run(main)
    assert set(json.loads(answers[0])) == {"initial_time", "response_time", "active_work"}
    assert answers[1:] == [b""]


async def test_a_node_answers_its_own_ping(chain):
    assert (await ping(chain["ctl"], "ctl"))["active_work"] == []


async def test_a_ping_has_a_timeout(chain):
    ends = []
    chain["ctl"].ping("nobody", response_handler=ends.append, timeout=0.1)
    await eventually(lambda: ends)
    assert ends[0].header["reason"] == "timed_out"
    assert ends[0].header["code"] == 1


async def test_ping_once_gives_a_time_and_the_way(chain):
    sleeping = chain["ctl"].stream("edge", "sleep:execute", "3600").send()
    pong = await chain["ctl"].ping_once("edge")
    while not pong.active_work:
        pong = await chain["ctl"].ping_once("edge")
    assert (pong.node, pong.hops) == ("edge", 2)
    assert pong.rtt > 0
    assert pong.active_work[0].id == int(sleeping.message_id, 16)
    sleeping.cancel()
    with pytest.raises(receptor.Cancelled):
        await sleeping.only_payload()
    with pytest.raises(receptor.TimedOut):
        await asyncio.wait_for(chain["ctl"].ping_once("nobody", timeout=0.1), 60)
