"""What passes through real sockets: large payloads with flat memory, slow readers, many requests, cancelling."""

import asyncio
import gc
import hashlib
import time

import pytest

import zmesh
from zmesh.core.delivery.congestion import MAX_WINDOW
from zmesh.testing import Mesh, eventually

MEGABYTE = 1_000_000
LARGE = 100 * MEGABYTE
GROWTH = 64 * 1024 * 1024


# --- a hundred megabytes over two forwarders, in four processes -----------------------------------------------------

TRANSFERS = f"""
BLOCK = bytes(range(250)) * 4000

def digest():
    digest = hashlib.sha256()
    for _ in range({LARGE} // len(BLOCK)):
        digest.update(BLOCK)
    return digest.hexdigest()

async def blocks():
    for _ in range({LARGE} // len(BLOCK)):
        yield BLOCK

async def known(mesh, *nodes):
    await eventually(lambda: set(nodes) <= set(mesh.receptor.router.get_nodes()))
    return True

async def offer(mesh):
    async def produce(work):
        async for block in blocks():
            yield block
    mesh.register("receiver:produce", produce)
    return True

async def up(mesh):
    return [(await mesh.request("receiver", "digest:sha256", blocks())).text(), digest()]

async def down(mesh):
    found = hashlib.sha256()
    async with mesh.stream("receiver", "receiver:produce") as replies:
        async for reply in replies:
            found.update(reply.payload.readall())
    return [found.hexdigest(), digest()]

async def there_and_back(mesh):
    payload = await mesh.request("receiver", "echo:echo", blocks())
    found = hashlib.sha256()
    async for chunk in payload:
        found.update(chunk)
    return [found.hexdigest(), digest()]
"""


async def test_a_hundred_megabytes_cross_two_forwarders_in_four_processes_with_flat_memory(process, tmp_path):
    sender = await process("sender", more=TRANSFERS, spool_dir=str(tmp_path))
    first = await process("first", more=TRANSFERS, peers=sender.listening)
    second = await process("second", more=TRANSFERS, peers=first.listening)
    receiver = await process("receiver", more=TRANSFERS, peers=second.listening, spool_dir=str(tmp_path))
    nodes = [sender, first, second, receiver]
    for node in nodes:
        assert await node.ask("known(mesh, 'sender', 'first', 'second', 'receiver')")
    assert await receiver.ask("offer(mesh)")
    before = [node.memory("VmRSS") for node in nodes]
    for transfer in ("up", "down", "there_and_back"):
        found, expected = await asyncio.wait_for(sender.ask(f"{transfer}(mesh)"), 180.0)
        assert found == expected
        growth = [node.memory("VmHWM") - rss for node, rss in zip(nodes, before, strict=True)]
        assert max(growth) < GROWTH, f"{transfer}: {growth}"
    assert list(tmp_path.iterdir()) == []


async def test_a_large_payload_is_spooled_and_reads_like_a_file(tmp_path):
    content = hashlib.shake_128(b"seed").digest(30 * MEGABYTE)
    async with Mesh.chain("a", "b", tcp=True, spool_dir=str(tmp_path)) as mesh:
        payload = await mesh["a"].request("b", "echo:echo", content)
        assert len(payload) == len(content)
        assert payload.read(10) == content[:10]
        payload.seek(20 * MEGABYTE)
        assert payload.read(10) == content[20 * MEGABYTE :][:10]
        assert payload.readall() == content
        payload.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [10_000, 20_000, 60_000, 70_000, 300_000])
async def test_what_a_program_reads_is_bytes_whatever_size_it_came_in(size):
    kinds = set()

    async def streams(work):
        async for chunk in work.payload:
            kinds.add(type(chunk))
            yield chunk[:10]

    def reads(work):
        kinds.update(map(type, (work.payload.read(10), work.payload.readall(), work.payload.text())))
        return work.payload.read(10)

    async with Mesh.chain("a", "b", tcp=True) as mesh:
        mesh["b"].register("b:streams", streams, stream=True)
        mesh["b"].register("b:reads", reads)
        assert {len(reply.payload) async for reply in mesh["a"].stream("b", "b:streams", bytes(size)).send()} == {10}
        assert (await mesh["a"].request("b", "b:reads", bytes(size))).readall() == bytes(10)
        answer = await mesh["a"].request("b", "echo:echo", b"x" * size)
        assert (answer.read(3), answer.text()) == (b"xxx", "x" * size)
        kinds.update((type(answer.readall()), type(next(iter(answer)))))
    assert kinds == {bytes, str}


# --- slow readers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forwarders", [0, 2])
async def test_a_slow_reader_of_a_request_slows_the_writer(forwarders):
    written = read = 0
    go_on = asyncio.Event()

    async def slow(work):
        nonlocal read
        async for chunk in work.payload:
            read += len(chunk)
            await go_on.wait()
        return read

    async def fast():
        nonlocal written
        while written < 40 * MEGABYTE:
            written += 50_000
            yield bytes(50_000)

    names = ["a", *[f"f{number}" for number in range(forwarders)], "z"]
    async with Mesh.chain(*names, tcp=True) as mesh:
        mesh["z"].register("z:slow", slow, stream=True)
        request = mesh["a"].stream("z", "z:slow", fast()).send()
        await eventually(lambda: read)
        await stands_still(lambda: written)
        assert written < MAX_WINDOW + 4 * MEGABYTE
        for name in names:
            assert mesh[name].node.engine.waiting_bytes < MAX_WINDOW + 2 * MEGABYTE
        assert (await mesh["a"].ping_once("z")).node == "z", "everybody else gets through"
        go_on.set()
        assert (await request.only_payload()).json() == read == written == 40 * MEGABYTE


@pytest.mark.parametrize("directive", ["z:async", "z:thread"])
async def test_a_slow_reader_of_replies_slows_the_directive(directive):
    yielded = 0

    async def produce(work):
        nonlocal yielded
        for _ in range(400):
            yielded += 1
            yield bytes(60_000)

    def produce_in_a_thread(work):
        nonlocal yielded
        for _ in range(400):
            yielded += 1
            yield bytes(60_000)

    async with Mesh.chain("a", "b", "z", tcp=True) as mesh:
        mesh["z"].register("z:async", produce)
        mesh["z"].register("z:thread", produce_in_a_thread)
        replies = aiter(mesh["a"].stream("z", directive).send())
        assert len((await anext(replies)).payload) == 60_000
        await stands_still(lambda: yielded)
        assert yielded * 60_000 < MAX_WINDOW + 4 * MEGABYTE
        assert (await mesh["a"].ping_once("z")).node == "z"
        rest = [len(reply.payload) async for reply in replies]
        assert rest == [60_000] * 399


async def test_a_slow_async_handler_slows_the_directive():
    yielded = 0
    go_on = asyncio.Event()
    taken = []

    async def produce(work):
        nonlocal yielded
        for _ in range(400):
            yielded += 1
            yield bytes(60_000)

    async def slow(message):
        taken.append(len(message.payload))
        await go_on.wait()

    async with Mesh.chain("a", "b", "z", tcp=True) as mesh:
        mesh["z"].register("z:produce", produce)
        mesh["a"].send(b"", "z", "z:produce", slow)
        await eventually(lambda: taken)
        await stands_still(lambda: yielded)
        assert yielded * 60_000 < MAX_WINDOW + 4 * MEGABYTE
        go_on.set()
        await eventually(lambda: len(taken) == 401)
        assert taken == [60_000] * 400 + [0]


async def stands_still(value):
    """Return when the value has not changed for a good while of the loop's turns."""
    loop = asyncio.get_running_loop()
    seen, since = value(), loop.time()
    while loop.time() - since < 0.25:
        await asyncio.sleep(0.01)
        if value() != seen:
            seen, since = value(), loop.time()


async def test_a_small_message_passes_a_large_transfer():
    """One that waited for all of it would be answered once meanwhile, one that waited for a window eight times."""
    async with Mesh.chain("a", "b", "c", tcp=True) as mesh:
        transfer = mesh["a"].stream("c", "digest:sha256", bytes(60 * MEGABYTE)).send()
        answered = 0
        while not transfer.ended:
            await mesh["a"].ping_once("c")
            answered += 1
        await transfer.only_payload()
        assert answered > 60 * MEGABYTE / MAX_WINDOW + 1


# --- many requests --------------------------------------------------------------------------------------------------


async def test_a_thousand_small_requests_at_a_time(census):
    async with Mesh.chain("a", "b", "c", tcp=True) as mesh:
        await asyncio.gather(*(mesh["a"].request("c", "echo:echo", b"warm") for _ in range(50)))
        requests = [mesh["a"].request("c", "echo:echo", f"number {number}") for number in range(1_000)]
        answers = await asyncio.gather(*requests)
        assert [answer.text() for answer in answers] == [f"number {number}" for number in range(1_000)]
        for node in mesh.controllers.values():
            await eventually(lambda node=node: not sum(left_over(node)))


async def test_requests_with_a_thousand_outstanding_over_two_forwarders_are_answered_and_leave_nothing_behind():
    """`python -m benchmarks.requests` does the same with 100,000."""
    numbers = iter(range(3_000))
    async with Mesh.chain("a", "b", "c", "d", tcp=True) as mesh:
        runs = 0

        async def echo(work):
            nonlocal runs
            runs += 1
            return work.payload

        async def one_after_the_other():
            for number in numbers:
                assert (await mesh["a"].request("d", "d:echo", f"number {number}")).text() == f"number {number}"

        mesh["d"].register("d:echo", echo)
        await asyncio.gather(*(one_after_the_other() for _ in range(1_000)))
        assert runs == 3_000
        for node in mesh.controllers.values():
            await eventually(lambda node=node: not sum(left_over(node)))
            node.node.engine.check()
            assert not node.node.engine.forwarding.queued_bytes


def left_over(node):
    counts = node.node.engine.stats()
    return (
        counts["requests_made"],
        counts["requests_received"],
        counts["pending_acks"],
        counts["waiting_bytes"],
        len(node.node.serving),
    )


@pytest.mark.parametrize("directive", ["z:async", "z:thread"])
async def test_a_thousand_requests_from_both_ends_of_every_kind_of_work(directive):
    async def work_async(work):
        await asyncio.sleep(0)
        return work.payload.readall() * 2

    def work_in_a_thread(work):
        return work.payload.readall() * 2

    async with Mesh.chain("a", "b", "z", tcp=True) as mesh:
        for name in "az":
            mesh[name].register("z:async", work_async)
            mesh[name].register("z:thread", work_in_a_thread)
        payloads = [bytes([number % 256]) * (number % 50) for number in range(500)]
        answers = await asyncio.gather(
            *(mesh["a"].request("z", directive, payload) for payload in payloads),
            *(mesh["z"].request("a", directive, payload) for payload in payloads),
        )
        assert [b"" if a is None else a.readall() for a in answers] == [payload * 2 for payload in payloads * 2]


async def test_many_transfers_at_a_time_share_one_path():
    async with Mesh.chain("a", "b", "c", tcp=True) as mesh:
        payloads = [bytes([number]) * MEGABYTE for number in range(40)]
        answers = await asyncio.gather(*(mesh["a"].request("c", "echo:echo", payload) for payload in payloads))
        assert [answer.readall() for answer in answers] == payloads


def reply_streams():
    return [each for each in gc.get_objects() if issubclass(type(each), zmesh.ReplyStream)]


async def test_nothing_is_kept_of_requests_that_are_over():
    before = reply_streams()  # of tests that have failed in this process, say
    async with Mesh.chain("a", "b", "c", tcp=True) as mesh:
        for _ in range(3):
            await asyncio.gather(*(mesh["a"].request("c", "echo:echo", bytes(100_000)) for _ in range(100)))
        for node in mesh.controllers.values():
            await eventually(lambda node=node: not sum(left_over(node)))
            assert len(node.node.requests) == 0
            assert not node.node.tasks._tasks
        gc.collect()
        kept = [each for each in reply_streams() if not any(each is one for one in before)]
        assert not kept, [type(holder) for holder in gc.get_referrers(kept[0])]


# --- cancelling -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def chain():
    """Three nodes; `z:<kind>` at the last one runs until it is cancelled, and `ended` records what it noticed."""
    async with Mesh.chain("a", "b", "z", tcp=True) as mesh:
        mesh.begun, mesh.ended = [], []
        ended = mesh.ended

        async def waits(work):
            mesh.begun.append(work.message_id)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("CancelledError")
                raise

        async def generates(work):
            mesh.begun.append(work.message_id)
            try:
                while True:
                    yield b"tick"
                    await asyncio.sleep(0.001)
            finally:
                ended.append("closed")

        def polls(work):
            mesh.begun.append(work.message_id)
            while not work.cancelled:
                time.sleep(0.001)
            ended.append("flag")

        def reads(work):
            try:
                for _ in work.payload:
                    pass
            except zmesh.Cancelled:
                ended.append("Cancelled")
                raise

        for function in (waits, generates, polls):
            mesh["z"].register(f"z:{function.__name__}", function)
        mesh["z"].register("z:reads", reads, stream=True)
        yield mesh


async def under_way(mesh):
    """Work is there; it may still wait for its thread to begin."""
    await eventually(lambda: mesh["z"].node.serving.runner.active())


async def begun(mesh):
    await eventually(lambda: mesh.begun)


KINDS = {"waits": "CancelledError", "generates": "closed", "polls": "flag"}


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelling_a_request_reaches_the_work(chain, kind):
    request = chain["a"].stream("z", f"z:{kind}").send()
    await begun(chain)
    request.cancel()
    with pytest.raises(zmesh.Cancelled):
        async for _ in request:
            pass
    await eventually(lambda: chain.ended == [KINDS[kind]])
    assert chain["z"].node.serving.runner.active() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelling_a_sent_message_by_its_id_reaches_the_work_and_its_handler(chain, kind):
    replies = []
    message_id = await chain["a"].send(b"", "z", f"z:{kind}", replies.append)
    await begun(chain)
    chain["a"].cancel(message_id)
    await eventually(lambda: replies and replies[-1].header["eof"])
    assert (replies[-1].header["code"], replies[-1].header["reason"]) == (1, "cancelled")
    await eventually(lambda: chain.ended == [KINDS[kind]])


async def test_cancelling_reaches_work_whose_payload_is_still_under_way(chain):
    async def endless():
        while True:
            yield bytes(50_000)

    request = chain["a"].stream("z", "z:reads", endless()).send()
    await under_way(chain)
    request.cancel()
    with pytest.raises(zmesh.Cancelled):
        await request.only_payload()
    await eventually(lambda: chain["z"].node.serving.runner.active() == [])


async def test_a_timeout_reaches_the_work_too(chain):
    for timeout in (0.2, 2.0, 20.0):
        with pytest.raises(zmesh.TimedOut):
            await chain["a"].request("z", "z:waits", timeout=timeout)
        if chain.begun:  # else the time of a busy machine was up before it had arrived
            break
    await eventually(lambda: chain.ended == ["CancelledError"])


async def test_cancelling_what_is_over_or_unknown_is_harmless(chain):
    request = chain["a"].stream("z", "echo:echo", b"done").send()
    await request.only_payload()
    request.cancel()
    chain["a"].cancel(request.message_id)
    chain["a"].cancel("0" * 32)
    assert (await chain["a"].request("z", "echo:echo", b"more")).readall() == b"more"


async def test_cancelling_many_at_a_time(chain):
    requests = [chain["a"].stream("z", "z:waits").send() for _ in range(300)]
    await eventually(lambda: len(chain["z"].node.serving.runner.active()) == 300)
    for request in requests:
        request.cancel()
    outcomes = await asyncio.gather(*(request.only_payload() for request in requests), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {zmesh.Cancelled}
    await eventually(lambda: len(chain.ended) == 300)
    for node in chain.controllers.values():
        await eventually(lambda node=node: not sum(left_over(node)))
