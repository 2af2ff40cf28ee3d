"""The progress of a copy, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from zmesh.files.places import written

MOST_FAILURES = 100
"""Failures whose reasons are kept; more are counted only."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of a copy.

    `files` were written, of which `resumed` went on from where an earlier copy had broken off; `skipped` were there
    already, with the same size and time. `size` is the sum of the bytes of all of them, and `sent` how many of those
    travelled.
    """

    files: int = 0
    directories: int = 0
    links: int = 0
    skipped: int = 0
    resumed: int = 0
    size: int = 0
    sent: int = 0

    def __add__(self, other: Copied) -> Copied:
        return Copied(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass(slots=True)
class Progress:
    """How far a copy is. `total` grows until `is_listed`, when all files are known; sizes are in bytes."""

    files: int = 0
    directories: int = 0
    links: int = 0
    skipped: int = 0
    resumed: int = 0
    done: int = 0
    sent: int = 0
    total: int = 0
    is_listed: bool = False
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    """The first MOST_FAILURES reasons, each a line that names the path."""

    def fail(self, text: str) -> None:
        """Count something that was not copied; `text` names its path and the reason."""
        self.failed += 1
        if len(self.failures) < MOST_FAILURES:
            self.failures.append(text)

    def counts(self) -> dict[str, int]:
        """The numbers by name, for another node."""
        return {name: int(getattr(self, name)) for name in COUNTS}

    def take(self, counts: Mapping[str, Any]) -> None:
        """Take the numbers of another node. Raises ValueError for a malformed one."""
        for name in COUNTS:
            value = counts.get(name)
            if not isinstance(value, int) or not 0 <= value < 1 << 63:
                raise ValueError(f"{name} is no count")
            setattr(self, name, type(getattr(self, name))(value))

    @property
    def copied(self) -> Copied:
        """The result so far."""
        counts = (self.files, self.directories, self.links, self.skipped, self.resumed)
        return Copied(*counts, self.done, self.sent)


COUNTS = (
    "files", "directories", "links", "skipped", "resumed", "done", "sent", "total", "is_listed", "failed",
)  # fmt: skip

OnProgress: TypeAlias = "Callable[[Progress], object]"


def reason(path: bytes, error: OSError) -> str:
    """A line with a path and the error of the system about it."""
    text = error.strerror or str(error)
    return f"{written(path)}: {text[:1].lower()}{text[1:]}"
