"""The folder that a node's identity lies in: keys that only their user reads, each file written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from zmesh.errors import ConfigError

FOLDER_MODE = 0o700
SECRET_MODE = 0o600
PUBLIC_MODE = 0o644
MAX_FILE = 16 * 1024 * 1024
"""Bytes that a file may have."""
PROFILE = "mesh.json"
"""The file that is written last: a folder that has it holds an identity."""
LOCK = ".lock"
LOCKED_WITHIN = 10.0
"""Seconds to wait for another process that changes the state."""
LOCK_AGAIN = 0.02


class StateError(ConfigError):
    """The folder can't be read or written; nothing in it was changed."""


class State:
    """One folder of state."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def __contains__(self, name: str) -> bool:
        return self._path(name).exists()

    def read(self, name: str) -> bytes | None:
        """A file's content; None if it is not there. Raises StateError."""
        path = self._path(name)
        try:
            with open(path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                if not stat.S_ISREG(mode):
                    raise StateError(f"{path} is no regular file")
                data = file.read(MAX_FILE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"{path} can't be read: {error.strerror}") from None
        if len(data) > MAX_FILE:
            raise StateError(f"{path} is larger than {MAX_FILE} bytes")
        return data

    def read_secret(self, name: str) -> bytes | None:
        """As `read`, of a secret. Raises StateError if others may read the file (mode & 077), as ssh does."""
        data = self.read(name)
        if data is not None:
            path = self._path(name)
            mode = path.stat().st_mode
            if mode & 0o077:
                raise StateError(f"{path} can be read by others; chmod 600 {path}")
        return data

    def write(self, name: str, data: bytes, *, secret: bool = False) -> None:
        """Replace a file as a whole (rename(2)), of mode 0600 if it is `secret`; or leave it, and raise StateError."""
        path = self._path(name)
        try:
            self._make(path.parent)
            descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        except OSError as error:
            raise self._unwritable(path, error) from None
        with contextlib.ExitStack() as unless_written:
            unless_written.callback(_remove, temporary)
            try:
                with open(descriptor, "wb") as file:
                    os.fchmod(file.fileno(), SECRET_MODE if secret else PUBLIC_MODE)
                    self._hand_over(file.fileno())
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
                _sync_folder(path.parent)
            except OSError as error:
                raise self._unwritable(path, error) from None
            unless_written.pop_all()

    def create(self, name: str, data: bytes, *, secret: bool = False) -> None:
        """As `write`, of a file that must not be there yet. Raises StateError if it is."""
        if name in self:
            raise StateError(f"{self._path(name)} is there already, and is not overwritten")
        self.write(name, data, secret=secret)

    def remove(self, name: str) -> bool:
        """Delete a file; False if there was none. Raises StateError."""
        path = self._path(name)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unwritable(path, error) from None
        return True

    def remove_all(self) -> None:
        """Delete the folder and all that is in it. Raises StateError."""
        try:
            self.remove(PROFILE)
            shutil.rmtree(self.folder)
        except OSError as error:
            raise self._unwritable(self.folder, error) from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing what is read and written in this block (flock(2)).

        Blocks for LOCKED_WITHIN seconds at most while another holds the lock. Raises StateError.
        """
        import fcntl

        try:
            self._make(self.folder)
            descriptor = self._open_lock()
        except OSError as error:
            raise self._unwritable(self.folder / LOCK, error) from None
        try:
            over = time.monotonic() + LOCKED_WITHIN
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= over:
                        raise StateError(
                            f"another process has kept {self.folder / LOCK} locked for {LOCKED_WITHIN:g} s; end it "
                            f"('fuser {self.folder / LOCK}' names it), and try again"
                        ) from None
                time.sleep(LOCK_AGAIN)
            yield
        finally:
            with contextlib.suppress(OSError):  # a child that was forked meanwhile has the lock as well
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _open_lock(self) -> int:
        """The file that is locked, made if it is not there."""
        path, flags = self.folder / LOCK, os.O_RDWR | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, SECRET_MODE)
        except FileExistsError:
            return os.open(path, flags | os.O_CREAT, SECRET_MODE)  # O_CREAT: who has made it may have removed it
        self._hand_over(descriptor)
        return descriptor

    def _make(self, path: Path) -> None:
        """Make the folder of the state, or one in it."""
        self.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        if path.exists():
            return
        path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._hand_over(descriptor)
        finally:
            os.close(descriptor)

    def _hand_over(self, descriptor: int) -> None:
        """Give what root has made to the owner of the folder, as whom its node runs, and who has to read it."""
        if os.geteuid() == 0:
            owner = os.stat(self.folder)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    @contextlib.contextmanager
    def all_or_nothing(self, *names: str) -> Iterator[None]:
        """Remove those files and empty folders again if the block raises, and the folder if it was not there before."""
        made = not self.folder.exists()
        with contextlib.ExitStack() as undo:
            undo.callback(self._remove, (*names, LOCK), made=made)
            yield
            undo.pop_all()

    def _remove(self, names: tuple[str, ...], *, made: bool) -> None:
        """Remove those files and empty folders, and all of the folder if it was `made`."""
        if made:
            shutil.rmtree(self.folder, ignore_errors=True)
        for name in names:
            path = self._path(name)
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()

    def names(self, folder: str = "") -> list[str]:
        """The files of a folder of the state, sorted."""
        path = self.folder / folder
        if not path.is_dir():
            return []
        return sorted(each.name for each in path.iterdir() if each.is_file() and not each.name.startswith("."))

    def _path(self, name: str) -> Path:
        path = self.folder / name
        if ".." in path.parts[len(self.folder.parts) :] or Path(name).is_absolute():
            raise StateError(f"{name!r} is outside of {self.folder}")
        return path

    def _unwritable(self, path: Path, error: OSError) -> StateError:
        why = {
            errno.EROFS: "the disk is read-only",
            errno.ENOSPC: "the disk is full",
            errno.EDQUOT: "the quota is used up",
        }
        reason = why.get(error.errno or 0, error.strerror or str(error))
        return StateError(f"{path} can't be written: {reason}; nothing was changed (another folder: --state DIR)")


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _sync_folder(path: Path) -> None:
    """Have the new name on disk as well (fsync(2)); where a folder can't be synced, it is as safe as it can be."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
