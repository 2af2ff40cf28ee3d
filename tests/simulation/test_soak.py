"""The command behind `make soak`."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import WITHIN
from zmesh.testing.census import POINTS, Census, expected, on
from zmesh.testing.traffic import run_delivery

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
    yield module
    module.census.close()


def test_a_soak_runs_every_seed_of_both_sentences_on_several_processes():
    command = [sys.executable, "-m", "tests.simulation.soak", "routes", "delivery", "--seeds", "4", "--jobs", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    *progress, summary = done.stdout.splitlines()  # a slow machine prints how far it is, every ten seconds
    assert all(re.match(r"\d of 8, 0 failed, ", line) for line in progress)
    assert re.fullmatch(r"8 of 8 runs in .* seeds/s\), 0 failed, 0 points never reached", summary)


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


def numbers(soak, monkeypatch, points):
    """A soak of numbers: a seed is counted, and its census is the list of these methods that it calls."""

    class Counted:
        def odd(self):
            pass

        def seventh(self):
            pass

    counted = Counted()
    names = {name: f"a number is {name}" for name in points}
    watched = [on(text, Counted, name, sentences=("numbers",)) for name, text in names.items()]
    monkeypatch.setattr(soak, "census", Census(watched))
    monkeypatch.setattr(soak, "expected", lambda sentence: expected(sentence, watched))
    monkeypatch.setattr(soak, "CENSUS_FROM", 5)

    def number(seed):
        if seed % 2:
            counted.odd()
        if seed % 7 == 6:
            counted.seventh()

    soak.SENTENCES["numbers"] = number
    return Counted


def test_a_soak_that_never_reached_a_point_of_the_census_fails_and_names_it(soak, capsys, monkeypatch):
    numbers(soak, monkeypatch, ["odd", "seventh"])
    assert soak.soak(["numbers"], 0, 6, 1) == 1
    assert "NEVER REACHED numbers: a number is seventh" in capsys.readouterr().out
    assert soak.soak(["numbers"], 0, 7, 1) == 0
    assert "NEVER REACHED" not in capsys.readouterr().out


def test_a_soak_of_few_seeds_need_not_reach_everything(soak, monkeypatch):
    numbers(soak, monkeypatch, ["odd", "seventh"])
    assert soak.soak(["numbers"], 0, 4, 1) == 0


def test_a_census_shows_in_how_many_seeds_each_point_was_reached_and_leaves_no_trace(soak, capsys, monkeypatch):
    counted = numbers(soak, monkeypatch, ["odd", "seventh"])
    before = dict(vars(counted))
    soak.soak(["numbers"], 0, 14, 1, show=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["numbers: 2 a number is seventh", "numbers: 7 a number is odd"]
    assert dict(vars(counted)) == before


def test_a_soak_goes_on_where_one_with_the_same_file_was_ended(soak, capsys, monkeypatch, tmp_path):
    numbers(soak, monkeypatch, ["odd", "seventh"])
    state = tmp_path / "soak.json"
    ran = []
    number = soak.SENTENCES["numbers"]

    def ends(seed):
        if seed == 5:
            raise KeyboardInterrupt
        ran.append(seed)
        number(seed)

    monkeypatch.setattr(soak, "REPORT_EVERY", 0.0)
    soak.SENTENCES["numbers"] = ends
    with pytest.raises(KeyboardInterrupt):
        soak.soak(["numbers"], 0, 14, 1, state)
    assert ran == [0, 1, 2, 3, 4]
    soak.SENTENCES["numbers"] = lambda seed: (ran.append(seed), number(seed))
    assert soak.soak(["numbers"], 0, 14, 1, state, show=True) == 0
    assert ran == list(range(14))
    assert "numbers: 7 a number is odd" in capsys.readouterr().out
    assert soak.soak(["numbers"], 0, 14, 1, state) == 0
    assert ran == list(range(14))
    assert "14 of 14 runs" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="is of another soak: .* seeds 14"):
        soak.soak(["numbers"], 0, 15, 1, state)


def test_a_failure_is_remembered_over_an_interruption(soak, tmp_path):
    state = tmp_path / "soak.json"
    assert soak.soak(["below-three"], 0, 10, 1, state) == 1
    assert soak.soak(["below-three"], 0, 10, 1, state) == 1


def test_every_point_of_the_census_is_one_that_can_be_watched():
    with Census() as census:
        run_delivery(1)
        reached = census.take()
    assert reached
    assert reached <= {point.name for point in POINTS}
    assert len({point.name for point in POINTS}) == len(POINTS)


@pytest.mark.parametrize("sentence", ["routes", "delivery", "liars"])
def test_a_seed_means_the_same_in_every_process(sentence):
    script = f"""
from tests.simulation.soak import SENTENCES
from zmesh.testing.simulator import Simulator
all = []
begin = Simulator.__init__
Simulator.__init__ = lambda sim, *args, **options: (all.append(sim), begin(sim, *args, **options))[1]
for seed in (25,):
    SENTENCES[{sentence!r}](seed)
print([(sim.events, sim.frames, sim.now) for sim in all])
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": order},
            check=True,
            capture_output=True,
            timeout=WITHIN,
        ).stdout
        for order in ("1", "2")
    ]
    assert outputs[0] == outputs[1]


def test_requests_take_one_seed_only(soak):
    assert list(soak.jobs(["routes", "requests"], 5, 2)) == [("routes", 5), ("requests", 5), ("routes", 6)]
