"""The origins of settings, and the lines of the keys of a TOML file, which tomllib does not keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

DEFAULT, FILE, ENVIRONMENT, FLAG, IDENTITY, PROGRAM = (
    "default",
    "file",
    "environment",
    "command line",
    "identity",
    "program",
)
"""The kinds of Origin."""


class Origin(NamedTuple):
    """The origin of a setting: the kind, and the line (`zmesh.toml:3`), the variable or the folder."""

    kind: str
    where: str = ""

    def __str__(self) -> str:
        return self.where or self.kind


def placed(text: str, origin: Origin | None, file: str | None) -> str:
    """The text of an error about a setting, with the line of the file or the variable that the setting comes from."""
    if origin is None or origin.kind not in (FILE, ENVIRONMENT):
        return text
    return f"{origin}: {text.removeprefix(f'{file}: ')}"


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """The number of the line on which each key and table of valid TOML first stands, by its path.

    A statement is as many lines as are needed to be TOML by themselves, as tomllib says.
    """
    import tomllib  # here, since few programs read a file

    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    statement: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        statement.append(line)
        try:
            parsed = tomllib.loads("\n".join(statement))
        except tomllib.TOMLDecodeError:
            continue
        first, statement = number - len(statement) + 1, []
        paths = list(_paths(parsed))
        if line.lstrip().startswith("[") and first == number:
            table = max(paths, key=len)
            paths = [table[:length] for length in range(1, len(table) + 1)]
        else:
            paths = [(*table, *path) for path in paths]
        for path in paths:
            found.setdefault(path, first)
    return found


def _paths(values: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
    """The path of each key, those of tables in tables too."""
    for key, value in values.items():
        yield (key,)
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict):
            yield from ((key, *path) for path in _paths(inner))
