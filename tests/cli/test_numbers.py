"""Options that take a number or a choice: another value is a usage error before anything is looked for."""

import re
from typing import Any

import pytest
from typer.main import get_group

from zmesh.jobs.states import MAX_RESTARTS, Restart
from zmesh.jobs.submission import MAX_PRIORITY
from zmesh.remote import Rules
from zmesh_cli.commands import app
from zmesh_cli.conversion import NUMBERS
from zmesh_cli.job_commands import _check_priority, _check_restart
from zmesh_cli.parameters import check_stop_after


def numbers(group: Any, *path: str) -> list[tuple[str, ...]]:
    """Each command and each of its options that is a number, as words of a command line."""
    found: list[tuple[str, ...]] = []
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands"):
            found += numbers(command, *path, name)
        else:
            found += [(*path, name, each.opts[0]) for each in command.params if each.name in NUMBERS]
    return found


def test_a_value_that_is_no_number_is_a_usage_error_of_every_option(capfd: pytest.CaptureFixture[str]) -> None:
    group = get_group(app)
    options = numbers(group)
    assert len(options) > 30
    for words in options:
        with pytest.raises(SystemExit) as end:
            group.main([*words, "odd"], prog_name="zmesh")
        said = capfd.readouterr().err
        assert end.value.code == 2, words
        kinds = r"(a whole number|a number|a TCP port from 0 to 65535)"
        assert re.fullmatch(rf"zmesh: Invalid value for '.*{words[-1]}.*': it must be {kinds}, not 'odd'; .*\n", said)


NOWHERE = ("--peer", "tcp://127.0.0.1:1")


@pytest.mark.parametrize(
    "words",
    [
        ("job", "submit", "edge-7", "--priority", "101"),
        ("job", "submit", "edge-7", "--priority", "-101"),
        ("job", "submit", "edge-7", "--restart", "often"),
        ("job", "submit", "edge-7", "--restart", "0"),
        ("job", "submit", "edge-7", "--restart", "1001"),
        ("job", "ls", "--state", "odd"),
        ("job", "logs", "edge-7/3f9a8b0c4d5e6f70", "--from", "-1"),
        ("run", "--all", "--stop-after", "0"),
        ("run", "--all", "--stop-after", "101%"),
        ("cp", "notes", "--to", "tag:gpu", "/tmp/", "--stop-after", "few"),
    ],
)
def test_a_value_out_of_its_limits_is_a_usage_error_although_no_mesh_is_there(
    capfd: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    command = ["--", "true"] if words[0] == "run" or "submit" in words else []
    with pytest.raises(SystemExit) as end:
        get_group(app).main([*words, *NOWHERE, *command], prog_name="zmesh")
    said = capfd.readouterr().err
    assert end.value.code == 2, said
    assert words[-2] in said


def test_the_limits_are_those_of_the_package() -> None:
    for value in (-MAX_PRIORITY, MAX_PRIORITY):
        assert _check_priority(value) == value
    for text in ("never", "on-restart", "1", str(MAX_RESTARTS)):
        assert str(Restart.of(_check_restart(text))) == text
    for share in ("1", "999999999", "1%", "100%"):
        assert Rules(stop_after=check_stop_after(share)).stop_after == share
