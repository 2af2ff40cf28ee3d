"""The command behind `make soak`."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def soak():
    """The module, with a sentence of which seed 3 fails."""
    spec = importlib.util.spec_from_file_location("soak", ROOT / "tests" / "simulation" / "soak.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def below_three(seed):
        if seed == 3:
            raise ValueError("three is too much")

    module.SENTENCES["below-three"] = below_three
    return module


def test_a_soak_runs_every_seed_of_both_sentences_on_several_processes():
    command = [sys.executable, "-m", "tests.simulation.soak", "routes", "delivery", "--seeds", "4", "--jobs", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("8 of 8 runs in ")
    assert done.stdout.endswith(", 0 failed\n")


def test_a_seed_that_fails_is_named_with_the_command_that_replays_it(soak, capsys):
    assert soak.soak(["below-three"], 0, 10, 1) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("FAILED below-three seed 3: ValueError: three is too much")
    assert lines[1] == "  replay: python -m tests.simulation.soak below-three --seed 3"
    assert lines[2].startswith("10 of 10 runs in ")


def test_a_soak_stops_when_enough_has_failed(soak, capsys):
    soak.SENTENCES["never"] = lambda seed: 1 / 0
    assert soak.soak(["never"], 0, 1000, 1) == soak.ENOUGH
    assert f"stopped after {soak.ENOUGH} failures" in capsys.readouterr().out


@pytest.mark.parametrize(("seed", "status"), [(2, 0), (3, 1)])
def test_one_seed_is_replayed_with_its_traceback(soak, capsys, monkeypatch, seed, status):
    monkeypatch.setattr(sys, "argv", ["soak", "below-three", "--seed", str(seed)])
    assert soak.main() == status
    out, err = capsys.readouterr()
    assert ("all is well" in out) is (status == 0)
    assert ("three is too much" in err) is (status == 1)


def test_requests_take_one_seed_only(soak):
    assert list(soak.jobs(["routes", "requests"], 5, 2)) == [("routes", 5), ("requests", 5), ("routes", 6)]
