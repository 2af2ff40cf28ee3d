"""A command imports what it needs and nothing else; benchmarks.startup measures the time that this takes."""

import subprocess
import sys
from typing import Any

import pytest

from tests.waiting import WITHIN

SCRIPT = """
import sys
from zmesh_cli.main import main
try:
    main()
finally:
    with open(sys.argv.pop(), "w") as file:
        print(*sys.modules, file=file)
"""
ITS_OWN = {
    "ping": {"ping", "request_commands"},
    "send": {"send", "input", "output_file", "request_commands"},
    "routes": {"operate_commands", "quantities", "routes", "tables"},
    "nodes": {"nodes", "operate_commands", "quantities", "routes", "tables"},
    "cancel": {"cancel", "quantities", "request_commands", "routes", "tables"},
}
SHARED = {
    "main",
    "help",
    "interrupts",
    "stdio",
    "exit_codes",
    "commands",
    "parameters",
    "conversion",
    "session",
    "local_sockets",
    "terminal",
    "logs",
    "signals",
}
SLOW = {"aiohttp", "cloudpickle", "http", "importlib.metadata", "multiprocessing", "pydantic", "pydantic_core", "rich"}
SLOW |= {
    "cryptography",
    "platformdirs",
    "tomllib",
    "sqlite3",
    "unittest",
    "urllib.request",
    "xml",
    "zmesh.serving.isolation.processes",
    "zmesh.testing",
}


def imported(mesh: Any, *words: str) -> set[str]:
    """The modules that a command has imported when it is done."""
    file = mesh.folder / "modules"
    program = SCRIPT.replace("sys.argv.pop()", repr(str(file)))
    command = [sys.executable, "-P", "-c", program, *words]
    subprocess.run(command, capture_output=True, timeout=WITHIN, env=mesh.environment)
    return set(file.read_text().split())


@pytest.mark.parametrize(
    "words",
    [
        ("ping", "far", "-c", "1"),
        ("send", "far", "echo:echo", "x"),
        ("routes", "far"),
        ("cancel", "0" * 32, "far"),
    ],
)
def test_a_command_imports_nothing_that_it_does_not_need(mesh: Any, words: tuple[str, ...]) -> None:
    modules = imported(mesh, *words)
    assert "zmesh.controller" in modules
    assert modules & SLOW == set()
    ours = {name.removeprefix("zmesh_cli.") for name in modules if name.startswith("zmesh_cli.")}
    assert ours == SHARED | ITS_OWN[words[0]]


@pytest.mark.parametrize("words", [("--help",), ("ping", "--help"), ("--nonsense",)])
def test_help_and_errors_of_usage_need_no_mesh(mesh: Any, words: tuple[str, ...]) -> None:
    modules = imported(mesh, *words)
    assert {name for name in modules if name.partition(".")[0] in ("zmesh", "zmq", "msgpack")} == set()
    assert modules & (SLOW - {"rich"}) == set()
