"""Which rare branches of the core a soak has reached: a list of named points, and a census of them.

A thousand seeds that never bring two nodes of one name together say nothing about what happens then. So each point
names something that is rare, how to tell that it has happened, and in which sentences of the soak it must. It is
watched from outside, by reports or by a method that is wrapped as long as the census is open: the core knows nothing of
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self

from zmesh.core.delivery import Delivery
from zmesh.core.delivery.client import Client
from zmesh.core.delivery.congestion import CongestionControl
from zmesh.core.delivery.inbound import InboundStream
from zmesh.core.delivery.outbound import OutboundStream
from zmesh.core.delivery.peers import Peers
from zmesh.core.delivery.sender import Sender
from zmesh.core.delivery.server import Server
from zmesh.core.effects import Report
from zmesh.core.engine import Engine
from zmesh.core.forwarding.forwarding import Forwarding
from zmesh.core.forwarding.queues import Queue
from zmesh.core.neighbours.handshake import Handshake
from zmesh.core.neighbours.links import Links
from zmesh.core.routing.advertisements import Advertiser
from zmesh.core.routing.cost_damping import CostDamping
from zmesh.core.routing.duplicates import Duplicates
from zmesh.core.routing.records import Records
from zmesh.core.routing.routes import Routes
from zmesh.core.routing.seqno_requests import NEAR_TRIES, SeqnoRequests
from zmesh.testing.simnode import SimNode
from zmesh.testing.simulator import Simulator

Wrapped = Callable[..., Any]
Judge = Callable[[Any, tuple[Any, ...], Any, Any], bool]
"""Whether a call has reached a point: its object, its arguments, what `before` saw, and its result."""

ROUTES, DELIVERY, LIARS = "routes", "delivery", "liars"
ALL = (ROUTES, DELIVERY, LIARS)
EXCHANGES = (DELIVERY, LIARS)


class Point(NamedTuple):
    """Something rare, which the soak must reach in these sentences. `owner` and `method` are what is watched."""

    name: str
    sentences: tuple[str, ...]
    owner: type
    method: str
    reached: Judge
    before: Callable[[Any, tuple[Any, ...]], Any]


def _always(this: Any, arguments: tuple[Any, ...], before: Any, result: Any) -> bool:
    return True


def _some(this: Any, arguments: tuple[Any, ...], before: Any, result: Any) -> bool:
    return bool(result)


def _none(this: Any, arguments: tuple[Any, ...], before: Any, result: Any) -> bool:
    return result is None


def _nothing(this: Any, arguments: tuple[Any, ...]) -> None:
    return None


def on(
    name: str,
    owner: type,
    method: str,
    reached: Judge = _always,
    before: Callable[[Any, tuple[Any, ...]], Any] = _nothing,
    sentences: tuple[str, ...] = ALL,
) -> Point:
    """A point that is reached when a method is called, and `reached` says so."""
    return Point(name, sentences, owner, method, reached, before)


def told(name: str, event: str, detail: str = "", sentences: tuple[str, ...] = ALL) -> Point:
    """A point that is reached when a node that does not lie reports this event, with that in its detail."""

    def reached(sim: Any, arguments: tuple[Any, ...], before: Any, result: Any) -> bool:
        node, report = arguments
        return isinstance(report, Report) and report.event == event and detail in report.detail and not node.lies

    return on(name, Simulator, "note", reached, sentences=sentences)


def ended(name: str, reason: str, text: str) -> Point:
    """A point that is reached when an exchange ends for this reason, with that in the text."""

    def reached(node: Any, arguments: tuple[Any, ...], before: Any, result: Any) -> bool:
        eof = arguments[0].eof
        return eof is not None and eof.reason == reason and text in eof.error

    return on(name, SimNode, "deliver", reached, sentences=EXCHANGES)


POINTS: tuple[Point, ...] = (
    # -- links --
    told("a link is suspect", "link_suspect"),
    on("a suspect link is heard again", Links, "trust"),
    told("a silent link is lost", "link_lost", "silent for"),
    on(
        "a greeting never comes", SimNode, "hang_up", lambda _, arguments, __, ___: arguments[0].reason == "no greeting"
    ),
    told("the other end has forgotten the link", "link_lost", "knows us no more"),
    told("a neighbour says goodbye", "link_lost", "they left"),
    told("a newcomer is quarantined while its former life may be alive", "link_quarantined"),
    on("a quarantined newcomer takes the place of its former life", Handshake, "released", _some),
    told("a second node of one name is refused", "link_refused", "is alive in the mesh", (ROUTES, DELIVERY)),
    told("two nodes of one name are known", "duplicate_id"),
    on("a cost moves as round trips do", CostDamping, "take", _some),
    told("a frame comes before its greeting", "frame_dropped", "not_greeted", EXCHANGES),
    told("three bad frames end a link", "link_lost", "bad frames in a row", (LIARS,)),
    told("a frame claims to come from here", "frame_dropped", "own_source", (LIARS,)),
    # -- routes and records --
    on("a whole table is told again", Routes, "resend"),
    on("all records are told again", Records, "resend"),
    on("a change of routes is held back", Advertiser, "hold_down"),
    on(
        "the destination itself is asked for a number",
        SeqnoRequests,
        "originate",
        lambda _, arguments, __, ___: arguments[0].tries > NEAR_TRIES,
    ),
    on("a question is passed on", SeqnoRequests, "forward"),
    on("a question is passed on once more, along another route", SeqnoRequests, "reforward"),
    on("a neighbour gets the answer that it waits for", SeqnoRequests, "answer", _some),
    on(
        "a node raises its own number",
        Routes,
        "request",
        lambda routes, _, before, __: routes.seqno > before,
        lambda routes, _: routes.seqno,
    ),
    told("a record is forgotten", "node_forgotten"),
    on(
        "a node outbids who spoke in its name",
        Records,
        "expire",
        lambda records, _, before, __: records.digest != before,
        lambda records, _: records.digest,
    ),
    on("a name proves to be borne twice", Duplicates, "witness", _some),
    # -- exchanges --
    told("a frame finds no route", "frame_dropped", "no_route", EXCHANGES),
    told("a copy is for a life that is over", "frame_dropped", "stale", EXCHANGES),
    told("a recipient has restarted", "unreachable", "restarted", EXCHANGES),
    on(
        "a reply is for a leaf that has left",
        Server,
        "on_unreachable",
        lambda _, arguments, __, ___: arguments[1].reason == "gone",
        sentences=EXCHANGES,
    ),
    on("a request that never arrived begins anew", Sender, "restart_discovery", _some, sentences=EXCHANGES),
    on("a recipient says who it is", Client, "on_discovered", sentences=EXCHANGES),
    on("a recipient has nothing to stop", Client, "on_nothing_to_cancel", sentences=EXCHANGES),
    on("a call knows that its node's name is contested", Client, "on_contested", sentences=EXCHANGES),
    ended("a call finds no route for too long", "unreachable", "no route to"),
    ended("a call was given up while it was cut off", "unreachable", "gave the request up"),
    ended("a call runs out of time", "timed_out", "no final reply"),
    ended("a recipient never confirms that it has stopped", "cancelled", "has not confirmed"),
    ended("a request is cancelled before it arrives", "cancelled", "had not reached"),
    ended("a request is refused for want of room", "overloaded", ""),
    ended("a recipient has lost the request", "node_restarted", "has restarted"),
    on("a caller has restarted", Server, "on_restart", sentences=EXCHANGES),
    on("a service loses the way to its caller", Server, "on_route_lost", sentences=EXCHANGES),
    on(
        "a cancel overtakes its request",
        Server,
        "on_cancel",
        lambda services, arguments, before, _: before and services.get(arguments[1].message_id) is None,
        lambda services, arguments: services.get(arguments[1].message_id) is not None,
        EXCHANGES,
    ),
    on("a former life speaks", Peers, "is_stale", _some, sentences=EXCHANGES),
    on("a leaf is known at another address", Delivery, "on_attached", sentences=EXCHANGES),
    on("a leaf has lost its node", Delivery, "on_detached", sentences=EXCHANGES),
    on("a chunk is taken for lost after a time-out", OutboundStream, "on_timeout", sentences=EXCHANGES),
    on("a chunk comes back", OutboundStream, "on_returned", sentences=EXCHANGES),
    on(
        "a chunk comes before those ahead of it",
        InboundStream,
        "accept",
        lambda inbound, _, __, ___: bool(inbound.buffered),
        sentences=EXCHANGES,
    ),
    on(
        "a chunk comes twice",
        InboundStream,
        "accept",
        lambda _, arguments, before, __: arguments[0].sequence < before,
        lambda inbound, _: inbound.expected,
        EXCHANGES,
    ),
    on("a window is halved", CongestionControl, "on_congestion", sentences=EXCHANGES),
    on("a full link gives a frame back", Queue, "give_back", sentences=EXCHANGES),
    on("streams go on that waited for a full link", Delivery, "on_link_ready", sentences=EXCHANGES),
    on(
        "what waits for a lost link takes another",
        Forwarding,
        "reroute",
        lambda _, __, before, ___: before,
        lambda _, arguments: arguments[0].size_bytes > 0,
        EXCHANGES,
    ),
    on("a forwarder sends a frame back", Forwarding, "send_unreachable", sentences=EXCHANGES),
    on("a node closes", Engine, "close"),
)


class Census:
    """Watches the points as long as it is open, and knows which were reached since `take`."""

    def __init__(self, points: Iterable[Point] = POINTS) -> None:
        self._points = tuple(points)
        self._reached: set[str] = set()
        self._originals: list[tuple[type, str, Wrapped]] = []

    def open(self) -> Self:
        """Begin to watch."""
        methods: dict[tuple[type, str], list[Point]] = {}
        for point in self._points:
            methods.setdefault((point.owner, point.method), []).append(point)
        for (owner, method), points in methods.items():
            original = getattr(owner, method)
            self._originals.append((owner, method, original))
            setattr(owner, method, self._watched(original, points))
        return self

    def close(self) -> None:
        """Watch no more, and leave everything as it was."""
        while self._originals:
            setattr(*self._originals.pop())

    __enter__ = open

    def __exit__(self, *exc: object) -> None:
        self.close()

    def take(self) -> set[str]:
        """The names of the points that were reached since this was asked last."""
        reached, self._reached = self._reached, set()
        return reached

    def _watched(self, original: Wrapped, points: list[Point]) -> Wrapped:
        seen = self

        def watched(this: Any, *arguments: Any, **options: Any) -> Any:
            wanted = [point for point in points if point.name not in seen._reached]
            before = [point.before(this, arguments) for point in wanted]
            result = original(this, *arguments, **options)
            for point, was in zip(wanted, before, strict=True):
                if point.reached(this, arguments, was, result):
                    seen._reached.add(point.name)
            return result

        return watched


def expected(sentence: str, points: Iterable[Point] = POINTS) -> set[str]:
    """The names of the points that a soak of that sentence must reach."""
    return {point.name for point in points if sentence in point.sentences}
