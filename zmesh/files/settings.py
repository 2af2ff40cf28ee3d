"""The table `[file]` of the configuration: which paths of a node may be copied from and to, and within which limits."""

from __future__ import annotations

import os
from dataclasses import dataclass

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class FileSettings:
    """The table `[file]`. Raises ValueError for a value out of its limits."""

    read: tuple[str, ...] = ("/",)
    """Directories beneath which files may be read."""
    write: tuple[str, ...] = ("/",)
    """Directories beneath which files may be written; no link that leads out of them is made."""
    directory: str = ""
    """The directory that relative paths start in; the home of the node's user if empty."""
    max_transfers: int = 64
    """Copies that may be under way at a time."""
    max_transfers_per_node: int = 48
    """Of those, copies of one other node."""
    max_file_bytes: int | None = None
    """Most bytes of a file that is written; None: no limit."""
    keep_partial: float = 7 * DAY
    """Seconds after which the temporary of an interrupted copy is deleted."""

    def __post_init__(self) -> None:
        for name in ("read", "write"):
            for path in getattr(self, name):
                if not os.path.isabs(path) or ".." in path.split("/") or "\0" in path:
                    raise ValueError(f"{name} must hold absolute paths without '..'")
        if self.directory and not os.path.isabs(self.directory):
            raise ValueError("directory must be an absolute path")
        for name in ("max_transfers", "max_transfers_per_node"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more")
        if self.max_file_bytes is not None and self.max_file_bytes < 0:
            raise ValueError("max_file_bytes must be 0 or more")
        if not self.keep_partial >= 0:
            raise ValueError("keep_partial must be a number of seconds, 0 or more")
