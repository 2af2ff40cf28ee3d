"""Outstanding seqno requests (RFC 8966 section 3.8), extended to request a smaller feasibility distance.

A node may know a route that its feasibility distance forbids, and be left with a costlier one or with none (`routes`).
It asks the neighbour with the cheapest offer for a distance below its own. The request travels along that neighbour's
route to the first node whose distance is small enough, and each node on the path asks for 1 less than it was asked for,
so that its own distance fits between. The answer returns along the same path, and each node shrinks its distance as it
passes it on. So an alternate is made feasible where it is needed, however far the destination is. This is split label
routing (Mosko and Garcia-Luna-Aceves, ICDCS 2004).

If no node near is close enough, no room is left between two distances, or no answer arrives, the request is for a new
seqno, which the destination alone can issue, and which makes all routes feasible. The same is done when two nodes
shrink their distances in turn: each asks the other, and answers by going below its own.

An answer may be stale: when a node has died, all its neighbours know routes over one another. So only a node that lost
a route with its own link sends a request at once. After a retraction it waits for REQUEST_DELAY, in which retractions
outrun the routes that they invalidate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zmesh.core.message import LinkId, NodeId
from zmesh.core.routing.destinations import NOT_STARVED, Destination
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import MAX_TTL, SeqnoRequest

REQUEST_DELAY = 0.03
RETRY_INITIAL = 0.250
RETRY_MAX = 2.0
NEAR_TRIES = 2
NEAR_HOPS = 3
NEAR_ROUNDS = 3
SUPPRESSION = 0.2
REQUESTER_TIMEOUT = 2.5


class SeqnoRequests:
    """The requests of one node, its own and those that it forwards."""

    def __init__(self, alarm: Alarm) -> None:
        self._due: Timers[Destination] = Timers(alarm)
        """When to send the next request for each starved destination."""
        self.outgoing: dict[LinkId, list[SeqnoRequest]] = {}
        """The requests to send, by link, without delay; `take` takes them."""
        self._suppressed: Timers[tuple[NodeId, int, int, LinkId]] = Timers(alarm)
        self._requesters: dict[NodeId, dict[LinkId, list[SeqnoRequest]]] = {}
        self._requester_timeouts: Timers[NodeId] = Timers(alarm)

    # -- requests of this node -----------------------------------------------------------------------------------

    def starve(self, destination: Destination, cheapest: LinkId, now: float, *, immediately: bool) -> None:
        """A better route is blocked, the cheapest over that link: request it, after REQUEST_DELAY or immediately."""
        if destination.starve(cheapest):
            self._due.set_sooner(destination, now if immediately else now + REQUEST_DELAY)

    def restart(self, destination: Destination, now: float, *, newer: bool = False) -> None:
        """The distance has shrunk, or there is a `newer` seqno: if a route is still blocked, begin another round."""
        if destination.starvation is not NOT_STARVED:
            destination.restart(newer=newer)
            self._due.set_sooner(destination, now + REQUEST_DELAY)

    def satisfied(self, destination: Destination) -> None:
        """No known route is better than the selected one."""
        destination.satisfied()
        self._due.cancel(destination)

    def due(self, now: float) -> list[Destination]:
        """The destinations to `originate` a request for now; each is due again later as long as it is starved."""
        return self._due.expire(now)

    def postpone(self, destination: Destination, now: float) -> None:
        """The route to it is selected soon, and may need no request then."""
        self._due.set(destination, now + REQUEST_DELAY)

    def originate(self, destination: Destination, offers: list[LinkId], now: float) -> None:
        """Request a distance below the destination's: first on the link with the cheapest of the offers, later on all
        of them, with exponential backoff.
        """
        tries = destination.requested(offers[0])
        seqno, distance = destination.distance or (0, 0)
        near = tries <= NEAR_TRIES and destination.rounds <= NEAR_ROUNDS
        request = SeqnoRequest(destination.id, seqno, distance if near else 0, MAX_TTL)
        self._send(request, offers[:1] if tries == 1 else offers, now)
        self._due.set(destination, now + min(RETRY_MAX, RETRY_INITIAL * 2 ** min(tries - 1, 10)))

    # -- requests of neighbours ----------------------------------------------------------------------------------

    def add_requester(self, link: LinkId, request: SeqnoRequest, now: float) -> None:
        """Remember that a neighbour waits for an answer; of its requests only the least and the most demanding."""
        requesters = self._requesters.setdefault(request.destination, {})
        others = [other for other in requesters.get(link, ()) if other.demand != request.demand]
        waiting = sorted([*others, request], key=lambda waiting: waiting.demand)
        requesters[link] = waiting[:1] + waiting[1:][-1:]
        self._requester_timeouts.set(request.destination, now + REQUESTER_TIMEOUT)

    def forward(self, request: SeqnoRequest, links: list[LinkId], now: float) -> int:
        """Forward a neighbour's request on these links, except where the same was sent within SUPPRESSION; returns on
        how many.
        """
        if request.hops_left <= 1:
            return 0
        onward = _onward(request)
        links = [link for link in links if _key(onward, link) not in self._suppressed]
        self._send(onward, links, now)
        return len(links)

    def reforward(self, destination: NodeId, link: LinkId, now: float) -> None:
        """Forward the most demanding request again, on the link of a new route: on the former it may have been lost."""
        requesters = self._requesters.get(destination, {})
        requests = [request for requester, waiting in requesters.items() if requester != link for request in waiting]
        waiting = [request for request in requests if request.hops_left > 1]
        if waiting:
            self._send(_onward(max(waiting, key=lambda request: request.demand)), [link], now)

    def has_requesters(self, destination: NodeId) -> bool:
        """True if a neighbour waits for an answer."""
        return destination in self._requesters

    def answer(self, destination: NodeId, is_met: Callable[[SeqnoRequest], bool]) -> list[LinkId]:
        """Remove the requests that are met; returns the links of the neighbours that sent them."""
        answered: list[LinkId] = []
        requesters = self._requesters[destination]
        for link, requests in list(requesters.items()):
            waiting = [request for request in requests if not is_met(request)]
            if len(waiting) < len(requests):
                answered.append(link)
            if waiting:
                requesters[link] = waiting
            else:
                del requesters[link]
        if not requesters:
            del self._requesters[destination]
            self._requester_timeouts.cancel(destination)
        return answered

    # -- both ----------------------------------------------------------------------------------------------------

    def link_down(self, link: LinkId) -> None:
        """The link is down."""
        self.outgoing.pop(link, None)

    def take(self) -> dict[LinkId, list[SeqnoRequest]]:
        """Take out the requests to send, by link."""
        outgoing, self.outgoing = self.outgoing, {}
        return outgoing

    def expire(self, now: float) -> None:
        """Drop what has timed out."""
        self._suppressed.expire(now)
        for destination in self._requester_timeouts.expire(now):
            del self._requesters[destination]

    def next_deadline(self) -> float | None:
        """When a request is due, or `expire` has work."""
        timers = (self._due, self._suppressed, self._requester_timeouts)
        deadlines = [timer.next_deadline() for timer in timers]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _send(self, request: SeqnoRequest, links: list[LinkId], now: float) -> None:
        for link in links:
            self._suppressed.set(_key(request, link), now + SUPPRESSION)
            self.outgoing.setdefault(link, []).append(request)

    def check(self, destinations: Iterable[Destination], blocked: set[NodeId]) -> None:
        """Raise AssertionError if not those destinations are starved that a better route is `blocked` to."""
        starved = {destination.id for destination in destinations if destination.is_starved}
        if not starved == blocked == {destination.id for destination in self._due}:
            raise AssertionError(f"blocked routes without a request, or requests for other routes: {starved ^ blocked}")
        if self._requesters.keys() != set(self._requester_timeouts):
            raise AssertionError("a requester without a timeout")


def _onward(request: SeqnoRequest) -> SeqnoRequest:
    """The request to forward, so that the own distance fits between what it is answered with and what was requested."""
    near = request.hops_left > MAX_TTL - NEAR_HOPS
    return request._replace(distance=max(0, request.distance - 1) if near else 0, hops_left=request.hops_left - 1)


def _key(request: SeqnoRequest, link: LinkId) -> tuple[NodeId, int, int, LinkId]:
    return (request.destination, request.seqno, request.distance, link)
