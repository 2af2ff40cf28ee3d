"""Parses and validates a table of settings against a dataclass of names, types and defaults.

The types are those that TOML has (str, int, float, bool, dates and times) and what is made of them: lists, tuples and
sets, dicts by name, Literal, Enum by value, pathlib.Path, unions, and other dataclasses as tables within the table.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple, TypeVar

from zmesh.errors import ConfigError, did_you_mean
from zmesh.runtime import text_of

T = TypeVar("T")

_WORDS: dict[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path",
    dict: "a table",
    list: "a list",
    type(None): "left out",
}
_LISTS: dict[object, type] = {
    list: list,
    Sequence: tuple,
    MutableSequence: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
}
_TABLES = (dict, Mapping, MutableMapping)


class Place(NamedTuple):
    """The location of a table, for error messages."""

    table: str
    file: str | None = None

    def error(self, text: str) -> ConfigError:
        """The error for a value in this table."""
        return ConfigError(f"{self}: {text}")

    def __str__(self) -> str:
        return f"[{self.table}]" if self.file is None else f"{self.file}: [{self.table}]"


def read_settings(kind: type[T], table: Mapping[str, object], place: Place) -> T:
    """An instance of the dataclass `kind` with the values of the table, and its defaults for what is not there.

    Raises ConfigError, which names place, key and what is expected there, for a key that is unknown or missing, a value
    of another type, and what the dataclass itself refuses with a ValueError or TypeError. Values are not quoted, since
    they may be secret. Raises TypeError for a field whose type can't be read.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            hint = did_you_mean(str(key), fields) or f"; there are {', '.join(fields)}" if fields else ""
            raise place.error(f"no setting is called {key!r}{hint}")
    values = {key: _value(table[key], hints[key], key, place) for key in fields if key in table}
    for key, field in fields.items():
        if key not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise place.error(f"{key} is missing; it must be {_expected(hints[key])}")
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise place.error(text_of(error)) from error


def _value(value: object, hint: Any, key: str, place: Place) -> object:
    """The value converted to the type `hint`."""
    hint = getattr(hint, "__supertype__", hint)  # of a NewType
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    wrong = place.error(f"{key} must be {_expected(hint)}, not {_described(value)}")
    if hint in (Any, object):
        return value
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, arguments, key, place, wrong)
    if origin is Literal:
        if not any(value == each and type(value) is type(each) for each in arguments):
            raise place.error(f"{key} must be {_expected(hint)}{did_you_mean(str(value), map(str, arguments))}")
        return value
    if (origin or hint) in _LISTS:
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise wrong
        return _LISTS[origin or hint](_items(list(value), origin, arguments, key, place, wrong))
    if (origin or hint) in _TABLES:
        if not isinstance(value, Mapping):
            raise wrong
        inner = arguments[1] if arguments else Any
        return {
            name: _value(each, inner, name, Place(f"{place.table}.{key}", place.file)) for name, each in value.items()
        }
    if not isinstance(hint, type):
        raise TypeError(f"the type of the setting {key!r} can't be read from TOML: {hint}")
    return _plain(value, hint, key, place, wrong)


def _plain(value: object, kind: type, key: str, place: Place, wrong: ConfigError) -> object:
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return read_settings(kind, value, Place(f"{place.table}.{key}", place.file))
    if issubclass(kind, enum.Enum) and not isinstance(value, kind):
        try:
            return kind(value)
        except ValueError:
            raise wrong from None
    if kind is float and type(value) is int:
        return float(value)
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise wrong
    return value


def _one_of(value: object, choices: Sequence[Any], key: str, place: Place, wrong: ConfigError) -> object:
    tables = [choice for choice in choices if dataclasses.is_dataclass(choice)]
    if isinstance(value, Mapping) and len(tables) == 1:
        return _value(value, tables[0], key, place)  # its error says which entry is wrong
    for choice in choices:
        try:
            return _value(value, choice, key, place)
        except ConfigError:
            continue
    raise wrong


def _items(
    values: list[object], origin: object, hints: Sequence[Any], key: str, place: Place, wrong: ConfigError
) -> list[object]:
    if origin is tuple and hints[-1:] != (Ellipsis,):
        if len(values) != len(hints):
            raise wrong
    else:
        hints = [hints[0] if hints else Any] * len(values)
    return [_value(each, hints[number], f"{key}[{number}]", place) for number, each in enumerate(values)]


def _expected(hint: Any) -> str:
    """The type as text, for error messages."""
    hint = getattr(hint, "__supertype__", hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_expected(each) for each in arguments if each is not type(None))
    if origin is Literal:
        return " or ".join(repr(each) for each in arguments)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return " or ".join(repr(each.value) for each in hint)
    if (origin or hint) in _LISTS:
        if origin is tuple and arguments[-1:] != (Ellipsis,):
            return f"a list of {len(arguments)}: {', '.join(map(_expected, arguments))}"
        return f"a list, each of it {_expected(arguments[0])}" if arguments else "a list"
    if (origin or hint) in _TABLES or dataclasses.is_dataclass(hint):
        return "a table"
    return _WORDS.get(hint) or f"a {getattr(hint, '__name__', hint)}"


def _described(value: object) -> str:
    return _WORDS.get(type(value)) or f"a {type(value).__name__}"
