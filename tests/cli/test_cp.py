"""`zmesh cp`: files to nodes and from them, exit codes, JSON, the progress bar."""

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest

from zmesh_cli.help import EXAMPLES


@pytest.fixture(scope="module")
def fleet(new_shell: Callable[[], Any]) -> Any:
    """A shell beside three nodes that allow copies, which joins at `hub`; `edge-1` and `edge-2` have a tag."""
    shell = new_shell()
    shell.environment["ZMESH_ALLOW"] = '{"file:*": ["*"]}'
    shell.hub = shell.node("hub")
    for name in ("edge-1", "edge-2"):
        shell.environment["ZMESH_TAGS"] = "gpu"
        shell.node(name, "--peer", shell.hub.url)
        shell.hub.event("node_joined")
    del shell.environment["ZMESH_TAGS"]
    shell.environment["ZMESH_ALLOW"] = '{"exec:*": ["*"]}'
    shell.locked = shell.node("locked", "--peer", shell.hub.url)
    shell.hub.event("node_joined")
    shell.environment["ZMESH_PEER"] = shell.hub.url
    return shell


def test_a_file_goes_there_and_comes_back(fleet: Any, tmp_path: Path) -> None:
    source, there, back = tmp_path / "source", tmp_path / "there", tmp_path / "back"
    source.write_bytes(os.urandom(3_000_000))
    source.chmod(0o600)
    for words in ((source, f"edge-1:{there}"), (f"edge-1:{there}", back)):
        done = fleet.run("cp", *map(str, words))
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert back.read_bytes() == source.read_bytes()
    assert (back.stat().st_mode, back.stat().st_mtime_ns) == (source.stat().st_mode, source.stat().st_mtime_ns)


def test_odd_names_are_names(fleet: Any, tmp_path: Path) -> None:
    names = [b"-dash", b"line\nbreak", b"\xff\xfe", b"a:b", "grüße".encode()]
    for name in names:
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(name)
    sources = [b"./" + name if b":" in name else name for name in names]
    (tmp_path / "there").mkdir()
    done = fleet.run("cp", "--", *sources, f"edge-1:{tmp_path}/there", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(os.listdir(bytes(tmp_path / "there"))) == sorted(names)
    (tmp_path / "back").mkdir()
    assert fleet.run("cp", b"edge-1:" + bytes(tmp_path) + b"/there/\xff\xfe", tmp_path / "back").returncode == 0
    assert os.listdir(bytes(tmp_path / "back")) == [b"\xff\xfe"]


def test_json_says_what_was_done(fleet: Any, tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file").write_bytes(b"0123456789")
    done = fleet.run("cp", "-r", "--json", tmp_path / "tree", f"edge-1:{tmp_path}/there")
    assert json.loads(done.stdout) == {
        "schema": "zmesh.cp/1", "node": None, "state": "done", "files": 1, "directories": 2, "links": 0, "skipped": 0,
        "resumed": 0, "size": 10, "sent": 10, "failures": [], "code": None,
    }  # fmt: skip
    done = fleet.run("cp", "--json", f"edge-1:{tmp_path}/none", tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == "copy_failed"
    assert json.loads(done.stdout)["failures"] == [f"node 'edge-1': '{tmp_path}/none': no such file or directory"]


def test_what_does_not_work_is_one_line_with_an_exit_code(fleet: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    for words, code, text in [
        ((source, "edge-1:/none/there"), 1, "zmesh: node 'edge-1': '/none/there': no such file or directory\n"),
        ((tmp_path, "edge-1:/tmp/"), 1, f"zmesh: '{tmp_path}' is a directory: copy it with -r (recursive=True)\n"),
        ((tmp_path / "none", "edge-1:/tmp/"), 1, f"zmesh: '{tmp_path}/none': no such file or directory\n"),
        ((source, "edge-9:/tmp/"), 3, "edge-9"),
        (("edge-9:/tmp/x", "edge-1:/tmp/"), 3, "no node 'edge-9' can be reached from 'hub'"),
        ((source, "locked:/tmp/"), 6, '[allow] "file:*" = ["hub"]'),
        ((source, "no node:/tmp/"), 2, "is no id of a node"),
        ((source, tmp_path / "there"), 2, "neither place is at a node"),
        ((source,), 2, "give what to copy, and where to"),
        (("--canary", "1", source, "edge-1:/tmp/"), 2, "--canary is for several nodes"),
    ]:
        done = fleet.run("cp", *words)
        said = done.stderr.decode()
        assert (done.returncode, text in said) == (code, True), said
        assert code == 2 or said.count("\n") == 1


def test_a_copy_does_not_wait_for_a_node_that_is_known_to_be_out_of_reach(
    fleet: Any, tmp_path: Path, eventually: Any
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)

    def said() -> str:
        return str(fleet.run("cp", source, "--to", "edge-1,edge-9", tmp_path / "there").stderr.decode())

    eventually(lambda: "zmesh: no route to 'edge-9' (did you mean 'edge-" in said())
    assert "2 nodes: 1 done, 1 unreachable" in said()


def test_a_copy_to_several_nodes_ends_in_a_summary(fleet: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    done = fleet.run("cp", source, "--to", "tag:gpu", tmp_path / "there")
    assert (done.returncode, done.stderr) == (0, b"zmesh: 2 nodes: 2 done\n")
    assert (tmp_path / "there").read_bytes() == b"x" * 1000
    done = fleet.run("cp", source, "--to", "edge-1,locked", "--json", f"{tmp_path}/none/there")
    assert done.returncode == 1
    found = {each["node"]: each for each in map(json.loads, done.stdout.splitlines())}
    assert (found["edge-1"]["state"], found["edge-1"]["code"]) == ("failed", "copy_failed")
    assert (found["locked"]["state"], found["locked"]["code"]) == ("failed", "not_allowed")
    assert done.stderr.endswith(b"zmesh: 2 nodes: 2 failed\nzmesh: failed: edge-1, locked\n")


def test_files_go_from_node_to_node(fleet: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(100_000))
    assert fleet.run("cp", f"edge-1:{source}", f"edge-2:{tmp_path}/there").returncode == 0
    assert (tmp_path / "there").read_bytes() == source.read_bytes()


def test_a_terminal_has_a_bar_with_the_rate_and_the_time_left(fleet: Any, tmp_path: Path) -> None:
    with open(tmp_path / "source", "wb") as file:
        file.truncate(1 << 40)  # all of it is a hole, and takes its time at both ends
    words = ["cp", str(tmp_path / "source"), f"edge-1:{tmp_path}/there"]
    environment = fleet.environment | {"TERM": "xterm", "COLUMNS": "120"}
    child = pexpect.spawn(fleet.command[0], [*fleet.command[1:], *words], env=environment, timeout=90)
    child.expect(r"\] +\d+%  [\d.]+ of 1048576\.0 MiB  [\d.]+ MiB/s  \d+ s left")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("line", [line for _, line in EXAMPLES["zmesh cp"]])
def test_each_example_of_the_help_succeeds(fleet: Any, tmp_path: Path, line: str) -> None:
    for folder in ("site", "tmp", "srv", "backup", "var/log"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for file in ("notes.txt", "app.tar", "site/index.html", "srv/db.dump", "var/log/syslog"):
        (tmp_path / file).write_text(file)
    there = line.replace("edge-7:", "edge-1:").replace("store:", "edge-2:").replace(":/", f":{tmp_path}/")
    words = shlex.split(there.replace(" /srv/", f" {tmp_path}/srv/"))
    done = fleet.run(*words[1:], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"zmesh: 2 nodes: 2 done\n" if "--to" in line else b"")
