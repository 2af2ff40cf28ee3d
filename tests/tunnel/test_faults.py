"""Connections while links and nodes fail: what can live on does, and what can't ends in an error at both ends."""

import asyncio
import hashlib

import pytest

import zmesh
from tests.tunnel.servers import echo, served
from zmesh.testing import Mesh, eventually
from zmesh.testing.proxy import Proxy

EVERYONE = {"tcp:*": ["*"]}
PATTERN = bytes(range(1, 251)) * 4000


def node(name: str, *peers: str, **settings: object) -> zmesh.Controller:
    listen = ["tcp://127.0.0.1:*"]
    return zmesh.Controller(node_id=name, listen=listen, peers=list(peers), heartbeat=0.2, allow=EVERYONE, **settings)  # type: ignore[arg-type]


async def test_an_idle_connection_lives_on_when_the_forwarder_on_its_path_dies() -> None:
    async with Mesh.ring("desk", "north", "edge", "south", heartbeat=0.2, allow=EVERYONE) as mesh, served(echo) as port:
        desk = mesh["desk"]
        reader, writer = await desk.open_connection("edge", port=port)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        (route,) = [route for route in desk.routes() if route.destination == "edge"]
        mesh.controllers.pop(route.next_hop).node.close_now()
        other = {"north": "south", "south": "north"}[route.next_hop]
        await eventually(lambda: [r.next_hop for r in desk.routes() if r.destination == "edge"] == [other])
        writer.write(b"after")
        assert await reader.readexactly(5) == b"after"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_every_byte_of_both_directions_arrives_under_link_cuts() -> None:
    size, wanted = 8 * len(PATTERN), hashlib.sha256(8 * PATTERN).digest()
    async with node("edge") as edge, Proxy(edge.listening[0]) as proxy, node("desk", proxy.url) as desk:
        await desk.wait_for("edge", 90)
        async with served(echo) as port, desk.forward(0, f"edge:{port}") as forward:
            reader, writer = await asyncio.open_connection("localhost", forward.port)

            async def send() -> None:
                for _ in range(8):
                    writer.write(PATTERN)
                    await writer.drain()
                writer.write_eof()

            sending, digest, count, cuts = asyncio.create_task(send()), hashlib.sha256(), 0, 0
            while data := await reader.read(65536):
                digest.update(data)
                count += len(data)
                if count > (cuts + 1) * size // 4:
                    cuts += 1
                    proxy.cut(reset=cuts % 2 == 0)
            await sending
            writer.close()
            assert (count, cuts, digest.digest()) == (size, 3, wanted)


async def test_connections_to_a_node_that_is_lost_are_reset_here_and_closed_there() -> None:
    ended = asyncio.Event()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        ended.set()

    async with node("edge", route_timeout=0.5) as edge, Proxy(edge.listening[0]) as proxy:
        async with node("desk", proxy.url) as desk, served(watch) as port:
            await desk.wait_for("edge", 90)
            async with desk.forward(0, f"edge:{port}", route_timeout=0.5) as forward:
                reader, writer = await asyncio.open_connection("localhost", forward.port)
                assert await reader.readexactly(1) == b"x"
                proxy.refusing = True
                proxy.cut()
                with pytest.raises(ConnectionResetError):
                    await reader.read()
                writer.close()
                await asyncio.wait_for(ended.wait(), 60)
                await eventually(lambda: not len(edge.node.serving))


async def test_a_node_that_restarts_ends_the_connections_to_it() -> None:
    async with Mesh.chain("desk", "edge", allow=EVERYONE) as mesh, served(echo) as port:
        reader, writer = await mesh["desk"].open_connection("edge", port=port)
        mesh.controllers.pop("edge").node.close_now()
        await mesh.add("edge", "desk")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_connection_to_a_node_that_is_not_there_is_an_error_and_a_reset() -> None:
    async with node("desk") as desk:
        with pytest.raises(zmesh.Unreachable, match="no route to 'edge'"):
            await desk.open_connection("edge", port=80, route_timeout=0.0)
        async with desk.forward(0, "edge:80", route_timeout=0.0) as forward:
            reader, writer = await asyncio.open_connection("localhost", forward.port)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()


async def test_closing_a_node_or_a_forward_resets_its_connections() -> None:
    async with Mesh.chain("desk", "edge", allow=EVERYONE) as mesh, served(echo) as port:
        for _ in range(2):
            forward = await mesh["desk"].forward(0, f"edge:{port}")
            reader, writer = await asyncio.open_connection("localhost", forward.port)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            if "desk" in mesh.controllers and _:
                await mesh.remove("desk")
            else:
                await forward.close()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("localhost", forward.port)


async def test_cancelling_who_connects_leaves_nothing_behind() -> None:
    async with Mesh.chain("desk", "edge", allow=EVERYONE, plugins={"tcp": {"targets": ["*:*"]}}) as mesh:
        connecting = asyncio.create_task(mesh["desk"].open_connection("edge", "192.0.2.1", 80))
        await eventually(lambda: connecting.done() or len(mesh["edge"].node.serving))
        connecting.cancel()
        with pytest.raises((asyncio.CancelledError, OSError)):
            await connecting
        await eventually(lambda: not len(mesh["edge"].node.serving))
        await eventually(lambda: not len(mesh["desk"].node.requests))


async def test_a_program_that_ends_with_a_connection_open_is_not_kept_waiting() -> None:
    async with Mesh.chain("desk", "edge", allow=EVERYONE) as mesh, served(echo) as port:
        _, writer = await mesh["desk"].open_connection("edge", port=port)
        writer.write(b"the last word")
        await mesh["desk"].node.drain()
        assert writer.transport.is_closing()
