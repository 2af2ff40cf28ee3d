"""The destination of a copy: its directory, the name there, and the rules for writing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from zmesh.files import beneath
from zmesh.files.beneath import PATH_ONLY, ROOT, Outside, Spot, open_beneath
from zmesh.files.leftovers import Leftovers
from zmesh.files.partial import is_partial, name_for
from zmesh.files.places import written
from zmesh.files.records import Entry

PERMISSIONS = 0o777
"""Bits of the mode that are kept; set-user-ID, set-group-ID and the sticky bit are not."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a receiver: the most bytes of one file (None: no limit), the seconds for which it keeps the
    temporary of an interrupted copy, and the journal of those.
    """

    max_file_bytes: int | None = None
    keep_partial: float = 7 * 86_400.0
    leftovers: Leftovers | None = None


class Target:
    """A destination that was resolved; its methods block, and are called in one thread.

    `rename` is the name that the source gets there, None to go into the directory under its own.
    """

    def __init__(self, spot: Spot, path: bytes, *, into: bool, contents: bool) -> None:
        self._spot = spot
        self._path = path
        self._slash = path.endswith(b"/")
        self._contents = contents
        self.rename = spot.name
        if into and spot.name is not None:
            spot.close()
            raise OSError(errno.ENOTDIR, "there is no such directory")

    @classmethod
    def find(cls, tops: Sequence[bytes], path: bytes, *, into: bool, contents: bool) -> Target:
        """Find the destination `path`, an absolute one. Raises Outside and OSError.

        A link that leads to a directory is that directory; any other link is itself replaced. With `into` the path must
        be a directory.
        """
        spot = beneath.find(tops, path, follow=False)
        if spot.name is not None:
            try:
                followed = beneath.find(tops, path, follow=True)
            except OSError:
                pass
            except Outside:
                spot.close()
                raise
            else:
                if followed.name is None:
                    spot, followed = followed, spot
                followed.close()
        return cls(spot, path, into=into, contents=contents)

    def close(self) -> None:
        """Close the directory."""
        self._spot.close()

    def place(self, entry: Entry) -> tuple[bytes, ...]:
        """The place of an entry: the components of its path beneath the directory."""
        if self.rename is None:
            return entry.names
        return (self.rename, *(entry.names if self._contents else entry.names[1:]))

    def check(self, names: Sequence[bytes], entry: Entry) -> None:
        """Raise OSError for an entry that must not be made at a place."""
        if self.rename is not None and self._slash and len(names) == 1 and not entry.is_directory:
            raise OSError(errno.ENOTDIR, "there is no such directory")
        if any(is_partial(name) for name in names):
            raise OSError(errno.EPERM, "the name is one of temporaries of copies")

    def shown(self, names: Sequence[bytes]) -> bytes:
        """The path of a place, for errors and logs."""
        top = self._path.rstrip(b"/").rpartition(b"/")[0] if self.rename is not None else self._path.rstrip(b"/")
        return b"/".join((top, *names)) if names else self._path

    def directory(self, names: Sequence[bytes]) -> int:
        """Open the directory in which the place `names` lies. Raises OSError."""
        return open_beneath(self._spot.parent, names[:-1], PATH_ONLY | os.O_DIRECTORY)

    def stat(self, names: Sequence[bytes]) -> os.stat_result | None:
        """The status (stat(2)) of what is at a place; None if nothing is there. Raises OSError."""
        parent = self.directory(names)
        try:
            return os.stat(names[-1], dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        finally:
            os.close(parent)

    def make_directory(self, names: Sequence[bytes]) -> None:
        """Make a directory that only this user may enter, unless it is there; a link is replaced. Raises OSError."""
        if not names:
            return
        parent = self.directory(names)
        try:
            found = None
            with suppress(FileNotFoundError):
                found = os.stat(names[-1], dir_fd=parent, follow_symlinks=False)
            if found is not None and stat.S_ISDIR(found.st_mode):
                return
            if found is not None and stat.S_ISLNK(found.st_mode):
                os.unlink(names[-1], dir_fd=parent)
            os.mkdir(names[-1], 0o700, dir_fd=parent)
        finally:
            os.close(parent)

    def finish_directory(self, names: Sequence[bytes], entry: Entry) -> None:
        """Give a directory its mode and time; the one that the path of the copy names keeps its own. Raises OSError."""
        if not names:
            return
        descriptor = open_beneath(self._spot.parent, names)
        try:
            os.fchmod(descriptor, entry.mode & PERMISSIONS)
            os.utime(descriptor, ns=(entry.mtime, entry.mtime))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_link(self, names: Sequence[bytes], entry: Entry) -> None:
        """Make a link in one step, in the place of a file or link. Raises OSError, also for one that leads out."""
        if not names:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        depth = self._spot.depth + len(names) - 1
        if self._spot.top != ROOT and not beneath.is_beneath(entry.target, depth):
            raise OSError(0, f"a link to {written(entry.target)} would lead out of the directories of [file] write")
        parent = self.directory(names)
        temporary = name_for(os.urandom(16))
        try:
            with suppress(OSError):
                if os.readlink(names[-1], dir_fd=parent) == entry.target:
                    os.utime(names[-1], ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
                    return
            os.symlink(entry.target, temporary, dir_fd=parent)
            try:
                os.utime(temporary, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
                os.rename(temporary, names[-1], src_dir_fd=parent, dst_dir_fd=parent)
            except OSError:
                os.unlink(temporary, dir_fd=parent)
                raise
        finally:
            os.close(parent)
