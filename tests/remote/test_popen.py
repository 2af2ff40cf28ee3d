"""Commands as processes for programs without asyncio."""

import signal
from asyncio.subprocess import PIPE

import pytest

import zmesh
import zmesh.sync


@pytest.fixture(scope="module")
def mesh():
    with zmesh.sync.Controller(node_id="solo", allow={"exec:run": ["*"]}) as mesh:
        yield mesh


def test_its_output_is_iterated_over_as_it_comes(mesh):
    with mesh.popen("solo", ["sh", "-c", "echo out; echo err >&2; exit 7"]) as process:
        found = dict(iter(process))
        assert (process.node, process.args[0], process.returncode) == ("solo", "sh", 7)
    assert found == {1: b"out\n", 2: b"err\n"}


def test_stdin_is_written_while_output_is_read(mesh):
    with mesh.popen("solo", ["cat"], stdin=PIPE) as process:
        for word in (b"one\n", b"two\n"):
            process.stdin.write(word)
            process.stdin.drain()
            assert next(process) == (1, word)
        process.stdin.close()
        assert next(process, None) is None
        assert process.wait() == 0


def test_communicate_gives_input_and_takes_all_output(mesh):
    with mesh.popen("solo", ["sh", "-c", "cat; echo err >&2"], stdin=PIPE) as process:
        assert process.communicate(b"given") == (b"given", b"err\n")


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda process: process.send_signal(signal.SIGINT), -signal.SIGINT),
        (lambda process: process.terminate(), -signal.SIGTERM),
        (lambda process: process.kill(), -signal.SIGKILL),
    ],
)
def test_signals_reach_it(mesh, end, code):
    with mesh.popen("solo", ["sleep", "600"]) as process:
        end(process)
        assert process.wait() == code


def line_of(process):
    """The next line of a terminal, which may come in pieces."""
    line = b""
    while not line.endswith(b"\n"):
        line += next(process)[1]
    return line


def test_a_terminal_can_be_resized(mesh):
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"
    with mesh.popen("solo", ["sh", "-c", script], terminal=(24, 80)) as process:
        assert line_of(process) == b"ready\r\n"
        process.resize(30, 100)
        assert line_of(process) == b"30 100\r\n"


def test_leaving_the_block_stops_it(mesh, tmp_path):
    script = f"trap 'echo stopped >{tmp_path}/end; exit' TERM; echo ready; while :; do sleep 0.01; done"
    with mesh.popen("solo", ["sh", "-c", script]) as process:
        next(process)
    assert (tmp_path / "end").read_text() == "stopped\n"


def test_closing_the_controller_stops_it(tmp_path):
    script = f"trap 'echo stopped >{tmp_path}/end; exit' TERM; echo ready; while :; do sleep 0.01; done"
    with zmesh.sync.Controller(node_id="solo", allow={"exec:run": ["*"]}) as mesh:
        process = mesh.popen("solo", ["sh", "-c", script])
        next(process)
    assert (tmp_path / "end").read_text() == "stopped\n"


def test_what_can_not_be_started_raises(mesh):
    with pytest.raises(zmesh.CommandFailed, match="no-such-program"):
        mesh.popen("solo", ["no-such-program"])
    with pytest.raises(zmesh.Unreachable):
        mesh.popen("dead", ["true"], route_timeout=0.1)
