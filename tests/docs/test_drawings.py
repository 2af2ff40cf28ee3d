"""The drawings of docs/drawings are up to date, show the imports as they are, and name the states as the code does."""

import importlib.util
import re
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import grimp
import networkx
import pytest

from zmesh.core.delivery.client_exchange import ClientState
from zmesh.core.delivery.server import ServerState
from zmesh.core.neighbours import State
from zmesh.core.routing.destinations import Advertising, Starvation
from zmesh.jobs.states import JobState

DRAWINGS = Path(__file__).parents[2] / "docs/drawings"
ARROW = re.compile(r"^(\w+) -> (\w+)", re.MULTILINE)
STATES: dict[str, list[Enum]] = {
    "link": [*State],
    "client": [*ClientState],
    "server": [*ServerState],
    "route": [*Advertising, *Starvation],
    "job": [*JobState],
}
VALUES = {"credentials", "durations", "limits", "message", "rtt", "timers"}
"""Modules of the core that one box of its drawing stands for."""


def drawer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw", DRAWINGS / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compare(name: str, found: "networkx.DiGraph[str]") -> None:
    """Fail, and say what to write, if a drawing does not have those arrows of `found` that don't follow from others."""
    expected = reduced(found)
    text = "\n".join(f"{above} -> {below}" for above, below in sorted(expected))
    assert arrows_in(name) == expected, f"the arrows of docs/drawings/{name} are\n{text}"


def arrows_in(name: str) -> set[tuple[str, str]]:
    return set(ARROW.findall((DRAWINGS / name).read_text(encoding="utf-8")))


def reduced(arrows: "networkx.DiGraph[str]") -> set[tuple[str, str]]:
    """The arrows that do not follow from others."""
    assert networkx.is_directed_acyclic_graph(arrows)
    return set(networkx.transitive_reduction(arrows).edges)


@pytest.fixture(scope="module")
def imports() -> list[tuple[list[str], list[str]]]:
    """Each import between two of our modules, as the parts of their names."""
    graph: Any = grimp.build_graph("zmesh", "zmesh_cli", cache_dir=None)
    return [
        (importer.split("."), imported.split("."))
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    ]


def test_every_drawing_is_up_to_date() -> None:
    assert list(drawer().stale()) == [], "make docs draws them anew; commit what it has drawn"


def test_every_drawing_is_shown_on_a_page() -> None:
    pages = [*DRAWINGS.parents[1].glob("*.md"), *DRAWINGS.parent.rglob("*.md")]
    shown = {name for page in pages for name in re.findall(r"drawings/(\w+)\.svg", page.read_text(encoding="utf-8"))}
    assert shown == {text.stem for text in DRAWINGS.glob("*.d2")}


def test_the_drawing_of_the_layers_shows_the_imports(imports: list[tuple[list[str], list[str]]]) -> None:
    found: networkx.DiGraph[str] = networkx.DiGraph()
    for importer, imported in imports:
        ends = [parts[1] if len(parts) > 1 and parts[0] == "zmesh" else parts[0] for parts in (importer, imported)]
        if ends[0] != ends[1] and not {"lazy", "version"} & {*ends}:
            found.add_edge(*("cli" if end == "zmesh_cli" else end for end in ends))
    compare("layers.d2", found)


def test_the_drawing_of_the_core_shows_the_imports(imports: list[tuple[list[str], list[str]]]) -> None:
    found: networkx.DiGraph[str] = networkx.DiGraph()
    for importer, imported in imports:
        if importer[:2] == imported[:2] == ["zmesh", "core"] and len(importer) > 2 and len(imported) > 2:
            ends = ["values" if parts[2] in VALUES else parts[2] for parts in (importer, imported)]
            if ends[0] != ends[1]:
                found.add_edge(*ends)
    compare("core.d2", found)


@pytest.mark.parametrize(("name", "states"), STATES.items())
def test_the_drawing_of_states_has_each_of_them(name: str, states: list[Enum]) -> None:
    drawn = {end for arrow in arrows_in(f"{name}.d2") for end in arrow if end.isupper()}
    assert drawn == {state.name for state in states}
