"""Nodes that are stopped (SIGSTOP) as a command ends: it ends with an error that names them, and leaves nothing."""

import signal
from pathlib import Path
from typing import Any

import pytest

ALLOW = '{"exec:*": ["*"], "file:*": ["*"]}'
SIZE = 64 * 1024 * 1024


@pytest.fixture
def machines(shell: Any) -> Any:
    """A shell beside two nodes that allow commands and files, whose commands join at `hub`."""
    shell.environment["ZMESH_ALLOW"] = ALLOW
    shell.hub, shell.far = shell.chain("hub", "far")
    del shell.environment["ZMESH_ALLOW"]
    shell.environment["ZMESH_PEER"] = shell.hub.url
    return shell


def goes_on(machines: Any, eventually: Any) -> None:
    """The node `far` goes on and answers."""
    machines.far.send(signal.SIGCONT)
    eventually(lambda: machines.run("ping", "far", "-c", "1").returncode == 0)


@pytest.mark.parametrize("stopped", ["far", "hub"])
def test_a_command_whose_node_is_stopped_as_it_ends(
    machines: Any, eventually: Any, stopped: str, tmp_path: Path
) -> None:
    """`hub`: the node that it is joined at."""
    pid = getattr(machines, stopped).pid
    script = f"echo $$ >{tmp_path}/pid; echo out; kill -STOP {pid}; exit 7"
    try:
        done = machines.run("run", "far", "--route-timeout", "3", "--", "sh", "-c", script)
    finally:
        machines.hub.send(signal.SIGCONT)
        goes_on(machines, eventually)
    said = done.stderr.decode()
    assert done.returncode == 255
    assert said.startswith("zmesh: ")
    assert repr(stopped) in said
    assert "Traceback" not in said
    group = int((tmp_path / "pid").read_text())
    eventually(lambda: not Path(f"/proc/{group}").exists())
    eventually(lambda: "0 of 10000 requests run" in machines.run("status", "far").stdout.decode())
    assert machines.run("run", "far", "--", "true").returncode == 0


def test_a_copy_whose_node_is_stopped_is_resumed_later(machines: Any, eventually: Any, tmp_path: Path) -> None:
    source, there = tmp_path / "source", tmp_path / "there"
    there.mkdir()
    with source.open("wb") as file:
        file.truncate(SIZE)
        file.write(b"begin")
    copy = machines.start("cp", "--route-timeout", "3", str(source), f"far:{there}/copy")
    try:
        eventually(lambda: list(there.iterdir()))
        machines.far.send(signal.SIGSTOP)
        _, said = copy.communicate(timeout=100)
    finally:
        goes_on(machines, eventually)
    if copy.returncode:  # else all had arrived
        assert "'far'" in said.decode()
        assert "Traceback" not in said.decode()
    done = machines.run("cp", str(source), f"far:{there}/copy")
    assert (done.returncode, done.stderr) == (0, b"")
    eventually(lambda: [each.name for each in there.iterdir()] == ["copy"])
    assert (there / "copy").stat().st_size == SIZE
