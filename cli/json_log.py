"""Log lines as JSON, one object a line, for programs that collect logs.

The names of the fields are a contract (docs/reference/cli.md): `time`, `level`, `logger`, `message`, and where they are
known `node`, `event` and `detail`. In the journal of systemd a line begins with its priority (sd-daemon(3)), which the
journal takes off.
"""

from __future__ import annotations

import json
import logging
import time

from zmesh_cli.logs import level_of, with_priority

CLI = "zmesh_cli"
"""The logger that lines of the command itself name, such as the one that says that a node is ready."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one object; `in_journal`: for the journal of systemd."""

    def __init__(self, *, in_journal: bool = False) -> None:
        super().__init__()
        self._in_journal = in_journal

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, without its end."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            text += "\n" + self.formatStack(record.stack_info)
        known = {name: getattr(record, name, None) for name in ("node", "event")}
        return self.line(text, level=level_of(record), logger=record.name, created=record.created, **known)

    def line(self, text: str, *, level: str, logger: str = CLI, created: float | None = None, **known: object) -> str:
        """The line for a text; what follows its first line, such as a traceback, is its `detail`."""
        created = time.time() if created is None else created
        message, _, detail = text.partition("\n")
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))
        fields: dict[str, object] = {
            "time": f"{when}.{int(created % 1 * 1000):03}Z",
            "level": level,
            "logger": logger,
            "message": message,
            **{name: value for name, value in known.items() if isinstance(value, str)},
        }
        if detail:
            fields["detail"] = detail
        line = json.dumps(fields, separators=(",", ":"))  # in ASCII: it has no control characters for a terminal
        return with_priority(line, level=level) if self._in_journal else line
