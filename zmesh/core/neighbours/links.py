"""The links of a node: handshake, liveness and cost.

A link opens with a HELLO in each direction. A PROBE every heartbeat carries the time, its ECHO gives a round-trip time,
smoothed as in RFC 6298. After two heartbeats of silence the link is suspect: until a frame arrives, its cost is so high
that routes take any other path. Three heartbeats of silence end it.

The cost of a link is the configured one and a bounded penalty that grows with the round-trip time (RFC 9616 section 4).
It has hysteresis: it changes when each of the last STEADY round trips, by itself, gives a cost that differs by
COST_STEP. So neither jitter nor a single slow answer moves a route, yet a link that has become slow costs more after
three probes. (babeld smooths the metrics of routes to the same end. With smooth costs that is not needed: in a settled
mesh each metric is that of the shortest path.)

A HELLO may carry the id of a node that is alive in another incarnation. That is either the same node after a restart,
whose former incarnation has not timed out yet, or a second node with the same id. The new link is quarantined until the
other incarnation has timed out (the new one replaces it) or has proved alive (the new one is refused).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from zmesh.core.credentials import Certified
from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import Address, LinkId, NodeId
from zmesh.core.neighbours.rate_limits import Buckets, RateLimiter
from zmesh.core.rtt import RttEstimator
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import INFINITY, VERSION

RTT_FLOOR = 0.010
RTT_CEILING = 0.120
MAX_RTT_PENALTY = 150
MAX_COST = 1_000_000
SUSPECT_AFTER = 2.0
SUSPECT_COST = 1_000_000
SILENCE = 3.0
OPENING = 5.0
MAX_STRIKES = 3
RESEND_ROUTES_AFTER = 1
RESEND_RECORDS_AFTER = 2
RESEND_STATEMENTS_AFTER = 1
RESEND_TRIES = 6
RESEND_LAST = 64
COST_STEP = 30
STEADY = 3
JITTER = 0.8
MAX_RATES = 1024
"""Neighbours whose rate limits hold for their next link; the one that was established first is forgotten."""
TOGETHER = 0.02
_GOLDEN = 0.6180339887498949


class State(Enum):
    """OPENING: no HELLO yet. QUARANTINED: the node id of its HELLO may be in use elsewhere. UP: carries frames."""

    OPENING = "opening"
    QUARANTINED = "quarantined"
    UP = "up"


class Comparison:
    """Decides when to request a full table from a neighbour whose digest differs: after `patience` PROBEs in a row. If
    both digests are the same after RESEND_TRIES requests, these do not help (one side may refuse what the other has),
    and from then on the patience doubles up to RESEND_LAST PROBEs.
    """

    __slots__ = ("_about", "_differ", "_first", "_patience", "_tries")

    def __init__(self, patience: int) -> None:
        self._first = self._patience = patience
        self._about: tuple[int, int] | None = None
        self._differ = self._tries = 0

    def is_due(self, theirs: int, ours: int) -> bool:
        """True if it is time to request the table, given the digests (or counts) of both sides."""
        if theirs == ours:
            self._begin_anew()
            return False
        if self._about not in (None, (theirs, ours)):
            self._begin_anew()
        self._differ += 1
        if self._differ < self._patience:
            return False
        self._about, self._differ, self._tries = (theirs, ours), 0, self._tries + 1
        if self._tries >= RESEND_TRIES:
            self._patience = min(2 * self._patience, RESEND_LAST)
        return True

    def _begin_anew(self) -> None:
        self._about, self._differ, self._tries, self._patience = None, 0, 0, self._first


class Link:
    """One connection, and the state of the handshake, keepalive and cost of the link over it."""

    __slots__ = (
        "base_cost",
        "certified",
        "channel",
        "cost",
        "dialled",
        "enrolling",
        "grants",
        "greeted",
        "greetings",
        "heard",
        "id",
        "incarnation",
        "leaf",
        "limiter",
        "local",
        "node",
        "recent",
        "records",
        "refused",
        "routes",
        "rtt_estimator",
        "session",
        "skew",
        "started",
        "state",
        "statements",
        "strikes",
        "suspect",
        "synced",
        "version",
        "where",
    )

    def __init__(
        self,
        id: LinkId,
        *,
        dialled: bool,
        cost: int,
        now: float,
        where: str = "",
        channel: bytes = b"",
        local: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.id = id
        self.where = where
        self.channel = channel
        """The CURVE public keys of the connection, the dialler's first; empty if it is not encrypted."""
        self.local = local
        """Whether only this node's user can have opened the connection."""
        self.enrolling = False
        """Whether its other end is a leaf without a certificate, which may enrol and do nothing else."""
        self.grants = False
        """Whether a grant may pass over it: a local link of a leaf without a certificate, and both ends know grants."""
        self.certified: Certified | None = None
        """The certificate that the other end has shown."""
        self.skew: float | None = None
        """By how many seconds the clock of the other end was ahead when it signed its HELLO, if it did."""
        self.limiter = RateLimiter(limits)
        self.dialled = dialled
        self.base_cost = cost
        self.cost = cost
        self.state = State.OPENING
        self.node = NodeId(Address(""))
        self.incarnation = 0
        self.session = 0
        self.started = 0.0
        self.greeted = now
        self.greetings = 0
        self.leaf = False
        self.refused = False
        self.suspect = False
        self.synced = False
        self.version = VERSION
        self.heard = now
        self.rtt_estimator = RttEstimator()
        self.recent: tuple[float, ...] = ()
        self.strikes = 0
        self.routes = Comparison(RESEND_ROUTES_AFTER)
        self.records = Comparison(RESEND_RECORDS_AFTER)
        self.statements = Comparison(RESEND_STATEMENTS_AFTER)

    @property
    def rtt(self) -> float | None:
        """The smoothed round-trip time in seconds (RFC 6298), None before the first sample."""
        return self.rtt_estimator.smoothed

    @property
    def effective_cost(self) -> int:
        """The cost of the link, raised by SUSPECT_COST while it is suspect."""
        return self.cost + SUSPECT_COST if self.suspect else self.cost

    @property
    def routing_cost(self) -> int:
        """The cost that routes use: the effective cost, or INFINITY (no routes) before the first round-trip sample.

        If routes used a new link at its configured cost, and the round-trip penalty raised that later, every
        feasibility distance over the link would be too short for the current routes (see `routes`), and each later
        failure would need a newer sequence number.
        """
        return INFINITY if self.rtt is None else self.effective_cost

    def measure(self, sample: float) -> bool:
        """Process one round-trip sample, in seconds; True if the link's cost changes with it."""
        rtt = self.rtt_estimator.update(sample)
        self.recent = (*self.recent, sample)[-STEADY:]
        fastest, slowest = min(self.recent), max(self.recent)
        penalty, at_least, at_most = self.cost - self.base_cost, rtt_penalty(fastest), rtt_penalty(slowest)
        if at_least - penalty < COST_STEP and penalty - at_most < COST_STEP and not at_most == 0 < penalty:
            return False
        steady = min(max(rtt, JITTER * fastest), slowest / JITTER)
        before, self.cost = self.cost, self.base_cost + (rtt_penalty(steady) if at_most else 0)
        return self.cost != before


def rtt_penalty(rtt: float) -> int:
    """The addition to a link's cost for a smoothed round trip of `rtt` seconds: 0 up to 10 ms, 150 from 120 ms on."""
    share = (rtt - RTT_FLOOR) / (RTT_CEILING - RTT_FLOOR)
    return round(MAX_RTT_PENALTY * min(1.0, max(0.0, share)))


class Links:
    """The table of links; `heartbeat` in seconds."""

    def __init__(self, heartbeat: float, alarm: Alarm, limits: Limits = DEFAULT_LIMITS) -> None:
        self.heartbeat = heartbeat
        self._limits = limits
        self._links: dict[LinkId, Link] = {}
        self._quarantined: dict[LinkId, Link] = {}
        self._up: dict[NodeId, dict[LinkId, Link]] = {}
        self._rates: dict[NodeId, Buckets] = {}
        """The rate limits of the neighbours that were established last, which hold over their links."""
        self.alarm = alarm
        self._probes: Timers[LinkId] = Timers(alarm)
        self._silences: Timers[LinkId] = Timers(alarm)

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links.values())

    def open(
        self,
        id: LinkId,
        *,
        dialled: bool,
        cost: int,
        now: float,
        where: str = "",
        channel: bytes = b"",
        local: bool = False,
    ) -> Link:
        """Add a new connection; `where`: its other end in words."""
        link = self._links[id] = Link(
            id,
            dialled=dialled,
            cost=max(1, min(cost, MAX_COST)),
            now=now,
            where=where,
            channel=channel,
            local=local,
            limits=self._limits,
        )
        self._silences.set(id, now + max(OPENING, SILENCE * self.heartbeat))
        if dialled:
            self._probes.set(id, now + self._period(link))
        return link

    def get(self, id: LinkId) -> Link | None:
        """The link of that number, if it is open."""
        return self._links.get(id)

    def neighbour(self, id: LinkId) -> NodeId | None:
        """The node at the other end of a link that is open."""
        link = self._links.get(id)
        return link.node if link is not None else None

    def quarantine(self, link: Link, now: float) -> None:
        """Quarantine a link until the other incarnation of its node has timed out or answered."""
        link.state = State.QUARANTINED
        self._quarantined[link.id] = link
        self._silences.set(link.id, now + (SILENCE + 1) * self.heartbeat)

    def establish(self, link: Link, now: float) -> None:
        """Bring a link up: from here on it carries frames, is probed, and times out."""
        link.state = State.UP
        link.heard = now
        self._quarantined.pop(link.id, None)
        self._up.setdefault(link.node, {})[link.id] = link
        if not link.leaf:
            link.limiter.share(self._rates_of(link.node))
        self._probes.set(link.id, now + self._period(link))
        self._silences.set(link.id, now + SUSPECT_AFTER * self.heartbeat)

    def _rates_of(self, node: NodeId) -> Buckets:
        rates = self._rates[node] = self._rates.pop(node, {})
        if len(self._rates) > MAX_RATES:
            del self._rates[next(iter(self._rates))]
        return rates

    def close(self, id: LinkId) -> Link | None:
        """Remove a link; None if it is not there."""
        link = self._links.pop(id, None)
        self._quarantined.pop(id, None)
        if link is not None:
            self._probes.cancel(id)
            self._silences.cancel(id)
            beside = self._up.get(link.node)
            if beside is not None and beside.pop(id, None) is not None and not beside:
                del self._up[link.node]
        return link

    def up(self) -> list[Link]:
        """All links that are up."""
        return [link for links in self._up.values() for link in links.values()]

    def to(self, node: NodeId) -> list[Link]:
        """The links to that neighbour that are up, the cheapest first."""
        links = self._up.get(node)
        if not links:
            return []
        return sorted(links.values(), key=lambda link: (link.effective_cost, link.id))

    def quarantined(self) -> list[Link]:
        """The links that are quarantined."""
        return list(self._quarantined.values())

    def neighbours(self) -> tuple[tuple[NodeId, int], ...]:
        """Every neighbour that is no leaf, with the cost of the cheapest measured link to it, sorted."""
        costs = {
            node: [link.cost for link in links.values() if link.rtt is not None and not link.leaf]
            for node, links in self._up.items()
        }
        return tuple(sorted((node, min(some)) for node, some in costs.items() if some))

    def routing_cost(self, id: LinkId) -> int | None:
        """The cost of a link for routes; None if it is not open."""
        link = self._links.get(id)
        return link.routing_cost if link is not None else None

    def next_deadline(self) -> float | None:
        """When `due` or `expire` has work."""
        probe, silence = self._probes.next_deadline(), self._silences.next_deadline()
        if probe is None or (silence is not None and silence < probe):
            return silence
        return probe

    def due(self, now: float) -> list[Link]:
        """The links whose PROBE (or HELLO) is due now; the next one is due a heartbeat later, with 10 % of jitter.

        Those that will be due within TOGETHER are included, so that a node with hundreds of links wakes less often.
        """
        if not self._is_due(now):
            return []
        links = []
        for id in self._probes.expire(now + TOGETHER * self.heartbeat):
            link = self._links[id]
            links.append(link)
            self._probes.set(id, now + self._period(link))
        return links

    def _is_due(self, now: float) -> bool:
        probe = self._probes.next_deadline()
        return probe is not None and probe <= now

    def expire(self, now: float) -> tuple[list[Link], list[Link]]:
        """The links that have just become suspect, and those that have timed out, which the caller closes."""
        suspects: list[Link] = []
        silent: list[Link] = []
        for id in self._silences.expire(now):
            link = self._links[id]
            if link.state is not State.UP:
                silent.append(link)
                continue
            limit = link.heard + SILENCE * self.heartbeat
            if limit <= now:
                silent.append(link)
            elif link.heard + SUSPECT_AFTER * self.heartbeat <= now and not link.suspect:
                link.suspect = True
                suspects.append(link)
                self._silences.set(id, limit)
            else:
                self._silences.set(id, limit if link.suspect else self._look_again(link, now))
        return suspects, silent

    def forgive(self, seconds: float, now: float) -> None:
        """Count no silence for the last `seconds`, in which this node could not listen."""
        for link in self._links.values():
            link.heard = min(now, link.heard + seconds)
            if link.state is State.UP:
                limit = SILENCE if link.suspect else SUSPECT_AFTER
                self._silences.set(link.id, link.heard + limit * self.heartbeat)
            elif link.state is State.QUARANTINED:
                self._silences.set(link.id, now + (SILENCE + 1) * self.heartbeat)
            else:
                self._silences.set(link.id, now + max(OPENING, SILENCE * self.heartbeat))

    def trust(self, link: Link) -> None:
        """A frame has arrived on a suspect link, which is not suspect any more."""
        link.suspect = False
        self._silences.set(link.id, link.heard + SUSPECT_AFTER * self.heartbeat)

    def _look_again(self, link: Link, now: float) -> float:
        """When a link may become suspect, or shortly before: rounded, so that many links share the time."""
        deadline, step = link.heard + SUSPECT_AFTER * self.heartbeat, TOGETHER * self.heartbeat
        shared = deadline // step * step
        return shared if shared > now else deadline

    def _period(self, link: Link) -> float:
        return self.heartbeat * (0.9 + 0.2 * ((link.id * _GOLDEN) % 1.0))

    def check(self) -> None:
        """Raise AssertionError if the tables contradict each other."""
        up = {link.id for link in self._links.values() if link.state is State.UP}
        if up != {link.id for link in self.up()}:
            raise AssertionError("the links that are up are not those in the table of neighbours")
        if self._quarantined != {link.id: link for link in self._links.values() if link.state is State.QUARANTINED}:
            raise AssertionError("the links that are quarantined are not those in the table of these")
        if not all(id in self._probes for id in up) or not all(id in self._silences for id in self._links):
            raise AssertionError("a link without a deadline")
        for node, links in self._up.items():
            if len({(link.node, link.incarnation, link.leaf) for link in links.values()}) != 1:
                raise AssertionError(f"two incarnations of {node!r} are up at once")
