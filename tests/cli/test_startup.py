"""A command costs its round trips and next to nothing else."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

LIMIT_MS = 150
ROUNDS = 20


def duration_ms(command: list[str], environment: dict[str, str]) -> tuple[float, bytes]:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, timeout=20, env=environment, check=True)
    return 1000 * (time.perf_counter() - began), done.stdout


@pytest.mark.parametrize(
    "words", [("ping", "far", "-c", "1", "--json"), ("send", "far", "echo:echo", "x"), ("routes", "far")]
)
def test_a_command_is_done_within_150_ms_of_the_interpreters_start_and_its_round_trips(
    mesh: Any, words: tuple[str, ...]
) -> None:
    environment = mesh.environment
    zmesh = str(Path(sys.executable).with_name("zmesh"))
    command = [zmesh, *words] if os.path.exists(zmesh) else [sys.executable, "-P", "-m", "zmesh_cli", *words]
    bare = [sys.executable, "-c", "pass"]
    duration_ms(command, environment)
    best = best_bare = float("inf")
    for _ in range(ROUNDS):  # a machine that is busy with something else may slow down some of them
        best_bare = min(best_bare, duration_ms(bare, environment)[0])
        took, out = duration_ms(command, environment)
        round_trips = json.loads(out.splitlines()[0])["rtt_ms"] if words[0] == "ping" else 0.0
        best = min(best, took - round_trips)
        if best - best_bare < LIMIT_MS:
            return
    pytest.fail(f"{best - best_bare:.0f} ms more than the {best_bare:.0f} ms of a bare interpreter")


def test_a_command_imports_nothing_that_it_does_not_need(mesh: Any) -> None:
    script = (
        "import sys; from zmesh_cli.main import main\n"
        "try: main()\n"
        "finally: print(*sorted(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-P", "-c", script, "ping", "far", "-c", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=mesh.environment, check=True)
    heavy = {"aiohttp", "http.server", "importlib.metadata", "pydantic", "pydantic_core", "rich", "rich.console"}
    heavy |= {"zmesh.testing", "zmesh_cli.demo", "zmesh_cli.progress", "zmesh_cli.send", "zmesh_cli.serve"}
    assert heavy & set(done.stderr.split()) == set()
