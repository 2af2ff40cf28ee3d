"""The storage of the payloads that arrive at one node: spool folder, size limit, and disk threads."""

from __future__ import annotations

from collections.abc import Callable

from zmesh.payloads.buffered import DISK_THREADS, BufferedPayload
from zmesh.runtime import ThreadPool


class PayloadStorage:
    """The spool folder (None: that of the system), the largest payload in bytes, and the disk threads of one node."""

    __slots__ = ("_disk", "folder", "max_bytes")

    def __init__(self, folder: str | None, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._disk = ThreadPool(DISK_THREADS, "zmesh-disk")

    def buffered(
        self,
        written: Callable[[int], None],
        failed: Callable[[Exception], None],
        admit: Callable[[int], None] | None = None,
    ) -> BufferedPayload:
        """A payload that is about to arrive; the callbacks are those of BufferedPayload."""
        return BufferedPayload(
            spool_dir=self.folder,
            max_bytes=self.max_bytes,
            disk=self._disk,
            written=written,
            failed=failed,
            admit=admit,
        )

    def close(self) -> None:
        """Let the threads end; nothing is written any more."""
        self._disk.close()

    def join(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the threads to end, which are idle unless a disk hangs."""
        self._disk.join(timeout)
