"""`zmesh node`."""

import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Lines = Callable[[subprocess.CompletedProcess[bytes]], list[dict[str, Any]]]


def test_the_first_line_says_that_it_is_ready_and_where_it_listens(shell: Any) -> None:
    node = shell.node("a", "--listen", f"ipc://{shell.folder}/a", listen="tcp://127.0.0.1:*")
    assert list(node.ready) == ["schema", "event", "node_id", "listening", "time"]
    assert node.ready["node_id"] == "a"
    tcp, ipc = node.ready["listening"]
    assert tcp.startswith("tcp://127.0.0.1:")
    assert int(tcp.rpartition(":")[2]) > 0
    assert ipc == f"ipc://{shell.folder}/a"


def test_later_lines_are_events_of_links_and_nodes(shell: Any) -> None:
    hub = shell.node("hub")
    edge = shell.node("edge", "--peer", hub.url)
    assert hub.event("link_up")["node"] == "edge"
    assert hub.event("node_joined")["node"] == "edge"
    edge.end()
    assert hub.event("link_lost")["node"] == "edge"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGQUIT, 130)])
def test_a_node_sends_goodbye_and_ends_on_a_signal(shell: Any, number: int, code: int) -> None:
    hub = shell.node("hub")
    edge = shell.node("edge", "--peer", hub.url)
    hub.event("link_up")
    assert edge.end(number) == code
    assert hub.event("link_lost")["node"] == "edge"
    assert "lost" not in edge.complaints()


def in_a_terminal(shell: Any, *words: str) -> tuple[Any, int]:
    """A node in a session with a new terminal; and the other end of the terminal."""
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    node = shell.node("edge", *words, preexec_fn=take_terminal)
    os.close(theirs)
    return node, ours


def test_a_node_sends_goodbye_and_ends_when_its_terminal_is_closed(shell: Any) -> None:
    hub = shell.node("hub")
    edge, terminal = in_a_terminal(shell, "--peer", hub.url)
    hub.event("link_up")
    os.close(terminal)
    assert hub.event("link_lost")["node"] == "edge"
    assert edge.process.wait(90) == 130
    assert "lost" not in edge.complaints()


def test_a_node_that_was_started_to_ignore_sighup_ignores_it(shell: Any) -> None:
    node = shell.node("a", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    node.send(signal.SIGHUP)
    assert shell.run("ping", "a", "-c", "1").returncode == 0
    assert (node.end(), node.complaints()) == (0, "")


def test_sighup_does_not_end_a_node_without_a_terminal(shell: Any) -> None:
    node = shell.node("a", start_new_session=True)
    node.send(signal.SIGHUP)
    assert shell.run("ping", "a", "-c", "1").returncode == 0
    assert node.end() == 0


def test_without_json_a_node_says_on_stderr_where_it_listens(shell: Any) -> None:
    process = shell.start("node", "--id", "a", "--listen", "tcp://127.0.0.1:*")
    assert process.stderr.readline().startswith(b"node a listens on tcp://127.0.0.1:")
    process.terminate()
    out, err = process.communicate(timeout=90)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_a_node_that_is_stopped_finishes_its_work(shell: Any) -> None:
    hub = shell.node("hub")
    edge = shell.node("edge", "--peer", hub.url)
    for _ in range(20):
        work = shell.start("send", "edge", "sleep:execute", "3", "--peer", hub.url)
        if has_begun(shell, "edge", hub.url, work):
            break
    assert edge.end() == 0
    out, err = work.communicate(timeout=90)
    assert (work.returncode, err) == (0, b"")
    assert json.loads(out) == {"seconds": 3}


def test_a_second_signal_stops_a_node_at_once(shell: Any, eventually: Callable[..., None]) -> None:
    hub = shell.node("hub")
    patient = "import zmesh_cli.node; zmesh_cli.node.FINISH_WITHIN = 600.0"
    edge = shell.start("node", "--id", "edge", "--peer", hub.url, setup=patient, stdout=None, stderr=None)
    with edge:
        hub.event("node_joined")
        work = shell.start("send", "edge", "sleep:execute", "3600", "--peer", hub.url)
        assert has_begun(shell, "edge", hub.url, work)
        edge.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            edge.wait(0.5)
        eventually(lambda: not is_pending(edge.pid, signal.SIGTERM))  # two that are pending would be one
        edge.terminate()
        assert edge.wait(90) == 0
    _, err = work.communicate(timeout=90)
    assert work.returncode == 1
    assert b"cancelled" in err


def is_pending(pid: int, number: int) -> bool:
    """Whether the process has yet to take this signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    pending = int(next(line for line in status.splitlines() if line.startswith("ShdPnd")).split()[1], 16)
    return bool(pending >> (number - 1) & 1)


def has_begun(shell: Any, node: str, peer: str, work: subprocess.Popen[bytes]) -> bool:
    """Wait until the node performs work; False if the command that sent it has ended before that was seen."""
    while work.poll() is None:
        out = shell.run("ping", node, "-c", "1", "--json", "--peer", peer).stdout
        if json.loads(out.splitlines()[0])["active_work"]:
            return True
    return False


def test_a_node_ends_with_its_stdin_if_started_so(shell: Any) -> None:
    node = shell.node("a", "--until-stdin-closes", stdin=subprocess.PIPE)
    node.process.stdin.close()
    assert node.process.wait(90) == 0


def test_a_full_stdout_does_not_stop_a_node(shell: Any) -> None:
    hub = shell.node("hub")
    os.set_blocking(hub.process.stdout.fileno(), True)
    filler = b"x" * 65536  # as good as a pipe that is full of events
    other_end = os.open(f"/proc/{hub.pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
    try:
        while True:
            os.write(other_end, filler)
    except BlockingIOError:
        pass
    finally:
        os.close(other_end)
    shell.node("edge", "--peer", hub.url)
    assert shell.run("ping", "edge", "-c", "2", "-i", "0", "--peer", hub.url).returncode == 0


def test_a_closed_stdout_does_not_stop_a_node(shell: Any) -> None:
    hub = shell.node("hub")
    hub.process.stdout.close()
    edge = shell.node("edge", "--peer", hub.url)
    assert shell.run("ping", "edge", "-c", "1", "--peer", edge.url).returncode == 0
    assert hub.end() == 0


# -- settings ------------------------------------------------------------------------------------------------------


def test_flags_win_over_the_environment_and_the_environment_over_the_file(shell: Any) -> None:
    file = shell.folder / "node.toml"
    file.write_text('node_id = "from-file"\nlisten = ["tcp://127.0.0.1:*", "tcp://127.0.0.1:*"]\nheartbeat = 0.5\n')

    def ready(*words: str, **environment: str) -> dict[str, Any]:
        shell.environment |= environment
        process = shell.start("node", "--json", "--config", str(file), *words)
        line: dict[str, Any] = json.loads(process.stdout.readline())
        process.terminate()
        process.communicate(timeout=90)
        return line

    first = ready()
    assert (first["node_id"], len(first["listening"])) == ("from-file", 2)
    second = ready(ZMESH_NODE_ID="from-env", ZMESH_LISTEN="tcp://127.0.0.1:*")
    assert (second["node_id"], len(second["listening"])) == ("from-env", 1)
    third = ready("--id", "from-flag", "--listen", "tcp://127.0.0.1:*", "--listen", "tcp://127.0.0.1:*")
    assert (third["node_id"], len(third["listening"])) == ("from-flag", 2)


def test_peers_come_from_the_environment_too(shell: Any) -> None:
    one, two = shell.node("one"), shell.node("two")
    shell.environment["ZMESH_PEERS"] = f"{one.url}, {two.url}"
    three = shell.node("three")
    assert {three.event("link_up")["node"], three.event("link_up")["node"]} == {"one", "two"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("node_idd = 'a'", b"no setting is called 'node_idd' (did you mean 'node_id'?)"),
        ("node_id =", b"is not TOML"),
        ("heartbeat = 'often'", b"heartbeat = 'often' is not a number"),
        ("heartbeat = -1", b"is not a number from"),
        ("listen = 'tcp://127.0.0.1:*'", b"listen must be a list of URLs"),
        ("node_id = 'a b'", b"node_id 'a b' is not 1 to 64"),
        ("plugins = 3", b"plugins must hold"),
    ],
)
def test_a_setting_that_is_wrong_is_a_usage_error(shell: Any, text: str, complaint: bytes) -> None:
    file = shell.folder / "node.toml"
    file.write_text(text)
    done = shell.run("node", "--config", str(file))
    assert (done.returncode, done.stdout) == (2, b"")
    assert complaint in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_file_of_settings_that_is_not_there_is_a_usage_error(shell: Any) -> None:
    done = shell.run("node", "--config", str(shell.folder / "missing.toml"))
    assert done.returncode == 2
    assert b"can't read" in done.stderr


def test_a_port_in_use_is_a_usage_error_in_one_line(shell: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        done = shell.run("node", "--listen", url)
    assert done.returncode == 2
    assert done.stderr.startswith(f"zmesh: can't listen on {url}: it is in use".encode())
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("url", ["nonsense", "tcp://127.0.0.1", "tcp://192.0.2.1:*", "ipc:///no/such/folder/x"])
def test_an_address_that_cannot_be_listened_on_is_a_usage_error(shell: Any, url: str) -> None:
    done = shell.run("node", "--listen", url)
    assert done.returncode == 2
    assert url.encode() in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_verbose_logs_to_stderr(shell: Any) -> None:
    hub = shell.node("hub", "-v")
    shell.node("edge", "--peer", hub.url)
    hub.event("node_joined")
    hub.end()
    assert "INFO    zmesh.observe.journal: hub: linked with edge" in hub.complaints()


def test_a_plugin_that_cannot_be_imported_is_logged_and_the_node_runs(shell: Any, tmp_path: Path) -> None:
    dist = tmp_path / "broken-1.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (dist / "entry_points.txt").write_text("[zmesh.plugins]\nbroken = no_such_module_anywhere\n")
    shell.environment["PYTHONPATH"] = str(tmp_path)
    node = shell.node("a")
    assert "the plugin broken (no_such_module_anywhere) can't be loaded" in node.complaints()
    done = shell.run("send", "a", "broken:x")
    assert done.returncode == 1
    assert b"could not be loaded" in done.stderr
    assert b"broken:!ModuleNotFoundError" in shell.run("routes", "--json").stdout


def test_what_a_node_has_at_its_start_is_not_looked_at_by_each_collection_of_garbage(shell: Any) -> None:
    setup = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count()))"
    node = shell.start("node", "--id", "edge", "--json", "--listen", "tcp://127.0.0.1:*", setup=setup)
    assert json.loads(node.stdout.readline())["event"] == "ready"
    node.terminate()
    said, _ = node.communicate(timeout=100)
    assert int(said.split()[-1]) > 10_000
