"""Where the library's log goes: nowhere for a command, unless it is asked for; to stderr for a node."""

from __future__ import annotations

import logging
import os

from zmesh_cli.terminal import printable


class _Escaped(logging.Formatter):
    """Log lines quote what other nodes said, so control characters are escaped; tracebacks keep their lines."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


def set_up_logging(verbose: int, level: int | None = None) -> None:
    """Log to stderr from `level` on, or what `verbose` says: INFO for 1 (and with ZMESH_DEBUG set), DEBUG for more."""
    if verbose or os.environ.get("ZMESH_DEBUG"):
        level = logging.INFO if verbose < 2 else logging.DEBUG
    root = logging.getLogger()
    if level is None:
        root.addHandler(logging.NullHandler())
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_Escaped("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(level)
