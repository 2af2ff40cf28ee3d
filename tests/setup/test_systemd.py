"""Nodes as units of a systemd that runs: process 1 of a machine in namespaces (machine.py), skipped where none can be.

The mesh has two nodes: `hub`, with an identity that was made before, runs as the user who owns that; `edge` joins in
the way that `zmesh service install` prints, and runs as a user that systemd makes up.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.setup import machine as machines
from tests.setup.machine import Machine
from tests.waiting import until

Eventually = Callable[[Callable[[], object]], None]
HUB = "/srv/hub"
OWNER = "daemon"
SETTINGS = "/etc/zmesh/edge.toml"
DYNAMIC = range(61184, 65520)
"""The users of DynamicUser= (systemd.exec(5))."""
EXPOSURE = 1.7
"""What docs/guides/service.md says that systemd-analyze(1) rates a unit at."""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with the two units, which run."""
    if why := machines.why_not():
        pytest.skip(why)
    with machines.booted() as machine:
        machine.run("zmesh", "init", "--id", "hub", "--listen", "tcp://127.0.0.1:7323", "--state", HUB)
        machine.run("chown", "-R", OWNER, HUB)
        done = machine.run("zmesh", "service", "install", "--name", "zmesh-hub", "--state", HUB)
        assert "zmesh-hub.service is written, and runs at each boot" in done
        machine.write(SETTINGS, 'tags = ["cold"]\n')
        printed = machine.run("zmesh", "service", "install", "--config", SETTINGS)
        join, start = (line.partition(": ")[2] for line in printed.splitlines()[1:3])
        assert (join, start) == ("zmesh join TICKET --state /var/lib/zmesh", "systemctl start zmesh")
        ticket = machine.run("zmesh", "invite", "edge", "--state", HUB, "--url", "tcp://127.0.0.1:7323").split()[-1]
        machine.run(*join.replace("TICKET", ticket).split())
        machine.run(*start.split())
        yield machine


@pytest.fixture
def eventually() -> Eventually:
    return partial(until, timeout=90.0)


def edge(machine: Machine, *names: str) -> list[str]:
    """Properties of the unit of `edge`."""
    found = machine.shown("zmesh", *names)
    return [found[name] for name in names]


def losses(machine: Machine, *words: str) -> list[str]:
    """The lines in which `hub` says that it has lost its neighbour."""
    return [line for line in machine.journal("zmesh-hub", *words) if "lost the link with edge" in line]


def test_a_unit_that_has_started_is_a_node_that_answers(machine: Machine, eventually: Eventually) -> None:
    """systemd waits for READY=1, so that what is started after the unit finds the node."""
    machine.run("systemctl", "restart", "zmesh")
    lines = json.loads(machine.run("zmesh", "status", "edge", "--json"))
    assert (lines["node"], edge(machine, "ActiveState", "StatusText")) == ("edge", ["active", "node edge"])
    assert re.match(
        r"zmesh: active \(running\), process \d+ since .*: node edge\n", machine.run("zmesh", "service", "status")
    )
    eventually(lambda: machine.run("zmesh", "ping", "-c", "1", "--peer", "edge", "hub", code=None).startswith("answer"))


def test_a_unit_that_can_not_listen_never_becomes_active_and_its_status_says_why(
    machine: Machine, eventually: Eventually
) -> None:
    machine.write("/etc/zmesh/taken.toml", 'listen = ["tcp://127.0.0.1:7323"]\n')
    machine.run("cp", "-a", HUB, "/srv/taken")
    words = ("--name", "zmesh-taken", "--config", "/etc/zmesh/taken.toml", "--state", "/srv/taken")
    machine.run("zmesh", "service", "install", "--no-start", *words)
    machine.run("systemctl", "start", "zmesh-taken", code=1)
    eventually(lambda: int(machine.shown("zmesh-taken", "NRestarts")["NRestarts"]) > 1)
    machine.write("/etc/systemd/system/zmesh-taken.service.d/seldom.conf", "[Service]\nRestartSec=3600\n")
    machine.run("systemctl", "daemon-reload")  # what its last run was is shown between two of them
    status = partial(machine.run, "zmesh", "service", "status", "--name", "zmesh-taken", code=3)
    assert "hy: journalctl -u zmesh-taken\n" in status()
    eventually(lambda: "The last run ended by exit-code (2); why: journalctl -u zmesh-taken\n" in status())
    lines = machine.journal("zmesh-taken")
    assert any("can't listen on tcp://127.0.0.1:7323" in line for line in lines), lines
    assert not any(line.startswith("Started ") for line in lines)
    machine.run("zmesh", "service", "uninstall", "--name", "zmesh-taken")


def test_root_has_the_node_of_a_unit_reload_and_so_has_systemd(machine: Machine) -> None:
    before = edge(machine, "MainPID", "NRestarts")
    machine.write(SETTINGS, 'tags = ["cold", "north"]\n')
    assert machine.run("zmesh", "reload", "edge") == "edge: changed tags\n"
    machine.write(SETTINGS, 'tags = ["cold"]\n')
    machine.run("systemctl", "reload", "zmesh")
    assert machine.run("zmesh", "reload", "edge") == "edge: nothing has changed\n"
    machine.write(SETTINGS, 'tags = ["cold"]\nheartbeat = 0\n')
    machine.run("systemctl", "reload", "zmesh", code=1)
    machine.write(SETTINGS, 'tags = ["cold"]\n')
    lines = machine.journal("zmesh")
    assert any("nothing is reloaded" in line and f"{SETTINGS}:2" in line for line in lines), lines
    assert edge(machine, "MainPID", "NRestarts", "ActiveState") == [*before, "active"]


def test_a_node_that_is_killed_is_started_again_and_joins_again(machine: Machine, eventually: Eventually) -> None:
    pid, restarts = edge(machine, "MainPID", "NRestarts")
    machine.run("systemctl", "kill", "--signal=KILL", "zmesh")
    eventually(lambda: edge(machine, "NRestarts", "ActiveState") == [str(int(restarts) + 1), "active"])
    assert edge(machine, "MainPID") != [pid]
    eventually(
        lambda: "answer from edge" in machine.run("zmesh", "ping", "-c", "1", "--peer", "hub", "edge", code=None)
    )
    assert ", started again" in machine.run("zmesh", "service", "status")
    eventually(lambda: losses(machine, "--priority=warning"))


def test_a_node_that_stands_still_is_killed_by_the_watchdog_and_started_again(
    machine: Machine, eventually: Eventually
) -> None:
    machine.write("/run/systemd/system/zmesh.service.d/soon.conf", "[Service]\nWatchdogSec=4\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "zmesh")
    restarts = int(edge(machine, "NRestarts")[0])
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "zmesh")
    eventually(lambda: int(edge(machine, "NRestarts")[0]) > restarts)
    assert any("Watchdog timeout" in line for line in machine.journal("zmesh"))
    machine.run("rm", "-r", "/run/systemd/system/zmesh.service.d")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "zmesh")


def test_a_unit_that_is_stopped_ends_by_itself_and_its_neighbours_know(
    machine: Machine, eventually: Eventually
) -> None:
    eventually(
        lambda: "answer from edge" in machine.run("zmesh", "ping", "-c", "1", "--peer", "hub", "edge", code=None)
    )
    before = len(losses(machine))
    machine.run("systemctl", "stop", "zmesh")
    shown = edge(machine, "ActiveState", "Result", "ExecMainCode", "ExecMainStatus")
    assert shown == ["inactive", "success", "1", "0"]  # CLD_EXITED, with 0: not killed after TimeoutStopSec
    eventually(lambda: len(losses(machine)) > before)
    machine.run("systemctl", "start", "zmesh")


def test_the_state_belongs_to_the_user_of_the_node_alone(machine: Machine) -> None:
    (pid,) = edge(machine, "MainPID")
    user = int(machine.run("stat", "--format=%u", f"/proc/{pid}"))
    assert user in DYNAMIC
    for folder in ("/var/lib/private/zmesh", "/run/zmesh", "/run/zmesh/zmesh"):
        assert machine.run("stat", "--format=%u %a", folder) == f"{user} 700\n"
    assert machine.run("find", "/var/lib/private/zmesh", "-not", "-uid", str(user)) == ""
    assert machine.run("find", HUB, "-not", "-user", OWNER) == ""  # also what root's `zmesh invite` has written
    owner = machine.run("id", "-u", OWNER).strip()
    (hub,) = machine.shown("zmesh-hub", "MainPID").values()
    assert machine.run("stat", "--format=%u", f"/proc/{hub}").strip() == owner


def test_a_unit_is_confined_as_the_guide_says(machine: Machine) -> None:
    rated = machine.run("systemd-analyze", "security", "zmesh", "--no-pager")
    found = re.search(r"Overall exposure level for zmesh\.service: ([\d.]+)", rated)
    assert found is not None, rated[-300:]
    assert float(found[1]) <= EXPOSURE
    (pid,) = edge(machine, "MainPID")
    status = machine.run("cat", f"/proc/{pid}/status")
    wanted = {"CapEff": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
    assert {name: re.search(rf"{name}:\s+(\S+)", status)[1] for name in wanted} == wanted  # type: ignore[index]


def test_a_unit_that_is_uninstalled_leaves_its_state_and_nothing_else(machine: Machine) -> None:
    machine.write("/etc/zmesh/alone.toml", 'node_id = "alone"\nidentity = "none"\n')
    machine.run("zmesh", "service", "install", "--name", "alone", "--config", "/etc/zmesh/alone.toml")
    assert machine.shown("alone", "ActiveState") == {"ActiveState": "active"}
    assert "/etc/systemd/system/alone.service is removed" in machine.run(
        "zmesh", "service", "uninstall", "--name", "alone"
    )
    assert machine.shown("alone", "ActiveState", "LoadState") == {"ActiveState": "inactive", "LoadState": "not-found"}
    assert machine.run("find", "/run/alone", "/etc/systemd/system", "-name", "*alone*", code=None).count("alone") == 1
    machine.run("test", "-d", "/var/lib/private/alone")
