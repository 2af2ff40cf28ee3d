"""Ports of this machine that lead to other nodes, over real sockets: `mesh.forward` and `mesh.open_connection`."""

import asyncio
from collections.abc import AsyncIterator

import pytest

import zmesh
from tests.ports import FreePorts
from tests.tunnel.servers import echo, reset, served
from zmesh.errors import ConfigError, ConnectRefused, NotAllowed
from zmesh.testing import Mesh, eventually

EVERYONE = {"tcp:*": ["*"]}


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with Mesh.chain("desk", "mid", "edge", allow=EVERYONE) as mesh:
        yield mesh


async def test_a_port_here_leads_to_a_port_there(mesh: Mesh) -> None:
    async with served(echo) as port, mesh["desk"].forward(0, f"edge:{port}") as forward:
        reader, writer = await asyncio.open_connection("localhost", forward.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert forward.connections == 1
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await eventually(lambda: not forward.connections)


async def test_open_connection_gives_a_reader_and_a_writer_of_asyncio(mesh: Mesh) -> None:
    async with served(echo) as port:
        reader, writer = await mesh["desk"].open_connection("edge", "127.0.0.1", port)
        assert writer.get_extra_info("peername") == ("127.0.0.1", port)
        writer.write(b"one\ntwo\n")
        await writer.drain()
        assert await reader.readline() == b"one\n"
        assert await reader.readline() == b"two\n"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await eventually(lambda: not len(mesh["edge"].node.serving))
        await eventually(lambda: not len(mesh["desk"].node.requests))


async def test_much_data_both_ways_at_once_is_whole(mesh: Mesh) -> None:
    data = bytes(range(256)) * 40_000
    async with served(echo) as port, mesh["desk"].forward(0, f"edge:{port}") as forward:
        reader, writer = await asyncio.open_connection("localhost", forward.port)

        async def send() -> None:
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        assert await reader.read(-1) == data
        await sending
        writer.close()


async def test_a_refusal_there_is_an_error_here_and_a_reset_of_a_forwarded_connection(
    mesh: Mesh, free_ports: FreePorts
) -> None:
    port = free_ports()
    with pytest.raises(ConnectRefused, match=f"node 'edge' can't connect to localhost:{port}: connection refused"):
        await mesh["desk"].open_connection("edge", port=port)
    errors: list[Exception] = []
    async with mesh["desk"].forward(0, f"edge:{port}", on_error=errors.append) as forward:
        reader, writer = await asyncio.open_connection("localhost", forward.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert isinstance(errors[0], ConnectRefused)
        assert forward.failed == 1


async def test_a_reset_there_is_a_reset_here(mesh: Mesh) -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        reset(writer)

    async with served(rude) as port, mesh["desk"].forward(0, f"edge:{port}") as forward:
        reader, writer = await asyncio.open_connection("localhost", forward.port)
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        reader, writer = await mesh["desk"].open_connection("edge", port=port)
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_reset_here_is_a_reset_there(mesh: Mesh) -> None:
    outcome: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        try:
            await reader.read()
        except ConnectionResetError as error:
            outcome.set_result(error)
        else:
            outcome.set_result(None)

    async with served(watch) as port, mesh["desk"].forward(0, f"edge:{port}") as forward:
        reader, writer = await asyncio.open_connection("localhost", forward.port)
        assert await reader.readexactly(1) == b"x"
        reset(writer)
        assert isinstance(await outcome, ConnectionResetError)


async def test_each_direction_ends_by_itself(mesh: Mesh) -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(str(len(await reader.read())).encode())
        await writer.drain()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        received.set_result(await reader.read())

    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with served(count) as port, mesh["desk"].forward(0, f"edge:{port}") as forward:
        reader, writer = await asyncio.open_connection("localhost", forward.port)
        writer.write(bytes(100_000))
        writer.write_eof()
        assert await reader.read() == b"100000"
        writer.close()
    async with served(greet) as port, mesh["desk"].forward(0, f"edge:{port}") as forward:
        reader, writer = await asyncio.open_connection("localhost", forward.port)
        assert await reader.read() == b"hello"
        writer.write(b"and after that")
        writer.close()
        assert await received == b"and after that"


async def test_what_is_not_allowed_says_what_would_allow_it() -> None:
    async with Mesh.chain("desk", "edge") as mesh:
        with pytest.raises(NotAllowed, match=r'\[allow\] "tcp:\*" = \["desk"\]'):
            await mesh["desk"].open_connection("edge", port=80)
        with pytest.raises(ConfigError, match="is no TCP port"):
            await mesh["desk"].open_connection("edge", port=0)


async def test_only_targets_of_the_configuration_are_connected_to(mesh: Mesh) -> None:
    with pytest.raises(NotAllowed, match=r'with "192.0.2.1:80" among the targets of \[tcp\]'):
        await mesh["desk"].open_connection("edge", "192.0.2.1", 80)


async def test_a_port_that_is_taken_is_an_error(mesh: Mesh) -> None:
    async with mesh["desk"].forward(0, "edge:80") as forward:
        with pytest.raises(ConfigError, match="choose another address"):
            await mesh["desk"].forward(f"{forward.addresses[0]}", "edge:80")
    assert isinstance(zmesh.errors.ConnectRefused("x"), OSError)
