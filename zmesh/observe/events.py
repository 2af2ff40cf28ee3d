"""Events of a node as typed values: `async for event in mesh.events()`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Self

from zmesh.core.effects import Report
from zmesh.core.message import LinkId
from zmesh.observe.router import Route, Router

MAX_UNREAD = 1000


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A link to a neighbour is up; `ephemeral` if that is a leaf, such as a command; `where` is the other end."""

    node: str
    link: int
    ephemeral: bool
    where: str = ""


@dataclass(frozen=True, slots=True)
class LinkLost:
    """A link to a neighbour is lost; `reason` is a text."""

    node: str
    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class LinkRefused:
    """A link was refused by this end or the other; `node` is None if the other end has not named itself.

    `code` is a stable reason, such as `duplicate_id`, `expired` or `revoked`, and `reason` its text.
    """

    node: str | None
    reason: str
    where: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class DialFailed:
    """A peer does not answer; it is dialled again. `code` is a stable reason, such as `refused` or `wrong_key`."""

    url: str
    reason: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """There is a route to a node that there was none to."""

    node: str


@dataclass(frozen=True, slots=True)
class NodeLeft:
    """There is no route to a node any more."""

    node: str


@dataclass(frozen=True, slots=True)
class RouteChanged:
    """Messages to a node leave over another link than before, or go to a new incarnation of it."""

    node: str
    route: Route


@dataclass(frozen=True, slots=True)
class DuplicateId:
    """Two live nodes have the same id; `text` says where they are."""

    node: str
    text: str


@dataclass(frozen=True, slots=True)
class IdTaken:
    """This node's id is used by another live node that was started earlier: this one should end."""

    node: str
    text: str


@dataclass(frozen=True, slots=True)
class CertificateExpiring:
    """Less than a third of the validity of this node's certificate is left, or none; once a day."""

    node: str
    text: str


@dataclass(frozen=True, slots=True)
class CertificateRenewed:
    """This node has a new certificate."""

    node: str
    text: str


@dataclass(frozen=True, slots=True)
class TrustChanged:
    """A revocation or an authority is new here, brought by the neighbour `node`; `text` says what."""

    node: str
    text: str


@dataclass(frozen=True, slots=True)
class ClockSet:
    """The clock of this node's machine was set while it runs, or the machine was suspended; `text` says by how much."""

    node: str
    text: str


@dataclass(frozen=True, slots=True)
class ConfigurationChanged:
    """This node has taken other settings: those in `changed`; those in `at_restart` wait for its next start."""

    node: str
    changed: tuple[str, ...]
    at_restart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DestinationUnreachable:
    """A message of this node came back, because a node on its path has no route to `node`.

    `reason` is that of the UNREACHABLE: `no_route`, `left` (there was a route), `gone` (a leaf that has left),
    `restarted` or `full`; or `no_key`, `no_grants` or `not_trusted` where a key to seal or open it with is lacking.
    `near` are known ids that are spelled alike. `settled`: for how many seconds the routes of the node that returned it
    have not changed. `text` is what that node knows of the destination.
    """

    node: str
    reason: str
    near: tuple[str, ...]
    settled: float
    text: str


@dataclass(frozen=True, slots=True)
class EventsLost:
    """So many events were not read in time and are gone."""

    count: int


Event = (
    LinkUp
    | LinkLost
    | LinkRefused
    | DialFailed
    | NodeJoined
    | NodeLeft
    | RouteChanged
    | DuplicateId
    | IdTaken
    | CertificateExpiring
    | CertificateRenewed
    | ClockSet
    | TrustChanged
    | ConfigurationChanged
    | DestinationUnreachable
    | EventsLost
)


def event_of(report: Report, router: Router, where: Callable[[LinkId], str]) -> Event | None:
    """The event for a report of the engine, or None for a detail; `where` gives the address of a link's other end."""
    node = report.node or ""
    match report.event:
        case "link_up":
            end = where(report.link) if report.link is not None else ""
            return LinkUp(node, report.link or 0, report.detail == "leaf", end)
        case "link_lost":
            return LinkLost(node, report.link or 0, report.detail)
        case "link_refused":
            end = where(report.link) if report.link is not None else ""
            return LinkRefused(report.node, report.detail, end, report.text)
        case "dial_failed":
            url, _, reason = report.detail.partition(": ")
            return DialFailed(url, reason, report.text)
        case "node_joined":
            return NodeJoined(node)
        case "node_left":
            return NodeLeft(node)
        case "route_changed":
            route = router.route(node)
            return RouteChanged(node, route) if route is not None else None
        case "duplicate_id":
            return DuplicateId(node, report.detail)
        case "id_taken":
            return IdTaken(node, report.detail)
        case "certificate_expiring":
            return CertificateExpiring(node, report.detail)
        case "certificate_renewed":
            return CertificateRenewed(node, report.detail)
        case "trust_changed":
            return TrustChanged(node, report.detail)
        case "clock_set":
            return ClockSet(node, report.detail)
        case "configuration_changed":
            return ConfigurationChanged(node, _names(report.detail), _names(report.text))
        case "unreachable":
            return DestinationUnreachable(node, report.detail, report.near, report.settled, report.text)
    return None


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", ")) if text else ()


class Events:
    """The stream of a node's events from the moment it was asked for; it ends with the node.

    At most MAX_UNREAD wait to be read; what is older is dropped, and EventsLost says how many.
    """

    def __init__(
        self,
        router: Router,
        where: Callable[[LinkId], str],
        leave: Callable[[Events], None],
        check: Callable[[], None],
    ) -> None:
        """`check` raises Closed if no event can come."""
        self._router = router
        self._where = where
        self._check = check
        self._leave = leave
        self._unread: deque[Event] = deque()
        self._lost = 0
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def note(self, report: Report) -> None:
        """The engine has reported something."""
        event = event_of(report, self._router, self._where)
        if event is None:
            return
        if len(self._unread) >= MAX_UNREAD:
            self._unread.popleft()
            self._lost += 1
        self._unread.append(event)
        self._wake()

    def end(self) -> None:
        """End the iteration after the unread events: the node is closed."""
        self._ended = True
        self._wake()

    def close(self) -> None:
        """Take no more events; the iteration ends after the unread ones."""
        self._leave(self)
        self.end()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._unread and not self._lost:
            if self._ended:
                raise StopAsyncIteration
            self._check()
            if self._waiter is None or self._waiter.done():
                self._waiter = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._waiter)
        if self._lost:
            count, self._lost = self._lost, 0
            return EventsLost(count)
        return self._unread.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
