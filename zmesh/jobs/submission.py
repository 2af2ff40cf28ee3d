"""A submission: the payload of `job:submit`, and the part of it that is stored.

The payload is a head and, after it, the payload for the directive that is to run. The head is its length in four bytes
(big-endian), and JSON. The output of a job travels in the same frames: a head and data.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from zmesh.arguments import check_content_type, check_directive, check_metadata
from zmesh.errors import ConfigError, RemoteError, did_you_mean
from zmesh.jobs.states import Restart, is_number

LENGTH = struct.Struct(">I")
MAX_HEAD = 64 * 1024
MAX_KEY = 128
MAX_TITLE = 200
MAX_PRIORITY = 100
MAX_SECONDS = 1e9
_NO_JOBS = {
    "job": "answers at once, and can't be a job",
    "job-admin": "is a permission, and can't be a job",
    "zmesh": "answers at once, and can't be a job",
    "tcp": "is a connection to its client, and can't be a job: 'zmesh forward' keeps a port open, [[forward]] for good",
    "file": "copies to or from its client, and can't be a job: 'zmesh cp' goes on where it was broken off",
}
"""Namespaces whose directives can't be jobs, each with the reason and the way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job as it is submitted: what runs, and how; the payload of the directive comes beside it.

    `number` is the one that its client has chosen, `key` a name that the client's program has for it.
    """

    number: str
    directive: str
    title: str
    key: str | None = None
    priority: int = 0
    restart: str = "never"
    seconds: float | None = None
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not is_number(self.number):
            raise ConfigError("number must be 16 hex digits")
        check_directive(self.directive)
        if (reason := _NO_JOBS.get(self.directive.partition(":")[0])) is not None:
            raise ConfigError(f"{self.directive} {reason}")
        if not isinstance(self.title, str) or len(self.title) > MAX_TITLE:
            raise ConfigError(f"title must be text of {MAX_TITLE} characters at most")
        if self.key is not None and not (isinstance(self.key, str) and 1 <= len(self.key) <= MAX_KEY):
            raise ConfigError(f"a key is text of 1 to {MAX_KEY} characters")
        if not _is_int(self.priority) or abs(self.priority) > MAX_PRIORITY:
            raise ConfigError(f"priority must be a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}")
        Restart.of(self.restart)
        if self.seconds is not None and not (
            isinstance(self.seconds, (int, float))
            and not isinstance(self.seconds, bool)
            and 0 < self.seconds < MAX_SECONDS
        ):
            raise ConfigError("seconds must be a number above 0")
        check_content_type(self.content_type or None)
        check_metadata(self.metadata)

    def head(self) -> bytes:
        """The head of the payload of `job:submit`."""
        return frame_head({name: getattr(self, name) for name in _FIELDS})

    @classmethod
    def of(cls, head: Mapping[str, Any]) -> Self:
        """The submission in a head. Raises RemoteError, which names what is wrong."""
        for name in head:
            if name not in _FIELDS:
                raise RemoteError(f"job:submit takes no {name!r}{did_you_mean(str(name), _FIELDS)}")
        try:
            return cls(**head)
        except (ConfigError, TypeError) as error:
            raise RemoteError(f"job:submit: {error}") from None

    def hasher(self) -> Any:
        """A SHA-256 of all that makes the job what it is, but for its payload, which is to be added."""
        content = [self.directive, self.priority, self.restart, self.seconds, self.content_type, dict(self.metadata)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode() + b"\0")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_FIELDS = tuple(Submission.__dataclass_fields__)


def frame_head(value: Mapping[str, Any]) -> bytes:
    """A head: its length, and JSON."""
    text = json.dumps(value, separators=(",", ":")).encode()
    return LENGTH.pack(len(text)) + text


def split_head(data: bytes) -> tuple[dict[str, Any], bytes] | None:
    """The head at the beginning of the data, and what follows it; None if it is not all there. Raises RemoteError."""
    if len(data) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack_from(data)
    if length > MAX_HEAD:
        raise RemoteError(f"the head of {length} bytes is longer than {MAX_HEAD}")
    end = LENGTH.size + length
    if len(data) < end:
        return None
    try:
        value = json.loads(data[LENGTH.size : end])
    except (ValueError, RecursionError):
        raise RemoteError("the head is not JSON") from None
    if not isinstance(value, dict):
        raise RemoteError("the head is no table")
    return value, data[end:]
