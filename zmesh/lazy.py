"""Attributes of a package that are imported when they are first used (PEP 562), so that importing it stays cheap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from sys import modules


def lazy_attributes(package: str, names: Mapping[str, Iterable[str]]) -> Callable[[str], object]:
    """The `__getattr__` of `package`, whose `names` are given by the submodule that defines them.

    Raises AttributeError for any other name.
    """
    module_of = {name: f"{package}.{module}" for module, each in names.items() for name in each}

    def load(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(module_of[name]), name)
        setattr(modules[package], name, value)
        return value

    return load
