"""What an honest member notices while others misbehave: whether its pings are answered, and how late."""

import asyncio
import contextlib
import math
import time
from types import TracebackType
from typing import Self

import zmesh
from zmesh.testing import eventually

EVERY = 0.01
PATIENCE = 240.0


class Pings:
    """Pings of a node, one after the other, from `async with` on.

    `seconds` are how long each took, `failed` the errors. `since` begins anew: what came before is not counted.
    """

    def __init__(self, mesh: zmesh.Controller, node: str) -> None:
        self._mesh = mesh
        self._node = node
        self.seconds: list[float] = []
        self.failed: list[zmesh.MeshError] = []

    async def __aenter__(self) -> Self:
        await self._mesh.wait_for(self._node, timeout=PATIENCE)
        self._pinging = asyncio.create_task(self._ping())
        await self.more(3)
        self.since()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._pinging.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._pinging

    def since(self) -> None:
        """Count from now on."""
        self.seconds, self.failed = [], []

    async def more(self, count: int = 20, timeout: float = PATIENCE) -> None:
        """Wait until so many more have been answered."""
        wanted = len(self.seconds) + count
        await eventually(lambda: len(self.seconds) >= wanted, timeout=timeout)

    def at(self, share: float) -> float:
        """The time that this share of the pings was answered within; infinite if none was."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.inf

    async def _ping(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self._mesh.ping_once(self._node, timeout=PATIENCE)
            except zmesh.MeshError as error:
                self.failed.append(error)
            else:
                self.seconds.append(time.monotonic() - began)
            await asyncio.sleep(EVERY)
