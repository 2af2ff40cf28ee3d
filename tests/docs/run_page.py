"""Runs the blocks of one page; the tests start it as a process of its own, in an empty folder.

On standard input it takes JSON: the page's name and its blocks, each as `[kind, line, code]`.

- `python` blocks share one namespace, and may `await` at their top level;
- a `file:NAME` block is written to that file; a `pyproject.toml` also counts as installed, entry points and all;
- in a `console` block each line after a `$ ` is a command, and what follows is its output. A `zmesh node` or `zmesh
  forward` runs on until the page is over, and only the line that says it is ready is compared; all else runs to its
  end. `export` lasts for the page. Other commands than those in RUN are skipped.

Output is compared word by word, numbers aside, and `...` stands for anything. Ports of 127.0.0.1 are exchanged for free
ones, the same for the whole page.
"""

import ast
import asyncio
import inspect
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

RUN = {"cat", "curl", "echo", "head", "mkdir", "printf", "pytest", "python", "sha256sum", "sleep", "zmesh"}
FOREIGN = {"ansible", "ansible-inventory", "ansible-playbook"}
"""What is run too, without turning warnings into errors."""
COMMAND_SECONDS = 120.0

PORT = re.compile(r"(?<=127\.0\.0\.1:)\d{4,5}\b")
OURS = re.compile(r'"?receptor_(inventory|shout|wordcount):\w+"?[, ]?')
"""What the plugins of tests/guide offer, where they are installed; they are not the reader's."""

READY = re.compile(r"^node \S+ listens on |\"event\":\"ready\"|; Ctrl-C stops it(\"})?$")
ENDLESS = {"node", "forward"}
"""The commands of zmesh that run until they are stopped."""
READING = {"nodes", "status", "trace", "why", "routes"}
"""Those that change nothing: they are run again while what they show differs, as the first round trips of a link may be
slow on a busy machine, which is a warning for a while."""
NUMBER = re.compile(r"[0-9a-f]{32}|\b[0-9a-f]{16}\b|\d+(?:\.\d+)?")


def commands_of(code: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that the page shows for it."""
    found: list[tuple[str, str]] = []
    continues = False
    for line in code.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif continues:
            found[-1] = (f"{found[-1][0]}\n{line}", "")
        else:
            assert found, f"a console block must begin with '$ ', not {line!r}"
            command, output = found[-1]
            found[-1] = (command, f"{output}{line}\n")
            continue
        continues = line.endswith("\\")
    return found


def alike(shown: str, real: str) -> bool:
    """Whether the real output is as the page shows it; lines may come in another order, as answers of many nodes do."""
    return _alike(shown, real) or _alike(_sorted(shown), _sorted(real))


def _sorted(text: str) -> str:
    return "\n".join(sorted(line.strip() for line in text.splitlines() if line.strip()))


def _alike(shown: str, real: str) -> bool:
    words = [NUMBER.sub("0", text).split() for text in (shown, real)]
    pattern = r"\s".join(re.escape(word).replace(r"\.\.\.", r"[\s\S]*") for word in words[0])
    return re.fullmatch(pattern, "\n".join(words[1])) is not None


class Page:
    """What the blocks of a page have in common."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.ports: dict[str, str] = {}
        self.keepers: list[socket.socket] = []
        self.runner = asyncio.Runner()

    def run(self, kind: str, line: int, code: str) -> None:
        """Run one block."""
        code = PORT.sub(lambda match: self.port(match[0]), code)
        if kind == "python":
            self.python(line, code)
        elif kind == "console":
            for command, output in commands_of(code):
                self.command(line, command, output)
        else:
            write(Path(kind.removeprefix("file:")), code)

    def port(self, shown: str) -> str:
        """The port that is taken for the one that the page shows."""
        if shown not in self.ports:
            keeper = socket.socket()  # while it has the port, that is given to nobody else
            self.keepers.append(keeper)
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, so that they can bind it too
            keeper.bind(("127.0.0.1", 0))
            self.ports[shown] = str(keeper.getsockname()[1])
        return self.ports[shown]

    def python(self, line: int, code: str) -> None:
        """Run Python, so that a traceback tells the page and the line."""
        compiled = compile("\n" * line + code, self.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if not compiled.co_flags & inspect.CO_COROUTINE:
            exec(compiled, self.names)
            return

        async def block() -> None:
            await eval(compiled, self.names)

        self.runner.run(block())

    def command(self, line: int, command: str, output: str) -> None:
        """Run a command, and compare its output with the one shown if there is any."""
        words = shlex.split(command.replace("\\\n", " "))
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            if "=$(" in command:  # what a command prints
                inner = command.partition("=$(")[2].rpartition(")")[0]
                value = subprocess.run(
                    ["bash", "-c", inner], stdout=subprocess.PIPE, text=True, check=True
                ).stdout.strip()
            os.environ[name] = value
        if words[0] not in RUN | FOREIGN:
            return
        until = time.monotonic() + COMMAND_SECONDS
        real = self.output_of(line, command, words)
        while (
            words[0] == "zmesh"
            and words[1] in READING
            and output
            and not alike(output, real)
            and time.monotonic() < until
        ):
            real = self.output_of(line, command, words)
        assert not output or alike(output, real), (
            f"{self.name}, line {line}: {command}\nshown:\n{output}\nreal:\n{real}"
        )

    def output_of(self, line: int, command: str, words: list[str]) -> str:
        """What a command prints, which must succeed; of one that runs on, the line that says that it is ready."""
        process = subprocess.Popen(
            ["bash", "-c", f"set -o pipefail; {command}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONWARNINGS": ""} if words[0] in FOREIGN else None,
        )
        if words[0] == "zmesh" and words[1] in ENDLESS:
            return ready_line(process)
        real = OURS.sub("", process.communicate(timeout=COMMAND_SECONDS)[0])
        assert process.returncode == 0, f"{self.name}, line {line}: {command}\nends with {process.returncode}\n{real}"
        return real


def ready_line(process: subprocess.Popen[str]) -> str:
    """The line in which a node says that it is ready; what follows is read and thrown away, so that it never waits."""
    assert process.stdout is not None
    stream = process.stdout
    said = []
    for line in stream:
        said.append(line)
        if READY.search(line):
            threading.Thread(target=lambda: [None for _ in stream], daemon=True).start()
            return line
    return "".join(said)


def write(path: Path, text: str) -> None:
    """Write a file of the page; a pyproject.toml is entered among the installed packages as pip would."""
    assert not path.is_absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if path.name != "pyproject.toml":
        return
    project = tomllib.loads(text)["project"]
    folder = Path(f"{project['name'].replace('-', '_')}-{project['version']}.dist-info")
    folder.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    folder.joinpath("METADATA").write_text(metadata, encoding="utf-8")
    with folder.joinpath("entry_points.txt").open("w", encoding="utf-8") as points:
        for group, entries in project.get("entry-points", {}).items():
            print(f"[{group}]", *(f"{name} = {target}" for name, target in entries.items()), sep="\n", file=points)


def main() -> None:
    """Run the page on standard input."""
    name, blocks = json.load(sys.stdin)
    sys.path.insert(0, os.getcwd())
    os.environ["PYTHONPATH"] = os.getcwd()
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    page = Page(name)
    with page.runner:
        for block in blocks:
            page.run(*block)
    for keeper in page.keepers:
        keeper.close()


if __name__ == "__main__":
    main()
