"""Many connections at once: what is stuck harms no other, limits hold, and a sender waits for who reads slowly."""

import asyncio
import errno
import resource
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.tunnel.servers import echo, reset, served
from zmesh.errors import NodeOverloaded
from zmesh.testing import Mesh, eventually

EVERYONE = {"tcp:*": ["*"]}
CONNECTIONS = 1000
MORE_THAN_ANY_BUFFER = 64 * 1024 * 1024


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with Mesh.chain("desk", "mid", "edge", allow=EVERYONE) as mesh:
        yield mesh


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Four for each connection: this process is all of its ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CONNECTIONS + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this process may have {hard} descriptors, and needs {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_thousand_connections_at_once_of_which_one_is_stuck(mesh: Mesh, descriptors: None) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"s":
            await unstuck.wait()
            received.append(len(await reader.read()))
        else:
            await echo(reader, writer)

    unstuck, received = asyncio.Event(), list[int]()
    async with served(serve) as port, mesh["desk"].forward(0, f"edge:{port}") as forward:
        _, stuck = await asyncio.open_connection("127.0.0.1", forward.port)
        stuck.write(b"s" + bytes(MORE_THAN_ANY_BUFFER))
        others = [await asyncio.open_connection("127.0.0.1", forward.port) for _ in range(CONNECTIONS - 1)]
        for number, (_, writer) in enumerate(others):
            writer.write(b"e%d\n" % number)
        for number, (reader, _) in enumerate(others):
            assert await reader.readline() == b"%d\n" % number
        assert stuck.transport.get_write_buffer_size()
        assert forward.connections == CONNECTIONS
        assert mesh["edge"].stats().serving == CONNECTIONS
        unstuck.set()
        stuck.write_eof()
        await eventually(lambda: received == [MORE_THAN_ANY_BUFFER])
        for _, writer in [(None, stuck), *others]:
            writer.close()
        await eventually(lambda: not forward.connections)


async def test_a_sender_waits_for_a_reader_from_end_to_end_and_nothing_is_lost(mesh: Mesh) -> None:
    total, piece = 0, bytes(range(256)) * 256

    async def source(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal total
        while total < 512 * len(piece):
            writer.write(piece)
            total += len(piece)
            await writer.drain()
        writer.write_eof()

    async with served(source) as port:
        reader, writer = await mesh["desk"].open_connection("edge", port=port)
        before = -1
        while before != total:  # it stops although no byte was read
            before = total
            for _ in range(20):
                await mesh["desk"].ping_once("edge", 20)
        assert total < 32 * 1024 * 1024
        assert await reader.read() == piece * 512
        writer.close()


async def test_connections_past_the_limits_are_refused_and_counted() -> None:
    limits = {"max_connections": 3, "max_connections_per_node": 2}
    async with Mesh.star("edge", "one", "two", allow=EVERYONE, plugins={"tcp": limits}) as mesh, served(echo) as port:
        held = [await mesh["one"].open_connection("edge", port=port) for _ in range(2)]
        with pytest.raises(NodeOverloaded, match="2 connections for 'one' already"):
            await mesh["one"].open_connection("edge", port=port)
        held.append(await mesh["two"].open_connection("edge", port=port))
        with pytest.raises(NodeOverloaded, match=r"3 connections already \(\[tcp\] max_connections\)"):
            await mesh["two"].open_connection("edge", port=port)
        counters = mesh["edge"].stats().counters
        assert counters["overloaded:tcp_max_connections_per_node"] == 1 == counters["overloaded:tcp_max_connections"]
        for reader, writer in held:
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        await eventually(lambda: not mesh["edge"].stats().serving)
        _, writer = await mesh["one"].open_connection("edge", port=port)
        writer.close()


async def test_a_forwarded_port_takes_so_many_connections_at_a_time(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = []
    async with served(echo) as port:
        forward = mesh["desk"].forward(0, f"edge:{port}", max_connections=1, on_error=errors.append)
        async with forward:
            _, first = await asyncio.open_connection("127.0.0.1", forward.port)
            await eventually(lambda: forward.connections == 1)
            reader, second = await asyncio.open_connection("127.0.0.1", forward.port)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            assert [type(error) for error in errors] == [NodeOverloaded]
            assert mesh["desk"].stats().counters["overloaded:forward_connections"] == 1
            first.close()
            second.close()


async def test_a_reset_passes_also_where_nobody_reads(mesh: Mesh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        async with mesh["desk"].forward(0, f"edge:{server.getsockname()[1]}") as forward:
            _, writer = await asyncio.open_connection("127.0.0.1", forward.port)
            with (await asyncio.get_running_loop().sock_accept(server))[0] as deaf:
                writer.write(bytes(MORE_THAN_ANY_BUFFER))
                (relay,) = forward._relays
                await eventually(lambda: not relay.near.transport.is_reading())
                reset(writer)
                await eventually(lambda: deaf.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET)
                await eventually(lambda: not forward.connections)
