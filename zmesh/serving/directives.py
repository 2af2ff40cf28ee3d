"""Registry of directives: loads plugins, and maps directive names to functions.

A directive is `namespace:action`. Plugins provide them through entry points: of the group `zmesh.plugins`, where the
entry point's name is the namespace and its target a module, a class or an object with functions marked by `directive`;
and of `receptor.worker`, for plugins of Receptor 1.x. A program registers its own in code.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload
from weakref import WeakMethod

from zmesh.core.message import MAX_DIRECTIVE, is_directive
from zmesh.errors import ConfigError, NotAllowed, UnknownDirective, did_you_mean
from zmesh.runtime import class_name_of, is_a, log_exception
from zmesh.serving import receptor_plugins
from zmesh.serving.isolation import ImportPath, Isolation, pickle_function, requested_limits
from zmesh.serving.plugin import MARK, NodePlugin, OpenStream, Plugin, Requesting, attribute
from zmesh.serving.shape import Shape, check_arguments, shape_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger(__name__)

GROUP = "zmesh.plugins"
"""The group of the entry points of plugins."""

RECEPTOR_GROUP = "receptor.worker"
"""The group of the entry points of plugins of Receptor 1.x."""

Function = TypeVar("Function", bound=Callable[..., Any])

OWN = "zmesh:"
"""The namespace of the directives that every node has, and that none advertises."""
RESERVED = frozenset({"zmesh", "job", "job-admin", "tcp"})
"""Namespaces of which a permission may name what is in no table of directives, such as `tcp:NAME` for a service."""
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class _Mark:
    name: str
    stream: bool
    asked: dict[str, int] | None = None


@overload
def directive(function: Function, /) -> Function: ...
@overload
def directive(
    *,
    name: str | None = None,
    stream: bool = False,
    isolate: bool = False,
    max_memory_bytes: int | None = None,
    max_cpu_seconds: int | None = None,
) -> Callable[[Function], Function]: ...
def directive(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    stream: bool = False,
    isolate: bool = False,
    max_memory_bytes: int | None = None,
    max_cpu_seconds: int | None = None,
) -> Any:
    """Mark a function of one argument, a `Work`, as a directive; its action is `name`, else the function's own name.

    An async function or generator runs on the node's loop and must not block it, a plain function or generator runs in
    a worker thread. Each value that is yielded is sent as one reply, and so is the value returned, except None, which
    sends nothing. With `stream=True` it starts with the first chunk of the payload and reads the rest as it arrives;
    otherwise it starts when the payload is complete.

    With `isolate=True` each call runs in a process of its own, which can be killed and may use `max_memory_bytes` and
    `max_cpu_seconds` (whole seconds of CPU time) at most. Raises ValueError for limits out of range or without
    `isolate`, and TypeError for what can't be a directive.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"a directive's name is a str, not {type(name).__name__}")
    asked = requested_limits(isolate, max_memory_bytes, max_cpu_seconds)

    def mark(function: Function) -> Function:
        if not callable(function):
            raise TypeError(f"a directive is a function, not {type(function).__name__}")
        called = name or getattr(function, "__name__", None)
        if called is None:
            raise TypeError(f"{type(function).__name__} has no name of its own; give it one: directive(name=...)")
        try:
            setattr(function, MARK, _Mark(called, stream, asked))
        except AttributeError:
            raise TypeError(f"{called!r} can't be marked as a directive; wrap it in a function") from None
        return function

    return mark if function is None else mark(function)


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredDirective:
    """One directive of a node: its full name, its function, how that is called, when it starts, and where it runs."""

    name: str
    run: Callable[..., Any]
    shape: Shape
    stream: bool
    isolation: Isolation | None = None


@dataclass(frozen=True, slots=True)
class _Failure:
    """The state of a plugin, and the error that disabled it."""

    stage: str
    error: str


class Directives:
    """The directives of one node."""

    def __init__(self) -> None:
        self._entries: dict[str, RegisteredDirective] = {}
        self._registered: set[str] = set()
        self._plugins: dict[str, Plugin] = {}
        self._failures: dict[str, _Failure] = {}
        self._origins: dict[str, str] = {}
        self._startable: list[Plugin] = []
        self._patience: asyncio.Timeout | None = None
        self._hurried = False
        self._open_stream: Callable[[], OpenStream | None] = lambda: None

    def attach(self, open_stream: OpenStream) -> None:
        """Take the `stream` of the node's Controller, a bound method, for plugins that make requests of their own."""
        self._open_stream = WeakMethod(open_stream)

    def register(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        stream: bool = False,
        isolate: bool = False,
        max_memory_bytes: int | None = None,
        max_cpu_seconds: int | None = None,
    ) -> None:
        """Let this node run `function` for the directive `name`; it takes the place of a plugin's of the same name.

        `function` takes a `Work`, and need not be marked. Raises ValueError if `name` is not `namespace:action` or is
        registered already, or if there are limits without `isolate`; TypeError if the function can't be called with
        a Work alone, or not be moved to a process.
        """
        _checked(name)
        if not callable(function):
            raise TypeError(f"the directive {name!r} needs a function, not {type(function).__name__}")
        check_arguments(function, name)
        if name in self._registered:
            raise ValueError(f"the directive {name!r} is registered already")
        mark = getattr(function, MARK, None)
        marked = mark.asked if isinstance(mark, _Mark) else None
        stream = stream or (isinstance(mark, _Mark) and mark.stream)
        asked = requested_limits(isolate or marked is not None, max_memory_bytes, max_cpu_seconds)
        if asked is not None:
            asked = {**(marked or {}), **asked}
        isolated = None if asked is None else Isolation(pickle_function(function), asked)
        self._entries[name] = RegisteredDirective(name, function, shape_of(function), stream, isolated)
        self._registered.add(name)

    def unregister(self, name: str) -> None:
        """Remove the directive `name` that was registered. Harmless if it was not."""
        if name in self._registered:
            self._registered.discard(name)
            del self._entries[name]

    def discover(self) -> None:
        """Load the plugins that are installed. One that fails disables its own namespace, which is logged."""
        from importlib.metadata import entry_points  # here: nodes that run no plugins start faster without

        receptor_plugins.install()
        for group in (GROUP, RECEPTOR_GROUP):
            for point in entry_points(group=group):
                if point.name not in self._origins:
                    self._origins[point.name] = point.value
                    self._load(point)
                elif self._origins[point.name] != point.value:  # equal ones are one package that is listed twice
                    logger.warning(
                        "the plugin %s (%s) is left out: its namespace is taken; rename one entry point",
                        point.name,
                        point.value,
                    )

    def configure(
        self,
        tables: Mapping[str, Mapping[str, object]],
        isolation: Mapping[str, object] = MappingProxyType({}),
        file: str | None = None,
        rules: Iterable[str] = (),
    ) -> None:
        """Give each plugin its table of the configuration, and log as `report_unread` does.

        Raises ConfigError for a table that does not hold what its plugin declares.
        """
        for plugin in self._startable:
            try:
                plugin.configure(tables.get(plugin.namespace, {}), file)
            except (ConfigError, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001  # whatever its dataclass is made of
                self._fail(plugin.namespace, "configured", error)
        self.report_unread(tables, isolation, file, rules)

    def report_unread(
        self,
        tables: Iterable[str],
        isolation: Iterable[str],
        file: str | None,
        rules: Iterable[str],
    ) -> None:
        """Log the tables of plugins and directives that are not here, and permissions (`rules`) that look misspelt.

        A permission may be for a directive that comes later, so one that resembles none is passed over.
        """
        where = "" if file is None else f"{file}: "
        namespaces = {*self._origins, *(name.partition(":")[0] for name in self._entries)}
        for namespace in tables:
            if namespace not in namespaces:
                hint = did_you_mean(namespace, namespaces)
                logger.warning("%s[plugins.%s] is for no plugin that is installed here%s", where, namespace, hint)
        for name in isolation:
            if name != "*" and name.partition(":")[0] not in self._failures:
                self._check_isolated(name, where)
        for rule in rules:
            hint = self._likely_rule(rule, {*namespaces, *RESERVED})
            if hint:
                logger.warning('[allow] "%s" is for no directive that is here%s', rule, hint)

    def check(self, namespace: str, table: Mapping[str, object], file: str | None = None) -> None:
        """Raises ConfigError for a table that does not hold what the plugin of that namespace declares."""
        plugin = self._plugins.get(namespace)
        if plugin is not None:
            try:
                plugin.read(table, file)
            except (ConfigError, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001  # whatever its dataclass is made of
                log_exception(logger, "the settings of the plugin %s can't be read", namespace, error=error)

    def reconfigure(self, tables: Mapping[str, Mapping[str, object]], file: str | None = None) -> list[str]:
        """Give each plugin its table anew; the namespaces of plugins that have to be restarted for another table.

        Raises ConfigError, as `check` does.
        """
        stay = []
        for plugin in self._plugins.values():
            try:
                taken = plugin.reload(tables.get(plugin.namespace, {}), file)
            except (ConfigError, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001  # whatever the plugin's own function does
                log_exception(logger, "the plugin %s takes no other settings", plugin.namespace, error=error)
                taken = False
            if not taken:
                stay.append(plugin.namespace)
        return sorted(stay)

    def attach_node(self, node: object) -> None:
        """Hand the node to the plugins that are more than their directives."""
        for plugin in self._startable:
            if isinstance(plugin.target, NodePlugin):
                plugin.target.attach_node(node)

    def plugin(self, namespace: str) -> object | None:
        """The target of the entry point of that plugin; None if there is none, or it failed."""
        plugin = self._plugins.get(namespace)
        return None if plugin is None else plugin.target

    async def start(self, within: float) -> None:
        """Start the plugins, one after the other; one that fails, or takes longer than `within` seconds, is disabled.

        Raises ConfigError where a plugin does.
        """
        task = asyncio.current_task()
        for plugin in self._startable:
            if plugin.starter is None or plugin.namespace not in self._plugins or self._hurried:
                continue
            if isinstance(plugin.target, Requesting):
                plugin.target.open_stream = self._open_stream()
            try:
                async with asyncio.timeout(within) as self._patience:
                    await plugin.start()
            except (ConfigError, KeyboardInterrupt):
                raise
            except BaseException as error:  # a plugin may raise anything, and that ends nothing but it
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise
                self._fail(plugin.namespace, "started", error)
            finally:
                self._patience = None

    def hurry(self) -> None:
        """Cancel the start of plugins, because the node closes."""
        self._hurried = True
        if self._patience is not None:
            self._patience.reschedule(0.0)

    def find(self, name: str) -> RegisteredDirective:
        """The directive `name`. Raises UnknownDirective, or NotAllowed for a function that is not marked as one."""
        entry = self._entries.get(name)
        if entry is not None:
            return entry
        namespace, _, action = name.partition(":")
        failure = self._failures.get(namespace)
        if failure is not None:
            raise UnknownDirective(
                f"the plugin {namespace!r} could not be {failure.stage} here ({failure.error}); see this node's log"
            )
        plugin = self._plugins.get(namespace)
        if plugin is not None and not action.startswith("_") and callable(attribute(plugin.target, action)):
            raise NotAllowed(
                f"{name!r} is no directive: the plugin {namespace!r} does not mark that function as one, "
                "as @zmesh.directive would"
            )
        hint = did_you_mean(name, self._entries)
        if not hint and self._entries:
            known = sorted(self._entries)
            hint = f"; there are {', '.join(known[:_SHOWN])}{', ...' if len(known) > _SHOWN else ''}"
        raise UnknownDirective(f"no directive {name!r} here{hint}")

    def capabilities(self) -> list[str]:
        """The directives by name, and `namespace:!ErrorName` for each plugin that could not be loaded."""
        failed = [f"{namespace}:!{failure.error}" for namespace, failure in self._failures.items()]
        return sorted([*(name for name in self._entries if not name.startswith(OWN)), *failed])

    def closers(self) -> Iterator[Callable[[], Awaitable[object]]]:
        """The `async def close()` of each plugin that has one and has started, to be awaited when the node closes."""
        for plugin in self._plugins.values():
            if plugin.started and plugin.closer is not None:
                yield plugin.closer

    def _load(self, point: EntryPoint) -> None:
        namespace = point.name
        try:
            target = point.load()
            if inspect.isclass(target):
                target = target()  # an object of its own for each node
            found = list(_exports(namespace, target) if point.group == RECEPTOR_GROUP else _marked(point, target))
            if not found:
                raise LookupError(f"{point.value} has no function that is marked as a directive")
        except BaseException as error:  # whatever a plugin does while it is imported
            if is_a(error, KeyboardInterrupt):
                raise
            self._fail(namespace, "loaded", error)
            return
        self._plugins[namespace] = Plugin(namespace, target)
        if point.group == GROUP:
            self._startable.append(self._plugins[namespace])
        for entry in found:
            self._entries.setdefault(entry.name, entry)

    def _fail(self, namespace: str, stage: str, error: object) -> None:
        """Disable a plugin and log the reason. Its directives are removed; those registered by the program stay."""
        if issubclass(type(error), BaseException):
            text = "the plugin %s (%s) can't be %s"
            log_exception(logger, text, namespace, self._origins[namespace], stage, error=cast("BaseException", error))
            kind = class_name_of(cast("BaseException", error))
        else:
            logger.warning("the plugin %s (%s) can't be %s", namespace, self._origins[namespace], stage)
            kind = type(error).__name__
        if is_directive(f"{namespace}:!"):
            self._failures[namespace] = _Failure(stage, kind)
        self._plugins.pop(namespace, None)
        for name in [name for name in self._entries if name.partition(":")[0] == namespace]:
            if name not in self._registered:
                del self._entries[name]

    def _likely_rule(self, rule: str, namespaces: set[str]) -> str:
        """A hint for a permission whose namespace or directive resembles one that is here, and is none."""
        namespace, _, action = rule.partition(":")
        if not action or rule in self._entries or namespace in RESERVED:
            return ""
        if namespace not in namespaces:
            hint = did_you_mean(namespace, namespaces)
            return hint.replace("'?)", f":{action}'?)") if action == "*" else hint
        own = [name for name in self._entries if name.partition(":")[0] == namespace]
        return did_you_mean(rule, own) if action != "*" else ""

    def _check_isolated(self, name: str, where: str) -> None:
        entry = self._entries.get(name)
        if entry is None:
            hint = did_you_mean(name, self._entries)
            logger.warning('%s[isolation."%s"] is for no directive that is here%s', where, name, hint)
        elif entry.isolation is None:
            logger.warning('%s[isolation."%s"] limits nothing, as that directive is not isolated', where, name)


def _checked(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a directive is called by a str, not {type(name).__name__}")
    if not is_directive(name):
        raise ValueError(f"a directive is called 'namespace:action', in {MAX_DIRECTIVE} characters, not {name!r}")
    return name


def _attributes(target: object) -> Iterator[tuple[str, Callable[..., Any]]]:
    names = vars(target) if isinstance(target, ModuleType) else dir(target)
    for name in names:
        static = attribute(target, name)
        if isinstance(static, (staticmethod, classmethod)) or callable(static):
            yield name, getattr(target, name)


def _marked(point: EntryPoint, target: object) -> Iterator[RegisteredDirective]:
    found = {}
    for name, function in _attributes(target):
        mark = getattr(function, MARK, None)
        if isinstance(mark, _Mark):
            found[mark.name] = _entry(point, mark, function, name)
    if not found and not isinstance(target, ModuleType) and callable(target):
        mark = getattr(target, MARK, None) or _Mark(getattr(target, "__name__", type(target).__name__), stream=False)
        found[mark.name] = _entry(point, mark, target, None)
    yield from found.values()


def _exports(namespace: str, target: object) -> Iterator[RegisteredDirective]:
    for name, function in _attributes(target):
        if getattr(function, "receptor_export", False) is True:
            called = _checked(f"{namespace}:{name}")
            check_arguments(function, called, receptor_plugins.ARGUMENTS)
            yield RegisteredDirective(called, receptor_plugins.adapt(function), Shape.QUEUE, stream=False)


def _entry(point: EntryPoint, mark: _Mark, function: Callable[..., Any], attribute: str | None) -> RegisteredDirective:
    isolated = None if mark.asked is None else Isolation(ImportPath(point.value, attribute), mark.asked)
    name = _checked(f"{point.name}:{mark.name}")
    check_arguments(function, name)
    return RegisteredDirective(name, function, shape_of(function), mark.stream, isolated)
