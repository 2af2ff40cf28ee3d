"""Isolation of a directive: how the worker process loads the function, and the resource limits that apply there.

A function of a plugin is imported by name; any other is sent by value, pickled by cloudpickle.
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
from zmesh.runtime import text_of


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Resource limits of a worker process; None is unlimited. Raises ValueError for a value out of range."""

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
class ImportPath:
    """Import path of a plugin's function: the entry point's value, and an attribute of that object (or None)."""

    value: str
    attribute: str | None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Isolation:
    """Isolation of one directive: its function, by import path or pickled (`origin`), and the limits it requests."""

    origin: ImportPath | bytes
    requested: Mapping[str, int]

    def limits(self, directive: str, settings: Mapping[str, Mapping[str, Any]]) -> ProcessLimits:
        """The limits in force: the settings of this directive, else what it requests, else the settings of `*`."""
        return ProcessLimits(**{**settings.get("*", {}), **self.requested, **settings.get(directive, {})})


def requested_limits(isolate: bool, max_memory_bytes: int | None, max_cpu_seconds: int | None) -> dict[str, int] | None:
    """The limits that a directive requests; None if it is not isolated. Raises ValueError, TypeError."""
    if not isinstance(isolate, (bool, int)):
        raise TypeError(f"isolate is True or False, not {type(isolate).__name__}")
    given = {"max_memory_bytes": max_memory_bytes, "max_cpu_seconds": max_cpu_seconds}
    limits = {name: value for name, value in given.items() if value is not None}
    ProcessLimits(**limits)
    if limits and not isolate:
        raise ValueError(f"{' and '.join(limits)} can't be held without isolate=True")
    return limits if isolate else None


def pickle_function(function: Callable[..., object]) -> bytes:
    """Pickle a function for another process, copying all that it refers to except importable modules.

    Raises TypeError, with the reason, if it can't be pickled.
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
    except Exception as error:  # `__reduce__` of any object may raise anything
        raise TypeError(f"{function!r} can't be moved to a process of its own: {text_of(error)}") from error
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)


def _importable(module: ModuleType) -> bool:
    """Whether importing this module's name in a new process finds the same file."""
    path: Sequence[str] | None = None
    found = None
    parts = module.__name__.split(".")
    for end in range(1, len(parts) + 1):
        found = _find_spec(".".join(parts[:end]), path)
        if found is None:
            return False
        path = found.submodule_search_locations
    origin, file = getattr(found, "origin", None), getattr(module, "__file__", None)
    return origin is None or file is None or Path(origin).resolve() == Path(file).resolve()


def _find_spec(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        if (found := finder.find_spec(name, path)) is not None:
            return found
    return None
