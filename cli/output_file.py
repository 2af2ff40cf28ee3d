"""The file of `--output`, written under a temporary name beside it until all replies have come."""

from __future__ import annotations

import errno
import os
import secrets
import stat

from zmesh_cli.exit_codes import FAILED, USAGE, Failure
from zmesh_cli.terminal import Output

MAX_NAME = 200
"""Characters of the file's name that the temporary name repeats; a name has 255 bytes at most."""


class OutputFile:
    """An output file. `keep` renames the temporary file to `path`; without it, `close` deletes that.

    What is not a regular file (a named pipe, /dev/null) is written to directly. Raises Failure, which names the file,
    if it can't be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0
        """Bytes written so far."""
        self._file = os.path.realpath(path)
        self._part: str | None = None
        try:
            self._descriptor = self._open()
            self._output = Output(self._descriptor, f"the file {path!r}")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise Failure(f"can't write the file {path!r}: {reason}", USAGE) from None

    async def write(self, data: bytes) -> None:
        """Append data. Raises Failure, as for a full disk, and BrokenPipeError."""
        await self._output.payload(data)
        self.size += len(data)

    def keep(self) -> None:
        """Give what was written the name of the file. Raises Failure."""
        part, self._part = self._part, None
        if part is not None:
            try:
                os.replace(part, self._file)
            except OSError as error:
                self._part = part
                raise Failure(f"can't write the file {self.path!r}: {error.strerror}", FAILED) from None

    def close(self) -> None:
        """Close the file, and delete the temporary one unless it was kept."""
        os.close(self._descriptor)
        if self._part is not None:
            os.unlink(self._part)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CLOEXEC
        try:
            mode = os.stat(self.path).st_mode  # /dev/stdout may lead to a pipe, which has no path of its own
        except FileNotFoundError:
            mode = None
        if mode is not None and not stat.S_ISREG(mode):
            return os.open(self.path, flags)  # a folder can't be opened for writing, and says so
        if mode is not None and not os.access(self._file, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        folder, name = os.path.split(self._file)
        part = os.path.join(folder, f".{name[:MAX_NAME]}.{secrets.token_hex(4)}.part")
        descriptor = os.open(part, flags | os.O_CREAT | os.O_EXCL, 0o666)
        self._part = part
        if mode is not None:
            os.fchmod(descriptor, stat.S_IMODE(mode))
        return descriptor
