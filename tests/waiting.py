"""What waits: for a fact, and for all the bytes of a payload; and how long a test waits for others."""

import asyncio

import pytest

from zmesh import testing
from zmesh.payloads.payload import encode
from zmesh.payloads.source import Source

WITHIN = 90.0
"""Seconds that a process or a thread may take to start, to answer and to end, on a slow machine with busy cores."""


@pytest.fixture
def eventually():
    return testing.eventually


def until(predicate, timeout=60.0):
    """As `zmesh.testing.eventually`, for tests that have no event loop."""
    return asyncio.run(testing.eventually(predicate, timeout))


async def _collect(payload):
    encoded = encode(payload)
    if not isinstance(encoded, Source):
        return encoded
    try:
        parts = []
        while part := await encoded.read(65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        encoded.close()


@pytest.fixture
def collect():
    """All the bytes of whatever may be sent."""
    return _collect


async def nothing_is_kept(mesh):
    for node in mesh.controllers.values():
        engine = node.node.engine
        await testing.eventually(
            lambda engine=engine: not any(engine.stats()[key] for key in ("requests_made", "requests_received"))
        )
        engine.check()
        await testing.eventually(lambda node=node: len(node.node.requests) == 0)
