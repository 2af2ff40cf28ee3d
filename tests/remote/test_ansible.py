"""Ansible on nodes two hops away, over the collection `zmesh.mesh`."""

import asyncio
import json
import os
import re
import sys
import sysconfig
from pathlib import Path

import pytest

from zmesh import LinkUp
from zmesh.testing import Mesh

pytest.importorskip("ansible", reason="ansible-core is not installed")

SOURCE = Path(__file__).parents[2]
INSTALLED = Path(sysconfig.get_path("purelib"), "ansible_collections", "zmesh", "mesh")
COLLECTION = {} if INSTALLED.is_dir() else {"ANSIBLE_COLLECTIONS_PATH": str(SOURCE)}
"""Where the collection is found without a setting: in the wheel, but not in an editable installation."""

FAILED, UNREACHABLE = 2, 4
"""Exit codes of Ansible; the second one also if hosts have failed besides."""
RECAP = re.compile(r"^(\S+) +: ok=(\d+) +changed=\d+ +unreachable=(\d) +failed=(\d)", re.MULTILINE)


class Ansible:
    """Ansible's commands, run in a folder of their own, and joined to a mesh at its hub."""

    def __init__(self, folder, mesh):
        self.folder = folder
        self.mesh = mesh
        self.leaves = []
        mesh["hub"].watch(self._on_event)
        self._environment = {
            **os.environ,
            **COLLECTION,
            "ANSIBLE_HOME": str(folder / "home"),
            "ANSIBLE_REMOTE_TEMP": str(folder / "remote"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_TIMEOUT": "2",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ZMESH_PEER": mesh["hub"].listening[0],
        }
        (folder / "zmesh.yml").write_text("plugin: zmesh.mesh.zmesh\ntarget: 'tag:gpu,tag:edge,dead'\n")

    def _on_event(self, event):
        if isinstance(event, LinkUp) and event.node.startswith("cli-"):
            self.leaves.append(event.node)

    async def __call__(self, *words, **environment):
        """Run one; what it prints, and its exit code."""
        self.leaves.clear()
        process = await asyncio.create_subprocess_exec(
            Path(sysconfig.get_path("scripts"), words[0]),
            *words[1:],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.folder,
            env=self._environment | environment,
        )
        out, _ = await process.communicate()
        return out.decode(), process.returncode


@pytest.fixture
async def ansible(tmp_path):
    async with Mesh.chain("hub", "site", tcp=True, allow={"exec:run": ["hub"]}) as mesh:
        for node, tag in (("edge-1", "edge"), ("edge-2", "edge"), ("edge-3", "gpu")):
            await mesh.add(node, "site", tags=(tag,))
        await mesh.settle()
        yield Ansible(tmp_path, mesh)


PLAYBOOK = """
- hosts: all
  gather_facts: false
  vars: {there: "{{ folder }}/{{ inventory_hostname }}"}
  tasks:
    - raw: mkdir {{ there }}; echo raw ran >{{ there }}/raw
    - command: {cmd: cat, stdin: "given to {{ inventory_hostname }}"}
      register: given
    - copy: {content: "{{ given.stdout }}", dest: "{{ there }}/small", mode: "0640"}
    - copy: {src: large, dest: "{{ there }}/large"}
    - fetch: {src: "{{ there }}/large", dest: fetched}
    - command: {cmd: "false"}
      when: inventory_hostname == "edge-2"
"""


@pytest.mark.parametrize("pipelining", ["1", "0"])
async def test_a_playbook_runs_on_all_nodes_and_a_dead_one_is_unreachable_not_failed(ansible, pipelining):
    folder = ansible.folder
    large = os.urandom(3_000_000)
    (folder / "large").write_bytes(large)
    (folder / "play.yml").write_text(PLAYBOOK)
    play = ("ansible-playbook", "-i", "zmesh.yml", "-e", f"folder={folder}", "-l", "edge-2,edge-3,dead", "play.yml")
    out, code = await ansible(*play, ANSIBLE_PIPELINING=pipelining)
    done = {node: tuple(map(int, counts)) for node, *counts in RECAP.findall(out)}
    assert done == {"edge-2": (5, 0, 1), "edge-3": (5, 0, 0), "dead": (0, 1, 0)}, out
    assert code == UNREACHABLE
    assert "no route to 'dead'" in out
    for node in ("edge-2", "edge-3"):
        assert (folder / node / "raw").read_text() == "raw ran\n"
        assert (folder / node / "small").read_text() == f"given to {node}"
        assert (folder / node / "small").stat().st_mode & 0o777 == 0o640
        assert (folder / node / "large").read_bytes() == large
        assert (folder / "fetched" / node / str(folder / node / "large").lstrip("/")).read_bytes() == large
        assert sorted(path.name for path in (folder / node).iterdir()) == ["large", "raw", "small"]


async def test_all_commands_of_a_task_share_one_ephemeral_node(ansible):
    (ansible.folder / "file").write_text("x")
    out, code = await ansible(
        "ansible", "-i", "zmesh.yml", "edge-1", "-m", "copy", "-a", f"src=file dest={ansible.folder}/copy"
    )
    assert code == 0, out
    assert len(ansible.leaves) == 2  # one for the inventory, and one for a task of five commands and two files


SUDO = """#!/bin/sh
# sudo as Ansible calls it, with the password 'open sesame', for the user who runs this test
while [ "$1" != -u ]; do
    [ "$1" = -p ] && printf %s "$2" >&2
    shift
done
read -r password
[ "$password" = "open sesame" ] || { echo "Sorry, try again." >&2; exit 1; }
shift 2
exec "$@"
"""


@pytest.mark.parametrize("pipelining", ["1", "0"])
async def test_become_answers_a_prompt_for_a_password(ansible, pipelining):
    sudo = ansible.folder / "sudo"
    sudo.write_text(SUDO)
    sudo.chmod(0o755)
    password = "ansible_become_password={{ {'edge-1': 'open sesame'}.get(inventory_hostname, 'wrong') }}"
    out, code = await ansible(
        "ansible", "-i", "zmesh.yml", "tag_edge", "-m", "command", "-a", "echo opened", "--become",
        "-e", f"ansible_become_exe={sudo}", "-e", password, ANSIBLE_PIPELINING=pipelining,
    )  # fmt: skip
    assert code == FAILED, out
    assert re.search(r"^edge-1 \| CHANGED .*\nopened$", out, re.MULTILINE)
    assert re.search(r"^edge-2 \| FAILED", out, re.MULTILINE)
    assert "Incorrect sudo password" in out


USERS = """
- hosts: edge-1
  gather_facts: false
  tasks:
    - {raw: id -un, remote_user: nobody, register: first}
    - {raw: id -un, become: true, become_user: nobody, become_method: su, register: second}
    - {debug: {msg: "ran as {{ first.stdout | trim }} and {{ second.stdout | trim }}"}}
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user without a password")
async def test_a_command_runs_as_the_user_of_the_host_or_as_the_one_that_it_becomes(ansible):
    (ansible.folder / "play.yml").write_text(USERS)
    out, code = await ansible(
        "ansible-playbook", "-i", "zmesh.yml", "-e", "ansible_become_flags='-s /bin/sh'", "play.yml"
    )
    assert code == 0, out
    assert "ran as nobody and nobody" in out


async def test_a_node_that_does_not_allow_it_is_unreachable_with_the_line_that_would(ansible):
    await ansible.mesh.add("closed", "site", allow={})
    await ansible.mesh.settle()
    out, code = await ansible("ansible", "-i", "closed,", "-c", "zmesh.mesh.zmesh", "closed", "-m", "raw", "-a", "true")
    assert code == UNREACHABLE
    assert "does not let 'hub' call exec:run" in out


ODD = """
- hosts: edge-1
  gather_facts: false
  tasks:
    - {fetch: {src: "{{ folder }}/none", dest: fetched}, ignore_errors: true}
    - {copy: {src: play.yml, dest: "{{ folder }}/none/there"}, ignore_errors: true}
"""


async def test_what_can_not_be_written_or_read_is_said_and_leaves_nothing(ansible):
    (ansible.folder / "play.yml").write_text(ODD)
    out, code = await ansible("ansible-playbook", "-i", "zmesh.yml", "-e", f"folder={ansible.folder}", "play.yml")
    assert (code, out.count("...ignoring")) == (0, 2), out
    assert "none/there" in out
    assert not (ansible.folder / "fetched").exists()


async def test_the_inventory_has_a_group_for_each_tag(ansible):
    options = "keyed_groups: [{key: zmesh_hops | string, prefix: hops}]\ncompose: {edge: 'zmesh_own_tags[0]'}\n"
    (ansible.folder / "all.zmesh.yml").write_text(f"plugin: zmesh.mesh.zmesh\n{options}")
    out, code = await ansible("ansible-inventory", "-i", "all.zmesh.yml", "--list")
    assert code == 0, out
    found, _ = json.JSONDecoder().raw_decode(out[out.index("{\n") :])
    assert found["tag_edge"]["hosts"] == ["edge-1", "edge-2"]
    assert found["tag_gpu"]["hosts"] == ["edge-3"]
    assert found["hops_2"]["hosts"] == ["edge-1", "edge-2", "edge-3"]
    assert "zmesh.mesh.zmesh" in str(found["_meta"]["hostvars"]["edge-1"]["ansible_connection"])
    assert "edge" in str(found["_meta"]["hostvars"]["edge-1"]["edge"])


async def test_an_inventory_that_can_not_be_read_says_why(ansible):
    (ansible.folder / "bad.zmesh.yml").write_text("plugin: zmesh.mesh.zmesh\ntarget: 'tag:'\n")
    out, _ = await ansible("ansible-inventory", "-i", "bad.zmesh.yml", "--list")
    assert "'tag:' is no target" in out
