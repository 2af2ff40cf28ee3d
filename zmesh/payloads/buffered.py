"""Payloads that are collected while they arrive: in memory while they are small, in temporary files when large.

Files are written in threads of the node's, so that a slow disk holds up neither heartbeats nor other frames. The credit
of what is written is released when it is in the file, which slows the sender to the disk's pace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack, suppress

from zmesh.errors import Overloaded
from zmesh.payloads.payload import Payload
from zmesh.payloads.spool import Spool, memory
from zmesh.runtime import ThreadPool

DISK_THREADS = 2
"""Threads of a node that write payloads to temporary files."""

SPOOL_AFTER = 8 * 1024 * 1024
"""Bytes of one arriving payload that are kept in memory; a longer one goes to a temporary file."""

MEMORY_BUDGET = 64 * 1024 * 1024
"""Bytes of all arriving payloads of this process that are kept in memory; past it every one goes to a file at once."""


class BufferedPayload(Payload):
    """A payload that is collected while it arrives and read when it is complete.

    It moves to a temporary file when it outgrows 8 MiB, or at once while all arriving payloads of the process hold
    more than 64 MiB. The writer's side (`feed`, `finish`, `fail`) belongs to the loop's thread.

    With `disk` the file is written in those threads: `written` is called with each number of bytes that were written,
    and `failed` with the error of a write that failed; both on the loop. Without, `feed` and `finish` write.

    `admit` is called with the size of what is to lie in a file, before anything is written; the payload ends with the
    Overloaded that it raises.
    """

    __slots__ = (
        "_admit",
        "_charged",
        "_disk",
        "_done",
        "_error",
        "_failed",
        "_max_bytes",
        "_parts",
        "_size",
        "_spools",
        "_unwritten",
        "_writing",
        "_written",
    )

    def __init__(
        self,
        *,
        spool_dir: str | None = None,
        max_bytes: int | None = None,
        disk: ThreadPool | None = None,
        written: Callable[[int], None] | None = None,
        failed: Callable[[Exception], None] | None = None,
        admit: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(spool_dir=spool_dir)
        self._admit = admit
        self._content = None
        self._parts: list[bytes] | None = []
        self._size = 0
        self._charged = 0
        self._max_bytes = max_bytes
        self._error: BaseException | None = None
        self._disk = disk
        self._written = written
        self._failed = failed
        self._spools = False
        self._unwritten = 0
        self._writing = False
        self._done: Callable[[], None] | None = None

    @property
    def complete(self) -> bool:
        """Whether all of it is there, so that it can be read."""
        return self._parts is None and self._error is None

    def feed(self, chunk: bytes) -> int:
        """Take the next chunk; chunks after `finish`, `fail` or `close` are dropped.

        Returns how many of its bytes `written` will report; the others are in memory or on disk. Raises Overloaded past
        `max_bytes`, and OSError if the temporary file can't be written (a full disk); the payload has failed then.
        """
        if self._parts is None:
            return 0
        self._size += len(chunk)
        try:
            if self._max_bytes is not None and self._size > self._max_bytes:
                raise Overloaded(
                    f"the payload is larger than the {self._max_bytes} bytes that max_payload_bytes allows here; "
                    "set it higher, or take the payload as a stream",
                    limit="max_payload_bytes",
                )
            self._parts.append(chunk)
            self._charged += len(chunk)
            full = memory.charge(len(chunk)) > MEMORY_BUDGET or self._size > SPOOL_AFTER
            if not full and not self._spools:
                return 0
            if self._admit is not None:
                self._admit(self._size)
            self._spools = True
            if self._disk is None:
                self._spool = _write(self._spool, self._spool_dir, self._take_parts())
                self._release()
                return 0
            self._unwritten += len(chunk)
            try:
                self._write_soon(self._disk)
            except OSError:
                self._unwritten -= len(chunk)  # this one is still the caller's
                raise
        except (Overloaded, OSError) as error:
            self.fail(error)
            raise
        return len(chunk)

    def finish(self, done: Callable[[], None] | None = None) -> None:
        """Mark the payload complete; it can be read from when `done` is called, which may be at once."""
        if self._parts is None:
            return
        if self._writing:
            self._done = done or _nothing
            return
        if not self._spools:
            parts = self._parts
            self._content = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = None
        if done is not None:
            done()

    def fail(self, error: BaseException) -> None:
        """End the payload with an error, and drop its content; reading raises `error` from now on."""
        if self._parts is not None:
            self._error = error
            self.close()

    def close(self) -> None:
        """Drop the content and delete its temporary file; later chunks are dropped."""
        self._parts = self._done = None
        self._release()
        self._report_written()
        super().close()

    def __len__(self) -> int:
        return self._size if self._parts is not None else super().__len__()

    def __del__(self) -> None:
        self._release()

    def _read_at(self, position: int, size: int) -> bytes:
        if self._error is not None:
            raise self._error
        if self._parts is not None:
            raise BlockingIOError("the payload is still arriving")
        return super()._read_at(position, size)

    def _take_parts(self) -> list[bytes]:
        parts, self._parts = self._parts or [], []
        return parts

    def _write_soon(self, disk: ThreadPool) -> None:
        """Have what there is written, unless something is being written: then that comes first."""
        if self._writing:
            return
        loop, spool, parts = asyncio.get_running_loop(), self._spool, self._take_parts()
        charged, self._charged = self._charged, 0
        unwritten, self._unwritten = self._unwritten, 0

        def write() -> None:
            try:
                outcome: Spool | Exception = _write(spool, self._spool_dir, parts)
            except Exception as error:  # noqa: BLE001  # the one who feeds it hears of it
                outcome = error.with_traceback(None)  # its frames hold the payload
            memory.release(charged)
            with suppress(RuntimeError):  # the loop is closed: there is no waiter
                loop.call_soon_threadsafe(self._after_write, outcome, unwritten)

        try:
            disk.run(write)
        except RuntimeError as error:  # the node is closing, or the system has no thread to spare
            memory.release(charged)
            self._unwritten = unwritten
            raise OSError(f"it can't be written to a file: {error}") from None
        self._writing = True

    def _after_write(self, outcome: Spool | Exception, unwritten: int) -> None:
        self._writing = False
        self._unwritten += unwritten
        if isinstance(outcome, Exception):
            wanted = self._parts is not None
            self.fail(outcome)
            if wanted and self._failed is not None:
                self._failed(outcome)
            self._report_written()
            return
        if self._parts is None:  # closed meanwhile
            outcome.close()
            self._report_written()
            return
        self._spool = outcome
        self._unwritten -= unwritten
        if self._parts and self._disk is not None:
            try:
                self._write_soon(self._disk)
            except OSError as error:
                self._after_write(error, unwritten)
                return
        if unwritten and self._written is not None:
            self._written(unwritten)
        if self._done is not None and not self._writing:
            done, self._done = self._done, None
            self.finish(done)

    def _report_written(self) -> None:
        unwritten, self._unwritten = self._unwritten, 0
        if unwritten and self._written is not None:
            self._written(unwritten)

    def _release(self) -> None:
        charged, self._charged = self._charged, 0
        if charged:
            memory.release(charged)


def _write(spool: Spool | None, folder: str | None, parts: list[bytes]) -> Spool:
    spool = spool or Spool(folder)
    with ExitStack() as unless_written:
        unless_written.callback(spool.close)
        for part in parts:
            spool.write(part)
        unless_written.pop_all()
    return spool


def _nothing() -> None:
    pass
