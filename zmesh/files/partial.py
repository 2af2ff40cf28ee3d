"""The temporary beside its destination that a file is written into, until it is whole and takes its name.

Its name follows from what is copied there by whom, so that a copy which was broken off is resumed in it. Two copies of
the same file at a time do not share it: it is locked (flock(2)), and the second one takes a name of its own. What is
left behind is deleted by age: by the node, which keeps a journal of such directories (`leftovers.py`), and when
something else is copied into the same directory.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import NamedTuple

from xxhash import xxh3_128

from zmesh.files.records import Part

PREFIX, SUFFIX = b".zmesh-", b".part"
_NAME = re.compile(rb"\.zmesh-[0-9a-f]{32}\.part")
WORTH_KEEPING = 64 * 1024
"""Bytes from which on what was received of a file is kept for another attempt."""
MOST_KEPT = 256
"""Interrupted copies that one directory keeps; the oldest ones go."""
LOOKED_AT = 100_000
"""Entries of a directory among which interrupted copies are looked for."""
READ_BYTES = 1024 * 1024
ZEROS = bytes(READ_BYTES)
_ATTEMPTS = 8


def is_partial(name: bytes) -> bool:
    """Whether this is the name of a temporary."""
    return _NAME.fullmatch(name) is not None


def name_for(key: bytes) -> bytes:
    """The name of the temporary of a key of 16 bytes."""
    return PREFIX + key.hex().encode() + SUFFIX


def key_of(*parts: bytes | int) -> bytes:
    """16 bytes for the name of a temporary, from what identifies the file, its version and its sender."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else b"%d" % part
        digest.update(b"%d:" % len(data) + data)
    return digest.digest()[:16]


class Partial:
    """An open temporary in the open directory `directory`, which is closed with it. To be used in one thread at a time.

    `size` is where it ends so far. It ends in `commit`, `drop` or `keep`.
    """

    def __init__(self, directory: int, name: bytes, descriptor: int) -> None:
        self._directory = directory
        self._name = name
        self._descriptor = descriptor
        self._digest = xxh3_128()
        self.size = os.fstat(descriptor).st_size

    @classmethod
    def open(cls, directory: int, key: bytes, *, unless_used: bool = False) -> Partial:
        """Open the temporary of that key with what it holds already, or a new one if that is in use.

        Raises OSError, with `unless_used` BlockingIOError if it is in use.
        """
        name = name_for(key)
        for _ in range(_ATTEMPTS):
            try:
                descriptor = os.open(name, _FLAGS, 0o600, dir_fd=directory)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):  # something else has the name
                    raise
            else:
                with ExitStack() as undo:
                    undo.callback(_release, descriptor)
                    if _is_own(directory, name, descriptor, unless_used=unless_used):
                        undo.pop_all()
                        return cls(directory, name, descriptor)
            name = name_for(os.urandom(16))
        raise OSError(errno.EBUSY, "no temporary can be made here")

    def resume(self, offset: int) -> None:
        """Go on from `offset`: take what is before that into the digest, and drop what is behind it. Raises OSError."""
        os.ftruncate(self._descriptor, offset)
        self.size = offset
        at = 0
        while at < offset:
            data = os.pread(self._descriptor, READ_BYTES, at)
            if not data:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self._digest.update(data)
            at += len(data)

    def restart(self) -> None:
        """Begin anew. Raises OSError."""
        os.ftruncate(self._descriptor, 0)
        self._digest = xxh3_128()
        self.size = 0

    def write(self, parts: Iterable[Part]) -> None:
        """Append. Raises OSError."""
        for part in parts:
            view = memoryview(part)
            self._digest.update(view)
            while view:
                written = os.pwrite(self._descriptor, view, self.size)
                self.size += written
                view = view[written:]

    def hole(self, size: int) -> None:
        """Append so many zeros without writing them. Raises OSError."""
        left = size
        while left > 0:
            self._digest.update(ZEROS if left >= READ_BYTES else ZEROS[:left])
            left -= READ_BYTES
        os.ftruncate(self._descriptor, self.size + size)
        self.size += size

    def digest(self) -> bytes:
        """The XXH3 of all of it, 128 bits in 16 bytes."""
        return self._digest.digest()

    def commit(self, name: bytes, mode: int, mtime: int) -> None:
        """Sync it to the disk with that mode and time (ns), and rename it to `name`. Raises OSError, and is deleted."""
        try:
            os.fchmod(self._descriptor, mode)
            os.utime(self._descriptor, ns=(time.time_ns(), mtime))
            os.fsync(self._descriptor)
            os.rename(self._name, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError:
            self.drop()
            raise
        self._close()

    def drop(self) -> None:
        """Delete it."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._directory)
            self._close()

    def keep(self) -> bool:
        """Leave it for another attempt, if that is worth it; whether it is."""
        worth = self.size >= WORTH_KEEPING
        if worth:
            self._close()
        else:
            self.drop()
        return worth

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            _release(descriptor)
            os.close(self._directory)


_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def _is_own(directory: int, name: bytes, descriptor: int, *, unless_used: bool = False) -> bool:
    """Lock it; whether it is a file of this user, in no other use, under this name only.

    Raises BlockingIOError with `unless_used` if it is in use.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found, named = os.fstat(descriptor), os.stat(name, dir_fd=directory, follow_symlinks=False)
    except BlockingIOError:
        if unless_used:
            raise
        return False
    except OSError:
        return False
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_nlink == 1
        and found.st_uid == os.geteuid()
        and (found.st_dev, found.st_ino) == (named.st_dev, named.st_ino)
    )


def _release(descriptor: int) -> None:
    """Unlock it and close it: a child that was forked meanwhile has a copy, which would keep it locked."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


class Cleaned(NamedTuple):
    """How many interrupted copies of a directory were deleted, and how many are there yet."""

    deleted: int
    kept: int


def clean(directory: int, older_than: float) -> Cleaned:
    """Delete the interrupted copies of a directory that were not written to for so many seconds.

    The oldest ones go, too, if there are more than MOST_KEPT. Raises OSError if the directory can't be read.
    """
    found: list[tuple[float, bytes]] = []
    listing = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(listing) as entries:
            for _, each in zip(range(LOOKED_AT), entries, strict=False):
                name = os.fsencode(each.name)
                if is_partial(name):
                    with suppress(OSError):
                        found.append((each.stat(follow_symlinks=False).st_mtime, name))
    finally:
        os.close(listing)
    found.sort()
    since, surplus = time.time() - older_than, len(found) - MOST_KEPT
    deleted = sum(
        _delete_unused(directory, name)
        for number, (changed, name) in enumerate(found)
        if changed < since or number < surplus
    )
    return Cleaned(deleted, len(found) - deleted)


def _delete_unused(directory: int, name: bytes) -> bool:
    """Delete a temporary that no copy is writing to."""
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
    except OSError:
        return False
    try:
        if not _is_own(directory, name, descriptor):
            return False
        os.unlink(name, dir_fd=directory)
    except OSError:
        return False
    finally:
        _release(descriptor)
    return True
