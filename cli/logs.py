"""Set-up of the log: a node logs to stderr, a command only with -v or ZMESH_DEBUG.

The lines for the operator of a node are plain, others name their level and logger. All begin with the time in UTC,
unless stderr is the journal of systemd, which records the time itself. With `log_format` json, all are JSON.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from zmesh_cli import terminal
from zmesh_cli.terminal import STDERR, printable

JOURNALS = ("zmesh.observe.journal", "zmesh.remote.audit")
"""The loggers of the lines for operators."""


class _Escaped(logging.Formatter):
    """Escapes control characters, with which quoted text of other nodes could forge lines."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, text: str, plain: str | None = None) -> None:
        when = "" if _is_journald() else "%(asctime)s "
        super().__init__(when + text)
        self.converter = time.gmtime
        self._plain = _Escaped(plain) if plain is not None else None

    def format(self, record: logging.LogRecord) -> str:
        if self._plain is not None and record.name in JOURNALS:
            return self._plain.format(record)
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is the standard library's
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return printable(super().formatException(ei), keep="\n\t")

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return printable(super().formatStack(stack_info), keep="\n\t")


def set_up_logging(verbose: int, *, node: bool = False, log_format: str | None = None) -> None:
    """Log to stderr at level INFO if `verbose` is 1 or ZMESH_DEBUG is set, DEBUG if it is more.

    If it is 0, a node logs the lines for its operator, and warnings; a command logs nothing. `log_format` None: that of
    ZMESH_LOG_FORMAT.
    """
    verbose = verbose or bool(os.environ.get("ZMESH_DEBUG"))
    set_format(log_format or os.environ.get("ZMESH_LOG_FORMAT", "text"))
    root = logging.getLogger()
    if not (verbose or node):
        root.addHandler(logging.NullHandler())
        return
    root.addHandler(logging.StreamHandler())
    set_level("warning" if not verbose else "info" if verbose < 2 else "debug")


def set_format(name: str) -> None:
    """Log in one of the formats of the setting `log_format` from now on; also what is printed on stderr."""
    terminal.format_line = None
    if name == "json":
        from zmesh_cli.json_log import JsonFormatter  # here: few programs log JSON

        formatter = JsonFormatter(in_journal=_is_journald())
        terminal.format_line = formatter.line
        for handler in logging.getLogger().handlers:
            handler.setFormatter(formatter)
    else:
        _set_plain(logging.getLogger().level)


def set_level(name: str) -> None:
    """Log at one of the levels of the setting `log_level`; at `warning`, also the lines for the operator."""
    root, level = logging.getLogger(), getattr(logging, name.upper())
    if terminal.format_line is None:
        _set_plain(level)
    else:
        set_format("json")
    root.setLevel(level)
    for journal in JOURNALS:
        logging.getLogger(journal).setLevel(logging.INFO if name == "warning" else logging.NOTSET)


def _set_plain(level: int) -> None:
    plain = "%(message)s" if level > logging.INFO else None
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Escaped("%(levelname)-7s %(name)s: %(message)s", plain))


def _is_journald() -> bool:
    """Whether stderr is the stream whose device and inode JOURNAL_STREAM names (systemd.exec(5))."""
    try:
        status = os.fstat(STDERR)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
