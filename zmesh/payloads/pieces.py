"""A payload that is read once, in pieces, wherever those come from."""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from collections.abc import Iterator

from zmesh.payloads.payload import Payload


class PayloadOfPieces(Payload):
    """A payload that is read once, while the rest of it is still under way; it has no file and can't seek.

    `len` counts what has come so far.
    """

    __slots__ = ("_ended", "_rest", "_size")

    def __init__(self) -> None:
        super().__init__()
        self._rest = b""
        self._size = 0
        self._ended = False

    @abstractmethod
    def _take(self) -> bytes:
        """The next piece, b"" at the end; waits for it, or raises BlockingIOError."""

    def read(self, size: int | None = -1, /) -> bytes:
        """The next `size` bytes, waiting for them, fewer at the end only; all that is left if negative or None.

        Raises BlockingIOError, and takes nothing, where it would have to wait on the loop's thread.
        """
        parts = []
        left = -1 if size is None else size
        try:
            while left and (part := self._rest or self._take()):
                self._rest = b"" if left < 0 else part[left:]
                parts.append(part if left < 0 else part[:left])
                left -= len(parts[-1]) if left > 0 else 0
        except BlockingIOError:
            self._rest = b"".join(parts)
            raise
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._position += len(data)
        return data

    def read1(self, size: int | None = -1, /) -> bytes:
        """The next piece, `size` bytes of it at most, as soon as it is there; b"" at the end. Raises as `read`."""
        piece = self._rest or self._take()
        most = len(piece) if size is None or size < 0 else size
        piece, self._rest = piece[:most], piece[most:]
        self._position += len(piece)
        return piece

    def readall(self) -> bytes:
        """All of it, once nothing was read before; waits for the end. Raises UnsupportedOperation after a read."""
        if self._position:
            raise io.UnsupportedOperation("a streaming payload can be read once only")
        return self.read()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Raises UnsupportedOperation."""
        raise io.UnsupportedOperation("a streaming payload can't seek")

    @property
    def name(self) -> str:
        """Raises UnsupportedOperation."""
        raise io.UnsupportedOperation("a streaming payload has no file")

    def __len__(self) -> int:
        return self._size

    def __bool__(self) -> bool:
        return self._size > 0 or not self._ended

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._rest or self._take():
            self._rest = b""
            self._position += len(chunk)
            yield chunk
