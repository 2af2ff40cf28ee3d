"""The storage of large payloads: the bytes that memory may hold, and the temporary files for the rest."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from typing import BinaryIO, cast

HAS_LINKAT = os.link in os.supports_dir_fd
"""Whether this system has linkat(2)."""


class Memory:
    """How many bytes the arriving payloads of this process hold in memory."""

    __slots__ = ("_held", "_lock", "_released")

    def __init__(self) -> None:
        self._held = 0
        self._lock = threading.Lock()
        self._released: deque[int] = deque()
        os.register_at_fork(after_in_child=self._in_child)

    def charge(self, size_bytes: int) -> int:
        """Count `size_bytes` more; what is held then, in bytes."""
        with self._lock:
            while self._released:
                self._held = max(0, self._held - self._released.popleft())  # a fork may release what its parent charged
            self._held += size_bytes
            return self._held

    def release(self, size_bytes: int) -> None:
        """Count `size_bytes` less. Takes no lock: a garbage collection may call it while its thread holds the lock."""
        self._released.append(size_bytes)

    def _in_child(self) -> None:
        """The payloads of the parent are not this process's, and another thread of the parent may hold the lock."""
        self._held = 0
        self._lock = threading.Lock()
        self._released.clear()


memory = Memory()
"""The account of this process."""


def default_folder() -> str:
    """The system's folder for temporary files."""
    import tempfile  # here, because most programs never come here and would pay for it at their start

    return tempfile.gettempdir()


class Spool:
    """A temporary file that is written once, from start to end, and then read at any position, in any thread.

    It has no name until `path` is called (Linux, O_TMPFILE), so that until then it is gone with the process, however
    that ends. It is deleted by `close`, at the latest with this object. Making, writing, reading and naming it raise
    OSError if the system does.
    """

    __slots__ = ("_closing", "_file", "_folder", "_lock", "_name", "_path", "size")

    def __init__(self, folder: str | None, name: str | None = None) -> None:
        """`name` is what the file is called once it has a name; a random one if None."""
        self._path: str | None = None
        self._folder = folder or default_folder()
        self._name = name
        self._lock = threading.Lock()
        self._closing = False
        self.size = 0
        try:
            descriptor = os.open(self._folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except (AttributeError, OSError):  # not Linux, or a file system that can't
            import tempfile  # here, because most programs never come here and would pay for it at their start

            self._file = cast(BinaryIO, tempfile.TemporaryFile(dir=self._folder))
        else:
            self._file = open(descriptor, "w+b")

    @classmethod
    def adopt(cls, descriptor: int, size: int, folder: str, name: str) -> Spool:
        """The spool of another process, which gave this one its `fileno`."""
        spool = cls.__new__(cls)
        spool._path, spool._folder, spool._name, spool.size = None, folder, name, size
        spool._lock, spool._closing = threading.Lock(), False
        spool._file = open(descriptor, "rb")
        return spool

    def fileno(self) -> int:
        """The file's descriptor; all that was written can be read there."""
        self._file.flush()
        return self._file.fileno()

    def write(self, data: bytes) -> None:
        """Append `data`; not after a read."""
        self._file.write(data)
        self.size += len(data)

    def read(self, position: int, size: int) -> bytes:
        """The `size` bytes from `position` on; fewer at the end only. Raises ValueError once it is closed."""
        try:
            with self._lock:
                self._file.seek(position)
                return self._file.read(size)
        finally:
            if self._closing:  # meanwhile
                self.close()

    def path(self) -> str:
        """The path of the file, which gets its name at the first call."""
        if self._path is None:
            self._file.flush()
            self._path = self._link() or self._copy()
        return self._path

    def close(self) -> None:
        """Delete the file, as soon as no other thread reads it; never waits for that. Harmless when done twice."""
        self._closing = True
        if self._lock.acquire(blocking=False):
            try:
                self._delete()
            finally:
                self._lock.release()

    def _delete(self) -> None:
        path, self._path = self._path, None
        with suppress(OSError):  # what a full disk did not take is not wanted any more
            self._file.close()
        if path is not None:
            with suppress(FileNotFoundError):  # the program may have moved the file
                os.unlink(path)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()

    def _link(self) -> str | None:
        """Give the file a name without copying it; None where that can't be done."""
        if not HAS_LINKAT:
            return None
        name = self._name or f"zmesh-{os.urandom(8).hex()}"
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
            try:  # with `dst_dir_fd` os.link calls linkat(2), and only that follows the link in /proc
                os.link(f"/proc/self/fd/{self._file.fileno()}", name, dst_dir_fd=folder, follow_symlinks=True)
            finally:
                os.close(folder)
        except OSError:
            return None
        return os.path.join(os.path.abspath(self._folder), name)

    def _copy(self) -> str:
        import shutil
        import tempfile

        if self._name is None:
            descriptor, path = tempfile.mkstemp(prefix="zmesh-", dir=self._folder)
        else:
            path = os.path.join(os.path.abspath(self._folder), self._name)
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        self._path = path  # from here on `close` deletes it
        with open(descriptor, "wb") as named:
            self._file.seek(0)
            shutil.copyfileobj(self._file, named, 1 << 20)
        anonymous, self._file = self._file, open(path, "rb")
        anonymous.close()
        return path
