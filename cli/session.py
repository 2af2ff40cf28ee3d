"""The ephemeral node that a command joins the mesh as, for as long as it has something to ask.

A session waits for events of its node only: for the link to come up or the reason why it is refused, and for the answer
or the notice that the target is unreachable. Such a notice says for how many seconds the routes of its sender
have not changed. After SETTLED of them the target is taken to be unknown; before, the mesh may still be forming, and
the target is pinged again until the rest of that time is over.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from zmesh.config import Config
from zmesh.controller import Controller
from zmesh.core.effects import Report
from zmesh.errors import MeshError
from zmesh.requests.ping import Pong
from zmesh_cli.exit_codes import UNREACHABLE, USAGE, Failure

T = TypeVar("T")

JOIN_WITHIN = 10.0
SETTLED = 3.0
ASK_AGAIN_FIRST = 0.1
ASK_AGAIN_LAST = 0.5

_ADDRESS = re.compile(r"[A-Za-z0-9._-]{1,64}(@[A-Za-z0-9._-]{1,64})?\Z")


class Session:
    """A leaf of the mesh at `url`, to ask the node `target` something, or (None) the node at the URL itself.

    `timeout` is the one that the user set, if any: it then bounds the wait for a node that is not there yet.
    `route_timeout`: for how long its requests go without a route; that of any node if None.
    `async with` joins, and raises Failure if that can't be done within `join_within` seconds, MeshError for an
    impossible URL.
    """

    def __init__(
        self,
        url: str,
        target: str | None = None,
        timeout: float | None = None,
        *,
        join_within: float | None = JOIN_WITHIN,
        route_timeout: float | None = None,
    ) -> None:
        if target is not None and not _ADDRESS.match(target):
            raise Failure(f"no node can be called {target!r}: a name is 1 to 64 of A-Z a-z 0-9 . _ -", USAGE)
        self.url = url
        self.host = ""
        """The id of the node at the URL, once joined."""
        config = Config(node_id=f"cli-{os.urandom(5).hex()}", peers=(url,), ephemeral=True)
        if route_timeout is not None:
            config = dataclasses.replace(config, route_timeout=route_timeout)
        self.controller = Controller(config)
        self.controller.node.watch(self._on_report)
        self.reached: Callable[[], bool] = lambda: False
        """Whether what was sent has arrived; then a target that is lost later is not an unknown one."""
        self._target = target
        self._timeout = timeout
        self._join_within = min(JOIN_WITHIN, join_within or JOIN_WITHIN)
        self._loop = asyncio.get_running_loop()
        self.found: asyncio.Future[None] = self._loop.create_future()
        """Done as soon as the target has answered a ping, be it one of those that look for it."""
        self._joined: asyncio.Future[str | Failure] = self._loop.create_future()
        self._given_up: asyncio.Future[str] = self._loop.create_future()
        self._search: asyncio.Task[None] | None = None
        self._known = ""
        """What the host knows of a target that is not there, as it said last."""

    @property
    def target(self) -> str:
        """The id of the node that this session sends its requests to."""
        return self._target or self.host

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as unless_joined:
            unless_joined.push_async_callback(self.controller.close)
            await self.controller.open()
            await asyncio.wait((self._joined,), timeout=self._join_within)
            if not self._joined.done():
                raise Failure(
                    f"no greeting from {self.url} within {self._join_within:g} s; is it a node of a mesh?", UNREACHABLE
                )
            host = self._joined.result()
            if isinstance(host, Failure):
                raise host
            self.host = host
            unless_joined.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._search is not None:
            self._search.cancel()
            await asyncio.wait((self._search,))
        await self.controller.close()

    async def unless_not_found(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, which asks the target something. Raises Failure instead when there is no such node."""
        task = self._loop.create_task(work)
        try:
            await asyncio.wait((task, self._given_up), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Failure(self._given_up.result(), UNREACHABLE)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))

    async def ping(self, timeout: float) -> Pong:
        """Ask the target for a sign of life. Raises TimedOut, Unreachable, RemoteError."""
        try:
            pong = await self.controller.ping_once(self.target, timeout)
        except MeshError:
            raise
        except (ValueError, TypeError, AttributeError):
            raise Failure(f"{self.target} answers a ping with something else", UNREACHABLE) from None
        if not self.found.done():
            self.found.set_result(None)
        return pong

    def _on_report(self, report: Report) -> None:
        match report.event:
            case "link_up" if not self._joined.done():
                self._joined.set_result(str(report.node))
            case "dial_failed":
                reason = report.detail.removeprefix(f"{self.url}: ")
                self._stay_out(f"can't reach {self.url}: {reason}; is a node listening at that URL?")
            case "link_refused":
                self._stay_out(f"the node at {self.url} and this command don't go together: {report.detail}")
            case "unreachable" if report.node == self.target.rpartition("@")[2]:
                self._on_turned_back(report)

    def _stay_out(self, text: str) -> None:
        if not self._joined.done():
            self._joined.set_result(Failure(text, UNREACHABLE))

    def _on_turned_back(self, report: Report) -> None:
        """A message to the target got no further: judge whether the target is there at all."""
        if self.found.done() or self._given_up.done() or self.reached():
            return
        self._known = _hint(report) + (f"; {report.text}" if report.text else "")
        if report.detail == "gone":
            self._given_up.set_result(f"{self.target!r} has left the mesh")
        elif report.settled >= SETTLED:
            self._given_up.set_result(self._not_there(""))
        elif self._search is None:
            self._search = self._loop.create_task(self._seek(self._timeout or SETTLED - report.settled))

    def _not_there(self, after: str) -> str:
        text = f"no node {self.target!r} can be reached from {self.host!r}{after}{self._known}"
        return f"{text}; 'zmesh routes' shows those that can be"

    async def _seek(self, patience: float) -> None:
        """Ping the target again and again until it answers, or for as long as it may still appear."""
        over = self._loop.time() + patience
        pings: set[asyncio.Task[Pong]] = set()
        pause = ASK_AGAIN_FIRST
        try:
            while not self.found.done() and (left := over - self._loop.time()) > 0:
                pings.add(self._loop.create_task(self.ping(left + 1.0)))
                await asyncio.wait((self.found,), timeout=min(pause, left))
                pause = min(ASK_AGAIN_LAST, 2 * pause)
            if not (self.found.done() or self._given_up.done()):
                self._given_up.set_result(self._not_there(f" after {patience:.2g} s"))
        finally:
            for ping in pings:
                ping.cancel()
            await asyncio.gather(*pings, return_exceptions=True)


def _hint(report: Report) -> str:
    return f" (did you mean {report.near[0]!r}?)" if report.near else ""
