"""Paths that lead nowhere outside of the directories that are allowed, whatever `..` and symbolic links they have.

Each component is opened beneath the one before it without following links (openat(2) with O_NOFOLLOW), so that nothing
that is exchanged meanwhile leads elsewhere; a link is read and its components are walked in the same way. A link that
is absolute, and `..` at the top, lead outside. That is what RESOLVE_BENEATH of openat2(2) does, on every kernel; where
the top is `/`, nothing is outside.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack

MAX_LINKS = 40
"""Symbolic links that a path may lead through (MAXSYMLINKS of Linux)."""
MAX_DEPTH = 256
"""Directories that a path may lead through."""
ROOT = b"/"
PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY)
"""Opens a directory only to go on from it (open(2)); where there is no O_PATH it must be readable, too."""
_WALK = PATH_ONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Outside(Exception):
    """The path leads out of the directories that are allowed."""


class Spot:
    """The target of a path: `name` in the open directory `parent`, or `parent` itself if `name` is None.

    There need be nothing of that name. `depth` counts the directories between the allowed one and `parent`. Closed by
    `close`, and as garbage.
    """

    def __init__(self, top: bytes, parent: int, name: bytes | None, depth: int) -> None:
        self.top = top
        self.parent = parent
        self.name = name
        self.depth = depth

    def close(self) -> None:
        """Close the directory."""
        parent, self.parent = self.parent, -1
        if parent >= 0:
            os.close(parent)

    __del__ = close


def find(tops: Sequence[bytes], path: bytes, *, follow: bool) -> Spot:
    """Resolve an absolute path, beneath one of the directories `tops`.

    `follow` is whether a link in the last place is followed. Raises Outside, and OSError for what is not there, is no
    directory or may not be searched.
    """
    names = components(path)
    for top in sorted(tops, key=len):
        above = components(top)
        if names[: len(above)] == above and b".." not in above:
            return _walk(top, names[len(above) :], follow=follow)
    raise Outside


def components(path: bytes) -> list[bytes]:
    """The components of a path, without those that mean nothing."""
    return [name for name in path.split(b"/") if name not in (b"", b".")]


def open_beneath(top: int, names: Sequence[bytes], flags: int = os.O_RDONLY | os.O_DIRECTORY) -> int:
    """Open what lies at `names` beneath the open directory `top`, where no component may be a link. Raises OSError."""
    with ExitStack() as stack:
        at = top
        for name in names[:-1]:
            at = os.open(name, _WALK, dir_fd=at)
            stack.callback(os.close, at)
        last = names[-1] if names else b"."
        return os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)


def is_beneath(target: bytes, depth: int) -> bool:
    """Whether a link with this target, in a directory `depth` levels beneath the top, leads nowhere above the top.

    `..` is taken at its beginning only: after a name, which may be a link itself, it may lead up any number of times.
    """
    if target.startswith(b"/"):
        return False
    names = components(target)
    ups = 0
    while ups < len(names) and names[ups] == b"..":
        ups += 1
    return ups <= depth and b".." not in names[ups:]


def _walk(top: bytes, names: Sequence[bytes], *, follow: bool) -> Spot:
    with ExitStack() as stack:
        opened = [_opened(stack, top, PATH_ONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        left, links = deque(names), 0
        name: bytes | None = None
        while left:
            each = left.popleft()
            if each == b"..":
                if len(opened) > 1:
                    opened.pop()
                elif top != ROOT:
                    raise Outside
                continue
            link = _link(each, opened[-1]) if left or follow else None
            if link is not None:
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if link.startswith(b"/"):
                    if top != ROOT:
                        raise Outside
                    del opened[1:]
                left.extendleft(reversed(components(link)))
            elif left or _is_directory(each, opened[-1]):
                opened.append(_opened(stack, each, _WALK, opened[-1]))
                if len(opened) > MAX_DEPTH:
                    raise OSError(errno.ENAMETOOLONG, f"more than {MAX_DEPTH} directories deep")
            else:
                name = each
        return Spot(top, os.dup(opened[-1]), name, len(opened) - 1)


def _opened(stack: ExitStack, name: bytes, flags: int, parent: int | None = None) -> int:
    descriptor = os.open(name, flags, dir_fd=parent)
    stack.callback(os.close, descriptor)
    return descriptor


def _link(name: bytes, parent: int) -> bytes | None:
    """The target of a link; None if it is none, or is not there."""
    try:
        return os.readlink(name, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def _is_directory(name: bytes, parent: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
