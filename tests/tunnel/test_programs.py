"""Programs that know nothing of a mesh, through a forwarded port: curl, websockets, redis-cli, psql."""

import asyncio
import contextlib
import glob
import http.server
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import aiohttp.web
import pytest

from tests.ports import FreePorts
from zmesh.testing import Mesh, eventually

EVERYONE = {"tcp:*": ["*"]}


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with Mesh.chain("desk", "mid", "edge", allow=EVERYONE, tcp=True) as mesh:
        yield mesh


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (.ci/packages)")


async def output_of(*command: str) -> bytes:
    """The stdout of a program that must succeed."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, err.decode()
    return out


@contextlib.contextmanager
def program(*command: str, user: str | None = None) -> Iterator[None]:
    """A server of a package that runs meanwhile."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)


async def answers(port: int) -> None:
    """Wait until something listens there."""

    async def connect() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    tries = [asyncio.ensure_future(connect())]

    def is_up() -> bool:
        if tries[-1].done() and not tries[-1].result():
            tries.append(asyncio.ensure_future(connect()))
        return tries[-1].done() and tries[-1].result()

    await eventually(is_up)


# -- HTTP -------------------------------------------------------------------------------------------------------------


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(f"{self.path} from {self.client_address[1]}\n".encode())

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def web_server() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


async def test_curl_keeps_a_connection_alive_over_several_requests(mesh: Mesh) -> None:
    need("curl")
    with web_server() as port:
        async with mesh["desk"].forward(0, f"edge:{port}") as forward:
            url = f"http://localhost:{forward.port}"
            lines = (await output_of("curl", "-sS", f"{url}/one", f"{url}/two", f"{url}/three")).decode().splitlines()
            assert [line.split()[0] for line in lines] == ["/one", "/two", "/three"]
            assert len({line.split()[2] for line in lines}) == 1
            assert forward.made == 1
            await eventually(lambda: not forward.connections)


async def test_curl_uploads_and_downloads(mesh: Mesh, tmp_path: Path) -> None:
    need("curl")
    data = os.urandom(10_000_000)
    (tmp_path / "data").write_bytes(data)
    with web_server() as port:
        async with mesh["desk"].forward(0, f"edge:{port}") as forward:
            upload = ("--data-binary", f"@{tmp_path}/data", f"http://localhost:{forward.port}/")
            assert await output_of("curl", "-sS", *upload) == data


async def test_websockets_carry_messages_both_ways_at_once(mesh: Mesh) -> None:
    async def handle(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        socket = aiohttp.web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_bytes(message.data[::-1])
        return socket

    app = aiohttp.web.Application()
    app.router.add_get("/", handle)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    messages = [os.urandom(size) for size in (1, 100, 70_000, 1_000_000)] * 3
    async with mesh["desk"].forward(0, f"edge:{port}") as forward, aiohttp.ClientSession() as session:
        async with session.ws_connect(f"http://localhost:{forward.port}/") as socket:
            sending = asyncio.gather(*(socket.send_bytes(message) for message in messages))
            for message in messages:
                assert (await socket.receive_bytes())[::-1] == message
            await sending
        assert socket.close_code == 1000
    await runner.cleanup()


# -- databases --------------------------------------------------------------------------------------------------------


async def test_redis_cli_runs_commands_and_gets_a_message_that_is_published(mesh: Mesh, free_ports: FreePorts) -> None:
    need("redis-server", "redis-cli")
    port = free_ports()
    with program("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"):
        await answers(port)
        async with mesh["desk"].forward(0, f"edge:{port}") as forward:
            redis = ("redis-cli", "-h", "127.0.0.1", "-p", str(forward.port))
            assert await output_of(*redis, "set", "key", "x" * 100_000) == b"OK\n"
            assert await output_of(*redis, "strlen", "key") == b"100000\n"
            subscriber = await asyncio.create_subprocess_exec(*redis, "subscribe", "news", stdout=subprocess.PIPE)
            assert subscriber.stdout is not None
            assert [await subscriber.stdout.readline() for _ in range(3)] == [b"subscribe\n", b"news\n", b"1\n"]
            assert await output_of(*redis, "publish", "news", "hello") == b"1\n"
            assert [await subscriber.stdout.readline() for _ in range(3)] == [b"message\n", b"news\n", b"hello\n"]
            subscriber.kill()
            await subscriber.wait()
            await eventually(lambda: not forward.connections)


@pytest.fixture
def postgres(free_ports: FreePorts) -> Iterator[tuple[int, list[str], str | None]]:
    """The port, the command and the user of a PostgreSQL server with an empty database."""
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    if not folders or shutil.which("psql") is None:
        pytest.skip("PostgreSQL is not installed (.ci/packages)")
    user = None
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam("postgres").pw_name
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    with tempfile.TemporaryDirectory() as folder:
        if user is not None:
            shutil.chown(folder, user)
        subprocess.run(
            [f"{folders[-1]}/initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "ada", "-N", "--no-locale"],
            user=user, cwd="/", check=True, capture_output=True,
        )  # fmt: skip
        port = free_ports()
        where = ["-D", f"{folder}/data", "-k", folder, "-h", "127.0.0.1", "-p", str(port), "-F"]
        yield port, [f"{folders[-1]}/postgres", *where], user


async def test_psql_queries_copies_and_gets_a_notification(
    mesh: Mesh, postgres: tuple[int, list[str], str | None]
) -> None:
    port, command, user = postgres
    with program(*command, user=user):
        await answers(port)
        async with mesh["desk"].forward(0, f"edge:{port}") as forward:
            where = ("-h", "127.0.0.1", "-p", str(forward.port), "-U", "ada", "-d", "postgres", "-X", "-A", "-t", "-q")
            psql = ("psql", *where, "-v", "ON_ERROR_STOP=1")
            script = "create table numbers as select generate_series(1, 100000) as n; select sum(n) from numbers"
            assert await output_of(*psql, "-c", script) == b"5000050000\n"
            copied = await output_of(*psql, "-c", "copy numbers to stdout")
            assert copied == b"".join(b"%d\n" % n for n in range(1, 100_001))
            heard = await output_of(*psql, "-c", "listen news", "-c", "notify news, 'hello'", "-c", "select 1")
            assert b'Asynchronous notification "news" with payload "hello"' in heard
            await eventually(lambda: not forward.connections)
