"""The map in CONTRIBUTING.md and the tables of docs/architecture.md name every package and module, and nothing else."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = re.compile(r"^    ([a-z]+/\S*) ", re.MULTILINE)


def the_map() -> dict[str, str]:
    """The text of each folder of the map."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    parts = FOLDER.split(page[page.index("## The map") : page.index("## Where does my change go?")])
    return {f: text for f, text in zip(parts[1::2], parts[2::2], strict=True) if f.startswith(("cli/", "zmesh/"))}


def test_the_map_names_every_package_and_module() -> None:
    shown = the_map()
    modules: dict[str, set[str]] = {}
    for path in [*(ROOT / "zmesh").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]:
        folder = path.parent.relative_to(ROOT).as_posix() + "/"
        modules.setdefault(folder, set()).update({path.stem} - {"__init__"})
    assert shown.keys() == modules.keys()
    missing = {f: names for f, found in modules.items() if (names := found - set(re.findall(r"\w+", shown[f])))}
    assert missing == {}


def test_the_map_names_no_module_that_is_not_there() -> None:
    gone = []
    for folder, text in the_map().items():
        for line in text.splitlines()[1:]:
            column = re.match(r"        ([a-z_]\w*(?:, \w+)*)  +\S", line)
            names = column[1].split(", ") if column and not folder.startswith("zmesh/plugins") else []
            gone += [f"{folder}{name}" for name in names if not (ROOT / folder / f"{name}.py").exists()]
    assert gone == []


def layers_of(container: str) -> list[set[str]]:
    """The layers of a package, the highest first, as the linter checks its imports."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (
        contract["layers"]
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract.get("containers") == [container]
    )
    return [set(layer.split(" | ")) for layer in layers]


@pytest.mark.parametrize(("container", "prefix"), [("zmesh", "zmesh."), ("zmesh.core", "")])
def test_the_table_of_packages_names_all_of_them_in_the_order_of_their_layers(container: str, prefix: str) -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    shown = [
        re.findall(rf"`{re.escape(prefix)}(\w+)`", row.split("|")[1]) for row in page.splitlines() if row[:3] == "| `"
    ]
    layers = layers_of(container)
    rows = [set(names) for names in shown if names and set(names) <= set.union(*layers)]
    assert set.union(*rows) == set.union(*layers)
    assert sum(map(len, rows)) == len(set.union(*layers)), "a name stands in two rows"
    places = [[number for number, layer in enumerate(layers) if row & layer] for row in rows]
    assert all(len(place) == 1 for place in places), "a row has packages of two layers"
    assert places == sorted(places)


@pytest.mark.parametrize(("package", "foreign"), [("identity", "cryptography"), ("transport", "zmq")])
def test_a_foreign_package_is_used_by_the_package_alone_that_the_table_says(package: str, foreign: str) -> None:
    imports = re.compile(rf"^\s*(?:from|import) {foreign}\b", re.MULTILINE)
    users = [path for path in (ROOT / "zmesh").rglob("*.py") if imports.search(path.read_text(encoding="utf-8"))]
    assert {path.relative_to(ROOT / "zmesh").parts[0] for path in users} == {package}
