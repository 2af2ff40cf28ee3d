"""The reference of what nodes show names every field of the dataclasses, as it is in JSON, and every warning."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import zmesh
from zmesh.operate import warnings
from zmesh.operate.json_form import JsonForm, _fields

PAGE = (Path(__file__).parents[2] / "docs/reference/operating.md").read_text(encoding="utf-8")
TABLE = re.compile(r"^\| key of `(\w+)` .*\n\|[-| ]+\n((?:\|.*\n)+)", re.MULTILINE)
FIRST_CELLS = {name: "".join(row.split("|")[1] for row in rows.splitlines()) for name, rows in TABLE.findall(PAGE)}
TABLES = {name: re.findall(r"`([a-z_]+)`", cells) for name, cells in FIRST_CELLS.items()}
SHOWN = [
    kind for name in zmesh.__all__ if isinstance(kind := getattr(zmesh, name), type) and issubclass(kind, JsonForm)
]


@pytest.mark.parametrize("kind", SHOWN, ids=lambda kind: kind.__name__)
def test_every_field_has_a_row_under_its_name_in_json(kind: Any) -> None:
    assert dataclasses.is_dataclass(kind)
    assert TABLES[kind.__name__] == [key for _, key, *_ in _fields(kind)]


def test_no_table_is_of_something_else() -> None:
    assert TABLES.keys() == {kind.__name__ for kind in SHOWN}


def test_every_warning_has_a_row() -> None:
    assert warnings.__file__ is not None
    made = set(re.findall(r'yield "(\w+)"', Path(warnings.__file__).read_text(encoding="utf-8")))
    rows = PAGE[PAGE.index("| code of a warning |") :].split("\n\n")[0].splitlines()[2:]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])} == made
