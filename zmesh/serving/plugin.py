"""A plugin loaded from an entry point: its directives, settings, and `start` and `close` hooks.

    settings = Settings                     a dataclass, into which its table of the configuration is read
    async def start(settings): ...          awaited before the node listens
    def reload(settings): ...               called with other settings while the node runs
    async def close(): ...                  awaited when the node closes

All four may be left out. `start` gets the instance of the dataclass, or the table itself where none is declared.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from zmesh.config import SECTIONS
from zmesh.serving import settings
from zmesh.serving.settings import Place

MARK = "__zmesh_directive__"
"""The attribute of functions that are directives."""


OpenStream: TypeAlias = "Callable[..., Any]"
"""`Controller.stream`, or None at a node that has no Controller."""


class Requesting:
    """The base class of a plugin that makes requests of its own; `open_stream` is there when it starts."""

    open_stream: OpenStream | None = None


class NodePlugin(ABC):
    """A plugin that comes with zmesh and is more than its directives: it sends requests, or its directives change."""

    @abstractmethod
    def attach_node(self, node: Any) -> None:
        """Take the node, before `start`."""


class Plugin:
    """The target of an entry point: a module, an object, or an instance of a class."""

    def __init__(self, namespace: str, target: object) -> None:
        self.namespace = namespace
        self.target = target
        declared = attribute(target, "settings")
        self.declared = declared if isinstance(declared, type) and dataclasses.is_dataclass(declared) else None
        """The dataclass of its settings, if it declares one."""
        self.settings: object = {}
        self.table: Mapping[str, object] = {}
        self.started = self.starter is None
        """Whether `start` was called, so that `close` is due."""

    def configure(self, table: Mapping[str, object], file: str | None = None) -> None:
        """Take its table of the configuration. Raises ConfigError, and TypeError for a `start` that is not async."""
        self.settings = self.read(table, file)
        self.table = table

    def reload(self, table: Mapping[str, object], file: str | None = None) -> bool:
        """Take another table while the node runs; False if that needs a restart.

        Raises ConfigError, and whatever the plugin's own `reload` raises.
        """
        if dict(table) == dict(self.table):
            return True
        read = self.read(table, file)
        reload = attribute(self.target, "reload")
        if isinstance(reload, (staticmethod, classmethod)):
            reload = reload.__func__
        if not inspect.isfunction(reload) or inspect.iscoroutinefunction(reload) or hasattr(reload, MARK):
            return False
        self.target.reload(read)  # type: ignore[attr-defined]
        self.settings, self.table = read, table
        return True

    def read(self, table: Mapping[str, object], file: str | None = None) -> object:
        """The settings that a table holds: an instance of the declared dataclass, else the table itself.

        Raises ConfigError, and TypeError for a `start` that is not async.
        """
        declared = self.declared
        if declared is None:
            return table
        start = attribute(self.target, "start")
        if self.starter is None and inspect.isfunction(start) and not hasattr(start, MARK):
            raise TypeError("the function start of a plugin with settings must be 'async def'")
        section = next((name for name, each in SECTIONS.items() if each == self.namespace), None)
        return settings.read_settings(declared, table, Place(section or f"plugins.{self.namespace}", file))

    @property
    def starter(self) -> Callable[[object], Awaitable[object]] | None:
        """The `start` hook, unless it is a directive."""
        return self._hook("start")

    @property
    def closer(self) -> Callable[[], Awaitable[object]] | None:
        """The `close` hook."""
        return self._hook("close")

    async def start(self) -> None:
        """Call `start` with the settings. Raises what it raises."""
        starter = self.starter
        if starter is not None:
            await starter(self.settings)
            self.started = True

    async def close(self) -> None:
        """Call `close` if the plugin was started."""
        closer = self.closer
        if closer is not None and self.started:
            await closer()

    def _hook(self, name: str) -> Callable[..., Awaitable[object]] | None:
        static = attribute(self.target, name)
        if isinstance(static, (staticmethod, classmethod)):
            static = static.__func__
        if not inspect.iscoroutinefunction(static) or hasattr(static, MARK):
            return None
        hook: Callable[..., Awaitable[object]] = getattr(self.target, name)
        return hook


def attribute(target: object, name: str) -> object:
    """The attribute, without running a property or a module's `__getattr__`; None if there is none."""
    return inspect.getattr_static(target, name, None)
