"""The journal of the directories in which copies have left temporaries, so that these are deleted without another copy.

A directory is added before a temporary is made in it, and removed when no copy uses it and none has left one there. On
disk that is an append-only file of records, `+PATH` and `-PATH`, each ended by a zero byte; what a node that was killed
had under way is found there by its next run. A node without a folder of state has the journal in memory.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from zmesh.files.beneath import PATH_ONLY, ROOT, components, open_beneath
from zmesh.files.partial import clean

log = logging.getLogger(__name__)

MOST_DIRECTORIES = 1000
"""Directories without a copy that are remembered; what is left in others is deleted with the next copy into them."""
MAX_RECORDS = 8 * MOST_DIRECTORIES
"""Records after which the file is written anew."""
MAX_BYTES = 16 * 1024 * 1024
"""Bytes of the file that are read."""
_END = b"\0"


class Leftovers:
    """The journal of one node, in the file `path`, or in memory if that is None. May be used by several threads."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._used: dict[bytes, int] = {}
        self._left: dict[bytes, None] = {}
        self._records = 0
        self.forgotten = 0
        """Directories that were forgotten because there were too many."""

    @property
    def is_kept(self) -> bool:
        """Whether it is on disk."""
        return self._path is not None

    @property
    def is_empty(self) -> bool:
        """Whether there are none; does not wait for a thread that writes the file."""
        return not self._left

    @property
    def directories(self) -> list[bytes]:
        """The directories in which there may be temporaries that no copy uses."""
        with self._lock:
            return list(self._left)

    def load(self) -> None:
        """Read what the last run of the node has left."""
        if self._path is None:
            return
        try:
            with open(self._path, "rb") as file:
                records = file.read(MAX_BYTES).split(_END)[:-1]
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("%s can't be read: %s", self._path, error)
            return
        with self._lock:
            for record in records:
                sign, path = record[:1], record[1:]
                if sign == b"+" and path.startswith(b"/"):
                    self._left[path] = None
                elif sign == b"-":
                    self._left.pop(path, None)
            self._bound()
            self._rewrite()

    def use(self, directory: int) -> bytes | None:
        """A copy is about to make a temporary in an open directory; its path, for `release`. None if it has none."""
        try:
            path = os.readlink(f"/proc/self/fd/{directory}".encode())
        except OSError:  # not Linux
            return None
        if not path.startswith(b"/"):
            return None
        with self._lock:
            if path not in self._used and path not in self._left:
                self._append(b"+" + path)
            self._used[path] = self._used.get(path, 0) + 1
        return path

    def release(self, path: bytes, *, left: bool) -> None:
        """A copy makes no more temporaries there; whether it has `left` one."""
        with self._lock:
            users = self._used.pop(path) - 1
            if users:
                self._used[path] = users
            if left:
                self._left[path] = None
                self._bound()
            elif not users and path not in self._left:
                self._append(b"-" + path)

    def sweep(self, older_than: float) -> int:
        """Delete the temporaries that were not written to for `older_than` seconds; how many were deleted."""
        deleted = 0
        for path in self.directories:
            try:
                directory = _open(path)
            except OSError:
                self._forget(path)
                continue
            try:
                cleaned = clean(directory, older_than)
            except OSError as error:
                log.warning("what copies have left in %r can't be deleted: %s", os.fsdecode(path), error)
                continue
            finally:
                os.close(directory)
            deleted += cleaned.deleted
            if not cleaned.kept:
                self._forget(path)
        return deleted

    def _forget(self, path: bytes) -> None:
        with self._lock:
            self._left.pop(path, None)
            if path not in self._used:
                self._append(b"-" + path)

    # -- with the lock held --------------------------------------------------------------------------------------

    def _bound(self) -> None:
        while len(self._left) > MOST_DIRECTORIES:
            oldest = next(iter(self._left))
            del self._left[oldest]
            self.forgotten += 1
            if oldest not in self._used:
                self._append(b"-" + oldest)

    def _append(self, record: bytes) -> None:
        if self._path is None:
            return
        self._records += 1
        if self._records > MAX_RECORDS:
            self._rewrite()
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, record + _END)
            finally:
                os.close(descriptor)
        except OSError as error:
            log.warning("%s can't be written: %s; what copies leave may stay", self._path, error)

    def _rewrite(self) -> None:
        assert self._path is not None
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.writelines(b"+" + path + _END for path in {**self._left, **dict.fromkeys(self._used)})
            os.replace(new, self._path)
        except OSError as error:
            log.warning("%s can't be written: %s; what copies leave may stay", self._path, error)
        self._records = len(self._left) + len(self._used)


def _open(path: bytes) -> int:
    """Open a directory by a path without symbolic links. Raises OSError."""
    root = os.open(ROOT, PATH_ONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_beneath(root, components(path))
    finally:
        os.close(root)
