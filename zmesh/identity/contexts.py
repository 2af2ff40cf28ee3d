"""Contexts: the states of one user, each of a mesh by name, and which of them is used now.

A context `lab` is the folder `lab` in the user's folder of zmesh, which lies where platformdirs and the XDG Base
Directory Specification say: `$XDG_CONFIG_HOME/zmesh`, `~/.config/zmesh`. The file `context` there names the current
one. `--state DIR`, ZMESH_STATE and systemd's STATE_DIRECTORY name a folder by itself, which is no context.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from zmesh.errors import ConfigError, did_you_mean
from zmesh.identity.state import PROFILE, State

CURRENT = "context"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,128}\Z")


def user_folder(environment: Mapping[str, str] | None = None) -> Path:
    """The folder of zmesh among the user's configuration."""
    environment = os.environ if environment is None else environment
    if sys.platform != "linux":
        import platformdirs

        return Path(platformdirs.user_config_dir("zmesh", appauthor=False))
    base = environment.get("XDG_CONFIG_HOME", "")  # as platformdirs has it, whose import would cost commands 10 ms
    return Path(base if os.path.isabs(base) else Path.home() / ".config") / "zmesh"


def named_folder(environment: Mapping[str, str] | None = None) -> Path | None:
    """The folder that ZMESH_STATE or systemd's STATE_DIRECTORY names; None if neither is set."""
    environment = os.environ if environment is None else environment
    if named := environment.get("ZMESH_STATE"):
        return Path(named).expanduser()
    if named := environment.get("STATE_DIRECTORY"):  # systemd.exec(5): several are separated by colons
        return Path(named.partition(":")[0])
    return None


def default_folder(environment: Mapping[str, str] | None = None) -> Path | None:
    """The folder of state that is used unless it is said otherwise; None if there is none, or ZMESH_STATE is `none`."""
    named = named_folder(environment)
    if named is not None:
        return None if str(named) == "none" else named
    return Contexts(user_folder(environment)).current_folder()


class Contexts:
    """The contexts of one user."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = user_folder() if folder is None else folder

    def names(self) -> list[str]:
        """The names of all contexts, sorted."""
        try:
            return sorted(each.name for each in self.folder.iterdir() if (each / PROFILE).is_file())
        except OSError:
            return []

    @property
    def current(self) -> str | None:
        """The name of the current context; None if there is none."""
        try:
            name = (self.folder / CURRENT).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
        return name if _NAME.match(name) and (self.folder / name / PROFILE).is_file() else None

    def current_folder(self) -> Path | None:
        """The folder of the current context; None if there is none."""
        name = self.current
        return None if name is None else self.folder / name

    def folder_of(self, name: str) -> Path:
        """The folder that a context of that name has or would have. Raises ConfigError for what can't be a name."""
        if not _NAME.match(name) or name == CURRENT:
            raise ConfigError(f"{name!r} is no name of a context: A-Z, a-z, 0-9, dot, underscore and hyphen")
        return self.folder / name

    def use(self, name: str) -> None:
        """Make a context the current one. Raises ConfigError for one that is not there, StateError."""
        self._check(name)
        State(self.folder).write(CURRENT, f"{name}\n".encode())

    def remove(self, name: str) -> None:
        """Delete a context and all that is in it. Raises ConfigError for one that is not there, StateError."""
        self._check(name)
        was_current = self.current == name
        State(self.folder_of(name)).remove_all()
        if was_current:
            State(self.folder).remove(CURRENT)

    def _check(self, name: str) -> None:
        names = self.names()
        if name not in names:
            known = did_you_mean(name, names) or f"; there are {', '.join(names) or 'none'}"
            raise ConfigError(f"no context is called {name!r}{known}")
