"""Where a command joins the mesh, and the errors when it can't."""

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from zmesh.core import wire


def test_the_only_local_node_is_found_by_its_socket(shell: Any) -> None:
    node = shell.node("only", listen=None)
    assert node.ready["listening"] == []
    folder = shell.folder / "zmesh"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "only.sock").stat().st_mode) == 0o600
    assert shell.run("ping", "only", "-c", "1").returncode == 0
    assert shell.run("routes").stdout.startswith(b"Routes of only\n")
    assert shell.run("send", "only", "echo:echo", "x").stdout == b"x"


def test_without_a_local_node_the_error_says_what_to_do(shell: Any) -> None:
    for words in (("ping", "a"), ("send", "a", "b:c"), ("routes",)):
        done = shell.run(*words)
        assert done.returncode == 3
        assert b"start a node with 'zmesh node', join a mesh with 'zmesh join', or name a node" in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_several_local_nodes_are_listed(shell: Any) -> None:
    shell.node("one")
    two = shell.node("two")
    done = shell.run("ping", "elsewhere")
    assert done.returncode == 2
    assert done.stderr == (b"zmesh: 2 nodes run here: one, two; name the one to join the mesh at, such as --peer one\n")
    for named in ("two", f"ipc://{shell.folder}/zmesh/two.sock"):
        assert shell.run("routes", "--peer", named).stdout.startswith(b"Routes of two\n")
        assert shell.run("routes", environment={"ZMESH_PEER": named}).stdout.startswith(b"Routes of two\n")
    wrong = shell.run("routes", "--peer", "three")
    assert wrong.returncode == 2
    assert b"three" in wrong.stderr
    two.end()
    assert shell.run("routes").stdout.startswith(b"Routes of one\n")


def test_of_several_local_nodes_a_command_joins_at_its_target(shell: Any) -> None:
    """They are in no common mesh, so that it can be reached at itself only."""
    shell.environment["XDG_RUNTIME_DIR"] = str(deep := shell.folder / ("d" * (70 - len(str(shell.folder)))))
    deep.mkdir()
    for name in ("one", "two", long := "n" * 60):
        shell.node(name)
    for name in ("one", "two", long):
        assert shell.run("ping", name, "-c", "1").returncode == 0
        assert shell.run("send", name, "echo:echo", "x").stdout == b"x"
        assert shell.run("routes", name).stdout.startswith(f"Routes of {name}\n".encode())
        assert shell.run("cancel", "0" * 32, name).stderr.startswith(b"zmesh: no work for message 0")
    done = shell.run("ping", "cli-0123456789@two", "-c", "1", "--timeout", "10")
    assert b"'cli-0123456789@two' has left the mesh" in done.stderr
    assert shell.run("cancel", "0" * 32).returncode == 2


def test_the_socket_of_a_killed_node_is_skipped_and_used_again(shell: Any) -> None:
    shell.node("dead").close()
    assert (shell.folder / "zmesh" / "dead.sock").exists()
    assert shell.run("routes").returncode == 3
    shell.node("alive")
    assert shell.run("routes").stdout.startswith(b"Routes of alive\n")
    shell.node("dead", listen=None)
    assert b"2 nodes run here" in shell.run("routes").stderr


def test_a_node_that_ends_deletes_its_socket(shell: Any) -> None:
    node = shell.node("brief")
    node.end()
    assert os.listdir(shell.folder / "zmesh") == []


def test_a_flag_goes_before_the_environment(shell: Any) -> None:
    one, two = shell.node("one"), shell.node("two")
    done = shell.run("routes", "--peer", one.url, environment={"ZMESH_PEER": two.url})
    assert done.stdout.startswith(b"Routes of one\n")


def test_an_id_that_is_too_long_for_a_path_still_has_a_socket(shell: Any) -> None:
    deep = shell.folder / ("d" * (100 - len(str(shell.folder)) - len("/zmesh/") - 22))
    deep.mkdir()
    shell.environment["XDG_RUNTIME_DIR"] = str(deep)
    shell.node("n" * 64)
    (name,) = os.listdir(deep / "zmesh")
    assert len(name) == 16 + len(".sock")
    assert shell.run("ping", "n" * 64, "-c", "1").returncode == 0


def test_a_node_runs_without_a_socket_in_a_folder_that_is_too_deep_for_one(shell: Any) -> None:
    deep = shell.folder / ("d" * 100)
    deep.mkdir()
    shell.environment["XDG_RUNTIME_DIR"] = str(deep)
    node = shell.node("n")
    assert "commands will need --peer" in node.complaints()
    assert shell.run("ping", "n", "-c", "1", "--peer", node.url).returncode == 0


def test_a_folder_that_others_may_enter_is_not_trusted(shell: Any) -> None:
    node = shell.node("a")
    folder = shell.folder / "zmesh"
    folder.chmod(0o755)
    done = shell.run("ping", "a")
    assert done.returncode == 2
    assert b"open to others (mode 755)" in done.stderr
    assert shell.run("ping", "a", "-c", "1", "--peer", node.url).returncode == 0
    other = shell.node("b")
    assert "open to others" in other.complaints()


def test_a_link_in_the_place_of_the_folder_is_not_trusted(shell: Any) -> None:
    elsewhere = shell.folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (shell.folder / "zmesh").symlink_to(elsewhere)
    done = shell.run("routes")
    assert done.returncode == 2
    assert b"is not a folder" in done.stderr


def test_without_a_runtime_folder_the_sockets_are_in_a_folder_of_the_user_in_tmp(shell: Any) -> None:
    del shell.environment["XDG_RUNTIME_DIR"]
    shell.node("a")
    assert os.listdir(shell.folder) == [f"zmesh-{os.geteuid()}"]
    assert shell.run("routes").returncode == 0


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("nonsense", b"give one that does, or a URL, such as tcp://host:port"),
        ("http://127.0.0.1:80", b"is no address"),
        ("tcp://127.0.0.1", b"must look like tcp://host:port"),
        ("tcp://127.0.0.1:99999", b"the port from 0 to 65535"),
        ("tcp://127.0.0.1:1?prize=3", b"only cost=N"),
        ("rnps://127.0.0.1:1", b"encryption needs ?key="),
        ("ipc://" + "x" * 120, b"106 bytes"),
    ],
)
def test_a_url_that_is_wrong_is_a_usage_error(shell: Any, url: str, complaint: bytes) -> None:
    done = shell.run("ping", "a", "--peer", url)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("words", [("ping", "a"), ("send", "a", "echo:echo"), ("routes",)])
def test_a_peer_that_does_not_answer_is_named_at_once(shell: Any, words: tuple[str, ...]) -> None:
    nobody = {
        shell.free_url(): "connection refused",
        f"ipc://{shell.folder}/nobody": "there is no such socket",
    }
    for url, reason in nobody.items():
        done = shell.run(*words, "--peer", url)
        assert (done.returncode, done.stdout) == (3, b"")
        assert f"zmesh: can't reach {url}: {reason}".encode() in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_a_host_that_has_no_address_is_named(shell: Any) -> None:
    done = shell.run("routes", "--peer", "tcp://no-such-host.invalid:7323", "--insecure")
    assert done.returncode == 3
    assert b"can't reach tcp://no-such-host.invalid:7323" in done.stderr


def serve_once(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(answer)
        connection.recv(4096)


def test_a_peer_that_speaks_another_protocol_is_unreachable(shell: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
        thread = threading.Thread(target=serve_once, args=(server, answer))
        thread.start()
        done = shell.run("routes", "--peer", f"tcp://127.0.0.1:{server.getsockname()[1]}")
        thread.join(90)
    assert done.returncode == 3
    assert b"can't reach tcp://127.0.0.1:" in done.stderr


def test_a_silent_peer_is_a_time_out_of_joining(shell: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        done = shell.run("routes", "--timeout", "0.3", "--peer", url)
    assert done.returncode == 3
    assert url.encode() in done.stderr


def test_no_command_ends_in_a_traceback_when_its_peer_is_killed(shell: Any, eventually: Callable[..., None]) -> None:
    hub = shell.node("hub")
    commands = [
        shell.start("ping", "hub", "-c", "3", "-i", "0.2", "--timeout", "3", "--peer", hub.url),
        shell.start("send", "hub", "sleep:execute", "3600", "--timeout", "4", "--peer", hub.url),
    ]
    for _ in commands:
        hub.event("link_up")
    hub.close()
    for command in commands:
        out, err = command.communicate(timeout=90)
        assert command.returncode in (0, 3, 4)
        assert b"Traceback" not in out + err
        assert err.count(b"\n") <= 1


@contextlib.contextmanager
def peer_that_answers(answer: Callable[[list[bytes]], list[bytes] | None]) -> Iterator[str]:
    """A ZeroMQ socket that is no node, and replies to each message with what `answer` makes of it; its URL."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        port = router.bind_to_random_port("tcp://127.0.0.1")
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                if router.poll(50):
                    sender, *frames = router.recv_multipart()
                    if (reply := answer(frames)) is not None:
                        router.send_multipart([sender, *reply])

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp://127.0.0.1:{port}"
        over.set()
        thread.join(90)


def test_a_peer_that_refuses_the_link_is_quoted(shell: Any) -> None:
    refusal = wire.encode_link(wire.Kind.REFUSE, wire.Refuse("version", "version 1 is \x1b[31mnot\x1b[0m for us"))
    with peer_that_answers(lambda frames: list(refusal)) as url:
        done = shell.run("ping", "a", "--peer", url)
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"they refuse: version 1 is " in done.stderr
    assert b"\x1b" not in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("answer", [None, [b"what", b"is", b"this"]])
def test_a_peer_without_a_handshake_is_a_time_out_of_joining(shell: Any, answer: list[bytes] | None) -> None:
    with peer_that_answers(lambda frames: answer) as url:
        done = shell.run("routes", "--timeout", "0.5", "--peer", url)
    assert (done.returncode, done.stdout) == (3, b"")
    assert url.encode() in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_an_ephemeral_node_that_has_left_is_not_waited_for(mesh: Any) -> None:
    done = mesh.run("ping", "cli-0123456789@far", "-c", "1", "--timeout", "10")
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"has left the mesh" in done.stderr
