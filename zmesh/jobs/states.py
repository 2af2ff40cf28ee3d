"""The id of a job, its states, its restart policy, and its status as it travels and as programs see it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Self

from zmesh.arguments import shown
from zmesh.core.message import is_address
from zmesh.errors import ConfigError, RemoteError

ID_DIGITS = 16
MIN_DIGITS = 4
"""Digits of a job's number that name it, where no other begins with them."""
SCHEMA = "zmesh.job/1"
ON_RESTART = "on-restart"
NEVER = "never"
MAX_RESTARTS = 1000
_JOB_ID = re.compile(rf"([^/]+)/([0-9a-f]{{{MIN_DIGITS},{ID_DIGITS}}})\Z")
_DEPARTED = re.compile(r" left (\d+ (?:s|min|h|d)) ago")
_NUMBER = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}\Z")


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """Its state is unknown: its node is out of reach, or has lost its record."""

    @property
    def ended(self) -> bool:
        """Whether a job in this state at its node stays in it."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class Restart(NamedTuple):
    """When a job runs again: `times` at most (None: without limit), after its node has started anew; `on_failure`: also
    after it has failed.
    """

    times: int | None = 0
    on_failure: bool = False

    @classmethod
    def of(cls, text: str | int) -> Self:
        """`never`, `on-restart`, or a number of times. Raises ConfigError."""
        if isinstance(text, str):
            if text == NEVER:
                return cls(0)
            if text == ON_RESTART:
                return cls(None)
            if text.isascii() and text.isdigit():
                text = int(text)
        if isinstance(text, bool) or not isinstance(text, int) or not 1 <= text <= MAX_RESTARTS:
            raise ConfigError(
                f"restart is {NEVER!r}, {ON_RESTART!r} or a number from 1 to {MAX_RESTARTS}, not {shown(text)}"
            )
        return cls(text, on_failure=True)

    def __str__(self) -> str:
        if self.on_failure:
            return str(self.times)
        return NEVER if self.times == 0 else ON_RESTART


class JobId(NamedTuple):
    """The id of a job: the node that works, and its number there, or the first digits of that."""

    node: str
    number: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Parse `edge-7/3f9a8b...`. Raises ConfigError."""
        match = _JOB_ID.match(text) if isinstance(text, str) else None
        if match is None or not is_address(match[1]):
            raise ConfigError(
                f"{shown(text)} is no id of a job, which is a node and a number such as edge-7/3f9a8b0c4d5e6f70, or "
                f"its first {MIN_DIGITS} digits or more"
            )
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"{self.node}/{self.number}"


def is_number(text: object) -> bool:
    """Whether this is the whole number of a job."""
    return isinstance(text, str) and _NUMBER.match(text) is not None


def is_prefix(text: object) -> bool:
    """Whether this is the number of a job, or the beginning of one."""
    return isinstance(text, str) and _JOB_ID.match(f"node/{text}") is not None


class JobStatus(NamedTuple):
    """The state of a job at one moment.

    `id` names the node that works, `owner` the node that has submitted it. `title` is the command, or the directive.
    `submitted`, `started` and `ended` are times of the clock of its node (seconds since the epoch, UTC), `seconds` for
    how long it ran, which no change of that clock falsifies. `reason` says why it is in this state, and `code` is that
    of an error of zmesh. `returncode` is the exit code of a command, or minus the signal that killed it.
    `output_bytes` are kept, `omitted_bytes` were not. `attempts` counts its starts; what the last one has written
    begins at `attempt_offset`. `incarnation` is the run of its node in which it was started last, in 16 hex digits, and
    empty before; while it runs, that run holds a lease on it, which it renews before `lease_until`.
    """

    id: str
    state: JobState
    directive: str
    title: str
    owner: str
    key: str | None = None
    priority: int = 0
    restart: str = NEVER
    reason: str = ""
    code: str = ""
    returncode: int | None = None
    submitted: float = 0.0
    started: float | None = None
    ended: float | None = None
    seconds: float | None = None
    attempts: int = 0
    attempt_offset: int = 0
    output_bytes: int = 0
    omitted_bytes: int = 0
    incarnation: str = ""
    lease_until: float | None = None

    @property
    def node(self) -> str:
        """The node that works."""
        return self.id.partition("/")[0]

    @property
    def is_command(self) -> bool:
        """Whether it is a command."""
        return self.directive == "exec:run"

    @property
    def shown(self) -> str:
        """The state with its reason, in a line: `failed: exited with 3`."""
        return f"{self.state}: {self.reason}" if self.reason else str(self.state)

    def lost(self, reason: str) -> Self:
        """The status in state LOST, for a node that is out of reach."""
        return self._replace(state=JobState.LOST, reason=reason, code="unreachable", lease_until=None)

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return {"schema": SCHEMA, **self._asdict()}

    @classmethod
    def from_json(cls, node: str, value: object) -> Self:
        """The status in an answer of `node`. Raises RemoteError for a malformed one."""
        try:
            if not isinstance(value, Mapping):
                raise TypeError(f"a status is a table, not {type(value).__name__}")
            fields = {name: value[name] for name in cls._fields if name in value}
            return cls(**fields)._checked()
        except (TypeError, ValueError, KeyError):
            raise RemoteError(f"node {node!r} answers with something else than a job", node=node) from None

    @classmethod
    def many_from_json(cls, node: str, value: object) -> list[Self]:
        """The statuses in a page of `job:list`: a table of `fields`, by name, and `rows`. Raises RemoteError."""
        try:
            if not isinstance(value, Mapping):
                raise TypeError(f"a page is a table, not {type(value).__name__}")
            names, rows = tuple(value["fields"]), value["rows"]
            if names == cls._fields:
                return [cls(*row)._checked() for row in rows]
            return [cls.from_json(node, dict(zip(names, row, strict=True))) for row in rows]
        except (TypeError, ValueError, KeyError):
            raise RemoteError(f"node {node!r} answers with something else than jobs", node=node) from None

    def _checked(self) -> Self:
        """Itself, with the state as what it is. Raises ValueError and TypeError."""
        if not isinstance(self.id, str):
            raise TypeError("an id is text")
        return self._replace(state=JobState(self.state))


def contact_lost(text: str) -> str:
    """A status line from the text of the error: how long a node was out of reach, as in `lost contact 12 s ago`."""
    match = _DEPARTED.search(text)
    return f"lost contact {match[1]} ago" if match else f"lost contact{': ' if text else ''}{text}"
