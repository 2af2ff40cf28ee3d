"""Dataclasses as JSON and back, by their annotations: the answers of the directives that show a node.

A field of type Seconds is `name_s` in JSON. A reader ignores fields that it does not know, and those that are missing
have their default. So a node of one version understands the answer of another.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, NewType, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from zmesh.errors import RemoteError

Seconds = NewType("Seconds", float)
"""A span of time, in seconds."""

T = TypeVar("T")
DIGITS = 6
"""Decimal places of numbers: microseconds."""
_known: dict[type[Any], list[tuple[str, str, Any, bool]]] = {}


class JsonForm:
    """The base class of dataclasses that have a form in JSON."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, under the names that the reference lists."""
        return {key: _written(getattr(self, name)) for name, key, *_ in _fields(type(self))}


def from_json(kind: type[T], value: object) -> T:
    """The dataclass that JSON values stand for. Raises ValueError for malformed ones."""
    if not isinstance(value, dict):
        raise ValueError(f"{kind.__name__} is an object")
    found = {}
    for name, key, hint, needed in _fields(kind):
        if key in value:
            found[name] = _read(hint, value[key])
        elif needed:
            raise ValueError(f"{kind.__name__} has no {key}")
    return kind(**found)


def read_answer(kind: type[T], payload: Any, node: str, directive: str) -> T:
    """The dataclass in the answer of a node. Raises RemoteError if that is something else."""
    try:
        return from_json(kind, payload.json() if payload is not None else None)
    except (ValueError, TypeError, OverflowError):
        raise RemoteError(f"node {node!r} answers {directive} with something else", node=node) from None


def read_list(kind: type[T], payload: Any, key: str, node: str, directive: str) -> list[T]:
    """The dataclasses in one list of the answer of a node. Raises RemoteError if that is something else."""
    try:
        answer = payload.json() if payload is not None else None
        if not isinstance(answer, dict) or not isinstance(answer.get(key), list):
            raise ValueError(f"there is no {key}")
        return [from_json(kind, each) for each in answer[key]]
    except (ValueError, TypeError, OverflowError):
        raise RemoteError(f"node {node!r} answers {directive} with something else", node=node) from None


def _fields(kind: type[Any]) -> list[tuple[str, str, Any, bool]]:
    """Of each field: its name, its key in JSON, its type, and whether it must be there."""
    known = _known.get(kind)
    if known is not None:
        return known
    hints = get_type_hints(kind)
    found = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        key = f"{field.name}_s" if Seconds in (hint, *get_args(hint)) else field.name
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        found.append((field.name, key, hint, needed))
    _known[kind] = found
    return found


_AS_IS = {str, int, bool, type(None)}


def _written(value: Any) -> Any:
    if type(value) in _AS_IS:  # of which there are thousands in the members of a large mesh
        return value
    if isinstance(value, JsonForm):
        return value.to_json()
    if isinstance(value, tuple):
        return [_written(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _written(each) for key, each in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value


def _read(hint: Any, value: object) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (hint,) = (each for each in get_args(hint) if each is not type(None))
        return _read(hint, value)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError("not a list")
        return tuple(_read(get_args(hint)[0], each) for each in value)
    if origin is Mapping:
        if not isinstance(value, dict):
            raise ValueError("not an object")
        return {key: _read(get_args(hint)[1], each) for key, each in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_json(cast("type[Any]", hint), value)
    return value if hint is object else _plain(float if hint is Seconds else hint, value)


def _plain(kind: Any, value: object) -> object:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
        if not math.isfinite(number):
            raise ValueError("not a finite number")
        return number
    if type(value) is not kind:
        raise ValueError(f"not of type {kind.__name__}")
    return value
