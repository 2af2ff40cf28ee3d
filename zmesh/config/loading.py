"""Reads the settings of a node from a TOML file, environment variables and options."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from zmesh.config.config import BOOLEANS, FRACTIONS, LIMITS, LISTS, LISTS_OF_TABLES, SECTIONS, SETTINGS, TABLES, Config
from zmesh.config.origins import DEFAULT, ENVIRONMENT, FILE, FLAG, Origin, lines_of
from zmesh.errors import ConfigError, did_you_mean

_OF_A_SERVICE = re.compile(r"ZMESH_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_\w+)?)\Z")
"""Variables that Kubernetes and Docker set in every container for a service that is called zmesh."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """The places that the settings of a node are read from: a file, the environment, and options over both."""

    path: str | None
    environ: Mapping[str, str]
    flags: Mapping[str, object]
    text: str = ""
    """The file as it was read."""

    def read(self) -> Config:
        """Read all of them. Raises ConfigError, which names the line of the file, or the variable."""
        settings: dict[str, object] = {}
        text = ""
        if self.path is not None:
            text = _text_of(Path(self.path))
            settings.update(_read(Path(self.path), text), file=self.path)
        for name in SETTINGS:
            if given := self.environ.get(variable_of(name)):
                settings[name] = _from_text(name, given)
        settings.update(self.flags, _sources=dataclasses.replace(self, text=text))
        return Config(**settings)  # type: ignore[arg-type]  # __post_init__ checks every value

    def origins(self) -> dict[str, Origin]:
        """As `Config.origins`."""
        found = dict.fromkeys(SETTINGS, Origin(DEFAULT))
        if self.path is not None:
            for keys, line in lines_of(self.text).items():
                if keys[0] in SECTIONS:
                    keys = ("plugins", SECTIONS[keys[0]], *keys[1:])
                found[".".join(keys)] = Origin(FILE, f"{self.path}:{line}")
        for name in SETTINGS:
            kind, where = "", ""
            if self.flags.get(name) is not None:
                kind = FLAG
            elif self.environ.get(variable_of(name)):
                kind, where = ENVIRONMENT, variable_of(name)
            if kind:
                found = {path: each for path, each in found.items() if path.partition(".")[0] != name}
                found[name] = Origin(kind, where)
        return found


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A line of text for each `ZMESH_*` variable that nothing reads, most likely because it is misspelt."""
    known = [name.removeprefix("ZMESH_") for name in VARIABLES]
    lines = []
    for name in sorted(environ):
        if name.startswith("ZMESH_") and name not in VARIABLES and not _OF_A_SERVICE.match(name):
            import difflib  # here: only a misspelt variable needs it

            near = difflib.get_close_matches(name.removeprefix("ZMESH_"), known, n=1)
            lines.append(
                f"nothing reads the environment variable {name}{f' (did you mean ZMESH_{near[0]}?)' if near else ''}"
            )
    return lines


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _read(path: Path, text: str) -> dict[str, object]:
    import tomllib  # here, since few programs read a file

    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    where = _Lines(path, text)
    for section, namespace in SECTIONS.items():
        if isinstance(settings.get(section), dict):
            plugins = settings.setdefault("plugins", {})
            if not isinstance(plugins, dict) or namespace in plugins:
                raise where.error(f"give either [{section}] or [plugins.{namespace}]", section)
            plugins[namespace] = settings.pop(section)
    for name, namespace in LISTS_OF_TABLES.items():
        if name in settings:
            table = settings.setdefault("plugins", {}).setdefault(namespace, {})
            if name in table:
                raise ConfigError(f"{path}: give either [[{name}]] or {name} in [{namespace}]")
            table[name] = settings.pop(name)
    for key, value in settings.items():
        if key not in SETTINGS:
            raise where.error(f"no setting is called {key!r}{did_you_mean(key, SETTINGS)}", key)
        if key in LISTS:
            if not isinstance(value, list):
                raise where.error(f"{key} must be a list of URLs, not {value!r}", key)
            settings[key] = tuple(value)
        _check_alone(key, settings[key], where)
    return settings


class _Lines(NamedTuple):
    """A file, for errors that name a line of it."""

    path: Path
    text: str

    def error(self, text: str, *keys: str) -> ConfigError:
        """The error about what stands by these keys."""
        line = lines_of(self.text).get(keys)
        return ConfigError(f"{self.path}{f':{line}' if line else ''}: {text}")


def _check_alone(key: str, value: object, where: _Lines) -> None:
    """Check one setting of a file by itself; a table entry by entry. Raises ConfigError, which names the line."""
    entries: list[tuple[tuple[str, ...], object]] = [((key,), value)]
    if key == "isolation" and isinstance(value, dict) and value:
        entries = [((key, name), {name: each}) for name, each in value.items()]
    for keys, entry in entries:
        try:
            Config(**{key: entry})  # type: ignore[arg-type]  # which checks it
        except ConfigError as error:
            raise where.error(str(error), *keys) from None
    if key == "allow" and isinstance(value, dict):
        from zmesh.identity import Policy  # here: few files have permissions

        for pattern, subjects in value.items():
            try:
                Policy({pattern: subjects})
            except ConfigError as error:
                raise where.error(str(error), key, pattern) from None


def variable_of(setting: str) -> str:
    """The environment variable of a setting."""
    return "ZMESH_STATE" if setting == "identity" else f"ZMESH_{setting.upper()}"


def _from_text(name: str, text: str) -> object:
    """The value of a setting, from that of its environment variable. Raises ConfigError, which names the variable."""
    value: object = text
    try:
        if name in LISTS or name == "tags":
            value = tuple(part.strip() for part in text.split(",") if part.strip())
        elif name in TABLES:
            value = json.loads(text)
        elif name in BOOLEANS:
            value = {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower(), text)
        elif name in LIMITS:
            value = float(text) if name in FRACTIONS else int(text)
    except (ValueError, RecursionError):
        value = text
    try:
        Config(**{name: value})  # type: ignore[arg-type]  # which checks it
    except ConfigError as error:
        raise ConfigError(f"{variable_of(name)}: {error}") from None
    return value


VARIABLES = (*map(variable_of, SETTINGS), "ZMESH_PEER", "ZMESH_PASSPHRASE", "ZMESH_DEBUG")
"""The environment variables that a node or a command reads."""
