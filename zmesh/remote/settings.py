"""The table `[run]` of the configuration: the commands that a node runs, their users, directory and limits."""

from __future__ import annotations

import os
import resource
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from zmesh.config import ISOLATION

ANY = ("*",)
HARMLESS = ("LANG", "LC_*", "NO_COLOR", "TERM", "TZ")
"""The variables that a client may set where only some commands are allowed: none of them changes what is executed."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The table `[run]`. Raises ValueError for a value out of its limits."""

    commands: tuple[str, ...] = ANY
    """Patterns of the commands that may run. A pattern has a word for each argument; a last word `*` is any more."""
    environment: tuple[str, ...] = ("HOME", "LANG", "LC_*", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER")
    """Variables of the node's own environment that commands get, as patterns."""
    client_environment: tuple[str, ...] | None = None
    """Variables that a client may set, as patterns; by default any, or those of HARMLESS if `commands` is set."""
    user: str = ""
    """The user that commands run as; the node's own if empty."""
    users: tuple[str, ...] | None = None
    """The other users that a client may choose, as patterns; by default any, or none if `user` is set."""
    directory: str = ""
    """The directory of commands whose client names none; the user's home if empty."""
    max_seconds: float | None = None
    """Seconds that a command may run; None: no limit."""
    max_commands: int = 256
    """Commands that may run at a time."""
    max_commands_per_node: int = 192
    """Of those, commands of one other node."""
    max_memory_bytes: int | None = None
    """Bytes of memory of each process of a command (RLIMIT_DATA)."""
    max_cpu_seconds: int | None = None
    """Seconds of CPU time of each process of a command (RLIMIT_CPU)."""
    grace: float = 3.0
    """Seconds from SIGTERM to SIGKILL for a command that is cancelled, or whose client or node is gone."""

    def __post_init__(self) -> None:
        for pattern in self.commands:
            if not _words_of(pattern):
                raise ValueError("a pattern of commands must have a word at least")
        for name, (low, high) in ISOLATION.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} must be a number from {low:g} to {high:g}")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError("max_seconds must be a number above 0")
        for name in ("max_commands", "max_commands_per_node"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more")
        if self.directory and not os.path.isabs(self.directory):
            raise ValueError("directory must be an absolute path")

    def allows(self, words: Sequence[bytes]) -> bool:
        """Whether this command may run. A program that is named by its path must be named without `..` and the like."""
        if self.commands == ANY:
            return True
        given = [os.fsdecode(word) for word in words]
        if "/" in given[0] and os.path.normpath(given[0]) != given[0]:
            return False
        return any(_matches(_words_of(pattern), given) for pattern in self.commands)

    def allows_variable(self, name: str) -> bool:
        """Whether a client may set this variable."""
        allowed = self.client_environment
        if allowed is None:
            allowed = ANY if self.commands == ANY else HARMLESS
        return matches_any(name, allowed)

    def allows_user(self, user: str) -> bool:
        """Whether a client may choose this user."""
        if user == self.user:
            return True
        return matches_any(user, (() if self.user else ANY) if self.users is None else self.users)

    def kept(self, environment: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """The variables of the node's environment that commands get."""
        return {name: value for name, value in environment.items() if matches_any(os.fsdecode(name), self.environment)}

    def limits(self) -> dict[int, tuple[int, int]]:
        """The resource limits, each soft and hard, by their numbers."""
        found = {}
        if self.max_memory_bytes is not None:
            found[resource.RLIMIT_DATA] = (self.max_memory_bytes, self.max_memory_bytes)
        if self.max_cpu_seconds is not None:
            found[resource.RLIMIT_CPU] = (self.max_cpu_seconds, self.max_cpu_seconds + 1)
        return found


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether the name matches one of the patterns, in which `*` is any text."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _words_of(pattern: str) -> list[str]:
    return shlex.split(pattern)


def _matches(pattern: Sequence[str], words: Sequence[str]) -> bool:
    if pattern[-1] == "*":
        pattern = pattern[:-1]
        words = words[: len(pattern)] if len(words) >= len(pattern) else words
    return len(words) == len(pattern) and all(map(fnmatchcase, words, pattern))
