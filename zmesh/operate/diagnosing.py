"""The diagnosis of nodes, for a program: the part of a Controller beside `Operating`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from zmesh.arguments import check_timeout
from zmesh.operate.directives import DOCTOR, EVENTS, SETTINGS
from zmesh.operate.operating import EVERYONE, TIMEOUT, Operating

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator

    from zmesh.operate.bundle import BundleSummary
    from zmesh.operate.diagnosis import Diagnosis
    from zmesh.operate.node_event import NodeEvent
    from zmesh.operate.node_settings import NodeSettings

EXAMINED_WITHIN = 30.0
"""Seconds to wait for the result of an examination, unless a time-out is given."""


class Diagnosing(Operating):
    """The part of a Controller that diagnoses nodes."""

    async def doctor(self, node: str | None = None, *, timeout: float | None = EXAMINED_WITHIN) -> Diagnosis:
        """The diagnosis of a node: faults and their remedies, which takes it up to some seconds; `timeout` in seconds.

        Raises as all methods of `Operating` do.
        """
        from zmesh.operate.diagnosis import Diagnosis, compared

        diagnosis = await self._shown(Diagnosis, DOCTOR, node, None, timeout)
        return compared(diagnosis, time.time())

    async def events_of(
        self, node: str | None = None, *, since: float | None = None, last: int | None = None, follow: bool = False
    ) -> AsyncGenerator[NodeEvent, None]:
        """The last events of a node, the oldest first, and with `follow` all that come, until the iteration is left.

        `since` is how many seconds ago the first may have happened, `last` the most to return; by default 50. A node
        keeps 4,000, over restarts too if it has a folder of state. Raises as all methods of `Operating` do.
        """
        from zmesh.operate.json_form import read_list
        from zmesh.operate.node_event import NodeEvent

        check_timeout(since, "since")
        asked: dict[str, object] = {"follow": follow}
        asked |= {} if since is None else {"since": time.time() - since}
        asked |= {} if last is None else {"last": last}
        where = node if node is not None else self._node_with_tables()
        async with self.stream(where, EVENTS, asked) as replies:
            async for reply in replies:
                for event in read_list(NodeEvent, reply.payload, "events", where, EVENTS):
                    yield event

    async def settings_of(self, node: str | None = None, *, timeout: float | None = TIMEOUT) -> NodeSettings:
        """The settings of a node, without secrets, and the versions of what it runs on.

        `timeout` is in seconds. Raises NotAllowed unless this is the node's own user, or its `[allow]` allows
        `zmesh:settings`, and as all methods of `Operating` do.
        """
        from zmesh.operate.node_settings import NodeSettings

        return await self._shown(NodeSettings, SETTINGS, node, None, timeout)

    async def bundle(
        self,
        path: str | os.PathLike[str],
        target: str = EVERYONE,
        at: str | None = None,
        *,
        timeout: float | None = EXAMINED_WITHIN,
        examine: bool = True,
    ) -> BundleSummary:
        """Write the state of the nodes of a target into a file, for a bug report: without secrets, and bounded.

        It has what `status`, `members`, `graph`, `routes`, `doctor` (unless `examine` is false) and `events_of` show of
        each, its settings where it lets them be seen (`zmesh:settings` in its `[allow]`), and the versions of all.
        `zmesh.testing.load_bundle` makes a simulated mesh of it. The nodes are those that the node `at` knows, 256 at
        most. `timeout` in seconds is for each answer. Missing parts are in the summary. Raises ConfigError for a
        malformed target or too many nodes, Unreachable if no node has answered, and OSError; there is no file then.
        """
        from zmesh.operate.bundling import bundle

        return await bundle(self, path, target, at, timeout, examine=examine)
