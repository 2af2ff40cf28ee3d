"""Whatever user code raises where commands, copies, jobs and connections call it: each ends alone, and says why."""

import asyncio
import contextlib
import functools

import pytest

import zmesh
from tests.odd_errors import raise_each
from tests.tunnel.servers import echo, served
from tests.waiting import WITHIN
from zmesh.errors import ExchangeError
from zmesh.testing import Mesh, eventually

EVERYONE = {"exec:*": ["*"], "file:*": ["*"], "job:*": ["*"], "tcp:*": ["*"]}


class User:
    """Two nodes, and what the places need of them."""

    def __init__(self, mesh, folder):
        self.client, self.server, self.folder = mesh["client"], mesh["server"], folder
        self.count = 0

    def register(self, function):
        self.count += 1
        name = f"odd:it{self.count}"
        self.server.register(name, function)
        return name


def iterator(make):
    yield b"first"
    raise make()


async def async_iterator(make):
    yield b"first"
    raise make()


async def ends_in_an_error(waiting):
    """The awaitable ends in an error of zmesh that can be read."""
    with pytest.raises(ExchangeError) as failure:
        async with asyncio.timeout(WITHIN):
            await waiting
    assert not isinstance(failure.value, zmesh.TimedOut)
    return str(failure.value)


async def stdin_of_a_command(user, make):
    """The command would wait for the rest of it."""
    for stdin in (iterator(make), async_iterator(make)):
        text = await ends_in_an_error(user.client.check_output("server", ["cat"], stdin=stdin))
        assert "stdin could not be read" in text


async def reply_of_a_job(user, make):
    """Its end would never be stored."""

    async def replies(work):
        return iterator(make)

    job = await user.client.submit("server", user.register(replies))
    status = await job.wait(WITHIN)
    assert (str(status.state), bool(status.reason)) == ("failed", True)


async def job_itself(user, make):
    async def fails(work):
        raise make()

    status = await (await user.client.submit("server", user.register(fails))).wait(WITHIN)
    assert str(status.state) in ("failed", "cancelled")


async def raises_its_own(make, waiting):
    """The awaitable ends in whatever user code has raised, which is the caller's own."""
    with contextlib.suppress(BaseException):
        async with asyncio.timeout(WITHIN):
            await waiting
            raise AssertionError("nothing was raised")


async def progress_of_a_copy(user, make):
    def report(progress):
        raise make()

    source = user.folder / "source"
    source.write_bytes(b"x" * 100_000)
    user.count += 1
    there = f"server:{user.folder}/there{user.count}"
    await raises_its_own(make, user.client.copy(str(source), there, on_progress=report))


async def output_of_many(user, make):
    async def take(node, stream, data):
        raise make()

    async def run():
        async with user.client.run_many(["server"], ["echo", "x"], on_output=take) as outcomes:
            async for _ in outcomes:
                pass

    await raises_its_own(make, run())


async def error_of_a_forwarded_port(user, make):
    """The connection is reset, and the next one is made."""
    heard = []

    def on_error(error):
        heard.append(error)
        raise make()

    async with user.client.forward(0, "server:nothing-is-exposed", on_error=on_error) as forward:
        for count in (1, 2):
            reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), WITHIN) == b""
            writer.close()
            await eventually(lambda count=count: len(heard) == count, timeout=WITHIN)
        await eventually(lambda: not forward.connections, timeout=WITHIN)


class Odd(asyncio.Protocol):
    """Raises where it is called for the `at`-th time."""

    def __init__(self, make, at):
        self.make, self.at, self.lost = make, at, asyncio.Event()

    def _call(self, name):
        if name == self.at:
            raise self.make()

    def connection_made(self, transport):
        self.transport = transport
        self._call("connection_made")
        transport.write(b"hello")

    def data_received(self, data):
        self._call("data_received")
        self.transport.write_eof()

    def eof_received(self):
        self._call("eof_received")

    def connection_lost(self, error):
        self.lost.set()
        self._call("connection_lost")


async def protocol_of_a_connection(user, make, port):
    for at in ("connection_made", "data_received", "eof_received", "connection_lost"):
        protocol = Odd(make, at)
        with contextlib.suppress(BaseException):
            async with asyncio.timeout(WITHIN):
                await user.client.create_connection(lambda protocol=protocol: protocol, "server", port=port)
                await protocol.lost.wait()
    await eventually(lambda: not user.client.node.requests._open or len(user.client.node.requests._open) == 1)


@pytest.mark.parametrize(
    "place",
    [
        stdin_of_a_command,
        reply_of_a_job,
        job_itself,
        progress_of_a_copy,
        output_of_many,
        error_of_a_forwarded_port,
        protocol_of_a_connection,
    ],
    ids=lambda place: place.__name__,
)
async def test_what_user_code_raises_ends_what_it_belongs_to_and_nothing_else(place, tmp_path):
    plugins = {"job": {"folder": str(tmp_path / "jobs")}, "file": {"write": ["/"], "read": ["/"]}}
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)  # which has what a protocol's last callback raises
    async with contextlib.AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(Mesh.chain("client", allow=EVERYONE))
        await mesh.add("server", "client", allow=EVERYONE, plugins=plugins)
        await mesh.settle()
        if place is protocol_of_a_connection:
            place = functools.partial(place, port=await stack.enter_async_context(served(echo)))
        user = User(mesh, tmp_path)
        async with mesh["client"].stream("server", "sleep:execute", b"3600") as beside:
            await raise_each(lambda make: place(user, make), mesh["client"])
            assert not beside.ended, "work that had nothing to do with it"
