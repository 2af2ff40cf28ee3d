"""What the tests of requests that are written and answered at the same time share."""

import asyncio

REPLIES = 30
"""Replies of 60,000 bytes that are more than the first window, and with what waits unsent no more."""


def offer(mesh, function, name="c:work"):
    mesh["c"].register(name, function, stream=True)


def lines(pieces):
    return b"".join(pieces).splitlines()


async def taken(stream):
    return [reply.payload.readall() async for reply in stream]


async def pour(stream):
    while True:
        await stream.write(bytes(10_000))


async def pause(work):
    await asyncio.Event().wait()
