"""Coverage of rare branches of the core by a soak: a list of named points, and a census of those reached.

A thousand seeds that never bring two nodes of one name together say nothing about what happens then. So each point
names a rare event, how it is detected, and in which sentences of the soak it must occur. Points are observed from
outside, by reports or by wrapping a method while the census is open: the core contains no code for it.
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
from zmesh.core.forwarding.returned import Returned
from zmesh.core.neighbours.handshake import Handshake
from zmesh.core.neighbours.links import Links
from zmesh.core.routing.advertisements import Advertiser
from zmesh.core.routing.cost_damping import CostDamping
from zmesh.core.routing.duplicates import Duplicates
from zmesh.core.routing.records import Records
from zmesh.core.routing.routes import Routes
from zmesh.core.routing.seqno_requests import NEAR_TRIES, SeqnoRequests
from zmesh.testing.simnode import NOT_BEGUN, SimNode
from zmesh.testing.simulator import Simulator

Wrapped = Callable[..., Any]
Judge = Callable[[Any, tuple[Any, ...], Any, Any], bool]
"""Whether a call has reached a point, by its object, its arguments, the value of `before`, and its result."""

ROUTES, DELIVERY, LIARS = "routes", "delivery", "liars"
ALL = (ROUTES, DELIVERY, LIARS)
EXCHANGES = (DELIVERY, LIARS)


class Point(NamedTuple):
    """A rare event that the soak must reach in these sentences; calls of `method` of `owner` are observed."""

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
    """A point that is reached when a method is called, and `reached` is true of the call."""
    return Point(name, sentences, owner, method, reached, before)


def reported(name: str, event: str, detail: str = "", sentences: tuple[str, ...] = ALL) -> Point:
    """A point that is reached when a node that does not lie reports this event, with `detail` in its detail."""

    def reached(sim: Any, arguments: tuple[Any, ...], before: Any, result: Any) -> bool:
        node, report = arguments
        return isinstance(report, Report) and report.event == event and detail in report.detail and not node.lies

    return on(name, Simulator, "note", reached, sentences=sentences)


def ended(name: str, reason: str, text: str) -> Point:
    """A point that is reached when an exchange ends for this reason, with `text` in its error."""

    def reached(node: Any, arguments: tuple[Any, ...], before: Any, result: Any) -> bool:
        eof = arguments[0].eof
        return eof is not None and eof.reason == reason and text in eof.error

    return on(name, SimNode, "deliver", reached, sentences=EXCHANGES)


POINTS: tuple[Point, ...] = (
    # -- links --
    reported("a link is suspect", "link_suspect"),
    on("a suspect link recovers", Links, "trust"),
    reported("a silent link is lost", "link_lost", "silent for"),
    on("no HELLO arrives", SimNode, "hang_up", lambda _, arguments, __, ___: arguments[0].reason == "no greeting"),
    reported("the other end does not know the link", "link_lost", "knows us no more"),
    reported("a neighbour says goodbye", "link_lost", "they left"),
    reported("a link is quarantined while an earlier incarnation may be alive", "link_quarantined"),
    on("a quarantined link replaces that of an earlier incarnation", Handshake, "released", _some),
    reported("a second node with the same id is refused", "link_refused", "is alive in the mesh", (ROUTES, DELIVERY)),
    reported("two nodes with the same id are known", "duplicate_id"),
    on("a link cost follows the round-trip time", CostDamping, "take", _some),
    reported("a frame arrives before the HELLO", "frame_dropped", "not_greeted", EXCHANGES),
    reported("three invalid frames close a link", "link_lost", "bad frames in a row", (LIARS,)),
    reported("a frame carries this node as its source", "frame_dropped", "own_source", (LIARS,)),
    # -- routes and records --
    on("all routes are sent again", Routes, "resend"),
    on("all records are sent again", Records, "resend"),
    on("a route change is held down", Advertiser, "hold_down"),
    on(
        "a seqno request is addressed to the destination itself",
        SeqnoRequests,
        "originate",
        lambda _, arguments, __, ___: arguments[0].tries > NEAR_TRIES,
    ),
    on("a seqno request is forwarded", SeqnoRequests, "forward"),
    on("a seqno request is forwarded again, along another route", SeqnoRequests, "reforward"),
    on("a seqno request is answered", SeqnoRequests, "answer", _some),
    on(
        "a node raises its own seqno",
        Routes,
        "request",
        lambda routes, _, before, __: routes.seqno > before,
        lambda routes, _: routes.seqno,
    ),
    reported("a record expires", "node_forgotten"),
    on(
        "a node replaces a forged record of itself",
        Records,
        "expire",
        lambda records, _, before, __: records.digest != before,
        lambda records, _: records.digest,
    ),
    on("a duplicate id is confirmed", Duplicates, "witness", _some),
    # -- exchanges --
    reported("a frame has no route", "frame_dropped", "no_route", EXCHANGES),
    reported("a copy is addressed to an earlier incarnation", "frame_dropped", "stale", EXCHANGES),
    reported("a server has restarted, says an UNREACHABLE", "unreachable", "restarted", EXCHANGES),
    on(
        "a reply is addressed to a leaf that has left",
        Server,
        "on_unreachable",
        lambda _, arguments, __, ___: arguments[1].reason == "gone",
        sentences=EXCHANGES,
    ),
    on("discovery restarts for a request that never arrived", Sender, "restart_discovery", _some, sentences=EXCHANGES),
    on("a server answers discovery", Client, "on_discovered", sentences=EXCHANGES),
    on("a server has no request to cancel", Client, "on_nothing_to_cancel", sentences=EXCHANGES),
    on("a client learns that its own node id is contested", Client, "on_contested", sentences=EXCHANGES),
    ended("a request finds no route until its route timeout", "unreachable", "no route to"),
    ended("a request was given up during a partition", "unreachable", "gave the request up"),
    ended("a request times out", "timed_out", "no final reply"),
    on("a server says that work has not begun", Engine, "report_delay", sentences=EXCHANGES),
    ended("a request times out whose work has not begun", "timed_out", NOT_BEGUN),
    ended("a server never confirms a cancellation", "cancelled", "has not confirmed"),
    ended("a request is cancelled before it arrives", "cancelled", "had not reached"),
    ended("a request is refused because of a quota", "overloaded", ""),
    ended("a server has lost the request", "node_restarted", "has restarted"),
    on("a client has restarted", Server, "on_restart", sentences=EXCHANGES),
    on("a server loses the route to its client", Server, "on_route_lost", sentences=EXCHANGES),
    on(
        "a cancel overtakes its request",
        Server,
        "on_cancel",
        lambda server, arguments, before, _: before and server.get(arguments[1].message_id) is None,
        lambda server, arguments: server.get(arguments[1].message_id) is not None,
        EXCHANGES,
    ),
    on("a frame comes from an earlier incarnation", Peers, "is_stale", _some, sentences=EXCHANGES),
    on("a leaf attaches at another address", Delivery, "on_attached", sentences=EXCHANGES),
    on("a leaf loses its uplink", Delivery, "on_detached", sentences=EXCHANGES),
    on("a chunk is declared lost after a timeout", OutboundStream, "on_timeout", sentences=EXCHANGES),
    on("a chunk is returned", OutboundStream, "on_returned", sentences=EXCHANGES),
    on(
        "a chunk arrives out of order",
        InboundStream,
        "accept",
        lambda inbound, _, __, ___: bool(inbound.buffered),
        sentences=EXCHANGES,
    ),
    on(
        "a chunk arrives twice",
        InboundStream,
        "accept",
        lambda _, arguments, before, __: arguments[0].sequence < before,
        lambda inbound, _: inbound.expected,
        EXCHANGES,
    ),
    on("a congestion window is halved", CongestionControl, "on_congestion", sentences=EXCHANGES),
    on("a full link returns a frame", Queue, "give_back", sentences=EXCHANGES),
    on("streams resume after a full link", Delivery, "on_link_ready", sentences=EXCHANGES),
    on(
        "the queue of a lost link moves to another link",
        Forwarding,
        "reroute",
        lambda _, __, before, ___: before,
        lambda _, arguments: arguments[0].size_bytes > 0,
        EXCHANGES,
    ),
    on("a forwarder sends an UNREACHABLE", Returned, "send_unreachable", sentences=EXCHANGES),
    on("a node closes", Engine, "close"),
)


class Census:
    """Observes the points while it is open, and collects those reached since the last `take`."""

    def __init__(self, points: Iterable[Point] = POINTS) -> None:
        self._points = tuple(points)
        self._reached: set[str] = set()
        self._originals: list[tuple[type, str, Wrapped]] = []

    def open(self) -> Self:
        """Wrap the methods of all points."""
        methods: dict[tuple[type, str], list[Point]] = {}
        for point in self._points:
            methods.setdefault((point.owner, point.method), []).append(point)
        for (owner, method), points in methods.items():
            original = getattr(owner, method)
            self._originals.append((owner, method, original))
            setattr(owner, method, self._watched(original, points))
        return self

    def close(self) -> None:
        """Restore the original methods."""
        while self._originals:
            setattr(*self._originals.pop())

    __enter__ = open

    def __exit__(self, *exc: object) -> None:
        self.close()

    def take(self) -> set[str]:
        """The names of the points that were reached since the last call."""
        reached, self._reached = self._reached, set()
        return reached

    def _watched(self, original: Wrapped, points: list[Point]) -> Wrapped:
        seen = self

        def watched(this: Any, *arguments: Any, **options: Any) -> Any:
            pending = [point for point in points if point.name not in seen._reached]
            before = [point.before(this, arguments) for point in pending]
            result = original(this, *arguments, **options)
            for point, was in zip(pending, before, strict=True):
                if point.reached(this, arguments, was, result):
                    seen._reached.add(point.name)
            return result

        return watched


def expected(sentence: str, points: Iterable[Point] = POINTS) -> set[str]:
    """The names of the points that a soak of that sentence must reach."""
    return {point.name for point in points if sentence in point.sentences}
