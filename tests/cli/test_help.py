"""`--help`: what it shows, and that each of its examples runs as it stands there."""

import re
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zmesh_cli.help import EXAMPLES, SECTIONS

COMMANDS = [
    "node",
    "ping",
    "send",
    "run",
    "cp",
    "nodes",
    "status",
    "trace",
    "graph",
    "top",
    "why",
    "routes",
    "cancel",
    "demo",
    "init",
    "invite",
    "join",
    "identity",
    "revoke",
    "reload",
    "bundle",
    "doctor",
    "events",
    "completion",
]
GROUPS = {
    "config": ("check", "show"),
    "service": ("install", "uninstall", "status"),
    "invites": ("ls", "rm"),
    "authority": ("ls", "rotate", "sign", "export"),
    "context": ("ls", "use", "rm"),
    "job": ("submit", "ls", "show", "attach", "logs", "result", "cancel", "rm"),
}
NESTED = [(group, name) for group, names in GROUPS.items() for name in names]
PLACEHOLDERS = {
    "-- COMMAND",
    "NODE",
    "NAMESPACE:ACTION",
    "[PAYLOAD]",
    "[NODE]",
    "[TARGET]",
    "TARGET",
    "MESSAGE_ID",
    "NAME",
    "TICKET",
    "ID",
    "SRC... DST",
    "SHELL",
}


def help_of(shell: Any, *words: str, columns: int = 60) -> str:
    return str(shell.run(*words, "--help", environment={"COLUMNS": str(columns)}).stdout.decode())


def examples_in(text: str) -> list[str]:
    """The lines of the section of examples, without comments."""
    lines = text.partition("\nExamples:\n")[2].split("\n\n")[0].splitlines()
    return [line.strip() for line in lines if not line.startswith("  # ")]


@pytest.mark.parametrize("words", [(), *((name,) for name in (*COMMANDS, *GROUPS)), *NESTED])
@pytest.mark.parametrize("columns", [60, 80])
def test_help_fits_the_terminal_and_ends_in_examples(shell: Any, words: tuple[str, ...], columns: int) -> None:
    text = help_of(shell, *words, columns=columns)
    assert max(map(len, text.splitlines())) <= columns
    assert "..." not in text.replace("[ARGS]...", "").replace("SRC...", "")
    assert examples_in(text) == [line for _, line in EXAMPLES[" ".join(("zmesh", *words))]]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_usage_has_the_shape_of_each_argument_and_options_are_in_groups(shell: Any, name: str) -> None:
    text = help_of(shell, name)
    usage = text.partition("\n\n")[0].replace("-- ", "--_").replace("... D", "..._D").split()
    assert usage[:3] == ["Usage:", "zmesh", name]
    arguments = [each.replace("--_", "-- ").replace("..._", "... ") for each in usage[3:] if each != "[OPTIONS]"]
    assert usage[3:][len([each for each in arguments if not each.startswith("-- ")])] == "[OPTIONS]"
    assert set(arguments) <= PLACEHOLDERS
    sections = re.findall(r"^(\w[\w ]+):$", text, re.MULTILINE)
    assert sections == [name for name in (*SECTIONS, "Examples") if name in sections]
    for argument in arguments:
        assert re.search(rf"^  {re.escape(argument)}  ", text, re.MULTILINE), argument


def test_the_help_of_node_says_that_every_setting_has_a_variable(shell: Any) -> None:
    text = " ".join(help_of(shell, "node").split())
    assert (
        "Every setting of a node can be given by environment: its variable is ZMESH_ and its name in capitals" in text
    )
    assert "ZMESH_HEARTBEAT" in text


# -- the examples ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(new_shell: Callable[[], Any]) -> Any:
    """A shell with the nodes of the examples, and with their files in its folder."""
    shell = new_shell()
    shell.environment["ZMESH_ALLOW"] = '{"exec:*": ["*"], "file:*": ["*"]}'
    shell.environment["ZMESH_TAGS"] = "gpu"
    shell.hub = shell.chain("hub", "edge-7")[0].url
    (shell.folder / "backup.tar").write_bytes(b"content")
    (shell.folder / "log").write_bytes(b"lines\n")
    (shell.folder / "node.toml").write_text('node_id = "other"\n')
    return shell


def runnable(site: Any, line: str) -> str:
    """The example as a line for bash, with the addresses of this mesh."""
    line = line.replace("tcp://hub:7323", site.hub).replace("tcp://0.0.0.0:7323", "tcp://127.0.0.1:*")
    return re.sub(r"(?<![\w-])zmesh ", f"{shlex.join(site.command)} ", line)


def bash(site: Any, line: str) -> list[str]:
    return ["bash", "-c", f"set -o pipefail; {line}"]


ALL = [(path, line) for path, examples in EXAMPLES.items() for _, line in examples]
NODES = [line for _, line in ALL if re.search(r"\bzmesh node( |$)", line)]
OF_TRUST = {"init", "invite", "join", "identity", "revoke", "reload", *GROUPS}
ENDLESS = ("zmesh demo", "zmesh top")  # which test_demo and test_top run
OTHERS = [
    line
    for path, line in ALL
    if line not in NODES
    and not {"cancel", "-t"} & {*line.split()}  # test_cancel and test_run have those
    and not path.startswith("zmesh job")  # test_jobs does
    and path not in ("zmesh cp", "zmesh forward", "zmesh expose", "zmesh nc")  # test_cp and test_forward do
    and not path.startswith(("zmesh events", "zmesh service", "zmesh completion"))  # others have those
    and path != "zmesh dashboard"  # which ends by Ctrl-C; tests/dashboard has it
    and path != "zmesh bundle"  # which says what nodes do not show; tests/cli/test_bundle.py has it
    and path != "zmesh doctor"  # which finds that a busy machine is late; tests/operate/test_faults.py has it
    and not OF_TRUST & {*path.split()[1:]}  # test_trust and test_membership do
]


@pytest.mark.parametrize("line", dict.fromkeys(line for line in OTHERS if line not in ENDLESS))
def test_each_example_of_a_request_succeeds(site: Any, line: str) -> None:
    environment = site.environment | {"ZMESH_PEER": "hub"}
    command = bash(site, runnable(site, line))
    done = subprocess.run(command, env=environment, cwd=site.folder, capture_output=True, timeout=90)
    is_fleet = ("--all" in line and " ping " not in line) or ("tag:" in line.partition(" -- ")[0] and " run " in line)
    assert (done.returncode, done.stderr) == (0, b"zmesh: 2 nodes: 2 done\n" if is_fleet else b"")
    assert done.stdout or "-o log.gz" in line or ">mesh.svg" in line or line.endswith("-- true")
    if "-o log.gz" in line:
        assert (site.folder / "log.gz").read_bytes()[:2] == b"\x1f\x8b"


@pytest.mark.parametrize("line", dict.fromkeys(NODES))
def test_each_example_of_a_node_runs_until_it_is_stopped(new_shell: Any, site: Any, line: str) -> None:
    shell = new_shell()
    (shell.folder / "node.toml").write_text('node_id = "other"\n')
    line = re.sub("--id (hub|edge-7)", "--id another", line)  # those of the examples run already
    command = ["bash", "-c", re.sub(r"(?=\S*python)", "exec ", runnable(site, line), count=1)]
    with subprocess.Popen(command, env=shell.environment, cwd=shell.folder, stderr=subprocess.PIPE) as node:
        assert node.stderr is not None
        while b"; Ctrl-C stops it" not in (said := node.stderr.readline()):
            assert said
        node.send_signal(signal.SIGTERM)
        node.communicate(timeout=90)
    assert node.returncode == 0


@pytest.mark.parametrize("line", [line for _, line in ALL if "zmesh cancel" in line])
def test_each_example_of_a_cancel_stops_the_work(site: Any, line: str) -> None:
    environment = site.environment | {"ZMESH_PEER": "hub"}
    send = site.start("send", "edge-7", "sleep:execute", "3600", "-v", environment=environment)
    while b"the message id is " not in (said := send.stderr.readline()):
        assert said
    line = re.sub("[0-9a-f]{32}", said.split()[-1].decode(), line)
    while not (done := subprocess.run(bash(site, runnable(site, line)), env=environment, capture_output=True)).stdout:
        assert done.returncode == 1, "the work has not begun"
    assert done.stdout.startswith(b"cancelled sleep:execute of cli-")
    assert done.returncode == 0
    send.communicate(timeout=90)
    assert send.returncode == 1


def test_the_reference_lists_the_examples() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text(encoding="utf-8")
    assert [line for _, line in ALL if line not in page] == []
