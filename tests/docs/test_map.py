"""The map at the top of CONTRIBUTING.md names every package and module, under its folder, and nothing else."""

import re
from pathlib import Path

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
