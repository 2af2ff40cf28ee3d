"""The diagnosis of nodes, for a program: the part of a Controller beside `Operating`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from zmesh.operate.directives import DOCTOR, EVENTS
from zmesh.operate.operating import Operating

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from zmesh.operate.diagnosis import Diagnosis
    from zmesh.operate.node_event import NodeEvent

EXAMINED_WITHIN = 30.0
"""Seconds to wait for the result of an examination, unless a time-out is given."""


class Diagnosing(Operating):
    """The part of a Controller that diagnoses nodes."""

    async def doctor(self, node: str | None = None, *, timeout: float | None = EXAMINED_WITHIN) -> Diagnosis:
        """The diagnosis of a node: faults and their remedies; it takes the node up to some seconds."""
        from zmesh.operate.diagnosis import Diagnosis, compared

        diagnosis = await self._shown(Diagnosis, DOCTOR, node, None, timeout)
        return compared(diagnosis, time.time())

    async def events_of(
        self, node: str | None = None, *, since: float | None = None, last: int | None = None, follow: bool = False
    ) -> AsyncGenerator[NodeEvent, None]:
        """The last events of a node, the oldest first, and with `follow` all that come, until the iteration is left.

        `since` is how many seconds ago the first may have happened, `last` how many are wanted at most; by default the
        last 50. A node keeps 4,000, over restarts too if it has a folder of state.
        """
        from zmesh.operate.json_form import read_list
        from zmesh.operate.node_event import NodeEvent

        asked: dict[str, object] = {"follow": follow}
        asked |= {} if since is None else {"since": time.time() - since}
        asked |= {} if last is None else {"last": last}
        where = node if node is not None else self._node_with_tables()
        async with self.stream(where, EVENTS, asked) as replies:
            async for reply in replies:
                for event in read_list(NodeEvent, reply.payload, "events", where, EVENTS):
                    yield event
