"""The settings of a node as they may be shown: each with its origin, and without secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from zmesh.config import DEFAULT, FILE, IDENTITY, SETTINGS, TABLES, Config, Origin, identity_of, lines_of
from zmesh.redaction import HIDDEN, SECRET_NAME, without_secrets
from zmesh.transport import parse_url

_OF_IDENTITY = ("node_id", "listen", "peers")


class Setting(NamedTuple):
    """A setting by its name, such as `peers` or `allow.exec:*`, its value as JSON has it, and where it comes from."""

    name: str
    value: object
    origin: Origin


def settings_of(config: Config) -> Iterator[Setting]:
    """All settings in the order of Config, each entry of a table by itself, and the permissions of the identity.

    Secrets are hidden: passwords in URLs, and settings of plugins whose names are those of secrets, however deep.
    """
    origins = config.origins()
    identity = identity_of(config)
    for name in SETTINGS:
        value = getattr(config, name)
        origin = origins[name]
        if name == "identity":
            value = identity.where if identity is not None else "none"
        elif identity is not None and name in _OF_IDENTITY and origin.kind == DEFAULT and value:
            origin = Origin(IDENTITY, identity.where)
        if name in TABLES:
            for keys, each in _entries(value):
                path = ".".join((name, *keys))
                yield Setting(path, _hidden(path, each), origins.get(path, origin))
        else:
            yield Setting(name, _hidden(name, value), origin)
    if identity is not None and identity.state is not None:
        policy = identity.state.folder / "policy.toml"
        lines = lines_of(_text(policy))
        for pattern, subjects in identity.policy.rules().items():
            if pattern not in config.allow:
                line = lines.get(("allow", pattern), 1)
                yield Setting(f"allow.{pattern}", sorted(subjects), Origin(FILE, f"{policy}:{line}"))


def _entries(table: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from (((key, *keys), each) for keys, each in _entries(value))
        else:
            yield (key,), value


def _hidden(name: str, value: object) -> object:
    """The value without secrets, as JSON has it."""
    if name in ("listen", "peers") and isinstance(value, tuple):
        return [parse_url(url).url for url in value]
    if name.startswith("plugins."):
        secret = any(SECRET_NAME.search(part) for part in name.split(".")[2:])
        return HIDDEN if secret else without_secrets("", value)
    if isinstance(value, (tuple, frozenset)):
        return list(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
