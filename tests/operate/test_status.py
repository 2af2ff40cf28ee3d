"""The state of a node, asked over the mesh."""

import asyncio
import contextlib

import pytest

import zmesh
import zmesh.sync
from zmesh.core.limits import DEFAULT_LIMITS, Rate
from zmesh.errors import NodeOverloaded, NotAllowed, RemoteError, UnknownDirective, Unreachable
from zmesh.operate.directives import STATUS
from zmesh.operate.warnings import SLOW_RTT
from zmesh.testing import Mesh

WITHIN = 60.0


async def test_a_node_shows_itself_over_any_number_of_hops(eventually):
    async with Mesh.chain("a", "b", "c", tcp=True, tags=["gpu"]) as mesh:
        # a link whose first round trip was slow, as on a busy machine, is a warning until others were faster
        await eventually(lambda: all(link.rtt < SLOW_RTT for link in mesh["c"].node.engine.links()))
        status = await mesh["a"].status("c", timeout=WITHIN)
        assert (status.node, status.version, status.nodes, status.leaves) == ("c", zmesh.__version__, 3, 0)
        assert (status.own_tags, status.identity, status.warnings, status.duplicates) == (("gpu",), None, (), ())
        assert status.incarnation == f"{mesh['c'].node.engine.incarnation:016x}"
        assert list(status.listening) == mesh["c"].listening
        (link,) = status.links
        assert (link.node, link.where, link.dialled, link.state) == ("b", mesh["b"].listening[0], True, "up")
        assert link.rtt is not None
        assert link.cost is not None
        assert min(link.bytes_in, link.bytes_out, link.messages_in, link.messages_out, link.rtt) > 0
        assert (status.bytes_in, status.bytes_out) == (link.bytes_in, link.bytes_out)
        assert abs(status.skew) < WITHIN
        other = await mesh["c"].status("b", timeout=WITHIN)
        assert [(each.node, each.dialled) for each in other.links] == [("a", True), ("c", False)]
        own = await mesh["b"].status()
        assert own.node == "b"


async def test_a_peer_that_does_not_answer_is_a_link_that_is_down_with_its_reason(eventually):
    async with Mesh("a", tcp=True) as mesh:
        mesh["a"].add_peer("tcp://127.0.0.1:1")
        await eventually(lambda: "refused" in str(mesh["a"].node.transport.dials()))
        status = await mesh["a"].status()
        (link,) = status.links
        assert (link.node, link.where, link.dialled, link.state) == ("", "tcp://127.0.0.1:1", True, "down")
        assert link.reason == "connection refused"
        assert [warning.code for warning in status.warnings] == ["link_down"]


async def test_a_neighbour_that_was_killed_is_down_and_one_that_left_is_not_missed(eventually):
    async with Mesh.star("hub", "quiet", "gone", tcp=True) as mesh:
        hub = mesh["hub"]
        mesh["quiet"].node.close_now()  # no goodbye comes of a socket that is closed at once by force
        await mesh.remove("gone")
        await eventually(lambda: len(hub.node.engine.links()) == 0)
        status = await hub.status()
        assert [link.state for link in status.links] in ([], ["down"])
        falls = {node: hub.node.observation.history.falls(node)[0].reason for node in ("quiet", "gone")}
        assert falls["gone"] == "they left: leaving"
        mesh.controllers.pop("quiet")


async def test_running_work_is_counted_by_directive_and_built_in_directives_are_not(eventually):
    async with Mesh.chain("a", "b") as mesh:
        release = asyncio.Event()

        async def waits(work):
            await release.wait()

        mesh["b"].register("text:waits", waits)
        requests = [mesh["a"].stream("b", "text:waits").send() for _ in range(3)]
        await eventually(lambda: len(mesh["b"].node.serving.runner) == 3)
        for _ in range(2):
            status = await mesh["a"].status("b", timeout=WITHIN)
        assert (status.work.running, status.work.served, dict(status.work.directives)) == (3, 3, {"text:waits": 3})
        assert (await mesh["a"].status()).work.requested >= 3
        release.set()
        for request in requests:
            await request.only_payload()


async def test_a_member_that_may_not_is_refused_and_one_that_is_not_there_is_unreachable():
    async with Mesh.chain("a", "b", allow={"zmesh:status": ["b"]}) as mesh:
        with pytest.raises(NotAllowed, match=r"node 'b' does not let 'a' call zmesh:status .*\[allow\]"):
            await mesh["a"].status("b", timeout=WITHIN)
        assert (await mesh["b"].status("a", timeout=WITHIN)).node == "a"
        with pytest.raises(Unreachable, match="c"):
            await mesh["a"].status("c", timeout=WITHIN, route_timeout=0.01)


async def test_an_older_node_and_one_that_answers_nonsense_are_distinguished():
    async with Mesh.chain("a", "b") as mesh:
        mesh["b"].node.serving.builtins.pop(STATUS)
        with pytest.raises(UnknownDirective):
            await mesh["a"].status("b", timeout=WITHIN)
        mesh["b"].register(STATUS, lambda work: {"node": 7})
        with pytest.raises(RemoteError, match="node 'b' answers zmesh:status with something else"):
            await mesh["a"].status("b", timeout=WITHIN)


async def test_a_node_shows_itself_so_often_and_no_more():
    limits = DEFAULT_LIMITS._replace(shown_rows=Rate(0.0, 3))
    async with Mesh.chain("a", "b", limits=limits) as mesh:
        for _ in range(3):
            await mesh["a"].status("b", timeout=WITHIN)
        with pytest.raises(NodeOverloaded, match="node 'b' has shown as much as it does in a second; try again in one"):
            await mesh["a"].status("b", timeout=WITHIN)


async def test_an_ephemeral_node_shows_the_one_that_it_is_attached_to(eventually):
    async with Mesh("hub") as mesh:
        async with zmesh.Controller(ephemeral=True, peers=mesh["hub"].listening) as leaf:
            await eventually(lambda: leaf.node.engine.uplink)
            status = await leaf.status(timeout=WITHIN)
            assert (status.node, status.leaves, status.links) == ("hub", 1, ())


def test_without_asyncio_it_is_the_same():
    with zmesh.sync.Controller(node_id="a") as mesh:
        assert mesh.status().node == "a"


def test_a_status_that_is_not_awaited_sends_nothing():
    controller = zmesh.Controller(node_id="a")
    with contextlib.closing(controller.status()) as asked:
        assert asked.__name__ == "status"


async def test_jobs_that_run_and_wait_are_counted(tmp_path, eventually):
    jobs = {"job": {"folder": str(tmp_path), "max_running": 1}}
    async with Mesh("a", allow={"job:*": ["*"]}, plugins=jobs) as mesh:
        release = asyncio.Event()

        async def waits(work):
            await release.wait()

        mesh["a"].register("text:waits", waits)
        left = [await mesh["a"].submit("a", "text:waits") for _ in range(2)]
        await eventually(lambda: mesh["a"].node.job_counts == (1, 1))
        work = (await mesh["a"].status()).work
        assert (work.jobs_running, work.jobs_waiting) == (1, 1)
        release.set()
        for job in left:
            await job.result()
        assert mesh["a"].node.job_counts == (0, 0)
