"""Plain directives that wait for the mesh, with fewer threads than there are of them."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

import zmesh
import zmesh.sync
from tests.waiting import WITHIN
from zmesh.testing import Mesh


@pytest.fixture
def node():
    """A node with one worker thread, in a thread of its own."""
    controller = zmesh.sync.Controller(zmesh.Config(node_id="a", max_workers=1, max_work=40))
    with ThreadPoolExecutor(40) as threads:
        threads.submit(controller.open).result(WITHIN)
        yield controller, threads
        threads.submit(controller.close).result(WITHIN)


async def within_a_thread(threads, call):
    return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(threads, call), WITHIN)


async def test_a_plain_directive_can_ask_its_own_node(node):
    mesh, threads = node

    def outer(work):
        return mesh.request("a", "t:inner", work.payload.readall(), timeout=WITHIN).readall()

    await within_a_thread(threads, lambda: mesh.register("t:inner", lambda work: work.payload.readall()[::-1]))
    await within_a_thread(threads, lambda: mesh.register("t:outer", outer))
    payload = await within_a_thread(threads, lambda: mesh.request("a", "t:outer", b"abc", timeout=WITHIN))
    assert payload.text() == "cba"


async def test_so_can_many_at_once_and_many_levels_of_them(node):
    mesh, threads = node

    def nest(work):
        depth = int(work.payload.text())
        return mesh.request("a", "t:nest", str(depth - 1), timeout=WITHIN).text() if depth else "bottom"

    await within_a_thread(threads, lambda: mesh.register("t:nest", nest))

    def ask():
        return mesh.request("a", "t:nest", b"3", timeout=WITHIN).text()

    assert await asyncio.gather(*(within_a_thread(threads, ask) for _ in range(8))) == ["bottom"] * 8


async def test_endless_nesting_ends_at_the_limit_of_work(node):
    mesh, threads = node
    await within_a_thread(threads, lambda: mesh.register("t:self", lambda work: mesh.request("a", "t:self").text()))
    with pytest.raises(zmesh.errors.NodeOverloaded):
        await within_a_thread(threads, lambda: mesh.request("a", "t:self", timeout=WITHIN))


async def test_two_nodes_whose_directives_ask_each_other_do_not_wait_for_ever(node):
    mesh, threads = node
    with ThreadPoolExecutor(2) as others:
        async with Mesh("b", tcp=True, max_workers=1) as other:
            await within_a_thread(threads, lambda: mesh.add_peer(other["b"].listening[0]))
            await other["b"].wait_for("a", timeout=WITHIN)
            await within_a_thread(threads, lambda: mesh.wait_for("b", WITHIN))
            second = zmesh.sync.Controller(
                zmesh.Config(node_id="c", max_workers=1, peers=other["b"].listening, listen=[])
            )
            await within_a_thread(others, second.open)
            await within_a_thread(
                others,
                lambda: second.register("t:back", lambda work: second.request("a", "t:end", timeout=WITHIN).text()),
            )
            await within_a_thread(threads, lambda: mesh.register("t:end", lambda work: b"end"))
            await within_a_thread(
                threads,
                lambda: mesh.register("t:go", lambda work: mesh.request("c", "t:back", timeout=WITHIN).text()),
            )
            await other["b"].wait_for("c", timeout=WITHIN)
            await within_a_thread(threads, lambda: mesh.wait_for("c", WITHIN))
            assert (await other["b"].request("a", "t:go", timeout=WITHIN)).text() == "end"
            await within_a_thread(others, second.close)


async def test_a_thread_that_waits_for_its_payload_or_for_room_leaves_its_place_to_others():
    """The payload of one directive, and the reading of its replies, wait for another directive of the same node."""
    async with Mesh.chain("client", "server", max_workers=1) as mesh:
        client, server = mesh["client"], mesh["server"]
        server.register("t:plain", lambda work: b"plain")
        server.register("t:join", lambda work: b"".join(work.payload), stream=True)

        def flood(work):
            for _ in range(100):
                yield b"x" * 100_000

        server.register("t:flood", flood)

        async def pieces():
            yield b"first "
            await asyncio.sleep(0.05)
            yield (await client.request("server", "t:plain", timeout=WITHIN)).readall()

        assert (await client.request("server", "t:join", pieces(), timeout=WITHIN)).text() == "first plain"
        count = 0
        async for _ in client.stream("server", "t:flood", timeout=2 * WITHIN).send():
            count += 1
            if count == 1:
                assert (await client.request("server", "t:plain", timeout=WITHIN)).text() == "plain"
        assert count == 100
