"""Polls the mesh for the dashboard: the shell around `turns` and `model`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from zmesh.dashboard.model import MeshModel
from zmesh.dashboard.source import Source
from zmesh.dashboard.turns import STATUSES, Lists, Turns
from zmesh.errors import MeshError, NotAllowed
from zmesh.operate import NodeEvent

AT_ONCE = 8
"""Nodes that are asked at a time."""
LIST_WITHIN = 10.0
STATE_WITHIN = 5.0
LOOK_EVERY = 0.1
FOLLOWED = 24
"""Nodes whose events are followed; the host is the first of them."""
FOLLOW_AGAIN = 5.0
FIRST_EVENTS = 100
FIRST_EVENTS_OF_OTHERS = 10
WATCHED_FOR = 10.0
"""Seconds for which a node is watched after its page has asked for it."""
_SAID_BY_HOST = frozenset(("node_joined", "node_left", "route_changed"))
"""Events of which each node has its own: those of the host are enough."""
_CHANGES = frozenset(("link_lost", "link_up", "node_joined", "node_left"))
"""Events after which the lists are asked for at once."""


class Poller:
    """Asks the mesh and feeds the model. `is_seen` says whether anybody looks at a page."""

    def __init__(self, source: Source, model: MeshModel, is_seen: Callable[[], bool]) -> None:
        self._source = source
        self._model = model
        self._is_seen = is_seen
        self._turns = Turns()
        self._lists = Lists(time.monotonic())
        self._watched: dict[str, float] = {}
        self._asked: set[str] = set()
        self._followed: dict[str, asyncio.Task[None]] = {}
        self._hurry = False
        self.queries = 0
        """Queries that were sent to nodes."""

    def watch(self, node: str) -> None:
        """The page of a node is open: ask it more often for a while."""
        now = time.monotonic()
        if node in self._model.nodes:
            self._watched[node] = now + WATCHED_FOR
            self._turns.watch(node, now)

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._list_again_and_again())
            tasks.create_task(self._tick())
            asked = 0.0
            while True:
                now = time.monotonic()
                self._watched = {node: until for node, until in self._watched.items() if until > now}
                self._follow(tasks)
                if self._is_seen() and len(self._asked) < AT_ONCE and now - asked >= 1 / STATUSES:
                    node = self._turns.next(set(self._watched), self._asked, now)
                    if node is not None:
                        asked = now
                        self._asked.add(node)
                        tasks.create_task(self._ask(node))
                await asyncio.sleep(LOOK_EVERY)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._model.tick(time.time())

    # -- the host ------------------------------------------------------------------------------------------------

    async def _list_again_and_again(self) -> None:
        while True:
            if self._lists.due(time.monotonic(), hurry=self._hurry, watched=self._is_seen()):
                await self._list()
            await asyncio.sleep(LOOK_EVERY)

    async def _list(self) -> None:
        """Ask the host for members and links."""
        self._hurry = False
        model, source = self._model, self._source
        self.queries += 2
        try:
            members = await source.members(timeout=LIST_WITHIN)
            model.take_members(members, time.time())
            model.take_graph(await source.graph(timeout=LIST_WITHIN), time.time())
        except MeshError as error:
            model.lost_contact(str(error), time.time())
        now = time.monotonic()
        self._lists.asked(len(model.nodes), now)
        self._turns.set_nodes({row["id"] for row in model.nodes if row["up"]}, now)

    # -- states --------------------------------------------------------------------------------------------------

    async def _ask(self, node: str) -> None:
        model, turns = self._model, self._turns
        self.queries += 1
        try:
            status = await self._source.status(node, timeout=STATE_WITHIN, route_timeout=STATE_WITHIN)
        except NotAllowed as error:
            turns.refused(node, time.monotonic())
            model.take_failure(node, error.code, str(error), time.time())
        except MeshError as error:
            turns.failed(node, time.monotonic())
            model.take_failure(node, error.code, str(error), time.time())
        else:
            turns.answered(node, len(status.links), time.monotonic(), watched=node in self._watched)
            if status.node == node:
                model.take_status(status, time.time())
        finally:
            self._asked.discard(node)

    # -- events --------------------------------------------------------------------------------------------------

    def _follow(self, tasks: asyncio.TaskGroup) -> None:
        """Follow the events of the host, and of others as long as there are few."""
        host = self._model.host
        if not host:
            return
        up = [row["id"] for row in self._model.nodes if row["up"]] if len(self._model.nodes) <= FOLLOWED else [host]
        for node in self._followed.keys() - set(up):
            self._followed.pop(node).cancel()
        for node in up:
            if node not in self._followed:
                self._followed[node] = tasks.create_task(self._follow_one(node))

    async def _follow_one(self, node: str) -> None:
        """Take the events of one node in, as long as it can be reached."""
        last = FIRST_EVENTS if node == self._model.host else FIRST_EVENTS_OF_OTHERS
        while True:
            self.queries += 1
            try:
                await self._take(node, self._source.events_of(node, last=last, follow=True))
            except MeshError:
                pass  # why it fails, its state says
            await asyncio.sleep(FOLLOW_AGAIN)

    async def _take(self, node: str, found: AsyncGenerator[NodeEvent, None]) -> None:
        async with aclosing(found) as events:
            async for event in events:
                is_host = node == self._model.host
                if is_host or event.kind not in _SAID_BY_HOST:
                    self._model.take_event(node, event, time.time())
                self._hurry = self._hurry or event.kind in _CHANGES
