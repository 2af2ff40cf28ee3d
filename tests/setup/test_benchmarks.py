"""The measuring programs: what each says of itself, and its options."""

import argparse
import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(
    path.stem for path in (ROOT / "benchmarks").glob("*.py") if re.search(r"^def main\(", path.read_text(), re.M)
)


@pytest.fixture
def program(monkeypatch):
    """Imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(ROOT)
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_option_of_every_program_has_a_line_of_help(name, program, monkeypatch, capsys):
    parsers: list[argparse.ArgumentParser] = []
    parse = argparse.ArgumentParser.parse_args

    def watched(parser, *words):
        parsers.append(parser)
        return parse(parser, *words)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", watched)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        program(name).main()
    assert not ended.value.code
    assert f"benchmarks.{name} " in capsys.readouterr().out
    (parser,) = parsers
    assert parser.description
    assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize("count", ["0", "2"])
def test_operate_measures_simulated_nodes_alone_and_few_of_them(count, program, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["operate", "--nodes", "0", "--simulated", count, "--json"])
    assert program("operate").main() == 0
    assert capsys.readouterr().out.count("(simulated)") == (0 if count == "0" else 4)
