"""The values that are stored of a job: its owner, its output in pieces, and all that is needed to run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zmesh.jobs.queue import Unfinished
from zmesh.jobs.states import JobStatus

PIECE_BYTES = 256 * 1024
STDOUT, STDERR, REPLY, MORE = 1, 2, 3, 4
"""The kinds of pieces of output: of a command's stdout or stderr; the beginning of a reply, or the rest of it."""


class Piece(NamedTuple):
    """A piece of a job's output. `offset`: bytes of output before it; `head`: what a reply begins with."""

    kind: int
    data: bytes
    head: str | None = None
    offset: int = 0
    attempt: int = 1
    row: int = 0


class Owner(NamedTuple):
    """The submitter of a job: a node, and the tags that it had."""

    id: str
    tags: tuple[str, ...] = ()
    own: bool = False
    """The node's own user, who may do anything."""


class Task(NamedTuple):
    """A job as an attempt at it needs it; `seconds`: how long it may run, None: without limit."""

    sequence: int
    number: str
    owner: Owner
    directive: str
    title: str
    content_type: str
    metadata: Mapping[str, str]
    seconds: float | None
    attempt: int
    input_bytes: int
    output_bytes: int


class Recovered(NamedTuple):
    """The jobs that a node finds when it starts: those that wait, those that ended with its last run, and the
    processes of these. `seen`: when that run was last noted, in seconds since 1970.
    """

    waiting: list[Unfinished]
    ended: list[JobStatus]
    processes: list[str]
    seen: float


class Conflict(Exception):
    """A number or a key is that of another job; its text is for the submitter."""
