"""The set-up holds what setup.cfg says, and importing zmesh stays light."""

import configparser
import importlib
import importlib.metadata
import importlib.resources
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zmesh

ROOT = Path(__file__).parents[2]
FOLDERS = {"zmesh": ROOT / "zmesh", "zmesh_cli": ROOT / "cli"}
COLLECTION = "ansible_collections.zmesh.mesh"


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return setup


def packages_in(name: str, folder: Path) -> Iterator[str]:
    """`folder` as the package `name`, and every package below it; a folder without Python files is none."""
    if any(folder.glob("*.py")):
        yield name
    for below in folder.iterdir():
        if below.is_dir() and below.name != "__pycache__":
            yield from packages_in(f"{name}.{below.name}", below)


def test_setup_cfg_lists_every_package_folder_and_no_other(setup: configparser.ConfigParser) -> None:
    folders = FOLDERS | {f"{COLLECTION}.plugins": ROOT.joinpath(*COLLECTION.split("."), "plugins")}
    found = [COLLECTION, *(package for name, path in folders.items() for package in packages_in(name, path))]
    assert sorted(setup["options"]["packages"].split()) == sorted(found)


def test_every_package_folder_has_an_init_file() -> None:
    for folder in FOLDERS.values():
        without = [path for path in folder.rglob("*.py") if not (path.parent / "__init__.py").exists()]
        assert without == []


def test_the_installed_distribution_is_the_one_of_this_tree() -> None:
    assert importlib.metadata.version("zmesh-mq") == zmesh.__version__
    assert importlib.resources.files("zmesh").joinpath("py.typed").is_file()


def test_the_collection_has_the_version_of_the_distribution() -> None:
    galaxy = ROOT.joinpath(*COLLECTION.split("."), "galaxy.yml").read_text().splitlines()
    assert f"version: {zmesh.__version__}" in galaxy


def test_every_entry_point_can_be_loaded() -> None:
    points = importlib.metadata.distribution("zmesh-mq").entry_points
    assert {point.group for point in points} == {"console_scripts", "zmesh.plugins", "pytest11"}
    for point in points:
        point.load()


@pytest.mark.parametrize("module", ["zmesh", "zmesh.controller", "zmesh.plugins.http"])
def test_an_import_of_the_library_is_light(module: str) -> None:
    script = f"import {module}, sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=30, check=True)
    heavy = {"aiohttp", "click", "networkx", "pytest", "rich", "typer", "zmesh.testing", "zmesh_cli"}
    assert heavy.isdisjoint(done.stdout.split())


RUN = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]


def test_the_pytest_plugin_loads_nothing_until_its_fixture_is_used(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "import pytest\n"
        "def loaded():\n"
        "    names = {'zmq', 'msgpack', 'zmesh.core', 'zmesh.node', 'zmesh.testing.simulator'}\n"
        "    return names & sys.modules.keys()\n"
        "def test_a_test_of_something_else(pytestconfig):\n"
        "    assert pytestconfig.pluginmanager.has_plugin('zmesh')\n"
        "    assert not loaded()\n"
        "@pytest.mark.asyncio\n"
        "async def test_a_test_of_a_mesh(mesh):\n"
        "    await mesh.add('hub')\n"
        "    assert {'zmesh.node', 'zmq'} <= loaded()\n"
    )
    done = subprocess.run([*RUN, str(tmp_path)], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_every_public_name_is_where_the_package_says_it_is() -> None:
    zmesh = importlib.import_module("zmesh")
    assert {name for names in zmesh._NAMES.values() for name in names} == {*zmesh.__all__}
    assert [name for name in zmesh.__all__ if not hasattr(zmesh, name)] == []
    assert {*zmesh.__all__} <= {*dir(zmesh)}
    with pytest.raises(AttributeError, match="module 'zmesh' has no attribute 'nonsense'"):
        _ = zmesh.nonsense


def commands_of(app: Any) -> Iterator[tuple[str, Any]]:
    """Every function that a Typer app may run, by name: callbacks, commands, and those of the apps below it."""
    for registered in (app.registered_callback, *app.registered_commands):
        if registered is not None and registered.callback is not None:
            yield registered.callback.__name__, registered.callback
    for group in app.registered_groups:
        yield from commands_of(group.typer_instance)


def test_no_command_is_a_coroutine_function_which_typer_would_never_await() -> None:
    commands = dict(commands_of(importlib.import_module("zmesh_cli.main").app))
    assert commands, "zmesh_cli.main.app has no commands"
    asynchronous = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    assert [name for name, function in commands.items() if any(test(function) for test in asynchronous)] == []
