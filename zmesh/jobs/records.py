"""The records of the jobs of one node: those of the database, with the changes that could not be stored so far."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

from zmesh.errors import RemoteError
from zmesh.jobs.database import Database
from zmesh.jobs.queue import Outcome
from zmesh.jobs.rows import Piece
from zmesh.jobs.states import JobStatus
from zmesh.jobs.store import Store

_FIELDS = json.dumps(JobStatus._fields)


class Records:
    """The records of the jobs of one node. `ready` gives the store, and raises what keeps it from being used."""

    def __init__(self, node_id: str, ready: Callable[[], Awaitable[Store]]) -> None:
        self.node_id = node_id
        self.unsaved: dict[str, Outcome] = {}
        """The outcomes that could not be stored so far, by job."""
        self.damaged: Path | None = None
        """The path to which the last damaged database was moved."""
        self._ready = ready
        self._waiters: dict[str, asyncio.Future[None]] = {}

    async def find(self, prefix: str) -> JobStatus:
        """The job whose number begins so. Raises RemoteError if there is none, or more than one, and StoreError."""
        store = await self._ready()
        found = await store.read(lambda database: database.find(prefix))
        if not found:
            damaged = f"; the former ones were damaged, and are kept as {self.damaged}" if self.damaged else ""
            raise RemoteError(
                f"no job {self.node_id}/{prefix} is kept there; 'zmesh job ls {self.node_id}' shows those that "
                f"are{damaged}"
            )
        if len(found) > 1:
            raise RemoteError(f"more than one job begins with {prefix}: {found[0].id} and {found[1].id} do")
        return self.overlaid(found[0])

    async def status(self, number: str) -> JobStatus:
        """The status of a job. Raises RemoteError if it was removed, and StoreError."""
        store = await self._ready()
        try:
            return self.overlaid(await store.read(lambda database: database.status(number)))
        except LookupError:
            raise RemoteError(f"job {self.node_id}/{number} was removed") from None

    def overlaid(self, status: JobStatus) -> JobStatus:
        """The status with what could not be stored so far."""
        outcome = self.unsaved.get(status.id.rpartition("/")[2])
        if outcome is None:
            return status
        reason = f"{outcome.reason}{'; ' if outcome.reason else ''}not stored yet"
        return status._replace(state=outcome.state, code=outcome.code, reason=reason, lease_until=None)

    async def pages(
        self, owner: str | None, states: Iterable[str], limit: int, page: int
    ) -> AsyncGenerator[bytes, None]:
        """Jobs, the newest first, as tables of JSON with `page` jobs at most. Raises StoreError."""
        store, before, wanted = await self._ready(), None, [str(state) for state in states]
        while limit > 0:
            size = min(limit, page)
            rows, before = await store.read(partial(_listed, owner, wanted, before, size))
            if self.unsaved:
                rows = [json.dumps(self.overlaid(JobStatus(*json.loads(row)))) for row in rows]
            limit -= len(rows)
            if rows:
                yield f'{{"fields":{_FIELDS},"rows":[{",".join(rows)}]}}'.encode()
            if before is None:
                return

    async def follow(self, status: JobStatus, interval: float) -> AsyncGenerator[JobStatus, None]:
        """The status of a job now, at each change, and every `interval` seconds, up to its end."""
        number = status.id.rpartition("/")[2]
        while True:
            waiter = self.waiter(number)
            status = await self.status(number)
            yield status
            if status.state.ended:
                return
            await asyncio.wait((waiter,), timeout=interval)

    async def output(
        self, status: JobStatus, offset: int, *, follow: bool
    ) -> AsyncGenerator[tuple[Piece | None, JobStatus | None], None]:
        """The pieces of a job's output from an offset on, up to what there is or with `follow` to its end; at last its
        status.
        """
        number, after, store = status.id.rpartition("/")[2], 0, await self._ready()
        while True:
            waiter = self.waiter(number)
            status = await self.status(number)
            pieces = await store.read(partial(_output, number, offset, after))
            for piece in pieces:
                yield piece, None
                after = piece.row
            if not pieces:
                if status.state.ended or not follow:
                    yield None, status
                    return
                await asyncio.wait((waiter,))

    def waiter(self, number: str) -> asyncio.Future[None]:
        """Done as soon as the state or the output of the job has changed."""
        future = self._waiters.get(number)
        if future is None:
            future = self._waiters[number] = asyncio.get_running_loop().create_future()
        return future

    def changed(self, number: str) -> None:
        """The state or the output of a job has changed."""
        future = self._waiters.pop(number, None)
        if future is not None and not future.done():
            future.set_result(None)


def _listed(
    owner: str | None, states: list[str], before: int | None, limit: int, database: Database
) -> tuple[list[str], int | None]:
    return database.listed(owner, states, before, limit)


def _output(number: str, offset: int, after: int, database: Database) -> list[Piece]:
    return database.output(number, offset, after)
