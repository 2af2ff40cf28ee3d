"""A command costs its round trips and next to nothing else."""

import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

LIMIT_MS = 150
ROUNDS = 20


class Cost:
    """The least that a command has taken, in ms: by the clock, less its round trips, and of processor time."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.command = command
        self.environment = environment
        self.clock_ms = self.processor_ms = float("inf")

    def measure(self) -> None:
        """Run it once more."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(self.command, capture_output=True, timeout=20, env=self.environment, check=True)
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        round_trip = re.search(rb'"rtt_ms":([0-9.]+)', done.stdout)
        self.clock_ms = min(self.clock_ms, 1000 * took - (float(round_trip[1]) if round_trip else 0.0))
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.processor_ms = min(self.processor_ms, 1000 * used)


@pytest.mark.parametrize(
    "words", [("ping", "far", "-c", "1", "--json"), ("send", "far", "echo:echo", "x"), ("routes", "far")]
)
def test_a_command_is_done_within_150_ms_of_the_interpreters_start_and_its_round_trips(
    mesh: Any, words: tuple[str, ...]
) -> None:
    zmesh = str(Path(sys.executable).with_name("zmesh"))
    program = [zmesh] if os.path.exists(zmesh) else [sys.executable, "-P", "-m", "zmesh_cli"]
    command = Cost([*program, *words], mesh.environment)
    bare = Cost([sys.executable, "-c", "pass"], mesh.environment)
    command.measure()  # which compiles what has not been imported before
    for _ in range(ROUNDS):
        bare.measure()
        command.measure()
        if command.clock_ms - bare.clock_ms < LIMIT_MS:
            return
    assert command.processor_ms - bare.processor_ms < LIMIT_MS
    more = f"{command.clock_ms - bare.clock_ms:.0f} ms more than the {bare.clock_ms:.0f} ms of a bare interpreter"
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        pytest.skip(f"{more}, but this machine is too busy to tell")
    pytest.fail(more)


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
