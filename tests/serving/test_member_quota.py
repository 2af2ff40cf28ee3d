"""What one member may have under way at a node: past that it is refused by name, counted, and others are served."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from zmesh import Controller, NodeOverloaded
from zmesh.files.records import Kind, record
from zmesh.files.session import READ, WRITE
from zmesh.remote import pack
from zmesh.testing import Mesh, eventually

numbers = itertools.count()


@asynccontextmanager
async def command(mesh: Controller) -> AsyncIterator[None]:
    process = await mesh.run("edge", ["sleep", "3600"])
    yield
    process.kill()
    await process.wait()


@asynccontextmanager
async def copy(mesh: Controller, directive: str, start: dict[str, Any]) -> AsyncIterator[None]:
    begin = record(Kind.START, pack(start))
    async with mesh.stream("edge", directive, begin, buffered=False, writable=True) as replies:
        await anext(replies)
        yield


@asynccontextmanager
async def read(mesh: Controller) -> AsyncIterator[None]:
    async with copy(mesh, READ, {"paths": [b"/etc"], "recursive": False}):
        yield


@asynccontextmanager
async def written(mesh: Controller) -> AsyncIterator[None]:
    async with copy(mesh, WRITE, {"path": b"/tmp"}):
        yield


@asynccontextmanager
async def followed(mesh: Controller) -> AsyncIterator[None]:
    (status,) = await mesh.jobs("edge")
    watching = aiter(mesh.job(status.id).watch())
    await anext(watching)
    try:
        yield
    finally:
        await watching.aclose()  # type: ignore[attr-defined]


@asynccontextmanager
async def exposed(mesh: Controller) -> AsyncIterator[None]:
    metadata = {"name": f"web-{next(numbers)}", "port": "80"}
    async with mesh.stream("edge", "tcp:expose", metadata=metadata) as replies:
        await anext(replies)
        yield


@asynccontextmanager
async def connected(mesh: Controller) -> AsyncIterator[None]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1")
    async with server:
        _, writer = await mesh.open_connection("edge", port=server.sockets[0].getsockname()[1])
        yield
        writer.close()


KINDS = [
    (command, "exec", "run", "max_commands", "max_commands_per_node"),
    (read, "file", "file", "max_transfers", "max_transfers_per_node"),
    (written, "file", "file", "max_transfers", "max_transfers_per_node"),
    (followed, "job", "jobs", "max_readers", "max_readers_per_owner"),
    (exposed, "tcp", "tcp", "max_services", "max_services_per_node"),
    (connected, "tcp", "tcp", "max_connections", "max_connections_per_node"),
]


@pytest.mark.parametrize(
    ("hold", "plugin", "section", "limit", "for_one"), KINDS, ids=[each[0].__name__ for each in KINDS]
)
async def test_what_one_member_has_under_way_leaves_room_for_another(
    tmp_path: Path, hold: Any, plugin: str, section: str, limit: str, for_one: str
) -> None:
    plugins: dict[str, Any] = {"job": {"folder": str(tmp_path)}}
    plugins[plugin] = {**plugins.get(plugin, {}), limit: 3, for_one: 2}
    allow = {f"{each}:*": ["*"] for each in ("exec", "file", "tcp", "job", "job-admin")}
    async with Mesh.star("edge", "one", "two", allow=allow, plugins=plugins) as mesh:
        await mesh["one"].submit("edge", "sleep:execute", "3600")
        async with AsyncExitStack() as held:
            for _ in range(2):
                await held.enter_async_context(hold(mesh["one"]))
            way_out = r"; try again when some have ended, or set it higher there"
            text = rf"node 'edge' has 2 .* for 'one' already \(\[{section}\] {for_one}\){way_out}"
            with pytest.raises(NodeOverloaded, match=text):
                await held.enter_async_context(hold(mesh["one"]))
            await held.enter_async_context(hold(mesh["two"]))
            with pytest.raises(
                NodeOverloaded, match=rf"node 'edge' has 3 .* already \(\[{section}\] {limit}\){way_out}"
            ):
                await held.enter_async_context(hold(mesh["two"]))
            counters = mesh["edge"].stats().counters
            assert counters[f"overloaded:{section}_{for_one}"] == 1 == counters[f"overloaded:{section}_{limit}"]
        async with AsyncExitStack() as again:
            await eventually(lambda: len(mesh["edge"].node.serving) <= 1)
            for _ in range(2):
                await again.enter_async_context(hold(mesh["one"]))
