"""Connection plugin: runs tasks on the nodes of a mesh by `exec:run`, and moves files through it as well."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

from ansible.errors import (
    AnsibleAuthenticationFailure,
    AnsibleConnectionFailure,
    AnsibleError,
    AnsibleFileNotFound,
)
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

import zmesh.sync
from zmesh.errors import CommandFailed, ConfigError, MeshError, NotAllowed, NotTrusted
from zmesh_cli.exit_codes import Failure
from zmesh_cli.local_sockets import choose
from zmesh_cli.session import config_at

DOCUMENTATION = """
name: zmesh
short_description: Run tasks on the nodes of a zmesh mesh
description:
  - Runs commands and moves files over the mesh, so a host need not be reachable from here, nor run an SSH server.
  - The node must allow it, with C([allow] "exec:run") in its configuration; nothing else is needed for files.
author: the zmesh authors
options:
  node:
    description: The id of the node.
    type: string
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_host
      - name: ansible_zmesh_node
  peer:
    description: >-
      Where to join the mesh, as for C(--peer) of the command C(zmesh): a URL, or the id of a node of yours on this
      machine; by default the node that runs here.
    type: string
    env:
      - name: ZMESH_PEER
    vars:
      - name: ansible_zmesh_peer
  insecure:
    description: Allow plaintext to other machines, for a network that you trust.
    type: boolean
    default: false
    env:
      - name: ZMESH_INSECURE
    vars:
      - name: ansible_zmesh_insecure
  remote_user:
    description: The user of the node to run commands as, if the node runs as root; by default the node's own.
    type: string
    ini:
      - section: defaults
        key: remote_user
    env:
      - name: ANSIBLE_REMOTE_USER
    vars:
      - name: ansible_user
      - name: ansible_zmesh_user
    cli:
      - name: user
    keyword:
      - name: remote_user
  timeout:
    description: Seconds that a node may be out of reach before the host is unreachable, and for a password prompt.
    type: integer
    default: 10
    ini:
      - section: defaults
        key: timeout
    env:
      - name: ANSIBLE_TIMEOUT
    vars:
      - name: ansible_zmesh_timeout
    cli:
      - name: timeout
extends_documentation_fragment:
  - connection_pipelining
"""

display = Display()

SHELL = "/bin/sh"
TERMINAL = (24, 80)
PUT = 'cat >"$2" && [ "$(wc -c <"$2")" -eq "$3" ] && mv -f -- "$2" "$1" || { rm -f -- "$2"; exit 1; }'
"""Writes stdin to a temporary file ($2), which gets its name ($1) if all bytes ($3) are there."""
GET = 'exec cat -- "$1"'


class _Leaf:
    """The node of this process that its connections share: an ephemeral one, closed with the last of them."""

    _open: dict[tuple[int, str | None, bool], _Leaf] = {}  # noqa: RUF012

    def __init__(self, key: tuple[int, str | None, bool], mesh: zmesh.sync.Controller) -> None:
        self.mesh = mesh
        self._key = key
        self._users = 0

    @classmethod
    def join(cls, peer: str | None, insecure: bool, node: str) -> _Leaf:
        """The leaf of this process at that peer. Raises Failure and MeshError."""
        key = (os.getpid(), peer, insecure)  # a fork makes one of its own
        if (leaf := cls._open.get(key)) is None:
            mesh = zmesh.sync.Controller(config_at(choose(peer, node, insecure=insecure), None, None))
            mesh.open()
            leaf = cls._open[key] = cls(key, mesh)
        leaf._users += 1
        return leaf

    def leave(self) -> None:
        """One of its users needs it no more."""
        self._users -= 1
        if not self._users:
            del self._open[self._key]
            self.mesh.close()


class Connection(ConnectionBase):
    """A host: a node of the mesh."""

    transport = "zmesh.mesh.zmesh"
    has_pipelining = True

    _leaf: _Leaf | None = None

    def _connect(self) -> Connection:
        """Join the mesh. Whether the node can be reached shows with the first command."""
        if self._leaf is None:
            with self._errors():
                self._leaf = _Leaf.join(self.get_option("peer"), self.get_option("insecure"), self.get_option("node"))
            self._connected = True
        return self

    def close(self) -> None:
        """Leave the mesh, unless another connection of this process uses the same node."""
        leaf, self._leaf = self._leaf, None
        self._connected = False
        if leaf is not None:
            leaf.leave()

    def reset(self) -> None:
        """Leave the mesh, and join it anew."""
        self.close()
        self._connect()

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Run a command line at the node: its exit code, stdout and stderr."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        become = self.become if sudoable and self.become is not None and self.become.expect_prompt() else None
        terminal = TERMINAL if become is not None and become.require_tty and in_data is None else None
        with self._errors():
            display.vvv(f"EXEC {to_text(cmd)}", host=self.get_option("node"))
            with self._popen([SHELL, "-c", cmd], terminal=terminal) as process:
                conversation = _Conversation(process, become, in_data, keeps_stdin=terminal is not None)
                with conversation.within(self.get_option("timeout")):
                    for stream, data in process:
                        conversation.take(stream, data)
                assert process.returncode is not None
                code = process.returncode
        return (code if code >= 0 else 128 - code), *conversation.outputs()

    def put_file(self, in_path: str, out_path: str) -> None:
        """Write a file of this machine at the node, under its name only when it is whole."""
        super().put_file(in_path, out_path)
        display.vvv(f"PUT {in_path} TO {out_path}", host=self.get_option("node"))
        source = Path(to_text(in_path, errors="surrogate_or_strict"))
        if not source.exists():
            raise AnsibleFileNotFound(f"file or module does not exist: {source}")
        part = f"{out_path}.zmesh-{secrets.token_hex(4)}"
        command = [SHELL, "-c", PUT, "zmesh", out_path, part, str(source.stat().st_size)]
        with self._errors(), self._popen(command, source) as process:
            _, why = process.communicate()
            if process.returncode:
                raise AnsibleError(f"can't write {out_path!r} at {process.node!r}: {_last_line(why)}")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Write a file of the node here, under its name only when it is whole."""
        super().fetch_file(in_path, out_path)
        display.vvv(f"FETCH {in_path} TO {out_path}", host=self.get_option("node"))
        part = Path(f"{to_text(out_path, errors='surrogate_or_strict')}.zmesh-{secrets.token_hex(4)}")
        why = b""
        try:
            with self._errors(), self._popen([SHELL, "-c", GET, "zmesh", in_path], None) as process:
                with part.open("wb") as file:
                    for stream, data in process:
                        if stream == 1:
                            file.write(data)
                        else:
                            why += data
                if process.returncode:
                    raise AnsibleError(f"can't read {in_path!r} at {process.node!r}: {_last_line(why)}")
            part.replace(to_text(out_path, errors="surrogate_or_strict"))
        finally:
            part.unlink(missing_ok=True)

    def _popen(self, command: list[str], stdin: Any = PIPE, terminal: tuple[int, int] | None = None) -> Any:
        """Start a command at the node."""
        assert self._leaf is not None
        return self._leaf.mesh.popen(
            self.get_option("node"),
            [to_bytes(word, errors="surrogate_or_strict") for word in command],
            stdin=stdin,
            user=self.get_option("remote_user") or None,
            terminal=terminal,
            route_timeout=float(self.get_option("timeout")),
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise what goes wrong in the mesh as Ansible's exceptions."""
        try:
            yield
        except (NotAllowed, NotTrusted) as error:
            raise AnsibleAuthenticationFailure(str(error)) from error
        except (CommandFailed, ConfigError) as error:
            raise AnsibleError(str(error)) from error
        except (MeshError, Failure) as error:
            raise AnsibleConnectionFailure(str(error)) from error


class _Conversation:
    """The input and output of a command, of which privilege escalation may want a password first."""

    def __init__(self, process: Any, become: Any, in_data: bytes | None, *, keeps_stdin: bool) -> None:
        self._process = process
        self._become = become
        self._in_data = in_data
        self._keeps_stdin = keeps_stdin
        self._streams: dict[int, bytes] = {1: b"", 2: b""}
        self._answered = False
        self._is_late = False
        self._waits = become is not None
        if not self._waits:
            self._give_input()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Stop the command if it has not become the other user in time. Raises AnsibleConnectionFailure."""
        timer = threading.Timer(seconds, self._on_late)
        timer.daemon = True
        if self._waits:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
        if self._is_late:
            raise AnsibleConnectionFailure(
                f"privilege escalation takes more than {seconds} s at {self._process.node!r}"
            )

    def take(self, stream: int, data: bytes) -> None:
        """Take output. Raises AnsibleError for a password that is wrong or missing."""
        self._streams[stream] += data
        if not self._waits:
            return
        become, seen = self._become, self._streams[1] + self._streams[2]
        if become.check_success(self._streams[1]):
            self._waits = False
            self._give_input()
        elif become.check_incorrect_password(seen):
            raise AnsibleError(f"Incorrect {become.name} password")
        elif become.check_missing_password(seen):
            raise AnsibleError(f"Missing {become.name} password")
        elif not self._answered and become.check_password_prompt(seen):
            self._answered = True
            self._process.stdin.write(to_bytes(become.get_option("become_pass")) + b"\n")

    def outputs(self) -> tuple[bytes, bytes]:
        """All of stdout and stderr, without the prompt and what says that it has become the other user."""
        out, err = self._streams[1], self._streams[2]
        if self._become is not None:
            out = self._become.strip_become_success(self._become.strip_become_prompt(out))
            err = self._become.strip_become_prompt(err)
        return out, err

    def _give_input(self) -> None:
        if self._in_data:
            self._process.stdin.write(self._in_data)
        if not self._keeps_stdin:
            self._process.stdin.close()

    def _on_late(self) -> None:
        if self._waits:
            self._is_late = True
            with suppress(MeshError):
                self._process.terminate()


def _last_line(text: bytes) -> str:
    return to_text(text, errors="surrogate_or_replace").strip().rpartition("\n")[2] or "no reason is given"
