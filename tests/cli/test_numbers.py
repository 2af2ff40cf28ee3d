"""Options that take a number: a value that is none is refused in the same words by every command."""

import re
from typing import Any

import pytest
from typer.main import get_group

from zmesh_cli.commands import app
from zmesh_cli.conversion import NUMBERS


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
