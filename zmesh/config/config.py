"""The settings of a node: one frozen value, read from flags, environment and a TOML file."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, TypedDict

from zmesh.arguments import check_url, is_encodable, shown
from zmesh.config.origins import PROGRAM, Origin
from zmesh.core.message import is_node_id
from zmesh.errors import ConfigError, did_you_mean

logger = logging.getLogger(__name__)

LIMITS: dict[str, tuple[float, float]] = {
    "heartbeat": (0.05, 3600.0),
    "max_workers": (1, 4096),
    "max_work": (1, 1_000_000),
    "route_timeout": (0.0, 86_400.0),
    "max_waiting_bytes": (65_536, 1 << 40),
    "max_payload_bytes": (65_536, 1 << 50),
    "max_processes": (1, 4096),
}
"""The settings that are numbers, with the limits of each."""
FRACTIONS = ("heartbeat", "route_timeout")
"""The settings that are numbers, and need not be whole."""
BOOLEANS = ("ephemeral", "insecure", "tracing")
"""The settings that are true or false."""
LISTS = ("listen", "peers")
"""The settings that are lists of URLs."""
TABLES = ("allow", "isolation", "metrics", "plugins")
"""The settings that are tables."""
SECTIONS = {"run": "exec", "file": "file", "jobs": "job", "tcp": "tcp"}
"""Tables of a file that are those of plugins: `[run]` is `[plugins.exec]`."""
LISTS_OF_TABLES = {"forward": "tcp", "expose": "tcp"}
"""Lists of tables of a file that are settings of plugins: `[[forward]]` is `[[plugins.tcp.forward]]`."""
ISOLATION: dict[str, tuple[float, float]] = {
    "max_memory_bytes": (32 * 1024 * 1024, 1 << 50),
    "max_cpu_seconds": (1, 1_000_000),
    "grace": (0.0, 3600.0),
}
"""The settings of the processes of isolated directives, with the limits of each."""
LOG_LEVELS = ("error", "warning", "info", "debug")
"""The values of `log_level`; `warning` has the lines for operators too."""
LOG_FORMATS = ("text", "json")
"""The values of `log_format`."""
MAX_TAGS = 32
"""Tags that a node may give itself."""
AUTO = "auto"
"""As `identity`: that of the current context, if there is one."""
NONE = "none"
"""As `identity`: no identity."""


class DefaultId(str):
    """A node id that was not given, for which that of an identity is taken if there is one."""

    __slots__ = ()


def default_node_id() -> str:
    """A node id that is most likely unique: up to 48 characters of the host's name, and six random hex digits."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:48] or "node"
    return DefaultId(f"{host}-{os.urandom(3).hex()}")


if TYPE_CHECKING:
    from zmesh.config.loading import Sources
    from zmesh.identity import Identity

    class Settings(TypedDict, total=False):
        """The settings of a Config as keywords."""

        node_id: str
        identity: Identity | str | os.PathLike[str] | None
        listen: Sequence[str]
        peers: Sequence[str]
        heartbeat: float
        max_workers: int
        max_work: int
        route_timeout: float
        max_waiting_bytes: int
        max_payload_bytes: int
        spool_dir: str | None
        ephemeral: bool
        insecure: bool
        tags: Sequence[str]
        max_processes: int
        isolation: Mapping[str, Mapping[str, float]]
        plugins: Mapping[str, Mapping[str, object]]
        allow: Mapping[str, Sequence[str] | str]
        log_level: str
        log_format: str
        metrics: Mapping[str, object] | str
        tracing: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of a node; `Config()` alone is a node that listens nowhere.

    `node_id`            1 to 64 of `A-Za-z0-9._-`, unique in the mesh.
    `identity`           a folder of state, an Identity, `none` (or None), or `auto`: the current context's if any.
    `listen`, `peers`    URLs (`tcp://`, `rnps://`, `ipc://`, `inproc://`, `rnp://`).
    `heartbeat`          seconds between two probes of a link; three of silence take it down.
    `max_workers`        threads for plugins that are plain functions.
    `max_work`           requests that may run here at a time; more are answered with an error.
    `route_timeout`      seconds that a request waits for a route to its node.
    `max_waiting_bytes`  bytes of requests that may be unsent or unacknowledged; past it, sending raises Overloaded.
    `max_payload_bytes`  largest payload that is collected for a plugin or handler which wants it whole.
    `spool_dir`          folder for payloads too large for memory; the system's own if None.
    `ephemeral`          a leaf: it forwards nothing and the mesh keeps no state of it.
    `insecure`           allow plaintext to other machines, for a network that you trust.
    `tags`               up to 32 names that stand for the node among others, such as `gpu`; shaped as a node id.
    `max_processes`      processes of isolated directives that may run at a time; more requests wait in line.
    `isolation`          for an isolated directive, or `*` for all: `max_memory_bytes`, `max_cpu_seconds`, `grace`.
    `plugins`            a section of settings for each namespace, handed to its plugin.
    `allow`              who may call a directive, by its name, `namespace:*` or `*`: node ids, `tag:NAME`, or `*`.
    `log_level`          what `zmesh node` logs: `error`, `warning`, `info` or `debug`.
    `log_format`         how `zmesh node` logs: `text`, or `json`, one object a line.
    `metrics`            for Prometheus: `address`, `textfile`, `interval`; as a text one of the first two.
    `tracing`            make OpenTelemetry spans of requests.
    `file`               the TOML file that these settings come from, which errors name; no setting itself.

    Raises ConfigError if a value is of the wrong type or out of its limits.
    """

    node_id: str = dataclasses.field(default_factory=default_node_id)
    identity: Identity | str | os.PathLike[str] | None = AUTO
    listen: Sequence[str] = ()
    peers: Sequence[str] = ()
    heartbeat: float = 1.0
    max_workers: int = 12
    max_work: int = 10_000
    route_timeout: float = 30.0
    max_waiting_bytes: int = 256 * 1024 * 1024
    max_payload_bytes: int = 64 * 1024 * 1024 * 1024
    spool_dir: str | None = None
    ephemeral: bool = False
    insecure: bool = False
    tags: Sequence[str] = ()
    max_processes: int = 12
    isolation: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    plugins: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    allow: Mapping[str, Sequence[str] | str] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    log_level: str = "warning"
    log_format: str = "text"
    metrics: Mapping[str, object] | str = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    tracing: bool = False
    file: str | None = dataclasses.field(default=None, repr=False, compare=False)
    _sources: Sources | None = dataclasses.field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.node_id, str) or not is_node_id(self.node_id):
            raise ConfigError(f"node_id {shown(self.node_id)} is not 1 to 64 characters of A-Z a-z 0-9 . _ -")
        for name in LISTS:
            given = getattr(self, name)
            urls = tuple(given) if isinstance(given, Iterable) and not isinstance(given, (str, bytes)) else (None,)
            if not all(isinstance(url, str) for url in urls):
                raise ConfigError(f"{name} must be a list of URLs, not {shown(given)}")
            for url in urls:
                check_url(url)
            object.__setattr__(self, name, urls)
        object.__setattr__(self, "tags", _checked_tags(self.tags))
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            kinds, what = ((int, float), "number") if name in FRACTIONS else ((int,), "whole number")
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                raise ConfigError(f"{name} = {shown(value)} is not a {what} from {low:g} to {high:g}")
        _check_identity(self.identity)
        for name in BOOLEANS:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false, not {shown(getattr(self, name))}")
        for name, values in (("log_level", LOG_LEVELS), ("log_format", LOG_FORMATS)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in values:
                raise ConfigError(f"{name} must be one of {', '.join(values)}, not {shown(value)}")
        if self.file is not None and not isinstance(self.file, str):
            raise ConfigError(f"file must be the path of a file, not {shown(self.file)}")
        if self.spool_dir is not None and not _is_path(self.spool_dir):
            raise ConfigError(f"spool_dir must be the path of a folder, not {shown(self.spool_dir)}")
        if not isinstance(self.plugins, Mapping) or not all(isinstance(s, Mapping) for s in self.plugins.values()):
            raise ConfigError("plugins must hold one table for each namespace, such as [plugins.http]")
        if not isinstance(self.allow, Mapping):
            raise ConfigError('allow must be a table such as [allow] with "exec:*" = ["hub"]')
        if isinstance(self.metrics, str) and self.metrics:
            kind = "textfile" if "/" in self.metrics or self.metrics.endswith(".prom") else "address"
            object.__setattr__(self, "metrics", {kind: self.metrics})
        if not isinstance(self.metrics, Mapping):
            raise ConfigError('metrics must be a table such as [metrics] with address = "127.0.0.1:9464"')
        _check_isolation(self.isolation)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        **flags: object,
    ) -> Config:
        """The settings from a TOML file, then `ZMESH_*` variables over it, then `flags` (None: not given) over both.

        The variable of a setting is `ZMESH_` and its name in capitals, such as ZMESH_HEARTBEAT; that of `identity` is
        ZMESH_STATE. A list has commas between its elements, a boolean is `true` or `false` (or 1 or 0), tables are
        JSON; an empty variable counts as none.

        Raises ConfigError if the file can't be read, is not TOML, or has a key that no setting has, or if a value is
        none that its setting takes; the text names the file or the variable. Raises TypeError if `environ` is no
        mapping. `ZMESH_*` variables that nothing reads are logged.
        """
        environ = os.environ if environ is None else environ
        if not isinstance(environ, Mapping):
            raise TypeError(f"environ is a mapping, not {type(environ).__name__}")
        from zmesh.config.loading import Sources, unknown_variables  # here: it imports this module

        for variable in unknown_variables(environ):
            logger.warning("%s", variable)
        given = {name: value for name, value in flags.items() if value is not None}
        return Sources(None if path is None else os.fspath(path), environ, given).read()

    def again(self) -> Config:
        """The settings read anew from where `load` has read them; those of a Config that was made in code are itself.

        Raises ConfigError as `load` does.
        """
        return self if self._sources is None else self._sources.read()

    def origins(self) -> dict[str, Origin]:
        """The origin of each setting: its default, a line of the file, a variable of the environment, an option.

        Those of the tables `allow`, `isolation` and `plugins` are named by their paths as well, such as `allow.exec:*`.
        Those of a Config that was made in code come from the program.
        """
        return dict.fromkeys(SETTINGS, Origin(PROGRAM)) if self._sources is None else self._sources.origins()


def _is_path(path: object) -> bool:
    """Whether the system takes this for a path, whether a file is there or not."""
    if not isinstance(path, (str, os.PathLike)):
        return False
    text = os.fspath(path)
    return isinstance(text, str) and bool(text) and "\0" not in text and is_encodable(text)


def _check_identity(identity: object) -> None:
    if identity is None or (isinstance(identity, (str, os.PathLike)) and _is_path(identity)):
        return
    if isinstance(identity, (str, bytes, int, float, list, dict)) or not hasattr(identity, "certificate"):
        raise ConfigError(f"identity must be a folder of state, 'auto', 'none' or an Identity, not {shown(identity)}")


def _checked_tags(given: object) -> tuple[str, ...]:
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes)):
        raise ConfigError(f'tags must be a list such as ["gpu"], not {shown(given)}')
    listed = list(given)
    for tag in listed:
        if not isinstance(tag, str) or not is_node_id(tag):
            raise ConfigError(f"tags has {shown(tag)}, which is not 1 to 64 characters of A-Z a-z 0-9 . _ -")
    tags = tuple(dict.fromkeys(listed))
    if len(tags) > MAX_TAGS:
        raise ConfigError(f"tags has {len(tags)} tags, where {MAX_TAGS} are allowed")
    return tags


def _check_isolation(isolation: object) -> None:
    if not isinstance(isolation, Mapping) or not all(isinstance(table, Mapping) for table in isolation.values()):
        raise ConfigError('isolation must hold one table for each directive, such as [isolation."http:execute"]')
    for directive, table in isolation.items():
        place = f'[isolation."{directive if isinstance(directive, str) else shown(directive)}"]'
        if directive != "*" and not (isinstance(directive, str) and re.fullmatch(r"[^\s:]+:[^\s:]+", directive)):
            raise ConfigError(f"{place} is for no directive; it must look like namespace:action, or be *")
        for name, value in table.items():
            if not isinstance(name, str):
                raise ConfigError(f"{place}: a setting is called by a text, not by {shown(name)}")
            if name not in ISOLATION:
                raise ConfigError(f"{place}: no setting is called {name!r}{did_you_mean(name, ISOLATION)}")
            low, high = ISOLATION[name]
            kinds = (int, float) if name == "grace" else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                raise ConfigError(f"{place}: {name} = {shown(value)} is not a number from {low:g} to {high:g}")


SETTINGS = tuple(field.name for field in dataclasses.fields(Config) if field.name not in ("file", "_sources"))
"""The names of all settings."""
