"""Each promise of SECURITY.md names tests, and they are there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROMISES = re.findall(r"^\| (.+) \| (`tests/.+`) \|$", (ROOT / "SECURITY.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_promise_names_tests_that_are_there() -> None:
    assert len(PROMISES) > 10
    for promise, cell in PROMISES:
        for named in re.findall(r"`([^`]+)`", cell):
            path, _, test = named.partition("::")
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            tests = {each.name for each in tree.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))}
            assert test in tests, f"{promise}: {named}"


def test_every_line_of_the_table_is_read() -> None:
    rows = [line for line in (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert len(rows) == len(PROMISES) + 2
