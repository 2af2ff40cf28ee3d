"""Plaintext stays on the machine unless it is allowed, and a link that is not trusted is exit code 6 with one line."""

from typing import Any

import pytest

from zmesh.transport.curve import KeyPair, key_to_text

COMMANDS = ("zmesh init", "zmesh invite", "zmesh join", "--insecure")


def line(done: Any) -> str:
    """The only line on stderr."""
    text = done.stderr.decode()
    assert text.count("\n") == 1, text
    return str(text)


@pytest.mark.parametrize("words", [("--listen", "tcp://0.0.0.0:*"), ("--peer", "tcp://192.0.2.1:7323")])
def test_a_node_without_identity_refuses_other_machines_and_names_the_commands(shell: Any, words: Any) -> None:
    done = shell.run("node", "--id", "hub", *words)
    assert done.returncode == 2
    assert all(command in line(done) for command in COMMANDS)


def test_a_command_without_identity_refuses_other_machines_and_names_the_commands(shell: Any) -> None:
    done = shell.run("ping", "hub", "--peer", "tcp://192.0.2.1:7323")
    assert done.returncode == 2
    assert all(command in line(done) for command in COMMANDS)


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_insecure_allows_plaintext_at_every_address(shell: Any, how: str) -> None:
    if how == "variable":
        shell.environment["ZMESH_INSECURE"] = "1"
    node = shell.node("hub", *(["--insecure"] if how == "flag" else []), listen="tcp://0.0.0.0:*")
    assert node.url.startswith("tcp://0.0.0.0:")
    port = node.url.rpartition(":")[2]
    assert shell.run("ping", "hub", "-c", "1", "--peer", f"tcp://127.0.0.1:{port}").returncode == 0


def test_a_key_for_a_node_that_speaks_plaintext_is_not_trusted(shell: Any) -> None:
    node = shell.node("hub")
    done = shell.run("ping", "hub", "--peer", f"{node.url}?key={key_to_text(KeyPair.generate().public)}")
    assert done.returncode == 6
    assert "it speaks plaintext, and this URL has a key" in line(done)


def test_a_wrong_key_is_not_trusted_or_the_node_has_just_stopped(shell: Any) -> None:
    assert shell.run("init", "--id", "hub", "--name", "lab").returncode == 0
    node = shell.node_of_context("--listen", "tcp://127.0.0.1:*")
    wrong = key_to_text(KeyPair.generate().public)
    done = shell.run("ping", "hub", "--peer", f"{node.url.partition('?')[0]}?key={wrong}")
    assert done.returncode == 6
    assert f"its key is not {wrong}, or it has just stopped" in line(done)
    assert shell.run("ping", "hub", "-c", "1", "--peer", node.url).returncode == 0


def test_a_variable_that_is_neither_true_nor_false_is_reported(shell: Any) -> None:
    done = shell.run("ping", "hub", "--peer", "tcp://127.0.0.1:1", environment={"ZMESH_INSECURE": "maybe"})
    assert done.returncode == 2
    assert b"ZMESH_INSECURE" in done.stderr
