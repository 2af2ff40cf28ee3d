"""One attempt of a job: its directive runs as for a request, with its replies going to the database.

The records that `exec:run` replies are read: output is kept as a command's, the process noted, the exit code is the
job's, and input goes to the command as it takes it.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast

from zmesh.errors import MeshError, NodeOverloaded, RemoteError, TimedOut
from zmesh.jobs.database import Database
from zmesh.jobs.output import RETRY_AFTER, OutputLog
from zmesh.jobs.queue import Outcome
from zmesh.jobs.rows import MORE, PIECE_BYTES, REPLY, STDERR, STDOUT, Task
from zmesh.jobs.states import JobState
from zmesh.jobs.store import Store, StoreError, Trouble
from zmesh.payloads import Outgoing, Payload, PayloadStorage, Source, StreamedPayload
from zmesh.remote import HEAD, INPUT_WINDOW, RUN, Decoder, Kind, number_of
from zmesh.runtime import code_of, describe, is_a, must_propagate, text_of

_LAST = 300
"""Bytes of a command's stderr of which the last line is quoted when it fails."""
_DONE = Outcome(JobState.DONE)


class Execution:
    """The replies of the work of one attempt (a ReplySink), and what they say about its end."""

    def __init__(self, task: Task, log: OutputLog, note_process: Callable[[int], None]) -> None:
        self._task = task
        self._log = log
        self._note_process = note_process
        self._decoder = Decoder() if task.directive == RUN else None
        self._ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._ending: asyncio.Task[None] | None = None
        self._credit = INPUT_WINDOW
        self._more_credit = asyncio.Event()
        self._stderr = b""
        self._failure: str | None = None
        self._expired = False
        self.returncode: int | None = None

    async def outcome(self) -> Outcome:
        """How the work has ended, once all of its output is written."""
        outcome = await asyncio.shield(self._ended)
        await self._log.flush()
        return outcome

    @property
    def stored_bytes(self) -> int:
        """Bytes of the job's output that have been written so far."""
        return self._log.stored_bytes

    # -- a ReplySink ---------------------------------------------------------------------------------------------

    async def reply(self, outgoing: Outgoing) -> None:
        """Keep a reply. Raises NodeOverloaded if there is no room for all of it, unless it is a command's."""
        if self._decoder is not None and isinstance(outgoing.body, bytes):
            await self._on_records(outgoing.body)
            return
        head = json.dumps([outgoing.content_type, dict(outgoing.metadata)])
        before = self._log.omitted
        try:
            if isinstance(outgoing.body, Source):
                await self._log.add(REPLY, b"", head)
                while data := await outgoing.body.read(PIECE_BYTES):
                    await self._log.add(MORE, data)
                    self._check_room(before)
            else:
                await self._log.add(REPLY, outgoing.body, head)
                self._check_room(before)
        finally:
            outgoing.close()

    def finish(
        self,
        outgoing: Outgoing | None = None,
        *,
        reason: str | None = None,
        error: str | None = None,
        reset_code: int | None = None,
    ) -> None:
        """Take the end of the work, as a ReplySink."""
        if self._ending is None and not self._ended.done():
            self._ending = asyncio.get_running_loop().create_task(self._end(outgoing, reason, error))

    async def _end(self, outgoing: Outgoing | None, reason: str | None, error: str | None) -> None:
        try:
            if outgoing is not None:
                await self.reply(outgoing)
        except BaseException as failure:  # the reply's own file or iterator may raise anything
            if must_propagate(failure):
                raise
            reason = code_of(cast("RemoteError", failure)) if is_a(failure, RemoteError) else RemoteError.code
            error = text_of(failure) if is_a(failure, MeshError) else describe(failure)
        self._ended.set_result(self._outcome_of(reason, error))

    def _outcome_of(self, reason: str | None, error: str | None) -> Outcome:
        if reason == "cancelled":
            return Outcome(JobState.CANCELLED, reason, error or "")
        if reason is not None:
            return Outcome(JobState.FAILED, reason, error or reason)
        if self._decoder is None:
            return _DONE
        if self._failure is not None:
            return Outcome(JobState.FAILED, "command_failed", self._failure)
        if self._expired:
            return Outcome(JobState.FAILED, TimedOut.code, "it was stopped, its time being over")
        code = self.returncode
        if code == 0:
            return _DONE
        if code is None:
            return Outcome(JobState.FAILED, RemoteError.code, "the command ended without an exit code")
        last = self._stderr.decode(errors="replace").strip().rpartition("\n")[2]
        how = f"exited with {code}" if code > 0 else f"was killed by {_name_of(-code)}"
        return Outcome(JobState.FAILED, "command_failed", f"{how}{': ' if last else ''}{last}")

    def _check_room(self, before: int) -> None:
        if self._log.omitted > before:
            raise NodeOverloaded(
                "there is no room for its reply ([jobs] max_output_bytes, keep_bytes, or the disk); remove jobs, or "
                "let it reply less",
                limit="jobs_max_output_bytes",
            )

    # -- commands ------------------------------------------------------------------------------------------------

    async def _on_records(self, data: bytes) -> None:
        assert self._decoder is not None
        for kind, body in self._decoder.feed(data):
            match kind:
                case Kind.STDOUT:
                    await self._log.add(STDOUT, body)
                case Kind.STDERR:
                    self._stderr = (self._stderr + body[-_LAST:])[-_LAST:]
                    await self._log.add(STDERR, body)
                case Kind.STARTED:
                    self._note_process(number_of(body))
                case Kind.CREDIT:
                    self._credit += number_of(body)
                    self._more_credit.set()
                case Kind.EXIT | Kind.EXPIRED:
                    self.returncode = number_of(body)
                    self._expired = kind == Kind.EXPIRED
                case Kind.NOT_STARTED if body:
                    self.returncode = body[0]
                    self._failure = body[1:].decode(errors="replace")
                case _:
                    pass  # of a later version

    async def feed(self, payload: StreamedPayload, pieces: AsyncGenerator[bytes, None]) -> None:
        """Hand the payload of a command over: what it is, and then its input as it takes that.

        The command ends where the rest of it can't be read, as it would wait for that.
        """
        decoder = Decoder()
        try:
            async with aclosing(pieces):
                async for data in pieces:
                    for kind, body in decoder.feed(data):
                        await self._feed_record(payload, kind, body)
        except MeshError as error:
            payload.fail(RemoteError(f"its payload can't be read: {error}"))
        else:
            payload.finish()

    async def _feed_record(self, payload: StreamedPayload, kind: int, body: bytes) -> None:
        rest = body
        while kind == Kind.INPUT and rest:
            while self._credit <= 0:
                self._more_credit.clear()
                await self._more_credit.wait()
            piece, rest = rest[: self._credit], rest[self._credit :]
            self._credit -= len(piece)
            payload.feed(HEAD.pack(kind, len(piece)) + piece)
        if kind != Kind.INPUT:
            payload.feed(HEAD.pack(kind, len(body)) + body)


async def pieces_of(store: Store, task: Task) -> AsyncGenerator[bytes, None]:
    """The payload of a job, as it is stored; waits while another program has locked the database. Raises StoreError."""
    after, left = 0, task.input_bytes
    while True:

        def read(database: Database) -> tuple[bytes, int] | None:
            return database.inputs(task.sequence, after)  # noqa: B023  # it is awaited within this iteration

        try:
            found = await store.read(read)
        except StoreError as error:
            if error.trouble is not Trouble.LOCKED:
                raise
            await asyncio.sleep(RETRY_AFTER)
            continue
        if found is None:
            break
        data, after = found
        left -= len(data)
        yield data
    if left > 0:
        raise StoreError(Trouble.DAMAGED, f"{left} bytes of it were in a database that was damaged or replaced")


async def whole_payload(store: Store, task: Task, storage: PayloadStorage) -> Payload:
    """The payload of a job; a large one is in a temporary file. Raises OSError and Overloaded."""
    if task.input_bytes <= PIECE_BYTES:
        return Payload(b"".join([piece async for piece in pieces_of(store, task)]), spool_dir=storage.folder)
    stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def failed(error: Exception) -> None:
        if not stored.done():
            stored.set_exception(error)

    payload = storage.buffered(lambda size: None, failed)
    async for piece in pieces_of(store, task):
        payload.feed(piece)

    def done() -> None:
        if not stored.done():
            stored.set_result(None)

    payload.finish(done)
    await stored
    return payload


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
