"""What a node asks of its neighbours, and who of them waits for an answer.

A node may see a way that its feasibility distance forbids, and be left with a dearer one or with none (see `routes`).
It asks the neighbour with the cheapest offer for a distance below its own. The question goes along that neighbour's
route to the first node that is near enough, and each node on the way asks for 1 less than it was asked for, so that its
own distance fits between. The answer comes back the same way, and each shrinks its distance as it passes it on. So a
detour is made where it is needed, however far the destination is. This is split label routing (Mosko and
Garcia-Luna-Aceves, ICDCS 2004). If that is not near, no room is left, or no answer comes, the question is for a new
sequence number, which the destination alone can give, and which helps all on the way (SEQNO_REQUEST, RFC 8966 section
3.8). So it is when two nodes shrink their distances in turn: each asks the other, and answers by going below its own.

An answer may be behind the times: when a node has died, all its neighbours know of a way over one another. So only who
lost a route with its own link asks at once. Who was told so waits REQUEST_DELAY, in which news overtake what they
refute.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from zmesh.core.message import LinkId, NodeId
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


class _Starvation:
    """How often this node has asked for a route, in the last of so many rounds, and whom it asked first.

    A round ends when the node's own distance has shrunk, so that what was asked for is not enough.
    """

    __slots__ = ("asked_first", "rounds", "tries")

    def __init__(self) -> None:
        self.tries = 0
        self.rounds = 1
        self.asked_first: LinkId | None = None


class SeqnoRequests:
    """The questions of one node, its own and those that it passes on."""

    def __init__(self, alarm: Alarm) -> None:
        self.starved: dict[NodeId, _Starvation] = {}
        """The destinations to which a way is known that is better than the one in use, and can't be taken."""
        self._due: Timers[NodeId] = Timers(alarm)
        self.outgoing: dict[LinkId, list[SeqnoRequest]] = {}
        """What to ask on which link, without delay; `take` takes it."""
        self._suppressed: Timers[tuple[NodeId, int, int, LinkId]] = Timers(alarm)
        self._requesters: dict[NodeId, dict[LinkId, list[SeqnoRequest]]] = {}
        self._requester_timeouts: Timers[NodeId] = Timers(alarm)

    # -- what this node wants ------------------------------------------------------------------------------------

    def starve(self, destination: NodeId, cheapest: LinkId, now: float, *, immediately: bool) -> None:
        """A better way is known, the cheapest over that link. If another was asked, that was the wrong one."""
        starvation = self.starved.get(destination)
        if starvation is None:
            starvation = self.starved[destination] = _Starvation()
        elif starvation.asked_first != cheapest:
            starvation.tries = 0
        if starvation.tries == 0:
            self._due.set_sooner(destination, now if immediately else now + REQUEST_DELAY)

    def restart(self, destination: NodeId, now: float, *, newer: bool = False) -> None:
        """What was asked for is not enough any more: if something still is wanted, ask from the first try on.

        `newer`: there is a new sequence number, with which all begins anew.
        """
        starvation = self.starved.get(destination)
        if starvation is not None:
            starvation.rounds = 1 if newer else starvation.rounds + (starvation.tries > 0)
            starvation.tries = 0
            self._due.set_sooner(destination, now + REQUEST_DELAY)

    def satisfied(self, destination: NodeId) -> None:
        """Nothing better is known than the route in use."""
        del self.starved[destination]
        self._due.cancel(destination)

    def due(self, now: float) -> list[NodeId]:
        """For what to `ask` now; each is due again later as long as it is wanted."""
        return self._due.expire(now)

    def originate(self, destination: NodeId, below: tuple[int, int], offers: list[LinkId], now: float) -> None:
        """Ask for a distance below that (seqno, metric): at first the neighbour with the first of the offers, later all
        of them, after pauses that double.
        """
        starvation = self.starved[destination]
        starvation.tries += 1
        starvation.asked_first = offers[0]
        seqno, distance = below
        near = starvation.tries <= NEAR_TRIES and starvation.rounds <= NEAR_ROUNDS
        request = SeqnoRequest(destination, seqno, distance if near else 0, MAX_TTL)
        self._send(request, offers[:1] if starvation.tries == 1 else offers, now)
        self._due.set(destination, now + min(RETRY_MAX, RETRY_INITIAL * 2 ** min(starvation.tries - 1, 10)))

    # -- what neighbours want ------------------------------------------------------------------------------------

    def add_requester(self, link: LinkId, request: SeqnoRequest, now: float) -> None:
        """Let that neighbour wait for the answer, and for no more than two: to what is least and what is most."""
        requesters = self._requesters.setdefault(request.destination, {})
        others = [other for other in requesters.get(link, ()) if other.demand != request.demand]
        waiting = sorted([*others, request], key=lambda waiting: waiting.demand)
        requesters[link] = waiting[:1] + waiting[1:][-1:]
        self._requester_timeouts.set(request.destination, now + REQUESTER_TIMEOUT)

    def forward(self, request: SeqnoRequest, links: list[LinkId], now: float) -> int:
        """Ask these neighbours for what another one has asked for, if they were not asked just now; how many of them
        that are.
        """
        if request.hops_left <= 1:
            return 0
        onward = _onward(request)
        links = [link for link in links if _key(onward, link) not in self._suppressed]
        self._send(onward, links, now)
        return len(links)

    def reforward(self, destination: NodeId, link: LinkId, now: float) -> None:
        """The route leads over that link now. What was passed on along the former one may have been lost with it."""
        requesters = self._requesters.get(destination, {})
        requests = [request for requester, waiting in requesters.items() if requester != link for request in waiting]
        waiting = [request for request in requests if request.hops_left > 1]
        if waiting:
            self._send(_onward(max(waiting, key=lambda request: request.demand)), [link], now)

    def has_requesters(self, destination: NodeId) -> bool:
        """True if a neighbour waits for an answer."""
        return destination in self._requesters

    def answer(self, destination: NodeId, is_met: Callable[[SeqnoRequest], bool]) -> list[LinkId]:
        """The neighbours that have asked for what can be had now; they wait for that no longer."""
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
        """The questions to send, on which link."""
        questions, self.outgoing = self.outgoing, {}
        return questions

    def expire(self, now: float) -> None:
        """Forget what is too old to matter."""
        self._suppressed.expire(now)
        for destination in self._requester_timeouts.expire(now):
            del self._requesters[destination]

    def next_deadline(self) -> float | None:
        """When something is due, or `expire` has work."""
        deadlines = (
            self._due.next_deadline(),
            self._suppressed.next_deadline(),
            self._requester_timeouts.next_deadline(),
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _send(self, request: SeqnoRequest, links: list[LinkId], now: float) -> None:
        for link in links:
            self._suppressed.set(_key(request, link), now + SUPPRESSION)
            self.outgoing.setdefault(link, []).append(request)

    def check(self, wanted: Collection[NodeId]) -> None:
        """Raise AssertionError if something is not asked for that is wanted, or the other way round."""
        if not wanted == self.starved.keys() == set(self._due):
            raise AssertionError(f"better routes that nothing will ask for: {set(wanted) ^ self.starved.keys()}")
        if self._requesters.keys() != set(self._requester_timeouts):
            raise AssertionError("neighbours that wait for an answer, which nothing will forget")


def _onward(request: SeqnoRequest) -> SeqnoRequest:
    """What to ask the next node for, so that one's own distance fits between what it answers and what was asked."""
    near = request.hops_left > MAX_TTL - NEAR_HOPS
    return request._replace(distance=max(0, request.distance - 1) if near else 0, hops_left=request.hops_left - 1)


def _key(request: SeqnoRequest, link: LinkId) -> tuple[NodeId, int, int, LinkId]:
    return (request.destination, request.seqno, request.distance, link)
