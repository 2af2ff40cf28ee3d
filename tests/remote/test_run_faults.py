"""Commands at other nodes while links are cut: every byte, in order, and then the exit code, or one clear end."""

import asyncio
import gc
import hashlib
from asyncio.subprocess import PIPE

import pytest

import zmesh
from zmesh.testing import eventually
from zmesh.testing.proxy import Proxy

PATTERN = bytes(range(1, 251)) * 4


def digest_of(size: int) -> str:
    digest, left = hashlib.sha256(), size
    while left:
        piece = PATTERN[: min(left, len(PATTERN))]
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest()


def node(name: str, *peers: str) -> zmesh.Controller:
    return zmesh.Controller(
        node_id=name, listen=["tcp://127.0.0.1:*"], peers=list(peers), heartbeat=0.2, allow={"exec:*": ["*"]}
    )


async def cut_until(done: asyncio.Task[object], proxy: Proxy) -> int:
    """Cut all connections whenever they have passed some bytes, until the task is done; how often."""
    cuts, passed = 0, proxy.back.passed
    while not done.done():
        if proxy.back.passed > passed + 2_000_000:
            proxy.cut(reset=cuts % 2 == 0)
            cuts, passed = cuts + 1, proxy.back.passed
        await asyncio.sleep(0.005)
    return cuts


async def test_every_byte_and_then_the_exit_code_under_link_cuts() -> None:
    size = 40_000_000
    script = f"yes '{'x' * 79}' | head -c {size}; echo done >&2; exit 7"
    async with node("edge") as edge, Proxy(edge.listening[0]) as proxy, node("desk", proxy.url) as desk:
        await desk.wait_for("edge", 90)
        async with desk.run("edge", ["sh", "-c", script]) as process:
            digest = hashlib.sha256()

            async def read() -> int:
                count = 0
                while data := await process.stdout.read(1 << 20):
                    digest.update(data)
                    count += len(data)
                return count

            reading = asyncio.create_task(read())
            assert await cut_until(reading, proxy) > 3
            assert await reading == size
            assert await process.stderr.read() == b"done\n"
            assert await process.wait() == 7
    assert digest.digest() == hashlib.sha256((b"x" * 79 + b"\n") * (size // 80)).digest()


async def test_a_megabyte_and_then_the_exit_code_many_times_under_link_cuts() -> None:
    async with node("edge") as edge, Proxy(edge.listening[0]) as proxy, node("desk", proxy.url) as desk:
        await desk.wait_for("edge", 90)

        async def once() -> None:
            async with desk.run("edge", ["sh", "-c", "head -c 1000000 /dev/zero; exit 7"]) as process:
                out, _ = await process.communicate()
                assert (len(out), process.returncode) == (1_000_000, 7)

        async def many() -> None:
            for _ in range(12):
                await asyncio.gather(*(once() for _ in range(4)))

        running = asyncio.create_task(many())
        assert await cut_until(running, proxy) > 3
        await running


async def test_input_is_whole_under_link_cuts() -> None:
    size = 20_000_000
    async with node("edge") as edge, Proxy(edge.listening[0]) as proxy, node("desk", proxy.url) as desk:
        await desk.wait_for("edge", 90)

        async def run() -> tuple[bytes, bytes]:
            async with desk.run("edge", ["sha256sum"], stdin=PIPE) as process:
                return await process.communicate((PATTERN * (size // len(PATTERN) + 1))[:size])

        running = asyncio.create_task(run())
        passed = 0
        while not running.done():
            if proxy.forth.passed > passed + 2_000_000:
                proxy.cut()
                passed = proxy.forth.passed
            await asyncio.sleep(0.005)
        out, err = await running
        assert (out.split()[0].decode(), err) == (digest_of(size), b"")


async def test_a_command_at_a_node_that_is_lost_ends_in_an_error_and_does_not_go_on() -> None:
    async with node("edge") as edge, Proxy(edge.listening[0]) as proxy, node("desk", proxy.url) as desk:
        await desk.wait_for("edge", 90)
        process = await desk.run("edge", ["sleep", "600"], route_timeout=0.5)
        proxy.refusing = True
        proxy.cut()
        with pytest.raises(zmesh.Unreachable):
            await process.wait()
        proxy.heal()
        await eventually(lambda: not len(edge.node.serving))


async def test_an_error_that_the_reader_of_the_output_gets_is_not_logged_as_one_that_nobody_has() -> None:
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context["message"]))
    async with node("edge") as edge, node("desk", edge.listening[0]) as desk:
        await desk.wait_for("edge", 90)
        process = await desk.run("edge", ["sleep", "600"])
        reading = asyncio.create_task(process.stdout.read())
        await desk.ping_once("edge", 90)
        await desk.close()
        with pytest.raises(zmesh.Cancelled):
            await reading
        del process, reading
    gc.collect()
    assert logged == []
