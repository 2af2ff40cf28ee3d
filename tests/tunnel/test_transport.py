"""The transport of a connection through the mesh, used as protocols of asyncio use any other."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.tunnel.servers import echo, served
from zmesh.testing import Mesh, eventually

EVERYONE = {"tcp:*": ["*"]}


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with Mesh.chain("desk", "edge", allow=EVERYONE) as mesh:
        yield mesh


class Recorder(asyncio.Protocol):
    """Notes all that it is called with."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.data = b""
        self.calls: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return False

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


async def test_a_protocol_is_called_as_by_any_transport(mesh: Mesh) -> None:
    async with served(echo) as port:
        transport, protocol = await mesh["desk"].create_connection(Recorder, "edge", port=port)
        assert protocol.transport is transport
        assert transport.get_protocol() is protocol
        assert transport.get_extra_info("node") == "edge"
        assert transport.get_extra_info("peername")[1] == port
        assert transport.get_extra_info("socket", "none") == "none"
        transport.writelines([b"one ", bytearray(b"two "), memoryview(b"three")])
        await eventually(lambda: protocol.data == b"one two three")
        assert transport.can_write_eof()
        transport.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            transport.write(b"more")
        assert await protocol.lost is None  # eof_received has closed it
        assert protocol.calls == ["eof"]
        assert transport.is_closing()
        transport.close()
        transport.abort()


async def test_a_protocol_is_paused_at_the_high_mark_and_resumed_at_the_low_one(mesh: Mesh) -> None:
    async with served(echo) as port:
        transport, protocol = await mesh["desk"].create_connection(Recorder, "edge", port=port)
        transport.set_write_buffer_limits(high=1000, low=0)
        assert transport.get_write_buffer_limits() == (0, 1000)  # type: ignore[attr-defined,unused-ignore]
        transport.pause_reading()
        assert not transport.is_reading()
        transport.write(bytes(16_000_000))
        assert transport.get_write_buffer_size() > 1000
        assert protocol.calls == ["pause"]
        assert protocol.data == b""
        transport.resume_reading()
        await eventually(lambda: len(protocol.data) == 16_000_000)
        assert protocol.calls == ["pause", "resume"]
        assert transport.get_write_buffer_size() == 0
        with pytest.raises(ValueError, match="high"):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.abort()
        assert await protocol.lost is None


async def test_data_for_a_connection_that_was_closed_resets_it(mesh: Mesh) -> None:
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(bytes(10_000))
                await writer.drain()
        except ConnectionError as error:
            outcome.set_result(type(error).__name__)

    async with served(endless) as port:
        transport, protocol = await mesh["desk"].create_connection(Recorder, "edge", port=port)
        await eventually(lambda: len(protocol.data) > 100_000)
        transport.close()
        assert await protocol.lost is None
        assert await outcome in ("ConnectionResetError", "BrokenPipeError")
        await eventually(lambda: not len(mesh["desk"].node.requests))


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for `far.example` that signs itself, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "far.example")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("far.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (tmp_path / "certificate").write_bytes(made.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key").write_bytes(private)
    return tmp_path / "certificate", tmp_path / "key"


async def test_tls_runs_over_a_connection(mesh: Mesh, certificate: tuple[Path, Path]) -> None:
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=certificate[0])

    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(upper, "127.0.0.1", 0, ssl=serving)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await mesh["desk"].open_connection("edge", port=port)
    await writer.start_tls(trusting, server_hostname="far.example")
    writer.write(b"hello\n")
    assert await reader.readline() == b"HELLO\n"
    assert writer.get_extra_info("cipher") is not None
    writer.close()
    await writer.wait_closed()
    server.close()
