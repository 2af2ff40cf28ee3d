"""Requests between the nodes of a scenario, and the check of the outcome of each one.

The sentence: every send ends exactly once, in eof, error, cancelled or timed out; the work ran at most once; the
replies came in order, none lost, none twice. What each directive answers is known beforehand, so every byte is looked
at. A sender that restarts takes its requests with it; nothing is promised for those. Where two nodes
have the same id, a request may reach either, but only one of them, and none gets the replies to requests of the other.
All times are those of the sender's clock.

Beside members that lie all of this holds, too, but that a request may end in `unreachable` or `node_restarted` although
its recipient was there: a liar has said so.
"""

from __future__ import annotations

from dataclasses import dataclass

from zmesh.core.delivery import PEER_IDLE_TIMEOUT, PROBE_INTERVAL
from zmesh.core.engine import Engine
from zmesh.core.message import Eof
from zmesh.core.routing import KEEP_DISTANCE
from zmesh.testing.faults import FAULTS, some
from zmesh.testing.scenario import Scenario
from zmesh.testing.simexchange import Job, Outcome
from zmesh.testing.simnode import NOT_BEGUN, SimNode
from zmesh.testing.simulator import Simulator

SIZES = (0, 10, 10, 3000, 70_000, 300_000)
TIMEOUTS = (None, None, 0.05, 0.5, 3.0, 10.0)
DIRECTIVES = ("work:echo", "work:thrice", "work:thrice", "work:large", "work:fail", "work:never")
PAUSES = (0.0, 0.0, 0.0, 0.02)
ROUTE_TIMEOUTS = (1.0, 5.0, 30.0)
STRAY = 0.02
WORK_PAUSE = 0.15
LARGE = 150_000
REASONS = ("cancelled", "timed_out", "unreachable", "node_restarted", "overloaded")
LATE = 0.001
UNKNOWN_NODE = "unknown"
ALL_OVER = 180.0
"""Seconds from `mend` until no exchange is left; feasibility distances from liars' updates may last longer.

What waits before a slow direction of a wire may take a minute to pass, and idle peers are kept for half of one more.
"""
POLL = 0.5
ROUND = 0.002


def answers(directive: str, payload: bytes) -> list[bytes]:
    """The replies of a directive, if it comes to its end."""
    match directive:
        case "work:echo":
            return [payload]
        case "work:thrice":
            return [payload + b"%d" % serial for serial in (1, 2, 3)]
        case "work:large":
            return [payload, (payload[:1] or b"-") * LARGE, b"end"]
        case "work:fail":
            return [b"partly"]
        case _:
            return []


def work(node: SimNode, job: Job) -> None:
    """The program of the recipients: one reply after the other, then the end, or none at all."""
    replies = answers(job.directive, bytes(job.payload))
    began = node.engine

    def step(serial: int) -> None:
        if job.ended or node.engine is not began or not node.alive:
            return
        if node.stopped:
            node.sim.after(WORK_PAUSE, lambda: step(serial))
        elif serial <= len(replies):
            node.reply(job, replies[serial - 1], serial)
            node.sim.after(WORK_PAUSE, lambda: step(serial + 1))
        elif job.directive == "work:fail":
            node.reply(job, None, eof=Eof(1, "remote", "as requested"))
        else:
            node.reply(job, None, eof=Eof())

    if job.directive == "work:echo":
        node.reply(job, replies[0], eof=Eof())
    elif job.directive != "work:never":
        step(1)


@dataclass
class Sent:
    """A request as its sender made it; `at` by the sender's clock."""

    node: SimNode
    engine: Engine
    outcome: Outcome
    directive: str
    payload: bytes
    timeout: float | None
    at: float
    cancelled: bool = False

    @property
    def alive(self) -> bool:
        """True while the incarnation that sent it runs."""
        return self.node.alive and self.node.engine is self.engine


class Traffic:
    """All requests of one scenario. `swarm` True: the seed draws of which kinds they are."""

    def __init__(self, scenario: Scenario, *, swarm: bool = False) -> None:
        self.scenario = scenario
        self.sent: list[Sent] = []
        self.sizes, self.timeouts, self.directives = list(SIZES), list(TIMEOUTS), list(DIRECTIVES)
        if swarm:
            rng = scenario.random
            self.sizes, self.timeouts = some(SIZES, rng), some(TIMEOUTS, rng)
            self.directives = some(DIRECTIVES, rng)
        scenario.plugin = work
        for node in scenario.everybody:
            node.plugin = work
            node.pause = scenario.random.choice(PAUSES)

    def send(self, node: SimNode, recipient: str, directive: str, payload: bytes, timeout: float | None) -> Sent | None:
        """Have a request sent, if that node is up."""
        if not node.alive or node.stopped:
            return None
        outcome = node.send(recipient, payload, directive, timeout)
        sent = Sent(node, node.engine, outcome, directive, payload, timeout, node.now)
        self.sent.append(sent)
        return sent

    def cancel(self, sent: Sent) -> None:
        """Have a request cancelled, if its sender is up; once more if it was, and without effect if it is over."""
        if sent.alive and not sent.node.stopped:
            sent.cancelled = True
            sent.node.cancel(sent.outcome)

    def step(self) -> None:
        """Let one request be sent, as the seed has it, and perhaps be cancelled later."""
        rng = self.scenario.random
        directive = rng.choice(self.directives)
        timeout = rng.choice(self.timeouts)
        sender, recipient = rng.choice(self.scenario.everybody), str(rng.choice(self.scenario.nodes).id)
        if rng.random() < 0.04:
            recipient = UNKNOWN_NODE
        if self.scenario.visitors and rng.random() < 0.2:
            visitor = rng.choice(self.scenario.visitors)
            # a leaf does not know whom it reaches, so of two nodes of one name both may do its work
            sender = sender if visitor.engine.leaf and self.scenario.twins else visitor
        sent = self.send(sender, recipient, directive, rng.randbytes(rng.choice(self.sizes)), timeout)
        if sent is not None and rng.random() < 0.2:
            self.scenario.sim.after(rng.choice((0.0, 0.01, 0.1, 0.5, 2.0)), lambda: self.cancel(sent))

    def finish(self) -> None:
        """Cancel what would never end, and let time pass until no exchange is left. AssertionError if one stays."""
        sim = self.scenario.sim
        for sent in self.sent:
            if sent.directive == "work:never" and sent.timeout is None:
                self.cancel(sent)
        limit = ALL_OVER + (KEEP_DISTANCE if self.scenario.liars else 0.0)
        end = sim.now + limit
        while left := self.left():
            if sim.now > end:
                raise AssertionError(f"seed {self.scenario.seed}: not over after {limit:g} s: {left}")
            sim.run(POLL)

    def everybody(self) -> list[SimNode]:
        """All nodes that are or were in the scenario."""
        return [*self.scenario.everybody, *self.scenario.visitors]

    def left(self) -> dict[str, dict[str, int]]:
        """The entries of exchanges that the tables of each node still hold."""
        counts = {str(node.id): node.engine.stats() for node in self.scenario.everybody}
        return {id: {name: n for name, n in table.items() if n} for id, table in counts.items() if any(table.values())}

    def judge(self) -> dict[str, int]:
        """The number of requests by ending. Raises AssertionError if one did not end as it must."""
        tally: dict[str, int] = {}
        for sent in self.sent:
            wrong = self._wrong(sent)
            if wrong:
                request = f"{sent.directive} of {len(sent.payload)} bytes, {sent.node.id} > {sent.outcome.recipient}"
                raise AssertionError(f"seed {self.scenario.seed}: {request} at {sent.at:.3f}: {wrong}")
            reason = (sent.outcome.eofs[0].reason or "eof") if sent.alive else "sender gone"
            tally[reason] = tally.get(reason, 0) + 1
        for node in self.scenario.nodes:
            for job in node.jobs.values():
                if self.scenario.authority is not None and not self._is_from(job):
                    raise AssertionError(
                        f"seed {self.scenario.seed}: {job.peer} has not sent {job.directive} to {node.id}"
                    )
                if job.complete and not job.ended:
                    raise AssertionError(f"seed {self.scenario.seed}: {job.directive} still runs at {node.id}")
        return tally

    def _is_from(self, job: Job) -> bool:
        """Whether a request that a node has taken was sent by whom it names, or by a liar in its own name."""
        name = str(job.peer)
        if any(name == liar.id for liar in self.scenario.liars):
            return True
        by = {str(sent.node.id) for sent in self.sent if sent.outcome.message_id == job.message_id}
        return name.partition("@")[0] in by

    def _wrong(self, sent: Sent) -> str:
        """The fault in the ending of one request; empty if there is none."""
        outcome = sent.outcome
        runs = sum(node.runs.get(outcome.message_id, 0) for node in self.everybody())
        if runs > 1:
            return f"it ran {runs} times"
        for node in self.everybody():
            job = node.jobs.get(outcome.message_id)
            if job is not None and (
                not sent.payload.startswith(bytes(job.payload)) or (job.complete and sent.payload != job.payload)
            ):
                return "other bytes came than were sent"
        if len(outcome.eofs) > 1 or (sent.alive and not outcome.eofs):
            return f"it ended {len(outcome.eofs)} times: {outcome.eofs}"
        overtime = 0.0 if sent.timeout is None else outcome.ended_at - sent.at - sent.timeout
        if overtime > LATE and sent.node not in self.scenario.hung:
            return f"it ended {overtime:.3f} s after its time"
        expected = answers(sent.directive, sent.payload)
        if outcome.replies != expected[: len(outcome.replies)]:
            return "the replies are others than were given"
        begun = len(outcome.replies) + bool(outcome.partial)
        if outcome.serials != list(range(1, max(begun, len(outcome.serials)) + 1)) or len(outcome.serials) > begun + 1:
            return f"the replies are numbered {outcome.serials}"
        if not outcome.eofs:
            return ""
        eof = outcome.eofs[0]
        if eof.code == 0 and outcome.replies != expected:
            return f"{len(outcome.replies)} of {len(expected)} replies came before the end"
        if eof.code == 0 and runs == 0:
            return "it is said to have run, and has not"
        if begun and NOT_BEGUN in eof.error and not self.scenario.liars:
            return f"it is said to wait, and has replied: {eof.error}"
        if eof.code and eof.reason not in (*REASONS, "remote"):
            return f"it ended in {eof.reason!r}"
        if eof.reason == "timed_out" and (sent.timeout is None or outcome.ended_at < sent.at + sent.timeout):
            return "it timed out before its time"
        if eof.reason == "overloaded" and (runs or "tight" not in self.scenario.traits):
            return f"it was refused, and ran {runs} times: {eof.error}"
        if eof.reason == "cancelled" and not sent.cancelled:
            return f"it ended as cancelled without a cancel: {eof.error}"
        return ""


def run_delivery(seed: int, *, audit: int = 8) -> dict[str, int]:
    """One seed of the sentence on delivery; returns the number of requests by ending."""
    return _run(seed, audit, liars=False)


def run_liars(seed: int, *, audit: int = 8) -> dict[str, int]:
    """One seed of the sentence on delivery, and of that on routes, beside members that lie, and after they have left.

    How many requests ended in what.
    """
    return _run(seed, audit, liars=True)


def run_trusted(seed: int, *, audit: int = 8) -> dict[str, int]:
    """One seed of the sentence on delivery where nodes have certificates, with members that lie in more ways."""
    return _run(seed, audit, liars=True, trust=True)


def run_mixed(seed: int, *, audit: int = 8) -> dict[str, int]:
    """One seed of the sentence on delivery, and of that on routes, where nodes speak different ranges of versions."""
    return _run(seed, audit, liars=False, mixed=True)


def _run(seed: int, audit: int, *, liars: bool, trust: bool = False, mixed: bool = False) -> dict[str, int]:
    route_timeout = ROUTE_TIMEOUTS[seed % len(ROUTE_TIMEOUTS)]
    twins, guests = seed % 4 == 0, seed % 2
    scenario = Scenario(
        seed,
        audit=audit,
        twins=twins and not trust and not mixed,
        guests=guests,
        swarm=True,
        liars=liars,
        trust=trust,
        mixed=mixed,
        route_timeout=route_timeout,
    )
    traffic = Traffic(scenario, swarm=True)
    rng = scenario.random
    if liars and rng.random() < 0.8:
        FAULTS["liar"](scenario, rng)
    for _ in range(rng.randint(10, 40)):
        scenario.sim.run(rng.choice((0.0, 0.005, 0.05, 0.3)))
        traffic.step()
        if rng.random() < 0.3:
            scenario.step()
        if scenario.twins and rng.random() < 0.1:
            scenario.twin(rng.choice(scenario.nodes), rng.choice(scenario.nodes), rng.choice((1.0, 6.0)))
    scenario.sim.run(rng.choice((0.0, 0.1, 2.0, 10.0)))
    scenario.mend()
    traffic.finish()
    scenario.settle()
    if liars and rng.random() < STRAY:
        scenario.sim.run(1.1 * KEEP_DISTANCE)
        if traces := scenario.traces():
            raise AssertionError(f"seed {seed}: {traces}")
    return traffic.judge()


def run_requests(seed: int, *, count: int = 100_000, outstanding: int = 1_000) -> float:
    """Send that many requests over two forwarders, so many of them outstanding at a time; all must be answered.

    Returns the virtual seconds that took. AssertionError if an answer is missing or wrong, if one ran twice, or if an
    engine has anything left of it afterwards.
    """
    sim = Simulator(seed, checked=False)
    nodes = sim.chain("caller", "left", "right", "callee")
    if not sim.settle():
        raise AssertionError("four nodes in a row did not find each other")
    caller, callee = nodes[0], nodes[-1]
    waiting: list[tuple[Outcome, bytes]] = []
    began, sent = sim.now, 0
    while sent < count or waiting:
        while sent < count and len(waiting) < outstanding:
            payload = b"%d" % sent
            waiting.append((caller.send("callee", payload), payload))
            sent += 1
        sim.run(ROUND)
        over = [(outcome, payload) for outcome, payload in waiting if outcome.eofs]
        if not over and sim.now - began > ALL_OVER * (1 + sent / outstanding):
            raise AssertionError(f"{len(waiting)} requests were never answered")
        for outcome, payload in over:
            if outcome.eofs != [Eof()] or outcome.replies != [payload] or callee.runs[outcome.message_id] != 1:
                raise AssertionError(f"request {payload!r} ended in {outcome.eofs}, answered {outcome.replies}")
        waiting = [pair for pair in waiting if not pair[0].eofs]
    took = sim.now - began
    sim.run(2 * PEER_IDLE_TIMEOUT + PROBE_INTERVAL)
    for node in nodes:
        node.engine.check()
        left = {name: number for name, number in node.engine.stats().items() if number}
        if left or node.engine.forwarding.queued_bytes:
            raise AssertionError(f"{node.id} still has {left} and its queues")
    return took
