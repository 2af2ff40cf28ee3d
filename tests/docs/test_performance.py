"""The page about performance has the table that `benchmarks.report` makes of the results in the repository."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def report():
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks/report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_the_page_is_that_of_the_results(report):
    ratios = report.measured(json.loads(report.DATA.read_text(encoding="utf-8")))
    assert report.table(ratios) in report.PAGE.read_text(encoding="utf-8")


def test_every_ratio_was_measured_and_its_program_is_there(report):
    results = json.loads(report.DATA.read_text(encoding="utf-8"))
    assert [row for row, _ in report.measured(results)] == list(report.ROWS)
    assert results.keys() == report.PROGRAMS.keys()
    for program, *_ in report.PROGRAMS.values():
        assert (ROOT / f"benchmarks/{program}.py").exists()


def test_what_zmesh_holds_it_holds_in_the_results(report):
    results = json.loads(report.DATA.read_text(encoding="utf-8"))
    assert [row.name for row, value in report.measured(results) if row.exceeds(value, row.held)] == []


def test_a_ratio_on_the_wrong_side_of_a_bound_exceeds_it(report):
    least, most = report.Row("a", float, 1.0, 1.0, True), report.Row("b", float, 1.0, 1.0)
    assert (least.exceeds(0.9, 1.0), least.exceeds(1.0, 1.0)) == (True, False)
    assert (most.exceeds(1.1, 1.0), most.exceeds(1.0, 1.0)) == (True, False)
    assert not most.exceeds(9.9, None)
