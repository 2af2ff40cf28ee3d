"""`zmesh init`, `identity` and `context`: what they make, print and refuse."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def init(shell: Any, *words: str, **options: Any) -> Any:
    done = shell.run("init", "--id", "hub", *words, **options)
    assert (done.returncode, done.stderr) == (0, b"")
    return done


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_init_says_what_was_made_what_to_back_up_and_what_is_next(shell: Any) -> None:
    text = init(shell, "--name", "lab", "--listen", "tcp://0.0.0.0:7323").stdout.decode()
    authority = shell.folder / "config/zmesh/lab/authority/1"
    assert stat.S_IMODE(authority.stat().st_mode) == 0o600
    assert text.startswith("mesh lab\n  fingerprint  SHA256: ")
    groups = text.split("SHA256: ")[1].splitlines()[0].split()
    assert [len(group) for group in groups] == [4] * 10 + [3]
    assert f"  authority    {authority}\n" in text
    assert "Back it up" in text
    assert "context      lab, which commands use from now on" in text
    assert text.endswith("zmesh invite edge-7      makes a ticket for another machine\n")


def test_a_second_init_overwrites_nothing(shell: Any) -> None:
    init(shell, "--name", "lab")
    before = tree(shell.folder)
    done = shell.run("init", "--name", "lab", "--id", "other")
    assert done.returncode == 2
    assert done.stderr.endswith(
        b"lab holds an identity already, and it is not overwritten; another mesh: --name NAME, another folder: "
        b"--state DIR\n"
    )
    assert done.stderr.count(b"\n") == 1
    assert tree(shell.folder) == before


@pytest.mark.parametrize("place", ["--state", "ZMESH_STATE", "STATE_DIRECTORY"])
def test_a_folder_that_is_named_holds_the_identity_and_is_no_context(shell: Any, place: str) -> None:
    folder = str(shell.folder / "mine")
    words = ["--state", folder] if place == "--state" else []
    environment = {} if words else {place: folder}
    assert b"context " not in init(shell, *words, environment=environment).stdout
    assert f"state      {folder}\n".encode() in shell.run("identity", *words, environment=environment).stdout
    assert shell.run("identity").returncode == 2


def test_identity_says_who_this_is(shell: Any, lines: Any) -> None:
    (made,) = lines(init(shell, "--name", "lab", "--listen", "tcp://127.0.0.1:7323", "--json"))
    (shown,) = lines(shell.run("identity", "--json"))
    assert made["urls"] == ["tcp://127.0.0.1:7323"]
    assert (shown["node_id"], shown["mesh"], shown["tags"], shown["holds_authority"]) == ("hub", "lab", [], True)
    assert shown["authority"] == made["fingerprint"]
    assert shown["not_before"] < shown["renews_at"] < shown["not_after"]
    text = shell.run("identity").stdout.decode()
    assert "valid      until 20" in text
    assert "89 days left" in text
    assert "the authority's key lies here" in text


def test_without_an_identity_the_commands_that_make_one_are_named(shell: Any) -> None:
    done = shell.run("identity")
    assert done.returncode == 2
    assert (
        done.stderr == b"zmesh: there is no identity here; 'zmesh init' makes a mesh, 'zmesh join zm1...' joins one\n"
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--name", "my lab"), b"'my lab' is no name of a context"),
        (("--state", "x", "--name", "my lab"), b"'my lab' is no mesh name"),
        (("--id", "hub!"), b"'hub!' is no node id"),
        (("--listen", "here:7323"), b"'here:7323' is no address: it must begin with tcp://"),
        (("--url", "tcp://*:7323"), b"can't dial tcp://*:7323: a peer has one host and one port"),
        (
            ("--listen", "tcp://0.0.0.0:*"),
            b"listens on any free port, so that its URL is not known; give a port, or --url",
        ),
        (("--passphrase",), b"there is no terminal; give it in ZMESH_PASSPHRASE"),
    ],
)
def test_what_init_can_not_do_is_one_line_and_leaves_nothing(shell: Any, words: Any, complaint: bytes) -> None:
    done = shell.run("init", *words, cwd=shell.folder)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert tree(shell.folder) == {}
    assert not (shell.folder / "x").exists()


def test_an_authority_with_a_passphrase_is_encrypted(shell: Any) -> None:
    done = init(shell, "--name", "lab", "--passphrase", environment={"ZMESH_PASSPHRASE": "secret"})
    assert b"Whoever reads this file and has its passphrase decides who is in the mesh." in done.stdout
    key = shell.folder / "config/zmesh/lab/authority/1"
    if shutil.which("ssh-keygen"):
        for phrase, code in (("secret", 0), ("", 255)):
            reads = subprocess.run(["ssh-keygen", "-y", "-P", phrase, "-f", str(key)], capture_output=True)
            assert reads.returncode == code


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="ssh-agent is not here (openssh-client)")
def test_the_authoritys_key_may_lie_in_ssh_agent(shell: Any) -> None:
    shell.environment["SSH_AUTH_SOCK"] = path = str(shell.folder / "agent")
    key = shell.folder / "ca"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    missing = shell.run("init", "--name", "lab", "--agent", f"{key}.pub")
    assert missing.returncode == 2
    assert b"can't be used: No such file" in missing.stderr
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        assert path.encode() in agent.stdout.readline(), "it listens"
        try:
            subprocess.run(["ssh-add", "-q", str(key)], check=True, env=shell.environment)
            key.unlink()
            done = init(shell, "--name", "lab", "--agent", f"{key}.pub")
            assert b"Whoever can use that key decides who is in the mesh." in done.stdout
            assert not (shell.folder / "config/zmesh/lab/authority/1").exists()
            assert shell.run("revoke", "edge-7", "--reason", "lost").returncode == 0
            both = shell.run("init", "--name", "other", "--agent", f"{key}.pub", "--passphrase")
            assert both.returncode == 2
        finally:
            agent.terminate()
    gone = shell.run("revoke", "edge-8")
    assert gone.returncode == 2
    assert b"SHA256:" in gone.stderr
    assert gone.stderr.count(b"\n") == 1


def small_disk(size_kib: int) -> list[str]:
    """A command that runs what follows in a mount namespace of its own with a small disk at ./disk, or skips."""
    enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    script = f'mkdir -p disk && mount -t tmpfs -o size={size_kib}k,mode=700 none disk && exec "$@"'
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("no rights for a mount namespace")
    if subprocess.run([*enter, "true"], capture_output=True).returncode:
        pytest.skip("no rights for a mount namespace")
    return [*enter, script, "sh"]


def test_a_full_disk_is_one_error_and_nothing_is_half_written(shell: Any) -> None:
    report = f"{sys.executable} -P -m zmesh_cli init --state disk/mine; code=$?; find disk/mine; exit $code"
    command = [*small_disk(8), "sh", "-c", f"head -c 4096 /dev/zero >disk/full; {report}"]
    done = subprocess.run(command, capture_output=True, cwd=shell.folder, env=shell.environment, timeout=90)
    assert done.returncode == 2, done
    lines = [line for line in done.stderr.splitlines() if line.startswith(b"zmesh:")]
    assert len(lines) == 1
    assert b"the disk is full; nothing was changed (another folder: --state DIR)" in lines[0]
    assert done.stdout == b""


def test_a_read_only_disk_is_one_error(shell: Any) -> None:
    report = f"mount -o remount,ro disk && exec {sys.executable} -P -m zmesh_cli init --state disk/mine"
    command = [*small_disk(64), "sh", "-c", report]
    done = subprocess.run(command, capture_output=True, cwd=shell.folder, env=shell.environment, timeout=90)
    assert done.returncode == 2, done
    assert done.stderr.count(b"\n") == 1
    assert b"the disk is read-only" in done.stderr


def test_contexts_are_listed_chosen_and_deleted(shell: Any, lines: Any) -> None:
    assert b"there are no contexts" in shell.run("context", "ls").stderr
    init(shell, "--name", "lab")
    init(shell, "--name", "prod")
    listed = lines(shell.run("context", "ls", "--json"))
    assert [(each["name"], each["current"]) for each in listed] == [("lab", False), ("prod", True)]
    assert shell.run("context", "use", "lab").returncode == 0
    assert shell.run("context", "ls").stdout.splitlines()[0].startswith(b"* lab  ")
    assert b"mesh       lab" in shell.run("identity").stdout
    done = shell.run("context", "rm", "lab")
    assert done.returncode == 2
    assert b"who lets others in is lost with it; copy it elsewhere first, or say --yes" in done.stderr
    assert shell.run("context", "rm", "lab", "--yes").returncode == 0
    assert not (shell.folder / "config/zmesh/lab").exists()
    assert shell.run("identity").returncode == 2
    done = shell.run("context", "use", "prd")
    assert done.returncode == 2
    assert b"(did you mean 'prod'?)" in done.stderr
    done = shell.run("context", "ls", environment={"ZMESH_STATE": "/a"})
    assert done.stderr == b"zmesh: /a goes before them (ZMESH_STATE or STATE_DIRECTORY)\n"


def test_a_node_listens_as_init_has_said(shell: Any) -> None:
    port = shell.free_ports()
    init(shell, "--name", "lab", "--listen", f"tcp://127.0.0.1:{port}")
    node = shell.node_of_context()
    assert node.ready["node_id"] == "hub"
    (url,) = node.ready["listening"]
    assert url.startswith(f"tcp://127.0.0.1:{port}?key=")
    assert shell.run("ping", "hub", "-c", "1").returncode == 0
