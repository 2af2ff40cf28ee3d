"""Connections through the mesh without asyncio: sockets, and ports that lead to other nodes."""

import socket
import threading
from collections.abc import Iterator

import pytest

import zmesh
import zmesh.sync
from tests.ports import FreePorts


def serve(listener: socket.socket) -> None:
    """Greet each connection, echo what it sends, and reset it when that is `reset`."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=converse, args=(connection,), daemon=True).start()


def converse(connection: socket.socket) -> None:
    with connection:
        connection.sendall(b"hello\n")
        while data := connection.recv(65536):
            if data == b"reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return
            connection.sendall(data)


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def mesh() -> Iterator[zmesh.sync.Controller]:
    settings = {"allow": {"tcp:*": ["*"]}}
    with zmesh.sync.Controller(node_id="edge", listen=["tcp://127.0.0.1:*"], **settings) as edge:  # type: ignore[arg-type]
        with zmesh.sync.Controller(node_id="desk", peers=edge.listening) as desk:
            desk.wait_for("edge", 90)
            edge.desk = desk  # type: ignore[attr-defined]
            yield edge


def test_a_connection_is_a_socket(mesh: zmesh.sync.Controller, port: int, free_ports: FreePorts) -> None:
    desk: zmesh.sync.Controller = mesh.desk  # type: ignore[attr-defined]
    data = bytes(range(256)) * 10_000
    with desk.open_connection("edge", "127.0.0.1", port) as connection, connection.makefile("rb") as file:
        assert file.readline() == b"hello\n"
        threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR))).start()
        assert file.read() == data
    with desk.open_connection("edge", port=port) as connection:
        connection.recv(100)
        connection.sendall(b"reset")
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
    with pytest.raises(ConnectionRefusedError, match="node 'edge' can't connect"):
        desk.open_connection("edge", port=free_ports())


def test_ports_are_forwarded_and_exposed_within_a_block(mesh: zmesh.sync.Controller, port: int) -> None:
    desk: zmesh.sync.Controller = mesh.desk  # type: ignore[attr-defined]
    with mesh.expose("web", port) as exposed, desk.forward(0, "edge:web") as forward:
        desk.check_forward("edge:web", 20)
        with socket.create_connection(("localhost", forward.port)) as connection:
            assert connection.recv(100) == b"hello\n"
            assert (forward.connections, forward.made, forward.failed) == (1, 1, 0)
        assert (exposed.name, exposed.endpoint) == ("web", ("localhost", port))
        assert forward.addresses[0].port == forward.port
        assert str(forward.to) == "edge:web"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("localhost", forward.port))
    with pytest.raises(zmesh.UnknownDirective):
        desk.check_forward("edge:web")
