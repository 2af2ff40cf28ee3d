"""The node under attack: a process of its own, whose memory is measured and whose tables are counted."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from zmesh.testing import eventually
from zmesh.testing.process import Process

QUESTIONS = """
async def counts(mesh):
    engine = mesh.node.engine
    kept = engine.stats() | engine.delivery.usage()
    kept["requests"] = len(mesh.node.serving)
    kept["nodes"] = len(engine.nodes())
    kept["records"] = len(engine.records())
    kept["links"] = len([*engine.neighbours])
    return kept

async def reported(mesh):
    return dict(mesh.node.telemetry.counts)

async def count_distances(mesh):
    return mesh.node.engine.routing.counts()["distances"]

async def digest(mesh):
    return mesh.node.engine.routing.digest
"""


class Victim(Process):
    """The node under attack, called `victim`; `settings` are those of its Config, and `limits`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__({"node_id": "victim", "listen": ["tcp://127.0.0.1:*"], **settings}, QUESTIONS)

    @property
    def url(self) -> str:
        """What others dial."""
        return self.listening[0]

    async def counts(self) -> dict[str, int]:
        """How many entries each of its tables has."""
        counts: dict[str, int] = await self.ask("counts(mesh)")
        return counts

    async def reported(self) -> dict[str, int]:
        """How often it has reported what, in telemetry's words."""
        reported: dict[str, int] = await self.ask("reported(mesh)")
        return reported

    async def wait_reported(self, event: str, times: int = 1, timeout: float = 60.0) -> int:
        """Wait until it has reported that so often, and return how often it has. Raises AssertionError."""
        counts = await self._look(self.reported, lambda reported: reported.get(event, 0) >= times, timeout)
        return counts[event]

    async def until(self, holds: Callable[[dict[str, int]], bool], timeout: float = 60.0) -> dict[str, int]:
        """Wait until its counts are as they should be, and return them. Raises AssertionError with the last ones."""
        return await self._look(self.counts, holds, timeout)

    @staticmethod
    async def _look(
        ask: Callable[[], Awaitable[dict[str, int]]], holds: Callable[[dict[str, int]], bool], timeout: float
    ) -> dict[str, int]:
        counts: dict[str, int] = {}

        async def is_so() -> bool:
            counts.update(await ask())
            return holds(counts)

        try:
            await eventually(is_so, timeout)
        except AssertionError:
            pytest.fail(f"not within {timeout:g} s: {counts}")
        return counts
