"""CHANGELOG.md can be scanned: three groups, and entries of two lines at most."""

import re
from pathlib import Path

CHANGELOG = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
LONGEST = 260


def entries() -> list[str]:
    return re.findall(r"^- .*(?:\n  .*)*", CHANGELOG, re.MULTILINE)


def test_it_has_three_groups() -> None:
    unreleased = CHANGELOG.split("\n## ")[1]
    assert re.findall(r"^### (.*)", unreleased, re.MULTILINE) == ["Added", "Changed", "Fixed"]


def test_an_entry_has_two_lines_at_most() -> None:
    assert [each[:80] for each in entries() if len(each) > LONGEST or each.count("\n") > 1] == []


def test_no_entry_stands_twice() -> None:
    begun = [re.sub(r"\W+", " ", each)[:100] for each in entries()]
    assert len(begun) == len(set(begun))
