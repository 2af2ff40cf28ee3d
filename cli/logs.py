"""Set-up of the log: a node logs to stderr, a command only with -v or ZMESH_DEBUG.

The lines for the operator of a node are plain, others name their level and logger. All begin with the time in UTC,
unless stderr is the journal of systemd, which records the time itself: there they begin with their priority
(sd-daemon(3)), which the journal takes off. With `log_format` json, all are JSON.
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
LEVELS = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
"""The priorities of syslog (RFC 5424, section 6.2.1)."""
_is_json = False


class _Escaped(logging.Formatter):
    """Escapes control characters, with which quoted text of other nodes could forge lines."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, text: str, plain: str | None = None, *, in_journal: bool = False) -> None:
        super().__init__(text if in_journal else f"%(asctime)s {text}")
        self._in_journal = in_journal
        self.converter = time.gmtime
        self._plain = _Escaped(plain, in_journal=in_journal) if plain is not None else None

    def format(self, record: logging.LogRecord) -> str:
        if self._plain is not None and record.name in JOURNALS:
            return self._plain.format(record)
        text = super().format(record)
        return with_priority(text, level=level_of(record)) if self._in_journal else text

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is the standard library's
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return printable(super().formatException(ei), keep="\n\t")

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return printable(super().formatStack(stack_info), keep="\n\t")


def level_of(record: logging.LogRecord) -> str:
    """The name of the level of a record, one of the setting `log_level`."""
    return next((name for number, name in sorted(LEVELS.items(), reverse=True) if record.levelno >= number), "debug")


def with_priority(text: str, *, level: str) -> str:
    """A text for the journal of systemd, which takes each line for an entry."""
    return "\n".join(f"<{PRIORITIES[level]}>{line}" for line in text.split("\n"))


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
    global _is_json
    _is_json = name == "json"
    terminal.format_line = _journal_line if in_journal() else None
    if name == "json":
        from zmesh_cli.json_log import JsonFormatter  # here: few programs log JSON

        formatter = JsonFormatter(in_journal=in_journal())
        terminal.format_line = formatter.line
        for handler in logging.getLogger().handlers:
            handler.setFormatter(formatter)
    else:
        _set_plain(logging.getLogger().level)


def set_level(name: str) -> None:
    """Log at one of the levels of the setting `log_level`; at `warning`, also the lines for the operator."""
    root, level = logging.getLogger(), getattr(logging, name.upper())
    if _is_json:
        set_format("json")
    else:
        _set_plain(level)
    root.setLevel(level)
    for journal in JOURNALS:
        logging.getLogger(journal).setLevel(logging.INFO if name == "warning" else logging.NOTSET)


def _set_plain(level: int) -> None:
    plain = "%(message)s" if level > logging.INFO else None
    formatter = _Escaped("%(levelname)-7s %(name)s: %(message)s", plain, in_journal=in_journal())
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)


def _journal_line(text: str, *, level: str) -> str:
    return with_priority(printable(text), level=level)


def in_journal() -> bool:
    """Whether stderr is the stream whose device and inode JOURNAL_STREAM names (systemd.exec(5))."""
    try:
        status = os.fstat(STDERR)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
