"""The set-up holds what setup.cfg says, and importing zmesh stays light."""

import configparser
import importlib
import importlib.metadata
import importlib.resources
import inspect
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zmesh
from tests.waiting import WITHIN

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
    heavy = {"aiohttp", "click", "networkx", "pytest", "rich", "typer", "zmesh.testing", "zmesh_cli"}
    assert heavy.isdisjoint(modules_of(f"import {module}"))


OF_A_CONTROLLER = {
    "zmesh.arguments", "zmesh.controller", "zmesh.core", "zmesh.core.message", "zmesh.errors", "zmesh.files",
    "zmesh.files.copying", "zmesh.jobs", "zmesh.jobs.client", "zmesh.lazy", "zmesh.lifecycle", "zmesh.messaging",
    "zmesh.observe", "zmesh.observe.mesh_view", "zmesh.operate", "zmesh.operate.diagnosing", "zmesh.operate.directives",
    "zmesh.operate.operating", "zmesh.payloads", "zmesh.remote", "zmesh.remote.machines", "zmesh.requests",
    "zmesh.requests.requester", "zmesh.runtime", "zmesh.runtime.exceptions", "zmesh.runtime.forks",
    "zmesh.runtime.interrupts", "zmesh.runtime.message_ids", "zmesh.serving", "zmesh.tunnel", "zmesh.tunnel.tunnels",
    "zmesh.version",
}  # fmt: skip
"""The modules that the class Controller is made of; benchmarks.startup measures the time that they take."""

UNUSED = {
    "cryptography", "multiprocessing", "platformdirs", "statistics", "tomllib", "urllib.request",
    "zmesh.files.transfer", "zmesh.jobs.job", "zmesh.operate.examiner", "zmesh.operate.mesh_reader",
    "zmesh.operate.node_reader", "zmesh.operate.status", "zmesh.reconfiguration", "zmesh.remote.remote_process",
    "zmesh.serving.isolation.processes", "zmesh.sync", "zmesh.trust", "zmesh.tunnel.connection",
}  # fmt: skip
"""What a node without an identity needs when it is asked for more, and not before."""


def modules_of(program: str) -> set[str]:
    """The modules that a program has imported when it ends."""
    script = f"{program}; import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=WITHIN, check=True
    )
    return set(done.stdout.split())


ELSEWHERE = """
import importlib, os, pkgutil, select, signal, socket, zmesh
for module, names in LINUX.items():
    for name in names:
        delattr(module, name)
for module in pkgutil.walk_packages(zmesh.__path__, "zmesh."):
    importlib.import_module(module.name)
"""


def test_every_module_can_be_imported_where_the_system_is_not_linux() -> None:
    linux = (
        "{os: ['O_PATH', 'O_TMPFILE', 'memfd_create', 'pidfd_open', 'sched_getaffinity', 'posix_fadvise'],"
        " select: ['epoll'], signal: ['pidfd_send_signal'], socket: ['SO_PEERCRED']}"
    )
    program = ELSEWHERE.replace("LINUX", linux)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_class_controller_imports_nothing_of_what_its_methods_need() -> None:
    modules = modules_of("import zmesh; zmesh.Controller")
    assert {name for name in modules if name.startswith("zmesh.")} == OF_A_CONTROLLER
    assert modules & {"cryptography", "dataclasses", "json", "msgpack", "shlex", "sqlite3", "zmq"} == set()


def test_a_controller_imports_nothing_that_only_some_requests_need() -> None:
    modules = modules_of("import zmesh; zmesh.Controller(node_id='a', identity=None)")
    assert "zmesh.node" in modules
    assert modules & UNUSED == set()


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
    done = subprocess.run([*RUN, str(tmp_path)], capture_output=True, text=True, timeout=WITHIN, cwd=tmp_path)
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
    program = importlib.import_module("zmesh_cli.commands")
    modules = [program, *(importlib.import_module(f"zmesh_cli.{name}") for name in set(program.MODULE_OF.values()))]
    commands = dict(command for module in modules for command in commands_of(module.app))
    assert len(commands) > len(program.MODULE_OF)
    asynchronous = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    assert [name for name, function in commands.items() if any(test(function) for test in asynchronous)] == []


def test_every_parameter_that_is_a_number_is_converted() -> None:
    from zmesh_cli.conversion import NUMBERS

    program = importlib.import_module("zmesh_cli.commands")
    modules = [importlib.import_module(f"zmesh_cli.{name}") for name in set(program.MODULE_OF.values())]
    counted = {"verbose"}  # of flags, which are no texts
    for name, function in dict(command for module in modules for command in commands_of(module.app)).items():
        for parameter, kind in typing.get_type_hints(function).items():
            is_number = {int, float} & {kind, *typing.get_args(kind)}
            assert not is_number or parameter in {*NUMBERS, *counted}, (name, parameter)


def test_every_command_is_in_the_module_that_the_program_says() -> None:
    from typer.main import get_group

    from zmesh_cli.commands import MODULE_OF

    for name in set(MODULE_OF.values()):
        module = importlib.import_module(f"zmesh_cli.{name}")
        assert set(get_group(module.app).commands) == {command for command, where in MODULE_OF.items() if where == name}
    listed = {path.stem for path in (ROOT / "cli").glob("*_commands.py")}
    assert listed == set(MODULE_OF.values())
