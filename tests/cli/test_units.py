"""`zmesh service`: the unit as systemd reads it, the notifications of a node, and a node as process 1."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import COMMAND, WITHIN

ROOT = Path(__file__).parents[2]
STUB = """#!/bin/sh
echo "$@" >>"$STUB_LOG"
[ "$1" = show ] || [ "$2" = show ] && cat "$STUB_SHOW" 2>/dev/null
[ -z "$STUB_FAILS" ] || { echo "Failed to connect to bus" >&2; exit 1; }
"""
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
EXPOSURE = 25
"""Tenths, as systemd-analyze(1) has them: 10.0 is a unit without any protection."""


@pytest.fixture
def systemctl(shell: Any) -> Path:
    """A systemctl that logs its arguments, one line for each call."""
    folder = Path(shell.folder)
    (folder / "bin").mkdir()
    stub = folder / "bin/systemctl"
    stub.write_text(STUB)
    stub.chmod(0o755)
    shell.environment["PATH"] = f"{stub.parent}:{shell.environment['PATH']}"
    shell.environment |= {"STUB_LOG": str(folder / "calls"), "STUB_SHOW": str(folder / "show"), "STUB_FAILS": ""}
    return folder


def unit_of(shell: Any, *words: str) -> str:
    done = shell.run("service", "install", "--print", *words)
    assert (done.returncode, done.stderr) == (0, b"")
    return str(done.stdout.decode())


# --- the unit ---------------------------------------------------------------------------------------------------------


@needs_systemd
@pytest.mark.parametrize("words", [[], ["--user"], ["--unconfined"], ["--name", "zmesh-lab"]], ids=" ".join)
def test_systemd_takes_the_unit(shell: Any, tmp_path: Path, words: list[str]) -> None:
    unit = tmp_path / "zmesh.service"
    unit.write_text(unit_of(shell, *words))
    scope = ["--user"] if "--user" in words else []
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    line = ["systemd-analyze", "verify", *scope, str(unit)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "zmesh" in line]) == (0, [])


@needs_systemd
@pytest.mark.skipif(os.geteuid() != 0, reason="a unit of the system is for root")
def test_the_unit_of_the_system_exposes_little(shell: Any, tmp_path: Path) -> None:
    unit = tmp_path / "zmesh.service"
    for words in ([], ["--state", str(tmp_path)]):
        unit.write_text(unit_of(shell, *words))
        line = ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE}", str(unit)]
        done = subprocess.run(line, capture_output=True, text=True)
        if "unrecognized option" in done.stderr:
            pytest.skip("this systemd-analyze rates no files")
        if not words:
            assert done.returncode == 0, done.stdout[-300:]


def test_the_unit_has_the_settings_and_the_identity(shell: Any, tmp_path: Path) -> None:
    (tmp_path / "my node.toml").write_text('node_id = "a"\n')
    text = unit_of(shell, "--user", "--config", str(tmp_path / "my node.toml"), "--state", str(tmp_path / "state"))
    assert f"node --config '{tmp_path}/my node.toml'\n" in text
    assert f"Environment=ZMESH_STATE={tmp_path}/state\n" in text
    assert "DynamicUser" not in text
    assert "Type=notify\n" in text
    assert "SystemCallFilter" not in unit_of(shell, "--user", "--unconfined")


def test_a_unit_is_installed_shown_and_removed(shell: Any, systemctl: Path) -> None:
    done = shell.run("service", "install", "--user")
    unit = systemctl / "config/systemd/user/zmesh.service"
    assert done.stdout.decode().startswith(f"{unit} is written, and runs at each boot\n")
    assert unit.read_text() == unit_of(shell, "--user")
    again = shell.run("service", "install", "--user")
    assert again.returncode == 2
    assert b"is there already; 'zmesh service uninstall' removes it" in again.stderr
    (systemctl / "show").write_text("LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=7\nNRestarts=2\n")
    shown = shell.run("service", "status", "--user")
    assert (shown.returncode, shown.stdout) == (0, b"zmesh: active (running), process 7, started again 2 times\n")
    fields = json.loads(shell.run("service", "status", "--user", "--json").stdout)
    assert [fields[key] for key in ("schema", "active", "pid", "restarts")] == ["zmesh.service/1", "active", 7, 2]
    shell.run("service", "uninstall", "--user")
    assert not unit.exists()
    (systemctl / "show").write_text("LoadState=not-found\nActiveState=inactive\n")
    assert shell.run("service", "status", "--user").returncode == 3
    assert shell.run("service", "uninstall", "--user").returncode == 2
    calls = [line.removeprefix("--user ") for line in (systemctl / "calls").read_text().splitlines()]
    assert [call for call in calls if not call.startswith("show")] == [
        "daemon-reload",
        "enable --now zmesh.service",
        "disable --now zmesh.service",
        "daemon-reload",
    ]


def test_nothing_is_left_where_systemd_does_not_run_or_a_file_can_not_be_used(shell: Any, systemctl: Path) -> None:
    shell.environment["STUB_FAILS"] = "1"
    done = shell.run("service", "install", "--user")
    said = "systemctl --user daemon-reload: Failed to connect to bus; 'zmesh service install --print' shows the unit"
    assert (done.returncode, done.stderr.decode()) == (2, f"zmesh: {said}\n")
    (systemctl / "bad.toml").write_text("max_work = 0")
    done = shell.run("service", "install", "--user", "--config", str(systemctl / "bad.toml"))
    assert b"bad.toml:1: max_work = 0" in done.stderr
    assert not (systemctl / "config/systemd/user/zmesh.service").exists()
    assert shell.run("service", "install", "--name", "a/b").returncode == 2


# --- the socket of systemd --------------------------------------------------------------------------------------------


@pytest.fixture(params=["file", "abstract"])
def notified(request: Any, tmp_path: Path) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """The address of a socket as systemd has it, and what waits for the next message."""
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name if request.param == "file" else f"\0{name}")
        sock.settimeout(WITHIN)
        yield (name if request.param == "file" else f"@{name}"), lambda: sock.recv(4096).decode().splitlines()


def test_systemd_is_notified_that_a_node_is_ready_alive_reloads_and_stops(shell: Any, notified: Any) -> None:
    address, following = notified
    shell.environment |= {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"}  # a socket keeps ten unread messages
    node = shell.node("a", start_new_session=True)
    assert following() == ["READY=1", "STATUS=node a"]
    assert following() == ["WATCHDOG=1"]
    assert following() == ["WATCHDOG=1"]
    node.send(signal.SIGHUP)
    while (sent := following()) == ["WATCHDOG=1"]:
        pass
    assert sent[0] == "RELOADING=1"
    assert sent[1].startswith("MONOTONIC_USEC=")
    while (sent := following()) == ["WATCHDOG=1"]:
        pass
    assert sent[0] == "READY=1"
    assert node.end() == 0
    while (sent := following()) == ["WATCHDOG=1"]:
        pass
    assert sent == ["STOPPING=1"]


def test_a_watchdog_of_another_process_is_not_fed_and_commands_of_the_node_get_no_socket(
    shell: Any, notified: Any
) -> None:
    address, following = notified
    shell.environment |= {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    shell.environment |= {"ZMESH_ALLOW": '{"exec:run": ["*"]}'}
    node = shell.node("a")
    assert following()[0] == "READY=1"
    done = shell.run("run", "a", "--", "sh", "-c", "cat /proc/$PPID/environ | tr '\\0' '\\n'; env")
    assert b"NOTIFY_SOCKET" not in done.stdout
    node.end()
    assert following() == ["STOPPING=1"]


# --- a container ------------------------------------------------------------------------------------------------------


def test_the_containerfile_runs_as_a_user_of_its_own_and_asks_doctor() -> None:
    lines = (ROOT / "Containerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
    (check,) = (line for line in lines if "doctor" in line)
    assert check.strip() == 'CMD ["zmesh", "doctor", "--quiet"]'
    assert 'ENTRYPOINT ["zmesh"]' in lines


def _may_unshare() -> bool:
    words = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return shutil.which("unshare") is not None and subprocess.run(words, capture_output=True).returncode == 0


@pytest.mark.skipif(not _may_unshare(), reason="this user may make no namespace of processes")
def test_a_node_as_process_1_ends_by_a_signal_and_leaves_no_zombies(
    shell: Any, eventually: Callable[..., None]
) -> None:
    shell.environment |= {"ZMESH_ALLOW": '{"exec:run": ["*"]}'}
    program = f"exec {' '.join(COMMAND)} node --json --id one --until-stdin-closes"
    line = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", program]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=shell.environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert b'"event":"ready"' in process.stdout.readline()
        orphans = "for i in 1 2 3; do (sleep 0.1 & exec true) & done; sleep 0.5"
        assert shell.run("run", "one", "--", "sh", "-c", orphans).returncode == 0
        states = ("run", "one", "--shell", "--", "cat /proc/[0-9]*/stat | cut -d' ' -f3")
        eventually(lambda: b"Z" not in shell.run(*states).stdout)
        done = shell.run("run", "one", "--", "sh", "-c", "kill -TERM 1")
        assert process.wait(WITHIN) == 0
        assert done.returncode in (0, 143, 255)
