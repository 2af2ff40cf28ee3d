"""Fixtures that wait: for a fact, and for all the bytes of a payload."""

import asyncio
import time

import pytest

from zmesh.payloads.payload import encode
from zmesh.payloads.source import Source


async def _eventually(predicate, within=60.0):
    end = time.monotonic() + within
    while not predicate():
        assert time.monotonic() < end, f"not within {within} s: {predicate}"
        await asyncio.sleep(0.001)


@pytest.fixture
def eventually():
    return _eventually


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
        await _eventually(
            lambda engine=engine: not any(engine.stats()[key] for key in ("requests_made", "requests_received"))
        )
        engine.check()
        await _eventually(lambda node=node: len(node.node.requests) == 0)
