"""The ephemeral node that is a member of the mesh for the time of one command.

A session waits for events of its node only: for its link to come up or the reason why it does not, and for an answer or
the notice that the target is unreachable. Such a notice says for how many seconds the routes of its sender have not
changed. From SETTLED on, the target is taken to be unknown. Before that the mesh may still be forming, and the target
is pinged again until the rest of that time is over.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from zmesh import Config, Controller, DestinationUnreachable, DialFailed, Event, LinkRefused, LinkUp, Pong, is_address
from zmesh.trust import default_folder
from zmesh_cli.exit_codes import NOT_TRUSTED, REASONS, REFUSED, UNREACHABLE, USAGE, Failure
from zmesh_cli.local_sockets import Place
from zmesh_cli.terminal import print_error

if TYPE_CHECKING:
    from zmesh.trust import Identity

T = TypeVar("T")

JOIN_TIMEOUT = 10.0
SETTLED = 3.0
PING_INTERVAL_FIRST = 0.1
PING_INTERVAL_LAST = 0.5


def check_node_id(text: str) -> None:
    """Accept the id of a node. Raises Failure."""
    if not is_address(text):
        many = "; 'zmesh run', 'cp' and 'nodes' take several nodes" if "," in text or ":" in text else ""
        raise Failure(f"{text!r} is not the id of a node: an id is 1 to 64 of A-Z a-z 0-9 . _ -{many}", USAGE)


class Session:
    """An ephemeral node linked to the node at `place`, for requests to the node `target` (None: the node there).

    `timeout` is the one that the user set, if any; it then also limits the wait for a target that has yet to join.
    `route_timeout` is for how many seconds its requests may be without a route; None: the default of Config.
    `identity`: that of the node, where `place` says that it has one; None: the one in use.
    `async with` joins. It raises Failure if that takes more than `join_timeout` seconds or the link is refused, and
    AddressError for a URL that can't be dialled.
    """

    def __init__(
        self,
        place: Place,
        target: str | None = None,
        timeout: float | None = None,
        *,
        join_timeout: float | None = JOIN_TIMEOUT,
        route_timeout: float | None = None,
        identity: Identity | None = None,
        others: Sequence[str] = (),
    ) -> None:
        if target is not None:
            check_node_id(target)
        self.host = ""
        """The id of the node at the other end of its link, once joined."""
        self.controller = Controller(config_at(place, route_timeout, identity))
        peers = self.controller.config.peers
        if not peers:
            raise Failure("the identity here names no node to dial; name one with --peer tcp://host:port", USAGE)
        self.url = " or ".join(_shown(url) for url in peers)
        self._undialled = set(peers)
        self.controller.watch(self._on_event)
        self.has_arrived: Callable[[], bool] = lambda: False
        """Whether the request has reached the target, which is then known even if it is lost later."""
        self._target = target
        self._others = others
        """Nodes that it is for besides; the first one that can't be reached takes the place of the target."""
        self._timeout = timeout
        self._join_timeout = min(JOIN_TIMEOUT, join_timeout or JOIN_TIMEOUT)
        self._loop = asyncio.get_running_loop()
        self.answered: asyncio.Future[None] = self._loop.create_future()
        """Done when the target has answered a ping, be it one of those that wait for it to join."""
        self._joined: asyncio.Future[str | Failure] = self._loop.create_future()
        self._not_found: asyncio.Future[Failure] = self._loop.create_future()
        self._retries: asyncio.Task[None] | None = None
        self._hint = ""
        """The hint about the target in the last notice."""

    @property
    def target(self) -> str:
        """The id of the node that the requests of this session go to."""
        return self._target or self.host

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as unless_joined:
            unless_joined.push_async_callback(self.controller.close)
            await self._renew()
            await self.controller.open()
            await asyncio.wait((self._joined,), timeout=self._join_timeout)
            if not self._joined.done():
                text = f"no node answers at {self.url} within {self._join_timeout:g} s; is that the URL of a node?"
                raise Failure(text, UNREACHABLE)
            host = self._joined.result()
            if isinstance(host, Failure):
                raise host
            self.host = host
            unless_joined.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._retries is not None:
            self._retries.cancel()
            await asyncio.wait((self._retries,))
        await self.controller.close()

    async def _renew(self) -> None:
        """Renew the certificate of a person, for whom no node does so, when it is due."""
        identity = self.controller.config.identity
        if identity is None or isinstance(identity, (str, os.PathLike)):
            return
        if time.time() >= identity.renews_at:
            from zmesh.trust import keep_valid  # here: it is due once in two months

            if problem := await keep_valid(identity):
                until = time.strftime("%Y-%m-%d", time.gmtime(identity.certificate.not_after))
                print_error(f"the certificate of {identity.node_id!r}, valid until {until}, is not renewed: {problem}")

    async def unless_not_found(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that sends requests to the target. Raises Failure as soon as there is no such node."""
        task = self._loop.create_task(work)
        try:
            await asyncio.wait((task, self._not_found), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise self._not_found.result()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))

    async def ping(self, timeout: float) -> Pong:
        """Ping the target and wait for the answer. Raises TimedOut, Unreachable, RemoteError."""
        pong = await self.controller.ping_once(self.target, timeout)
        if not self.answered.done():
            self.answered.set_result(None)
        return pong

    def _on_event(self, event: Event) -> None:
        match event:
            case LinkUp() if not self._joined.done():
                self._joined.set_result(event.node)
            case DialFailed():
                self._on_dial_failed(event)
            case LinkRefused():
                code = REFUSED.get(event.code, UNREACHABLE)
                self._fail_to_join(f"the link to {self.url} is refused: {event.reason}", code)
            case DestinationUnreachable() if event.node == self.target.rpartition("@")[2]:
                self._on_unreachable(event)
            case DestinationUnreachable() if event.node in self._others and self._retries is None:
                self._target = event.node
                self._on_unreachable(event)

    def _on_dial_failed(self, failed: DialFailed) -> None:
        self._undialled = {url for url in self._undialled if _shown(url) != _shown(failed.url)}
        if not self._undialled:
            text, code = f"can't reach {self.url}: {failed.reason}", REASONS.get(failed.code, UNREACHABLE)
            self._fail_to_join(f"{text}; is a node listening at that URL?" if code == UNREACHABLE else text, code)

    def _fail_to_join(self, text: str, code: int = UNREACHABLE) -> None:
        if not self._joined.done():
            self._joined.set_result(Failure(text, code))

    def _on_unreachable(self, notice: DestinationUnreachable) -> None:
        """A node on the path has no route to the target: fail now, or ping it until it may be taken to be unknown."""
        if self.answered.done() or self._not_found.done() or self.has_arrived():
            return
        did_you_mean = f" (did you mean {notice.near[0]!r}?)" if notice.near else ""
        self._hint = did_you_mean + (f"; {notice.text}" if notice.text else "")
        if notice.reason == "not_trusted":
            text = f"{self.target!r} does not trust this command: {notice.text}"
            self._not_found.set_result(Failure(text, NOT_TRUSTED))
        elif notice.reason == "gone":
            self._not_found.set_result(Failure(f"{self.target!r} has left the mesh", UNREACHABLE))
        elif notice.settled >= SETTLED:
            self._not_found.set_result(self._unknown(""))
        elif self._retries is None:
            self._retries = self._loop.create_task(self._ping_until(self._timeout or SETTLED - notice.settled))

    def _unknown(self, after: str) -> Failure:
        text = f"no node {self.target!r} can be reached from {self.host!r}{after}{self._hint}"
        return Failure(f"{text}; 'zmesh routes' shows those that can be", UNREACHABLE)

    async def _ping_until(self, timeout: float) -> None:
        """Ping the target again and again until it answers, for at most `timeout` seconds."""
        over = self._loop.time() + timeout
        pings: set[asyncio.Task[Pong]] = set()
        interval = PING_INTERVAL_FIRST
        try:
            while not self.answered.done() and (left := over - self._loop.time()) > 0:
                pings.add(self._loop.create_task(self.ping(left + 1.0)))
                await asyncio.wait((self.answered,), timeout=min(interval, left))
                interval = min(PING_INTERVAL_LAST, 2 * interval)
            if not (self.answered.done() or self._not_found.done()):
                self._not_found.set_result(self._unknown(f" after {timeout:.2g} s"))
        finally:
            for ping in pings:
                ping.cancel()
            await asyncio.gather(*pings, return_exceptions=True)


def config_at(place: Place, route_timeout: float | None, identity: Identity | None) -> Config:
    """The settings of the node: with that identity or the one in use, or by a random id without one."""
    peers = (place.url,) if place.url is not None else ()
    if place.own and (identity is not None or default_folder() is not None):
        own = identity if identity is not None else "auto"
        config = Config(identity=own, peers=peers, ephemeral=True, insecure=place.insecure)
    else:
        node_id = f"cli-{os.urandom(5).hex()}"
        config = Config(node_id=node_id, identity=None, peers=peers, ephemeral=True, insecure=place.insecure)
    return config if route_timeout is None else dataclasses.replace(config, route_timeout=route_timeout)


def _shown(url: str) -> str:
    """A URL without its key."""
    return url.partition("?")[0]
