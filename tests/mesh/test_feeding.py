"""Payloads that are read piece by piece: reading ends with the exchange, and nothing waits for room any more."""

import asyncio

import pytest

import zmesh
from zmesh.testing import Mesh, eventually


@pytest.fixture
async def mesh():
    """Nodes `a` and `b`; `b:never` neither reads its payload nor ends, `b:fails` fails at once."""
    async with Mesh.chain("a", "b") as mesh:

        async def never(work):
            await asyncio.Event().wait()

        async def fails(work):
            raise ValueError("no")

        mesh["b"].register("b:never", never, stream=True)
        mesh["b"].register("b:fails", fails, stream=True)
        yield mesh


async def test_a_request_that_is_cancelled_before_its_first_chunk_was_delivered_is_cancelled_at_its_server(mesh):
    """What a handler sends is delivered after it has returned, and so is the cancel that follows at once."""
    node, begun, ended, streams = mesh["a"], [], [], []

    async def waits(work):
        begun.append(work)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(work.cancelled)

    def handler(message):
        if not streams:
            streams.append(node.stream("a", "a:waits").send())
            streams[0].cancel()

    node.register("a:waits", waits)
    node.send(b"x", "a", "echo:echo", handler)
    await eventually(lambda: streams)
    assert isinstance(await streams[0].finished(), zmesh.Cancelled)
    assert ended == [True] * len(begun)
    assert len(node.node.serving) == 0


class Pieces:
    """An async iterator of so many pieces, which then waits for more for ever; `closed` is set when it is closed."""

    def __init__(self, count, size=60_000):
        self.given = 0
        self.closed = False
        self._count, self._size = count, size

    async def __aiter__(self):
        try:
            for _ in range(self._count):
                self.given += 1
                yield bytes(self._size)
            await asyncio.Event().wait()
        finally:
            self.closed = True


@pytest.mark.parametrize("pieces", [1, 1_000], ids=["waits for its source", "waits for room"])
@pytest.mark.parametrize("ending", ["timeout", "cancel", "final word", "recipient gone"])
async def test_a_source_is_let_go_when_its_exchange_ends(mesh, pieces, ending):
    source = Pieces(pieces)
    directive = "b:fails" if ending == "final word" else "b:never"
    request = mesh["a"].stream("b", directive, source, timeout=0.5 if ending == "timeout" else None).send()
    node = mesh["a"].node
    if ending != "final word":
        await eventually(  # the time of a slow machine may be up before
            lambda: request.ended or (source.given == 1 if pieces == 1 else request.feeder._waiter is not None)
        )
    if ending == "cancel":
        request.cancel()
    elif ending == "recipient gone":
        await mesh.remove("b")
    with pytest.raises(zmesh.MeshError):
        await request.only_payload()
    await eventually(lambda: source.closed or not source.given)
    await eventually(lambda: not node.tasks._tasks)


@pytest.mark.parametrize("pieces", [1, 1_000], ids=["waits for its source", "waits for room"])
@pytest.mark.parametrize("ending", ["cancelled", "gone"])
async def test_a_reply_is_read_no_further_when_its_client_stops_reading(mesh, pieces, ending):
    source = Pieces(pieces)

    async def streams(work):
        return source

    mesh["b"].register("b:streams", streams)
    request = mesh["a"].stream("b", "b:streams").send()
    await eventually(lambda: source.given)
    if ending == "gone":
        await mesh.remove("a")
    assert isinstance(await request.cancel(), zmesh.Cancelled)
    await eventually(lambda: source.closed)
    await eventually(lambda: not mesh["b"].node.tasks._tasks)
