"""The commands by which machines and people become members of a mesh, each machine with folders of its own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import forked
from tests.cli.conftest import COMMAND, WITHIN, Node
from zmesh.identity import IdentityKey, Ticket, key_from_text


class Machine:
    """A machine with its own folders of state and sockets."""

    def __init__(self, shell: Any, name: str) -> None:
        self.shell = shell
        self.command = COMMAND
        self.folder = shell.folder / name
        (self.folder / "run").mkdir(parents=True)
        self.environment = {
            **shell.environment,
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "TMPDIR": str(self.folder / "run"),
        }

    def zmesh(self, *words: str, code: int = 0, **options: Any) -> str:
        done = self.attempt(*words, **options)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return str(done.stdout.decode() if code == 0 else done.stderr.decode())

    def attempt(self, *words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        environment = {"env": self.environment, "cwd": self.folder}
        return forked.run([*words], command=self.command, timeout=WITHIN, **environment, **options)

    def node(self, *words: str) -> Any:
        node = Node(list(words), self.environment, self.command)
        self.shell.nodes.append(node)
        node.ready = node.event("ready")
        return node


@pytest.fixture
def machine(shell: Any) -> Iterator[Any]:
    """Makes machines by name."""
    yield lambda name: Machine(shell, name)
    for node in shell.nodes:
        node.end()


@pytest.fixture
def hub(machine: Any) -> Machine:
    """The machine of a mesh `lab` whose node `hub` is to listen on a port of loopback."""
    made = machine("hub")
    made.zmesh("init", "--name", "lab", "--id", "hub", "--listen", made.shell.free_url())
    return made


def test_the_five_lines_of_the_readme(hub: Machine, machine: Any) -> None:
    node = hub.node()
    edge, laptop = machine("edge"), machine("laptop")
    joined = edge.zmesh("join", hub.zmesh("invite", "edge-7", "--tag", "gpu").strip())
    mark = hub.zmesh("identity").split("authority  ")[1].splitlines()[0]
    assert f"fingerprint  {mark}, as" in joined
    assert "this node    edge-7, valid until" in joined
    assert "tags         gpu\n" in joined
    assert "path         edge-7 > hub, " in joined
    edge.node()
    node.learns_of({"edge-7"})
    assert "path         ada > hub, " in laptop.zmesh("join", hub.zmesh("invite", "ada").strip())
    assert "2 sent, 2 received" in laptop.zmesh("ping", "edge-7", "-c", "2", "-i", "0")
    assert "3 sent, 3 received" in hub.zmesh("ping", "edge-7", "-c", "3", "-i", "0")
    assert edge.zmesh("send", "hub", "echo:echo", "hello") == "hello"


def test_where_several_nodes_run_the_identity_says_at_which_a_command_joins(hub: Machine) -> None:
    hub.node()
    for name in ("edge-7", "ada"):
        hub.zmesh("join", hub.zmesh("invite", name).strip(), "--state", str(hub.folder / name))
    hub.node("--state", str(hub.folder / "edge-7"))
    assert hub.zmesh("routes").startswith("Routes of hub\n")
    hub.environment["ZMESH_STATE"] = str(hub.folder / "edge-7")
    assert hub.zmesh("routes").startswith("Routes of edge-7\n")
    hub.environment["ZMESH_STATE"] = str(hub.folder / "ada")
    assert hub.zmesh("routes").startswith("Routes of hub\n")
    assert "edge-7  edge-7" in hub.zmesh("nodes")
    hub.environment["ZMESH_STATE"] = "none"
    assert "2 nodes run here: edge-7, hub; name the one" in hub.zmesh("routes", code=2)


def test_a_ticket_is_one_line_and_for_one_key(hub: Machine, machine: Any) -> None:
    hub.node()
    ticket = hub.zmesh("invite", "edge-7").strip()
    assert ticket.startswith("zm1")
    assert hub.zmesh("invites", "ls").split()[:2] == ["edge-7", "open"]
    edge, thief = machine("edge"), machine("thief")
    edge.zmesh("join", ticket)
    assert "used" in hub.zmesh("invites", "ls")
    refused = thief.zmesh("join", ticket, code=6)
    assert refused.startswith("zmesh: 'edge-7' (key SHA256:")
    assert "the token was used 0 s ago by another key, SHA256:" in refused or "ago by another key" in refused
    assert refused.endswith("; zmesh invite edge-7 makes another ticket\n")
    assert refused.count("\n") == 1
    assert not list((thief.folder / "config").rglob("*.key"))


def test_a_ticket_that_was_taken_back_is_refused(hub: Machine, machine: Any) -> None:
    hub.node()
    ticket = hub.zmesh("invite", "edge-7").strip()
    hub.zmesh("invites", "rm", "edge-7")
    assert "the token is not known here: taken back" in machine("edge").zmesh("join", ticket, code=6)
    assert "no ticket is out for 'edge-7'" in hub.zmesh("invites", "rm", "edge-7", code=2)


def test_a_hub_that_is_down_leaves_the_ticket_for_later_with_the_same_key(hub: Machine, machine: Any) -> None:
    ticket = hub.zmesh("invite", "edge-7").strip()
    edge = machine("edge")
    assert "no node can be reached: tcp://127.0.0.1:" in edge.zmesh("join", ticket, code=3)
    (key,) = edge.folder.rglob("identity.key")
    before = IdentityKey.from_openssh(key.read_bytes()).public
    hub.node()
    edge.zmesh("join", ticket)
    assert IdentityKey.from_openssh(key.read_bytes()).public == before


def test_a_second_join_overwrites_nothing(hub: Machine, machine: Any) -> None:
    hub.node()
    edge = machine("edge")
    edge.zmesh("join", hub.zmesh("invite", "edge-7").strip())
    ticket = hub.zmesh("invite", "edge-8").strip()
    assert "holds an identity already, and it is not overwritten" in edge.zmesh("join", ticket, code=2)
    assert "node       edge-7\n" in edge.zmesh("identity")


def test_a_node_without_the_authority_passes_requests_on(hub: Machine, machine: Any) -> None:
    hub.node()
    relay, edge = machine("relay"), machine("edge")
    url = relay.shell.free_url()
    relay.zmesh("join", hub.zmesh("invite", "relay").strip(), "--listen", url, "--url", url)
    node = relay.node()
    node.event("node_joined")
    key = node.url.partition("?key=")[2]
    ticket = hub.zmesh("invite", "edge-7", "--json")
    assert json.loads(ticket)["schema"] == "zmesh.invite/1"
    moved = Ticket.parse(json.loads(ticket)["ticket"])._replace(urls=(url,), curve=key_from_text(key))
    assert "path         edge-7 > relay, " in edge.zmesh("join", str(moved))


def test_a_node_that_was_revoked_loses_its_links_and_gets_none(hub: Machine, machine: Any) -> None:
    node = hub.node()
    edge = machine("edge")
    edge.zmesh("join", hub.zmesh("invite", "edge-7").strip())
    edge.node()
    while node.event("link_up")["node"] != "edge-7":
        pass
    said = hub.zmesh("revoke", "edge-7", "--reason", "stolen")
    assert said == "edge-7 is revoked; the mesh learns of it now, and ends its links.\n"
    while node.event("link_lost")["node"] != "edge-7":
        pass
    assert "was revoked" in node.event("link_refused")["detail"]
    refused = edge.zmesh("ping", "hub", "--peer", edge_url(edge), code=6)
    assert "revoked" in refused
    assert "stolen" in refused
    again = machine("again")
    again.zmesh("join", hub.zmesh("invite", "edge-7").strip())
    again.zmesh("ping", "hub", "-c", "1")


def edge_url(machine: Machine) -> str:
    fields = json.loads(machine.zmesh("identity", "--json"))
    return str(fields["peers"][0])


def test_the_next_authority_takes_over(hub: Machine, machine: Any) -> None:
    node = hub.node()
    edge, late = machine("edge"), machine("late")
    edge.zmesh("join", hub.zmesh("invite", "edge-7").strip())
    early = hub.zmesh("invite", "late").strip()
    assert hub.zmesh("authority", "rotate").startswith("next authority  SHA256: ")
    assert [line.split()[0] for line in hub.zmesh("authority", "ls").splitlines() if "SHA256" in line] == [
        "signs",
        "next",
    ]
    assert " signs from now on." in hub.zmesh("authority", "rotate", "--finish")
    late.zmesh("join", early)
    late.node()
    node.learns_of({"late"})
    edge.zmesh("ping", "late", "-c", "1")
    standings = [json.loads(line) for line in hub.zmesh("authority", "ls", "--json").splitlines()]
    assert [(each["role"], each["nodes"]) for each in standings] == [
        ("trusted", ["edge-7", "hub"]),
        ("signs", ["late"]),
    ]
    assert len(hub.zmesh("authority", "export").splitlines()) == 2


def test_a_node_joins_by_two_files(hub: Machine, machine: Any) -> None:
    hub.node()
    edge = machine("edge")
    assert "edge-7.pub is the public key of edge-7" in edge.zmesh("join", "--offline", "edge-7")
    (edge.folder / "edge-7.pub").rename(hub.folder / "edge-7.pub")
    hub.zmesh("authority", "sign", "edge-7.pub", "--tag", "gpu")
    (hub.folder / "edge-7.signed").rename(edge.folder / "edge-7.signed")
    assert "path         edge-7 > hub, " in edge.zmesh("join", "edge-7.signed")
    assert "tags       gpu\n" in edge.zmesh("identity")
    assert not list(edge.folder.rglob(".joining/*"))


def test_a_state_that_can_not_be_used_is_one_error_and_leaves_nothing(hub: Machine, machine: Any) -> None:
    hub.node()
    edge = machine("edge")
    (edge.folder / "file").write_text("")
    ticket = hub.zmesh("invite", "edge-7").strip()
    said = edge.zmesh("join", ticket, "--state", str(edge.folder / "file" / "state"), code=2)
    assert "can't be read: Not a directory" in said
    assert said.count("\n") == 1
    edge.zmesh("join", ticket)


def test_sighup_and_reload_make_a_node_read_its_permissions(
    hub: Machine, machine: Any, eventually: Callable[..., None]
) -> None:
    node = hub.node()
    edge = machine("edge")
    edge.zmesh("join", hub.zmesh("invite", "edge-7").strip())
    edge.zmesh("send", "hub", "echo:echo", "hello")
    policy = hub.folder / "config/zmesh/lab/policy.toml"
    policy.write_text('[allow]\n"echo:*" = ["nobody"]\n')
    hub.zmesh("reload")
    refused = edge.zmesh("send", "hub", "echo:echo", "hello", code=6)
    assert '[allow] "echo:*" = ["edge-7", "nobody"]' in refused or "echo:*" in refused
    policy.write_text("[allow")
    assert "is not TOML" in hub.zmesh("reload", code=2)
    policy.write_text("")
    node.send(signal.SIGHUP)
    eventually(lambda: edge.attempt("send", "hub", "echo:echo", "hello").returncode == 0)


needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


def ssh_keygen(machine: Machine, *words: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], cwd=machine.folder, check=True, capture_output=True)


def sign_by_ssh(ca: Machine, machine: Machine, name: str, *tags: str) -> None:
    """Have an SSH authority sign the key that a machine has made, as the guide to security says."""
    machine.zmesh("join", "--offline", name)
    shutil.copy(machine.folder / f"{name}.pub", ca.folder)
    principals = ",".join([name, *(f"tag:{tag}" for tag in tags)])
    option = "critical:mesh@zmesh=lab"
    ssh_keygen(ca, "-s", "ca", "-h", "-I", name, "-n", principals, "-O", option, "-V", "-1h:+90d", f"{name}.pub")
    for file in (f"{name}-cert.pub", "ca.pub"):
        shutil.copy(ca.folder / file, machine.folder)


@needs_ssh
def test_an_ssh_authority_makes_a_mesh(machine: Any) -> None:
    ca, hub, edge = machine("ca"), machine("hub"), machine("edge")
    ssh_keygen(ca, "-t", "ed25519", "-N", "", "-f", "ca")
    sign_by_ssh(ca, hub, "hub")
    url = hub.shell.free_url()
    hub.zmesh("join", "hub-cert.pub", "--authority", "ca.pub", "--listen", url)
    dialled = hub.node().url
    sign_by_ssh(ca, edge, "edge-7", "gpu", "lab-2")
    joined = edge.zmesh("join", "edge-7-cert.pub", "--authority", "ca.pub", "--peer", dialled)
    assert "tags         gpu, lab-2\n" in joined
    assert "path         edge-7 > hub, " in joined
    shutil.copy(edge.folder / "edge-7.pub", ca.folder)
    option = "critical:mesh@zmesh=lab"
    ssh_keygen(ca, "-s", "ca", "-h", "-I", "edge-7", "-n", "edge-7", "-O", option, "-V", "-1h:+99d", "edge-7.pub")
    shutil.copy(ca.folder / "edge-7-cert.pub", edge.folder)
    edge.zmesh("join", "edge-7-cert.pub", "--authority", "ca.pub")
    assert "98 days left" in edge.zmesh("identity")
    other, stranger = machine("other"), machine("stranger")
    ssh_keygen(stranger, "-t", "ed25519", "-N", "", "-f", "ca")
    sign_by_ssh(stranger, other, "edge-9")
    refused = other.attempt("join", "edge-9-cert.pub", "--authority", "ca.pub", "--peer", dialled)
    assert refused.returncode == 0
    assert b"joined, but no node answers yet" in refused.stderr
    assert b"shows a certificate of the authority SHA256:" in refused.stderr


def test_a_certificate_alone_does_not_say_whom_to_trust(machine: Any) -> None:
    edge = machine("edge")
    (edge.folder / "edge.signed").write_text("{}")
    assert "a signed file that can't be read" in edge.zmesh("join", "edge.signed", code=6)
    assert "is no ticket (zm1...), and can't be read as a file: No such file" in edge.zmesh("join", "zm", code=2)
    assert "a ticket that is not complete, or was changed; copy all of it" in edge.zmesh("join", "zm1AAAAAAAA", code=2)


def test_only_where_the_authority_lies_are_tickets_made(hub: Machine, machine: Any) -> None:
    hub.node()
    edge = machine("edge")
    edge.zmesh("join", hub.zmesh("invite", "edge-7").strip())
    for words in (("invite", "x"), ("revoke", "hub"), ("authority", "rotate"), ("authority", "sign", "edge-7.pub")):
        (edge.folder / "edge-7.pub").write_text("")
        assert "the authority's key does not lie in" in edge.zmesh(*words, code=2), words


def test_a_program_takes_the_identity_of_the_context(hub: Machine, machine: Any) -> None:
    hub.node()
    laptop = machine("laptop")
    laptop.zmesh("join", hub.zmesh("invite", "ada").strip())
    program = (
        "import asyncio, zmesh\n"
        "async def main():\n"
        "    async with zmesh.Controller(ephemeral=True) as mesh:\n"
        "        print(mesh.node_id, (await mesh.request('hub', 'echo:echo', 'hello', timeout=90)).text())\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=laptop.environment, capture_output=True, text=True, timeout=WITHIN
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"ada\.[0-9a-f]{8} hello\n", done.stdout)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting needs root")
def test_a_full_disk_is_one_error_and_leaves_nothing(hub: Machine, machine: Any) -> None:
    hub.node()
    edge = machine("edge")
    full = edge.folder / "full"
    full.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", full], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount")
    try:
        (full / "fill").write_bytes(b"x" * 4096)
        ticket = hub.zmesh("invite", "edge-7").strip()
        said = edge.zmesh("join", ticket, "--state", str(full / "state"), code=2)
        assert "can't be written: the disk is full; nothing was changed (another folder: --state DIR)\n" in said
        assert [path for path in (full / "state").glob("*") if path.is_file()] == []
        edge.zmesh("join", ticket)
    finally:
        subprocess.run(["umount", full], check=True)
