"""What is stored of a job, as values: its owner, its output in pieces, what has to be known to run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zmesh.jobs.queue import Unfinished
from zmesh.jobs.states import JobStatus

PIECE_BYTES = 256 * 1024
STDOUT, STDERR, REPLY, MORE = 1, 2, 3, 4
"""What a piece of output is: of a command's stdout or stderr; the beginning of a reply, or the rest of it."""


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
    """What has to be known of a job to run it."""

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
    """What a node finds when it starts: jobs that wait, those that ended with its last run, and their processes."""

    waiting: list[Unfinished]
    ended: list[JobStatus]
    processes: list[str]
    seen: float


class Conflict(Exception):
    """A number or a key is that of another job; its text is for the submitter."""
