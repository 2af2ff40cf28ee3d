"""Rows by key, and those that have changed since a version, which a client of the stream of updates has to get."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]
KEPT_REMOVALS = 2_000
"""Removed keys that are remembered; a client that is behind more than these gets all rows again."""


class Versions:
    """The count of changes that several tables share."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current = 0

    def following(self) -> int:
        """The version of one more change."""
        self.current += 1
        return self.current


class Rows:
    """Rows by key; at most `limit`, others are counted in `omitted`."""

    def __init__(self, versions: Versions, limit: int) -> None:
        self.omitted = 0
        self._versions = versions
        self._limit = limit
        self._rows: dict[str, tuple[int, Row]] = {}
        self._removed: deque[tuple[int, str]] = deque(maxlen=KEPT_REMOVALS)
        self._oldest = 0
        """The version of the last removal that is forgotten."""

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return (row for _, row in self._rows.values())

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def get(self, key: str) -> Row | None:
        """The row of a key."""
        found = self._rows.get(key)
        return found[1] if found is not None else None

    def put(self, key: str, row: Row) -> bool:
        """Set a row; whether that is a change."""
        known = self._rows.get(key)
        if known is not None and known[1] == row:
            return False
        if known is None and len(self._rows) >= self._limit:
            self.omitted += 1
            return False
        self._rows[key] = (self._versions.following(), row)
        return True

    def merge(self, key: str, **fields: Any) -> bool:
        """Change some fields of a row that is there; whether that is a change."""
        known = self._rows.get(key)
        return known is not None and self.put(key, {**known[1], **fields})

    def remove(self, key: str) -> None:
        """Remove a row, if it is there."""
        if self._rows.pop(key, None) is not None:
            if len(self._removed) == KEPT_REMOVALS:
                self._oldest = self._removed[0][0]
            self._removed.append((self._versions.following(), key))

    def can_tell_since(self, version: int) -> bool:
        """Whether all removals since that version are remembered."""
        return version >= self._oldest

    def versions_since(self, version: int) -> list[int]:
        """The versions after that one at which rows have changed for the last time."""
        return [changed for changed, _ in self._rows.values() if changed > version]

    def since(self, version: int, until: int) -> tuple[list[Row], list[str]]:
        """The rows that have changed after a version and until another one, and the keys that were removed."""
        rows = [row for changed, row in self._rows.values() if version < changed <= until]
        return rows, [key for at, key in self._removed if version < at <= until and key not in self._rows]
