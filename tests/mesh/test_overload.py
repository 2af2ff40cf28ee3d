"""What may wait at a node is bounded, in bytes and in messages, from whichever thread they come."""

import asyncio
import threading
import tracemalloc

import pytest

import zmesh
from zmesh.requests.admission import OVERHEAD
from zmesh.testing import Mesh, eventually

LIMIT = 1 << 20
MESSAGES = -(-LIMIT // OVERHEAD)


@pytest.fixture
async def mesh():
    async with Mesh("a", max_waiting_bytes=LIMIT, route_timeout=60) as alone:
        yield alone


def fill(node, payload=b""):
    """Send to nobody until no more is taken; how many were."""
    count = 0
    with pytest.raises(zmesh.Overloaded) as raised:
        while True:
            node.send(payload, "nobody", "echo:echo", expect_response=False)
            count += 1
    assert raised.value.node == "a"
    assert len(raised.value.message_id) == 32
    assert f"max_waiting_bytes is {LIMIT}; wait for replies before sending more, or set it higher" in str(raised.value)
    return count


async def test_what_waits_for_a_route_is_bounded_in_bytes(mesh):
    assert fill(mesh["a"], bytes(100_000)) == 11
    with pytest.raises(zmesh.Overloaded):
        await mesh["a"].request("nobody", "echo:echo")


async def test_what_waits_for_an_acknowledgement_is_bounded_as_well(mesh):
    """A link that takes all of it at once is no reason to forget it: it is kept to be sent again."""
    await mesh.add("b", "a")
    await mesh.settle()
    node = mesh["a"]
    with pytest.raises(zmesh.Overloaded):
        for _ in range(20):
            node.send(bytes(60_000), "b", "echo:echo", expect_response=False)
    assert node.node.engine.waiting_bytes >= 17 * 60_000
    await eventually(lambda: not node.node.engine.waiting_bytes)
    assert len(await node.request("b", "echo:echo", bytes(60_000))) == 60_000


async def test_messages_without_payload_do_not_wait_for_free(mesh):
    assert fill(mesh["a"]) == MESSAGES


async def test_there_is_room_again_when_what_waits_has_gone_out(mesh):
    count = fill(mesh["a"])
    await mesh.add("nobody", "a")
    await eventually(lambda: not mesh["a"].node.engine.waiting_streams)
    assert (await mesh["a"].request("nobody", "echo:echo", b"now")).text() == "now"
    assert count


async def test_there_is_room_again_when_what_waits_is_given_up(mesh):
    requests = [mesh["a"].stream("nobody", "echo:echo").send() for _ in range(MESSAGES)]
    with pytest.raises(zmesh.Overloaded):
        await mesh["a"].request("nobody", "echo:echo")
    for request in requests:
        request.cancel()
    assert (await mesh["a"].request("a", "echo:echo", b"x")).text() == "x"


async def test_requests_that_have_arrived_do_not_count(mesh):
    await mesh.add("b", "a")
    await mesh.settle()
    gate = asyncio.Event()

    async def waits(work):
        await gate.wait()

    mesh["b"].register("b:waits", waits)
    requests = [mesh["a"].stream("b", "b:waits").send() for _ in range(2 * MESSAGES)]
    gate.set()
    assert await asyncio.gather(*(request.only_payload() for request in requests)) == [None] * len(requests)


async def test_other_threads_get_the_error_at_once_also_before_the_loop_has_seen_what_they_sent(mesh):
    """The loop stands still while the thread sends, so that nothing of it has come to the node yet."""
    counts = []
    thread = threading.Thread(target=lambda: counts.append(fill(mesh["a"])))
    thread.start()
    thread.join()
    assert counts == [MESSAGES]
    await eventually(lambda: mesh["a"].node.engine.waiting_streams == MESSAGES)
    assert mesh["a"].node.admission._reserved_bytes == 0


async def test_many_threads_together_get_no_more_in_than_one(mesh):
    counts = []
    threads = [threading.Thread(target=lambda: counts.append(fill(mesh["a"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == MESSAGES


async def test_a_refused_payload_is_closed(mesh, tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"x")
    fill(mesh["a"])
    with pytest.raises(zmesh.Overloaded):  # and no ResourceWarning, which would be an error
        await mesh["a"].request("nobody", "echo:echo", path)


async def test_what_another_thread_sent_before_the_node_closed_ends(mesh):
    replies = []
    done = threading.Event()

    def handler(message):
        replies.append(message.header)
        done.set()

    def send_and_wait():
        mesh["a"].send(b"", "nobody", "echo:echo", handler)

    thread = threading.Thread(target=send_and_wait)
    thread.start()
    thread.join()
    node = mesh["a"]
    await mesh.remove("a")
    assert [header["reason"] for header in replies] == ["cancelled"]
    assert "'a'" in replies[0]["error"]
    with pytest.raises(zmesh.Closed, match="node 'a' is closed; open another Controller"):
        await asyncio.to_thread(node.send, b"", "nobody", "echo:echo")


async def test_a_message_that_waits_needs_about_as_much_memory_as_is_counted_for_it(mesh):
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        requests = [mesh["a"].stream("nobody", "echo:echo").send() for _ in range(MESSAGES)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.5 * OVERHEAD < (after - before) / len(requests) < 2 * OVERHEAD
