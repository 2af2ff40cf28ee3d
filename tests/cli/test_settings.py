"""Unknown settings and the settings of plugins: what `zmesh node` reports of them."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PLUGIN = """
import pathlib
from dataclasses import dataclass
import zmesh

@dataclass
class Settings:
    path: pathlib.Path
    size: int = 1

class Store:
    settings = Settings

    async def start(self, settings):
        self.settings = settings
        settings.path.write_text("started")

    async def close(self):
        self.settings.path.write_text("closed")

    @zmesh.directive
    async def size(self, work):
        return self.settings.size
"""


@pytest.fixture
def store(shell: Any, tmp_path: Path) -> Callable[[str], str]:
    """Installs the plugin `store` for the shell, and writes a file of settings; its path."""
    dist = tmp_path / "store-1.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: store\nVersion: 1\n")
    (dist / "entry_points.txt").write_text("[zmesh.plugins]\nstore = store_plugin:Store\n")
    (tmp_path / "store_plugin.py").write_text(PLUGIN)
    shell.environment["PYTHONPATH"] = str(tmp_path)

    def write(text: str) -> str:
        file = shell.folder / "node.toml"
        file.write_text(text)
        return str(file)

    return write


def test_a_plugin_is_started_with_its_settings_and_closed_with_the_node(
    shell: Any, store: Callable[[str], str], tmp_path: Path
) -> None:
    file = store(f"[plugins.store]\npath = '{tmp_path}/state'\nsize = 3\n")
    node = shell.node("a", "--config", file)
    assert (tmp_path / "state").read_text() == "started"
    assert shell.run("send", "a", "store:size").stdout == b"3"
    assert (node.end(), node.complaints()) == (0, "")
    assert (tmp_path / "state").read_text() == "closed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_whose_plugin_never_finishes_its_start_can_be_stopped(
    shell: Any, store: Callable[[str], str], tmp_path: Path, eventually: Callable[..., None], number: int
) -> None:
    state = tmp_path / "state"
    patient = PLUGIN.replace("async def close", "    await asyncio.Event().wait()\n    async def close")
    (tmp_path / "store_plugin.py").write_text(f"import asyncio\n{patient}")
    node = shell.start("node", "--config", store(f"[plugins.store]\npath = '{state}'\n"))
    eventually(state.exists)
    node.send_signal(number)
    _, err = node.communicate(timeout=90)
    assert node.returncode == (0 if number == signal.SIGTERM else 130)
    assert b"the plugin store (store_plugin:Store) can't be started" in err
    assert state.read_text() == "started", "what has not started is not closed"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("path = 3", "path must be a path, not a whole number"),
        ("size = 1", "path is missing; it must be a path"),
        ("path = '/x'\nsiez = 2", "no setting is called 'siez' (did you mean 'size'?)"),
    ],
)
def test_settings_that_a_plugin_does_not_declare_keep_the_node_from_starting(
    shell: Any, store: Callable[[str], str], text: str, complaint: str
) -> None:
    file = store(f"[plugins.store]\n{text}\n")
    done = shell.run("node", "--config", file)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == f"zmesh: {file}: [plugins.store]: {complaint}\n"


def test_the_plugins_of_zmesh_know_their_settings_too(shell: Any, store: Callable[[str], str], tmp_path: Path) -> None:
    begin = f"[plugins.store]\npath = '{tmp_path}/state'\n"
    for namespace, key in (("http", "read_timeuot"), ("echo", "loud"), ("sleep", "well"), ("digest", "bits")):
        done = shell.run("node", "--config", store(f"{begin}[plugins.{namespace}]\n{key} = 1\n"))
        assert done.returncode == 2
        assert f"[plugins.{namespace}]: no setting is called '{key}'" in done.stderr.decode()


def test_a_table_for_no_plugin_is_logged_and_the_node_runs(
    shell: Any, store: Callable[[str], str], tmp_path: Path
) -> None:
    file = store(
        f"[plugins.store]\npath = '{tmp_path}/state'\n[plugins.stroe]\nsize = 1\n[isolation.'store:size']\ngrace = 1\n"
    )
    node = shell.node("a", "--config", file)
    assert node.end() == 0
    assert (
        f"{file}: [plugins.stroe] is for no plugin that is installed here (did you mean 'store'?)" in node.complaints()
    )
    assert '[isolation."store:size"] limits nothing, as that directive is not isolated' in node.complaints()


def test_every_command_reports_a_variable_that_nothing_reads(shell: Any) -> None:
    shell.environment["ZMESH_PER"] = "tcp://hub:7323"
    line = "nothing reads the environment variable ZMESH_PER (did you mean ZMESH_PEER?)"
    node = shell.node("a")
    for words in (("ping", "a", "-c", "1"), ("send", "a", "echo:echo", "x"), ("routes",)):
        done = shell.run(*words)
        assert (done.returncode, done.stderr.decode()) == (0, f"zmesh: {line}\n")
    assert node.end() == 0
    assert line in node.complaints()
