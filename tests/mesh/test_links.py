"""Links between real nodes: how they come up, are lost, dialled again, refused, and left with a goodbye."""

import asyncio

import pytest

import zmesh
from zmesh.core.neighbours.links import MAX_RTT_PENALTY
from zmesh.testing import Mesh, eventually

HEARTBEAT = 0.25  # a machine so busy that it stops for three of these loses a link
SILENCE = 3 * HEARTBEAT


def events(reports, *names):
    return [(report.event, report.node) for report in reports if report.event in names]


def texts(reports, name):
    return [report.detail for report in reports if report.event == name]


@pytest.fixture
async def pair(reports, wire):
    """The nodes `a` and `b`; b dials a over a wire. Each has `.reports`, b has `.wire`."""
    async with Mesh("a", tcp=True, heartbeat=HEARTBEAT) as mesh:
        line = await wire(mesh["a"].listening[0])
        await mesh.add("b")
        for name in "ab":
            setattr(mesh, name, mesh[name])
            mesh[name].reports = reports(mesh[name].node)
        mesh.line = line
        mesh["b"].add_peer(line.url)
        await mesh.settle()
        yield mesh


# --- up, lost, dialled again ----------------------------------------------------------------------------------------


async def test_a_link_that_comes_up_is_reported_at_both_ends(pair):
    assert events(pair.a.reports, "link_up") == [("link_up", "b")]
    assert events(pair.b.reports, "link_up") == [("link_up", "a")]
    assert events(pair.a.reports, "node_joined") == [("node_joined", "b")]


async def test_a_connection_that_breaks_is_lost_at_once_and_dialled_again(pair):
    for round in range(1, 6):
        pair.line.cut()
        await eventually(lambda round=round: len(events(pair.a.reports, "link_lost")) == round)
        await eventually(lambda round=round: len(events(pair.b.reports, "link_lost")) == round)
        await pair.settle()
        assert (await pair.a.request("b", "echo:echo", str(round))).text() == str(round)
    assert "the connection was closed" in texts(pair.b.reports, "link_lost")[0]


async def test_a_broken_connection_is_noticed_without_waiting_for_silence(reports, wire):
    async with Mesh("a", "b", tcp=True, heartbeat=60.0) as mesh:
        line = await wire(mesh["a"].listening[0])
        seen = reports(mesh["a"].node), reports(mesh["b"].node)
        mesh["b"].add_peer(line.url)
        await mesh.settle()
        line.cut()
        for each in seen:
            await eventually(lambda each=each: events(each, "link_lost"), timeout=60)
        await mesh.settle()


async def test_a_neighbour_that_falls_silent_is_lost_after_three_heartbeats_and_not_before(pair):
    loop = asyncio.get_running_loop()
    pair.line.freeze()
    started = loop.time()
    for node in (pair.a, pair.b):
        await eventually(lambda node=node: events(node.reports, "link_lost"), timeout=60)
    assert loop.time() - started >= SILENCE - HEARTBEAT
    assert "silent for " in texts(pair.a.reports, "link_lost")[0]
    assert pair.a.receptor.router.get_nodes() == ["a"]
    pair.line.thaw()
    await pair.settle()


async def test_a_link_lives_as_long_as_anything_passes(pair):
    """Twenty heartbeats of traffic, or of nothing but probes, and no link is lost."""
    for _ in range(20):
        await pair.a.ping_once("b")
        passed = pair.line.passed
        await eventually(lambda passed=passed: pair.line.passed > passed)
    assert events(pair.a.reports, "link_lost") == []
    assert events(pair.b.reports, "link_lost") == []


async def test_a_redialled_connection_is_a_new_link_and_nothing_of_the_old_one_is_kept(pair):
    for round in range(1, 11):
        pair.line.cut()
        await eventually(lambda round=round: len(events(pair.a.reports, "link_lost")) == round)
        await pair.settle()
    numbers = [report.link for report in pair.a.reports if report.event == "link_up"]
    assert len(set(numbers)) == 11
    for node in (pair.a, pair.b):
        assert len(node.node.engine.neighbours) == 1
        assert len(node.node._transport.links) == 1


async def test_a_request_survives_a_link_that_breaks_while_it_is_under_way(pair):
    request = pair.a.stream("b", "sleep:execute", "0.3").send()
    await eventually(lambda: pair.b.node.serving.runner.active())
    pair.line.cut()
    assert (await request.only_payload()).json() == {"seconds": 0.3}


async def test_a_transfer_survives_a_link_that_breaks_again_and_again(pair):
    payload = bytes(range(256)) * 40_000
    request = pair.b.stream("a", "echo:echo", payload).send()
    for round in range(1, 6):
        await eventually(lambda round=round: pair.line.passed > round * 2_000_000 or request.ended)
        pair.line.cut()
    assert (await request.only_payload()).readall() == payload


async def test_two_links_to_one_neighbour_stand_by_for_each_other(pair, wire):
    second = await wire(pair.a.listening[0])
    pair.b.add_peer(f"{second.url}?cost=300")
    await eventually(lambda: len(events(pair.a.reports, "link_up")) == 2)
    pair.line.freeze()
    assert (await pair.b.request("a", "echo:echo", "over the other one", timeout=60)).text() == "over the other one"
    assert not events(pair.b.reports, "node_left")


async def test_the_next_hop_s_loss_moves_a_transfer_to_another_path():
    payload = bytes(range(256)) * 40_000
    async with Mesh.ring("a", "b", "c", "d", tcp=True, heartbeat=HEARTBEAT) as mesh:
        received = 0

        async def swallow(work):
            nonlocal received
            async for chunk in work.payload:
                received += len(chunk)
            return received

        mesh["c"].register("c:swallow", swallow, stream=True)
        hop = mesh["a"].node.router.next_hop("c")
        request = mesh["a"].stream("c", "c:swallow", payload).send()
        await eventually(lambda: received > 1_000_000)
        await mesh.remove(hop)
        assert (await request.only_payload()).json() == len(payload)
        await eventually(lambda: mesh["a"].node.router.next_hop("c") == ({"b", "d"} - {hop}).pop())


# --- goodbye --------------------------------------------------------------------------------------------------------


async def test_a_goodbye_retracts_the_routes_through_the_leaver_at_once(reports):
    """At once: with a heartbeat of a minute, silence would take three."""
    async with Mesh.chain("a", "b", "c", "d", tcp=True, heartbeat=60.0) as mesh:
        seen = reports(mesh["b"].node)
        await mesh.remove("c")
        for name, rest in (("a", ["a", "b"]), ("d", ["d"])):
            await eventually(lambda name=name, rest=rest: mesh[name].node.router.get_nodes() == rest)
        assert texts(seen, "link_lost") == ["they left: leaving"]
        assert set(events(seen, "node_left")) == {("node_left", "c"), ("node_left", "d")}
        assert mesh["a"].node.router.next_hop("d") is None


async def test_a_node_that_left_can_come_back_under_its_name():
    async with Mesh.chain("a", "b", tcp=True, heartbeat=60.0) as mesh:
        for _ in range(5):
            await mesh.remove("b")
            await mesh.add("b", "a")
            await mesh.settle(timeout=60)
            assert (await mesh["a"].request("b", "echo:echo", "still b")).text() == "still b"


# --- names ----------------------------------------------------------------------------------------------------------


async def test_a_second_node_of_the_same_name_is_refused_and_both_sides_say_why(reports):
    async with Mesh.chain("hub", "twin", tcp=True, heartbeat=HEARTBEAT) as mesh:
        hub = reports(mesh["hub"].node)
        twin = mesh["twin"]
        impostor = zmesh.Controller(zmesh.Config(node_id="twin", heartbeat=HEARTBEAT))
        seen = reports(impostor.node)
        async with impostor:
            impostor.add_peer(mesh["hub"].listening[0])
            await eventually(lambda: texts(seen, "link_refused"))
            text = "another node called 'twin' is alive in the mesh, linked to hub"
            assert f"we refuse: {text}" in texts(hub, "link_refused")
            assert texts(seen, "link_refused") == [f"they refuse: {text}"]
            assert events(hub, "duplicate_id") == [("duplicate_id", "twin")]
            assert texts(seen, "duplicate_id") == [f"they refuse: {text}"]
            await mesh["hub"].request("twin", "echo:echo", "who is it?")
            assert impostor.receptor.router.get_nodes() == ["twin"]
        assert twin.node.telemetry.counts["link_lost"] == 0


async def test_a_second_node_of_the_same_name_elsewhere_in_the_mesh_is_refused_too(reports):
    async with Mesh.chain("twin", "b", "c", tcp=True, heartbeat=HEARTBEAT) as mesh:
        impostor = zmesh.Controller(zmesh.Config(node_id="twin", heartbeat=HEARTBEAT))
        seen = reports(impostor.node)
        async with impostor:
            impostor.add_peer(mesh["c"].listening[0])
            await eventually(lambda: texts(seen, "link_refused"))
            for _ in range(20):
                assert (await mesh["c"].ping_once("twin")).hops == 2
        assert (
            texts(seen, "link_refused")[0]
            == "they refuse: another node called 'twin' is alive in the mesh, linked to b"
        )


async def test_replies_never_go_to_a_node_of_the_same_name(reports):
    heartbeat = 0.4  # a machine that stands still for three of them makes the impostor the one that is alive
    async with Mesh.chain("hub", "twin", tcp=True, heartbeat=heartbeat) as mesh:
        impostor = zmesh.Controller(zmesh.Config(node_id="twin", heartbeat=heartbeat))
        refused = reports(impostor.node)
        taken = []
        async with impostor:
            impostor.add_peer(mesh["hub"].listening[0])
            theirs = await impostor.send("stolen", "hub", "echo:echo", taken.append, timeout=12 * heartbeat)
            while not texts(refused, "link_refused"):
                assert (await mesh["twin"].request("hub", "echo:echo", "mine")).text() == "mine"
            await eventually(lambda: taken)
        assert [(reply.header["in_response_to"], reply.header["reason"]) for reply in taken] == [(theirs, "timed_out")]


async def test_a_node_is_refused_by_one_that_has_its_very_name(reports):
    async with Mesh("same", tcp=True, heartbeat=HEARTBEAT) as mesh:
        here = reports(mesh["same"].node)
        other = zmesh.Controller(zmesh.Config(node_id="same", peers=mesh["same"].listening))
        there = reports(other.node)
        async with other:
            await eventually(lambda: texts(there, "link_refused"))
        assert "the id 'same' is taken by the node at this end (another node)" in texts(there, "link_refused")[0]
        assert texts(here, "link_refused")[0].startswith("we refuse: the id 'same' is taken")


async def test_a_node_that_dials_itself_is_reported(reports):
    async with Mesh("self", tcp=True) as mesh:
        seen = reports(mesh["self"].node)
        mesh["self"].add_peer(mesh["self"].listening[0])
        await eventually(lambda: texts(seen, "link_refused"))
        assert "this node itself" in texts(seen, "link_refused")[0]
        assert (await mesh["self"].request("self", "echo:echo", "me")).text() == "me"


async def test_the_log_tells_of_a_refusal_at_both_ends(caplog):
    async with Mesh("same", tcp=True) as mesh:
        async with zmesh.Controller(zmesh.Config(node_id="same", peers=mesh["same"].listening)):
            await eventually(lambda: len([r for r in caplog.records if "same: refused" in r.getMessage()]) >= 2)
    lines = [record.getMessage() for record in caplog.records]
    assert any(text.startswith("same: refused a node from 127.0.0.1: the id 'same' is taken") for text in lines)
    assert any(text.startswith("same: refused by the node at tcp://127.0.0.1:") for text in lines)


# --- restarts -------------------------------------------------------------------------------------------------------


async def test_a_node_that_was_killed_and_started_again_takes_its_old_place(process, reports):
    async with Mesh("hub", tcp=True, heartbeat=HEARTBEAT) as mesh:
        hub = mesh["hub"]
        seen = reports(hub.node)
        for _ in range(3):
            before = len(events(seen, "link_up"))
            worker = await process("worker", peers=hub.listening, heartbeat=HEARTBEAT)
            await eventually(lambda before=before: len(events(seen, "link_up")) > before)
            assert (await hub.request("worker", "echo:echo", "up")).text() == "up"
            worker.kill()
        await eventually(lambda: hub.node.router.get_nodes() == ["hub"])


async def test_a_request_to_a_node_that_restarts_ends_at_once_with_that(process):
    async with Mesh("hub", tcp=True, heartbeat=HEARTBEAT, route_timeout=600.0) as mesh:
        hub = mesh["hub"]
        worker = await process("worker", peers=hub.listening, heartbeat=HEARTBEAT)
        request = hub.stream("worker", "sleep:execute", "3600").send()
        await eventually(lambda: "worker" in hub.node.router.get_nodes())
        while not (await hub.ping_once("worker")).active_work:
            pass
        worker.kill()
        await process("worker", peers=hub.listening, heartbeat=HEARTBEAT)
        with pytest.raises(zmesh.NodeRestarted, match="node 'worker' has restarted and lost the request"):
            await asyncio.wait_for(request.only_payload(), 60)


async def test_a_new_incarnation_waits_until_the_old_one_is_silent(reports, wire):
    """The old self is cut off without anybody noticing; the new one is held, and let in after that silence.

    It must be there before that, on a busy machine too.
    """
    heartbeat = 1.0
    async with Mesh("hub", tcp=True, heartbeat=heartbeat) as mesh:
        line = await wire(mesh["hub"].listening[0])
        seen = reports(mesh["hub"].node)
        old = zmesh.Controller(zmesh.Config(node_id="worker", heartbeat=heartbeat, peers=[line.url]))
        await old.open()
        await eventually(lambda: events(seen, "link_up"))
        new = zmesh.Controller(zmesh.Config(node_id="worker", heartbeat=heartbeat))
        async with new:
            line.freeze()
            new.add_peer(mesh["hub"].listening[0])
            await eventually(lambda: events(seen, "link_quarantined"))
            assert len(events(seen, "link_up")) == 1
            await eventually(lambda: len(events(seen, "link_up")) == 2, timeout=60)
            assert (await mesh["hub"].request("worker", "echo:echo", "new")).text() == "new"
            assert not texts(seen, "link_refused")
        await old.close()


# --- oneself --------------------------------------------------------------------------------------------------------


async def test_a_node_reaches_itself_with_and_without_a_mesh():
    async with Mesh("alone") as mesh:
        assert (await mesh["alone"].request("alone", "echo:echo", "hello")).text() == "hello"
        assert (await mesh["alone"].ping_once("alone")).hops == 0
        large = bytes(10_000_000)
        assert (await mesh["alone"].request("alone", "echo:echo", large)).readall() == large
        assert [r.payload.text() async for r in mesh["alone"].stream("alone", "echo:echo", "x").send()] == ["x"]
    async with Mesh.chain("a", "b") as mesh:
        for name in "ab":
            assert (await mesh[name].request(name, "echo:echo", name)).text() == name


async def test_a_name_that_is_nearly_right_is_pointed_out():
    async with Mesh.chain("warehouse", "office", route_timeout=0.2) as mesh:
        with pytest.raises(zmesh.Unreachable) as raised:
            await mesh["office"].request("warehuose", "echo:echo", "x")
        assert "(did you mean 'warehouse'?)" in str(raised.value)


# --- addresses of every kind ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["tcp", "rnp", "ipc", "inproc"])
async def test_nodes_meet_over_every_kind_of_address(tmp_path, scheme):
    url = {
        "tcp": "tcp://127.0.0.1:*",
        "rnp": "rnp://127.0.0.1:0",
        "ipc": f"ipc://{tmp_path}/s",
        "inproc": f"inproc://{tmp_path.name}",
    }[scheme]
    async with zmesh.Controller(zmesh.Config(node_id="a", listen=[url])) as a:
        async with zmesh.Controller(zmesh.Config(node_id="b", peers=a.listening)) as b:
            assert (await b.request("a", "echo:echo", "hello")).text() == "hello"
            assert (await a.request("b", "echo:echo", "hello")).text() == "hello"


async def test_one_node_listens_on_many_addresses_and_each_leads_to_it(tmp_path):
    urls = ["tcp://127.0.0.1:*", f"ipc://{tmp_path}/s", f"inproc://{tmp_path.name}"]
    async with zmesh.Controller(zmesh.Config(node_id="hub", listen=urls)) as hub:
        assert len(hub.listening) == 3
        others = [zmesh.Controller(zmesh.Config(node_id=f"n{i}", peers=[url])) for i, url in enumerate(hub.listening)]
        for other in others:
            await other.open()
        answers = [await others[0].request(other.node_id, "echo:echo", other.node_id) for other in others]
        assert [answer.text() for answer in answers] == ["n0", "n1", "n2"]
        for other in others:
            await other.close()


async def test_a_cost_in_the_url_decides_between_two_paths():
    async with Mesh("a", "b", "c", tcp=True) as mesh:
        mesh["a"].add_peer(f"{mesh['c'].listening[0]}?cost=500")
        mesh["a"].add_peer(mesh["b"].listening[0])
        mesh["b"].add_peer(mesh["c"].listening[0])
        await mesh.settle()
        await eventually(lambda: mesh["a"].node.router.next_hop("c") == "b")
        await mesh.remove("b")
        await eventually(lambda: mesh["a"].node.router.next_hop("c") == "c")


async def test_a_node_that_offers_so_much_that_its_record_fills_frames_is_known_with_all_of_it():
    names = [f"wide:{number:03d}-{'x' * 140}" for number in range(200)]
    async with Mesh("a", "b", "c", tcp=True) as mesh:
        for name in names:
            mesh["a"].register(name, lambda work: b"")
        await mesh.connect("b", "a")
        await mesh.connect("c", "b")
        await eventually(lambda: set(names) <= set(mesh["c"].node.router.node_capabilities().get("a", ())))
        assert not [count for count in mesh["c"].node.telemetry.counts if count.startswith("frame_dropped")]


async def test_a_cost_in_the_configuration_counts_as_one_in_a_call_does(tmp_path):
    async with Mesh("hub", tcp=True) as mesh:
        file = tmp_path / "edge.toml"
        file.write_text(f'node_id = "edge"\npeers = ["{mesh["hub"].listening[0]}?cost=300"]\n')
        async with zmesh.Controller(zmesh.Config.load(file)) as edge:
            await edge.wait_for("hub", timeout=60)
            await mesh["hub"].wait_for("edge", timeout=60)
            assert 300 <= edge.node.router.route("hub").metric <= 300 + MAX_RTT_PENALTY
            assert 100 <= mesh["hub"].node.router.route("edge").metric <= 100 + MAX_RTT_PENALTY
            await eventually(edge.node.router.get_edges)
            assert edge.node.router.get_edges()[0][2] >= 300
