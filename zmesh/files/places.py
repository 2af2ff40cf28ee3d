"""The place of a file: a path of this machine, or a path of a node, which is written NODE:PATH."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeAlias

from zmesh.arguments import shown
from zmesh.core.message import is_address
from zmesh.errors import ConfigError

MAX_PATH = 4096
"""Bytes of a path (PATH_MAX of Linux)."""


@dataclass(frozen=True, slots=True)
class NodePath:
    """A path at a node; one that is relative starts in the home of the node's user.

    Raises ConfigError for a malformed node id or path.
    """

    node: str
    path: bytes

    def __init__(self, node: str, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        if not isinstance(node, str) or not is_address(node):
            raise ConfigError(f"{shown(node)} is no id of a node")
        object.__setattr__(self, "node", node)
        object.__setattr__(self, "path", checked(os.fsencode(path)))

    @classmethod
    def parse(cls, place: Place) -> NodePath | bytes:
        """The place that an argument stands for: bytes for a path of this machine.

        A text with a colon before its first slash names a node, as with scp(1): `edge-7:/etc/hosts`. A local path with
        such a colon is given as `./a:b`, or as a pathlib.Path. Raises ConfigError and TypeError.
        """
        if isinstance(place, NodePath):
            return place
        if not isinstance(place, (str, os.PathLike)):
            raise TypeError(f"a place is NODE:PATH, a path or a NodePath, not {type(place).__name__}")
        if isinstance(place, str) and ":" in place.partition("/")[0]:
            node, _, path = place.partition(":")
            if not is_address(node):
                raise ConfigError(
                    f"{shown(node)} in {shown(place)} is no id of a node; a local path is given as ./{place}"
                )
            return cls(node, path or ".")
        return checked(os.fsencode(place))

    def __str__(self) -> str:
        return f"{self.node}:{os.fsdecode(self.path)}"


Place: TypeAlias = "NodePath | str | os.PathLike[str] | os.PathLike[bytes]"


@dataclass(frozen=True, slots=True)
class Job:
    """Paths of one machine, and where they go on another; None is this machine.

    With `into` the destination must be a directory; with `contents` the source is what is in a directory.
    """

    node_from: str | None
    paths: tuple[bytes, ...]
    node_to: str | None
    destination: bytes
    into: bool
    contents: bool


def name_of(path: bytes) -> bytes | None:
    """The name under which a source is copied into a directory; None for `.`, `..` and `/`, whose content is."""
    last = path.rstrip(b"/").rpartition(b"/")[2]
    return None if last in (b"", b".", b"..") else last


def checked(path: bytes) -> bytes:
    """The path itself. Raises ConfigError for an empty one, one of more than MAX_PATH bytes, or with a zero byte."""
    if not path or b"\0" in path or len(path) > MAX_PATH:
        raise ConfigError(f"{shown(os.fsdecode(path))} is no path: it must have 1 to {MAX_PATH} bytes, none of them 0")
    return path


def written(path: bytes) -> str:
    """A path as errors and logs write it, in quotes."""
    return repr(os.fsdecode(path).encode("utf-8", "backslashreplace").decode())
