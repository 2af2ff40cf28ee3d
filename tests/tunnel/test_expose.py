"""Ports by a name: `mesh.expose`, `tcp:expose`, and what the configuration exposes and forwards."""

import asyncio

import pytest

from tests.ports import FreePorts
from tests.tunnel.servers import echo, served
from zmesh import Config, Controller
from zmesh.errors import ConfigError, NodeOverloaded, NotAllowed, RemoteError, UnknownDirective
from zmesh.testing import Mesh, eventually

WEB = {"tcp:web": ["*"]}


async def test_a_name_leads_to_a_port_until_it_is_withdrawn() -> None:
    async with Mesh.chain("desk", "edge", allow=WEB) as mesh, served(echo) as port:
        desk, edge = mesh["desk"], mesh["edge"]
        with edge.expose("web", port) as exposed:
            await eventually(lambda: "tcp:web" in desk.capabilities()["edge"])
            reader, writer = await desk.open_connection("edge", service="web")
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            with pytest.raises(ConfigError, match="'edge' exposes 'web' already"):
                edge.expose("web", 80)
            exposed.close()
            with pytest.raises(UnknownDirective):
                await desk.open_connection("edge", service="web")
            await eventually(lambda: "tcp:web" not in desk.capabilities()["edge"])
            writer.write(b"still")  # a connection that is open stays
            assert await reader.readexactly(5) == b"still"
            writer.close()


async def test_who_may_reach_a_name_may_reach_nothing_else() -> None:
    async with Mesh.chain("desk", "edge", allow=WEB) as mesh, served(echo) as port:
        with mesh["edge"].expose("web", port), mesh["edge"].expose("admin", port):
            await mesh["desk"].check_forward("edge:web")
            for to in ("edge:admin", f"edge:{port}"):
                with pytest.raises(NotAllowed):
                    await mesh["desk"].check_forward(to)


@pytest.mark.parametrize("name", ["80", "Web", "a.b", "connect", "", "x" * 64])
async def test_what_can_not_be_a_name_is_an_error(name: str) -> None:
    async with Controller(node_id="edge") as edge:
        with pytest.raises(ConfigError, match="can't be the name of a service"):
            edge.expose(name, 80)
        with pytest.raises(ConfigError):
            await edge.open_connection("edge", service=name)


async def test_the_configuration_forwards_and_exposes_and_names_what_is_wrong(free_ports: FreePorts) -> None:
    local = free_ports()
    async with served(echo) as port:
        edge = {"plugins": {"tcp": {"expose": [{"name": "web", "port": port}]}}, "allow": WEB}
        desk = {"plugins": {"tcp": {"forward": [{"listen": f"127.0.0.1:{local}", "to": "edge:web"}]}}}
        async with Mesh() as mesh:
            await mesh.add("desk", **desk)
            await mesh.add("edge", "desk", **edge)
            await mesh["desk"].wait_for("edge", 90)
            reader, writer = await asyncio.open_connection("127.0.0.1", local)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            with pytest.raises(ConfigError, match=f"can't listen on 127.0.0.1:{local}: address already in use"):
                await Controller(node_id="other", **desk).open()
            await mesh.remove("desk")
            with pytest.raises(ConnectionError):
                await reader.readexactly(1)
            writer.close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", local)


async def test_settings_change_while_the_node_runs(free_ports: FreePorts) -> None:
    def settings(**table: object) -> Config:
        return Config(node_id="edge", plugins={"tcp": table}, allow=WEB)

    first, second = free_ports(), free_ports()
    async with served(echo) as port, Controller(settings(forward=[{"listen": first, "to": "edge:web"}])) as edge:
        with pytest.raises(UnknownDirective):
            await edge.check_forward("edge:web")
        web, moved = {"name": "web", "port": 1}, {"name": "web", "port": port}
        for service in (web, moved):
            edge.reload(settings(expose=[service], forward=[{"listen": second, "to": "edge:web"}]))
        _, writer = await edge.open_connection("edge", service="web")
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("localhost", first)
        taken = {"expose": [{"name": "other", "port": 1}], "forward": [{"listen": port, "to": "edge:web"}]}
        with pytest.raises(ConfigError, match="address already in use"):
            edge.reload(settings(**taken))
        reader, writer = await asyncio.open_connection("localhost", second)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        edge.reload(settings())
        with pytest.raises(UnknownDirective):
            await edge.check_forward("edge:web")


async def test_the_user_of_a_node_may_connect_and_expose_at_its_own_socket(tmp_path: object) -> None:
    url = f"ipc://{tmp_path}/edge.sock"
    async with Controller(node_id="edge", listen=[url, "tcp://127.0.0.1:*"]) as edge, served(echo) as port:
        for where, allowed in ((url, True), (edge.listening[1], False)):
            async with Controller(node_id=f"cli-{allowed}", peers=[where], ephemeral=True) as leaf:
                await leaf.wait_for("edge", 90)
                if not allowed:
                    with pytest.raises(NotAllowed):
                        await leaf.open_connection("edge", port=port)
                    continue
                _, writer = await leaf.open_connection("edge", port=port)
                writer.close()
                metadata = {"name": "web", "host": "localhost", "port": str(port)}
                async with leaf.stream("edge", "tcp:expose", metadata=metadata) as replies:
                    await anext(replies)
                    assert "tcp:web" in edge.node.directives.capabilities()
                await eventually(lambda: "tcp:web" not in edge.node.directives.capabilities())
        _, writer = await edge.open_connection("edge", port=port)  # nor does a node ask itself
        writer.close()


async def test_what_others_expose_is_limited_and_checked() -> None:
    settings = {"plugins": {"tcp": {"max_services": 1}}, "allow": {"tcp:*": ["*"]}}
    async with Mesh.chain("desk", "edge", **settings) as mesh:
        desk, web = mesh["desk"], {"name": "web", "port": "80"}
        for metadata, kind in (({"name": "80", "port": "80"}, RemoteError), ({"name": "web"}, RemoteError),
                               ({**web, "host": "192.0.2.1"}, NotAllowed)):  # fmt: skip
            with pytest.raises(kind):
                await desk.request("edge", "tcp:expose", metadata=metadata)
        async with desk.stream("edge", "tcp:expose", metadata=web) as replies:
            await anext(replies)
            with pytest.raises(NodeOverloaded, match=r"has 1 services already \(\[tcp\] max_services\)"):
                await desk.request("edge", "tcp:expose", metadata={**web, "name": "other"})
            assert mesh["edge"].stats().counters["overloaded:tcp_max_services"] == 1
