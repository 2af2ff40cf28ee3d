"""Storing a submission: at once if its payload is small, as it comes if it is large."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from zmesh.errors import NodeOverloaded
from zmesh.jobs.database import Database
from zmesh.jobs.rows import PIECE_BYTES, Owner
from zmesh.jobs.states import JobStatus
from zmesh.jobs.store import Store
from zmesh.jobs.submission import Submission


class Stored(NamedTuple):
    """The job that a submission has become, or was before; `sequence` is that of a new one, else 0."""

    status: JobStatus
    sequence: int
    size_bytes: int


async def store_submission(
    store: Store, submission: Submission, owner: Owner, first: bytes, rest: AsyncIterator[bytes] | None, most: int
) -> Stored:
    """Store a job, which waits from then on. `rest` is what follows `first` of its payload, None if that is all.

    Raises Conflict, StoreError, and NodeOverloaded for more than `most` bytes.
    """
    if rest is None and len(first) <= min(most, PIECE_BYTES):
        hasher = submission.hasher()
        hasher.update(first)
        digest, wall = hasher.digest(), time.time()

        def insert(database: Database) -> Stored:
            existing, sequence = database.submit(submission, owner, digest, first, wall)
            return Stored(database.status(existing or submission.number), sequence, len(first))

        return await store.write(insert)
    return await _store_large(store, submission, owner, _pieces(first, rest), most)


async def _store_large(
    store: Store, submission: Submission, owner: Owner, pieces: AsyncIterator[bytes], most: int
) -> Stored:
    hasher, size = submission.hasher(), 0
    sequence = await store.write(lambda database: database.arrive(submission, owner, time.time()))
    whole = False
    try:
        async for piece in pieces:
            size += len(piece)
            if size > most:
                raise NodeOverloaded(
                    f"the payload of a job has {most} bytes at most there ([jobs] max_payload_bytes); copy the data to "
                    "the node, and submit its name",
                    limit="jobs_max_payload_bytes",
                )
            hasher.update(piece)
            await store.write(lambda database, data=piece: database.add_input(sequence, data))  # type: ignore[misc]
        digest = hasher.digest()

        def complete(database: Database) -> Stored:
            existing = database.complete(sequence, submission, owner, digest, size)
            status = database.status(existing or submission.number)
            return Stored(status, 0 if existing else sequence, size)

        stored = await store.write(complete)
        whole = True
        return stored
    finally:
        if not whole:
            await asyncio.shield(store.write(lambda database: database.discard(sequence)))


async def _pieces(first: bytes, rest: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
    """The payload in pieces that are neither long nor short."""
    waiting = bytearray(first)
    while True:
        while len(waiting) >= PIECE_BYTES:
            yield bytes(waiting[:PIECE_BYTES])
            del waiting[:PIECE_BYTES]
        more = await anext(rest, None) if rest is not None else None
        if more is None:
            break
        waiting += more
    if waiting:
        yield bytes(waiting)
