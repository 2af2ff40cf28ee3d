"""The first lines of the README as they are typed, on three machines: network namespaces, of which only the hub can be
dialled, over a router that translates the addresses of the edge and the laptop (NAT) where nftables are installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.conftest import COMMAND
from tests.cli.test_membership import Machine

HUB, INSIDE = "10.77.0.1", "10.78.0.1"
NAT = (
    "add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; }; "
    'add rule ip nat out oifname "to-hub" masquerade'
)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def may_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"zmesh-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    if made:
        ip("netns", "del", name)
    return made


class Network:
    """hub --- router --- edge, laptop."""

    def __init__(self) -> None:
        self.mark = f"zm{os.getpid()}"
        self.names = [f"{self.mark}-{name}" for name in ("router", "hub", "edge", "laptop")]
        router, hub, edge, laptop = self.names
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        self._join(hub, f"{HUB}/24", "to-hub", "10.77.0.2/24")
        ip("-n", router, "link", "add", "inside", "type", "bridge")
        ip("-n", router, "addr", "add", f"{INSIDE}/24", "dev", "inside")
        ip("-n", router, "link", "set", "inside", "up")
        self._join(edge, "10.78.0.7/24", "to-edge", None)
        self._join(laptop, "10.78.0.8/24", "to-laptop", None)
        for name in (edge, laptop):
            ip("-n", name, "route", "add", "default", "via", INSIDE)
        subprocess.run(["ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
        if shutil.which("nft") is not None:
            subprocess.run(["ip", "netns", "exec", router, "nft", NAT], check=True)
        else:
            ip("-n", hub, "route", "add", "10.78.0.0/24", "via", "10.77.0.2")

    def _join(self, name: str, address: str, other: str, there: str | None) -> None:
        router = self.names[0]
        ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", other, "netns", router)
        ip("-n", name, "addr", "add", address, "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        if there is not None:
            ip("-n", router, "addr", "add", there, "dev", other)
        else:
            ip("-n", router, "link", "set", other, "master", "inside")
        ip("-n", router, "link", "set", other, "up")

    def close(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.fixture
def machines(shell: Any) -> Iterator[list[Machine]]:
    """The hub, the edge and the laptop."""
    if not may_make_namespaces():
        pytest.skip("network namespaces need root and iproute2")
    network = Network()
    try:
        made = [Machine(shell, name.rpartition("-")[2]) for name in network.names[1:]]
        for machine, name in zip(made, network.names[1:], strict=True):
            machine.command = ["ip", "netns", "exec", name, *COMMAND]
        yield made
        for node in shell.nodes:
            node.end()
    finally:
        network.close()


def test_the_first_lines_of_the_readme_as_typed_behind_nat(machines: list[Machine]) -> None:
    hub, edge, laptop = machines
    hub.zmesh("init", "--name", "lab", "--listen", "tcp://0.0.0.0:7323")
    node = hub.node()
    assert node.url.startswith("tcp://0.0.0.0:7323?key=")
    ticket = hub.zmesh("invite", "edge-7", "--tag", "gpu").strip()
    assert "path         edge-7 > " in edge.zmesh("join", ticket)
    edge.node()
    node.learns_of({"edge-7"})
    laptop.zmesh("join", hub.zmesh("invite", "ada").strip())
    assert "1 sent, 1 received" in laptop.zmesh("ping", "edge-7", "-c", "1")
