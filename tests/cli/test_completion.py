"""What a shell completes: commands, and what the mesh has; nothing, and no text, where it can't be asked."""

import shutil
import subprocess
from typing import Any

import pytest


def completed(shell: Any, line: str, **environment: str) -> list[str]:
    """The completions of the last word of a line, as bash gets them."""
    asked = {"_ZMESH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    done = shell.run(environment=asked | environment)
    assert (done.returncode, done.stderr) == (0, b"")
    return str(done.stdout.decode()).split()


def test_node_ids_targets_and_directives_are_completed_from_the_mesh(mesh: Any, eventually: Any) -> None:
    assert completed(mesh, "zmesh pi") == ["ping"]
    for line, words in (
        ("zmesh ping ", ["far", "hub", "mid"]),
        ("zmesh ping f", ["far"]),
        ("zmesh send far echo:", ["echo:echo", "echo:stream"]),
        ("zmesh nodes far,!m", ["far,!mid"]),
        ("zmesh nodes --at m", ["mid"]),
        ("zmesh job ls --owner ", ["far", "hub", "mid"]),
        ("zmesh cp x --to mid,f", ["mid,far"]),
    ):
        eventually(lambda line=line, words=words: completed(mesh, line) == words)  # a busy machine takes over a second


def test_tags_are_completed_by_themselves_and_in_targets(shell: Any, eventually: Any) -> None:
    shell.environment["ZMESH_TAGS"] = "gpu,green,lab"
    node = shell.node("a")
    for line, words in (
        ("zmesh nodes --tag g", ["gpu", "green"]),
        ("zmesh run tag:g", ["tag:gpu", "tag:green"]),
    ):
        eventually(lambda line=line, words=words: completed(shell, line, ZMESH_PEER=node.url) == words)


def test_where_no_node_answers_nothing_is_completed(shell: Any) -> None:
    assert completed(shell, "zmesh ping ") == []
    assert completed(shell, "zmesh ping ", ZMESH_PEER="tcp://127.0.0.1:1") == []


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_a_shell_can_read_its_script(shell: Any, name: str) -> None:
    done = shell.run("completion", name)
    assert b"_ZMESH_COMPLETE" in done.stdout
    if (program := shutil.which(name)) is not None:
        assert subprocess.run([program, "-n"], input=done.stdout).returncode == 0
    assert shell.run("completion", "tcsh").returncode == 2
