"""`zmesh forward` and `zmesh nc`, the installed command, with nodes as processes."""

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from zmesh_cli.help import EXAMPLES


class Server:
    """A TCP server in threads; each connection is given to `handle`."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self._handle = handle
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            self._handle(connection)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def greet_and_echo(connection: socket.socket) -> None:
    connection.sendall(b"220 hello\n")
    while data := connection.recv(65536):
        connection.sendall(data)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(greet_and_echo)
    yield server
    server.close()


@pytest.fixture(scope="module")
def site(new_shell: Callable[[], Any]) -> Any:
    shell = new_shell()
    shell.environment["ZMESH_ALLOW"] = '{"tcp:*": ["*"]}'
    shell.chain("hub", "edge-7")
    shell.environment["ZMESH_PEER"] = "hub"
    return shell


def forwarding(site: Any, *words: str) -> tuple[subprocess.Popen[bytes], tuple[str, int]]:
    """A process of `zmesh forward --json` that listens, and where."""
    process = site.start("forward", "--json", *words)
    ready = json.loads(process.stdout.readline())
    assert (ready["schema"], ready["event"]) == ("zmesh.forward/1", "ready")
    host, _, port = ready["listening"][0].rpartition(":")
    return process, (host, int(port))


def test_a_port_here_leads_to_a_port_there_until_a_signal(site: Any, server: Server) -> None:
    process, address = forwarding(site, "0", f"edge-7:{server.port}")
    with socket.create_connection(address) as connection, connection.makefile("rb") as file:
        assert file.readline() == b"220 hello\n"
        connection.sendall(b"back\n")
        assert file.readline() == b"back\n"
        connection.shutdown(socket.SHUT_WR)
        assert file.read() == b""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=90)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_connection_that_is_refused_there_is_reset_and_a_line_says_why(site: Any) -> None:
    process, address = forwarding(site, "127.0.0.1:0", "edge-7:1")
    for _ in range(2):
        with pytest.raises(ConnectionResetError), socket.create_connection(address) as connection:
            connection.recv(1)
    assert process.stderr.readline() == b"zmesh: node 'edge-7' can't connect to localhost:1: connection refused\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=90)[1] == b""


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("0", "edge-7"), 2, "'edge-7' is no other end: give NODE:PORT, NODE:HOST:PORT, or NODE:NAME of a service"),
        (("0", "edge-7:0"), 2, "0 is no TCP port: that is a number from 1 to 65535"),
        (
            ("::1:80", "edge-7:80"),
            2,
            "'::1:80' is no [HOST:]PORT; an IPv6 address stands in brackets, such as [::1]:80",
        ),
        (
            ("0", "edge-7:web"),
            1,
            "node 'edge-7' exposes nothing by the name 'web'; it would, with 'zmesh expose web PORT'",
        ),
        (("0", "edge-8:80"), 3, "no node 'edge-8' can be reached from 'hub'"),
        (("0", "edge-7:192.0.2.1:80"), 6, 'its configuration would, with "192.0.2.1:80" among the targets of [tcp]'),
    ],
)
def test_what_can_not_be_forwarded_ends_in_a_line_that_says_why(
    site: Any, words: tuple[str, ...], code: int, text: str
) -> None:
    done = site.run("forward", *words)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (code, b"", 1)
    assert text in done.stderr.decode()


def test_a_port_that_is_taken_is_named(site: Any, server: Server) -> None:
    done = site.run("forward", f"127.0.0.1:{server.port}", "edge-7:80")
    assert done.returncode == 2
    assert f"can't listen on 127.0.0.1:{server.port}: " in done.stderr.decode()


def test_a_node_exposes_a_port_by_a_name_for_its_user_until_a_signal(new_shell: Any, server: Server) -> None:
    shell = new_shell()
    shell.environment["ZMESH_ALLOW"] = '{"tcp:web": ["hub"]}'
    shell.chain("hub", "edge-7")
    exposing = shell.start("expose", "web", str(server.port), "--peer", "edge-7", "--json")
    ready = json.loads(exposing.stdout.readline())
    assert (ready["schema"], ready["node"], ready["name"]) == ("zmesh.expose/1", "edge-7", "web")
    assert shell.run("nc", "edge-7", "web", "--peer", "hub").stdout == b"220 hello\n"
    again = shell.run("expose", "web", "80", "--peer", "edge-7")
    assert (again.returncode, again.stdout) == (1, b"")
    assert b"node 'edge-7' exposes 'web' already; choose another name" in again.stderr
    port = shell.run("nc", "edge-7", str(server.port), "--peer", "hub")
    assert (port.returncode, port.stdout) == (6, b"")
    exposing.send_signal(signal.SIGTERM)
    exposing.communicate(timeout=90)
    assert exposing.returncode == 130
    gone = shell.run("nc", "edge-7", "web", "--peer", "hub")
    assert (gone.returncode, gone.stdout) == (1, b"")
    assert (
        b"node 'edge-7' exposes nothing by the name 'web'; it would, with 'zmesh expose web PORT' there" in gone.stderr
    )


def test_a_name_that_is_none_is_named(site: Any) -> None:
    for name in ("80", "Web", "connect"):
        done = site.run("expose", name, "80")
        assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
        assert b"can't be the name of a service" in done.stderr


def test_ports_and_names_of_the_configuration_are_there_when_the_node_is(new_shell: Any, server: Server) -> None:
    shell = new_shell()
    port = shell.free_ports()
    exposed = f'[[expose]]\nname = "web"\nport = {server.port}\n'
    (shell.folder / "edge.toml").write_text(f'node_id = "edge"\nallow = {{"tcp:web" = "*"}}\n{exposed}')
    hub = shell.node("hub")
    edge = shell.node("edge", "--config", str(shell.folder / "edge.toml"), "--peer", hub.url)
    edge.event("node_joined")
    forwarded = f'[[forward]]\nlisten = "127.0.0.1:{port}"\nto = "edge:web"\n'
    (shell.folder / "desk.toml").write_text(f'node_id = "desk"\n{forwarded}')
    desk = shell.node("desk", "--config", str(shell.folder / "desk.toml"), "--peer", hub.url)
    desk.event("node_joined")
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as file:
        assert file.readline() == b"220 hello\n"
    taken = shell.run("node", "--config", str(shell.folder / "desk.toml"), "--id", "other")
    assert taken.returncode == 2
    assert f"can't listen on 127.0.0.1:{port}: address already in use".encode() in taken.stderr


def test_nc_joins_its_standard_streams_to_a_port(site: Any, server: Server) -> None:
    data = bytes(range(256)) * 4000
    done = site.run("nc", "edge-7", str(server.port), stdin=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"220 hello\n" + data


def test_nc_says_why_it_can_not_connect(site: Any) -> None:
    done = site.run("nc", "edge-7", "1")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"zmesh: node 'edge-7' can't connect to localhost:1: connection refused\n"


def test_the_examples_are_lines_that_these_tests_run_with_other_ports() -> None:
    lines = [line for name in ("zmesh forward", "zmesh expose", "zmesh nc") for _, line in EXAMPLES[name]]
    assert lines == [
        "zmesh forward 8080 edge-7:80",
        "zmesh forward 5432 edge-7:db.internal:5432",
        "zmesh forward 8080 edge-7:web",
        "zmesh expose web 8000",
        "zmesh expose printer 10.0.0.9:9100",
        "zmesh nc edge-7 25 </dev/null",
        "ssh -o ProxyCommand='zmesh nc %h %p' ada@edge-7",
    ]
