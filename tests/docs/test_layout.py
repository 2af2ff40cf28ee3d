"""The folders of tests/ are laid out as the packages of zmesh/ are, but for those that are named here with a reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

from zmesh.runtime import Handle
from zmesh.transport import TransportHandler

ROOT = Path(__file__).parents[2]

TESTED_ELSEWHERE = {
    "plugins": "serving/test_plugins.py",  # the directives that come with zmesh run as any other
    "requests": "mesh",  # an exchange has two ends, so its client is tested with a server
    "sync": "guide/test_without_asyncio.py",  # the same methods as those of the Controller, as a program uses them
    "testing": "simulation",  # which is the simulator at work
}
"""Packages of zmesh/ without a folder of tests, and where their tests are."""

OF_NO_PACKAGE = {
    "cli": "of the folder cli/",
    "docs": "of the pages, the map and the drawings",
    "faults": "of whole nodes whose links fail",
    "fuzz": "of all that takes bytes from outside",
    "guide": "of what the guide of Receptor promises",
    "hostile": "of a member that misbehaves",
    "mesh": "of whole nodes",
    "setup": "of the package as it is installed",
    "simulation": "of several engines at a time",
    "tracing": "of the module zmesh/tracing.py",
    "typed": "a program for mypy",
}
"""Folders of tests/ that are not named as a package, and what they are tests of."""

MAX_LINES = 480


def packages(folder: Path) -> set[str]:
    return {path.parent.relative_to(folder).as_posix() for path in folder.rglob("__init__.py")} - {"."}


def folders(folder: Path) -> set[str]:
    return {path.parent.relative_to(folder).as_posix() for path in folder.rglob("test_*.py")} - {"."}


def test_every_package_has_a_folder_of_tests_and_every_folder_a_package() -> None:
    tests = {name for name in folders(ROOT / "tests") if not name.startswith("guide/plugins")} | {"typed"}
    assert tests - OF_NO_PACKAGE.keys() == packages(ROOT / "zmesh") - TESTED_ELSEWHERE.keys()
    assert tests >= OF_NO_PACKAGE.keys()


def test_the_exceptions_name_what_there_is() -> None:
    assert packages(ROOT / "zmesh") >= TESTED_ELSEWHERE.keys()
    assert [place for place in TESTED_ELSEWHERE.values() if not (ROOT / "tests" / place).exists()] == []


def test_no_test_lies_beside_the_folders() -> None:
    assert [path.name for path in (ROOT / "tests").glob("test_*.py")] == []


def test_no_file_is_longer_than_one_reads_in_one_sitting() -> None:
    files = [path for folder in ("zmesh", "cli") for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def callbacks() -> Iterator[tuple[str, str]]:
    """Each protocol of zmesh/ whose methods are called when something happens, and such a method."""
    for path in (ROOT / "zmesh").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Protocol") for base in node.bases):
                for each in node.body:
                    if isinstance(each, ast.FunctionDef) and each.name.startswith("on_"):
                        yield node.name, each.name


def test_the_drawing_has_every_callback_protocol_with_all_of_its_methods() -> None:
    drawing = (ROOT / "docs/drawings/callbacks.d2").read_text(encoding="utf-8")
    found = set(callbacks())
    assert {protocol for protocol, _ in found} == {Handle.__name__, TransportHandler.__name__}
    assert [name for pair in sorted(found) for name in pair if name not in drawing] == []
