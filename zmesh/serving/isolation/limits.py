"""What makes a directive isolated: how its process gets the function, and the limits that hold there.

A function gets there by its name where it can be imported, else by value, as cloudpickle moves it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from zmesh.arguments import shown
from zmesh.config import ISOLATION


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What a process may use. `None` is no limit. Raises ValueError for what can't be one."""

    max_memory_bytes: int | None = None
    max_cpu_seconds: int | None = None
    grace: float = 5.0

    def __post_init__(self) -> None:
        for name, (low, high) in ISOLATION.items():
            value = getattr(self, name)
            if value is None:
                continue
            kinds = (int, float) if name == "grace" else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                raise ValueError(f"{name} = {shown(value)} is not a number from {low:g} to {high:g}")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a plugin's function is: the value of its entry point, and its attribute there (None: the thing itself)."""

    value: str
    attribute: str | None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Isolation:
    """That a directive is isolated: how its process gets the function, and the limits that the directive itself asks.

    `origin` is a Place, or the function pickled.
    """

    origin: Place | bytes
    asked: Mapping[str, int]

    def limits(self, directive: str, settings: Mapping[str, Mapping[str, Any]]) -> Limits:
        """What holds: the settings for this directive, else what it asks, else the settings for `*`."""
        return Limits(**{**settings.get("*", {}), **self.asked, **settings.get(directive, {})})


def asked(isolate: bool, max_memory_bytes: int | None, max_cpu_seconds: int | None) -> dict[str, int] | None:
    """The limits that a directive asks for; None if it is not isolated. Raises ValueError if they make no sense."""
    given = {"max_memory_bytes": max_memory_bytes, "max_cpu_seconds": max_cpu_seconds}
    limits = {name: value for name, value in given.items() if value is not None}
    Limits(**limits)
    if limits and not isolate:
        raise ValueError(f"{' and '.join(limits)} can't be held without isolate=True")
    return limits if isolate else None


def moved(function: Callable[..., object]) -> bytes:
    """The function as bytes that another process can load. Raises TypeError, with the reason, if that can't be done.

    What it refers to beside importable modules is copied as it is now.
    """
    import cloudpickle  # here: few programs isolate anything

    target = function
    while isinstance(target, functools.partial):
        target = target.func
    module = inspect.getmodule(target)
    by_value = module is not None and module.__name__ in sys.modules and not _importable(module)
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(function))
    except Exception as error:  # each object may refuse in its own way
        raise TypeError(f"{function!r} can't be moved to a process of its own: {error}") from error
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)


def _importable(module: ModuleType) -> bool:
    """Whether an import by this module's name in a new process would find this module."""
    path: Sequence[str] | None = None
    found = None
    parts = module.__name__.split(".")
    for end in range(1, len(parts) + 1):
        found = _found(".".join(parts[:end]), path)
        if found is None:
            return False
        path = found.submodule_search_locations
    origin, file = getattr(found, "origin", None), getattr(module, "__file__", None)
    return origin is None or file is None or Path(origin).resolve() == Path(file).resolve()


def _found(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        if (found := finder.find_spec(name, path)) is not None:
            return found
    return None
