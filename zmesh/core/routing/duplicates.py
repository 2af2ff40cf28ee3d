"""Detection of duplicate node ids: two live nodes with one id, as opposed to one node that restarts.

After a restart a node re-originates its record once with a higher serial, as OSPF does for its own stale LSA (RFC 2328
section 13.4), and its former incarnation stays silent. Two live nodes keep re-originating against each other: an
incarnation that was outranked returns with a higher serial, again and again. RETURNS such returns prove a duplicate
(one or two may be late records of a former incarnation, where a clock went back). Every node of the mesh sees them, so
each reports the id as a duplicate until CONTEST_TIMEOUT seconds have passed without a return.

A second node that is refused in its handshake never floods a record. The node that refuses it lists it in its own
record, for as long, so that the first one and all others learn of it too.

The one that was started later should end: it alone reports `id_taken`, on which `zmesh node` exits. Records are not
proof against a lying member, so a node acts on them in its first STARTUP seconds only; later it acts only on a
neighbour's HELLO or REFUSE.
"""

from __future__ import annotations

from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import NodeId
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import MAX_WHERE, Record, Refused

RETURNS = 3
CONTEST_TIMEOUT = 180.0
STARTUP = 60.0
MAX_INCARNATIONS = 8
MAX_NEIGHBOURS_NAMED = 4


class _Contest:
    """The incarnations that claim one node id, each with its last serial."""

    __slots__ = ("incarnations", "returns")

    def __init__(self) -> None:
        self.incarnations: dict[int, int] = {}
        self.returns = 0


class Duplicates:
    """The node ids that several incarnations claim, and the duplicates that were refused here."""

    def __init__(self, alarm: Alarm, limits: Limits = DEFAULT_LIMITS) -> None:
        self._contests: dict[NodeId, _Contest] = {}
        self._timeouts: Timers[NodeId] = Timers(alarm)
        self._limits = limits
        self._refused: dict[tuple[NodeId, int], Refused] = {}
        self._refusal_timeouts: Timers[tuple[NodeId, int]] = Timers(alarm)

    def __len__(self) -> int:
        return len(self._contests)

    def __contains__(self, node: NodeId) -> bool:
        contest = self._contests.get(node)
        return contest is not None and contest.returns >= RETURNS

    def names(self) -> list[NodeId]:
        """The node ids that are proven to be used by two live nodes, sorted."""
        return sorted(node for node in self._contests if node in self)

    def witness(self, winner: Record, loser: Record, now: float) -> bool:
        """Count a record that outranked another incarnation's; True if it completes the proof of two live nodes."""
        contest = self._contests.get(winner.node)
        if contest is None:
            if len(self._contests) >= self._limits.contested_names:
                self._forget_one()
            contest = self._contests[winner.node] = _Contest()
        incarnations = contest.incarnations
        before = incarnations.pop(winner.incarnation, None)
        incarnations.pop(loser.incarnation, None)
        incarnations[loser.incarnation], incarnations[winner.incarnation] = loser.serial, winner.serial
        if len(incarnations) > MAX_INCARNATIONS:
            del incarnations[next(iter(incarnations))]
        self._timeouts.set(winner.node, now + CONTEST_TIMEOUT)
        if before is None or winner.serial <= before:
            return False
        contest.returns += 1
        return contest.returns == RETURNS

    def _forget_one(self) -> None:
        """Make room for another node id: drop the oldest that is not proven, or else the oldest."""
        node = next((node for node in self._contests if node not in self), next(iter(self._contests)))
        del self._contests[node]
        self._timeouts.cancel(node)

    def refuse(self, node: NodeId, incarnation: int, started: float, where: str, now: float) -> bool:
        """Add a duplicate that was refused here; True if it is new, and the own record has to list it."""
        key = (node, incarnation)
        known = key in self._refused
        if not known and len(self._refused) >= self._limits.refused_ids:
            return False
        self._refused[key] = Refused(node, incarnation, started, where[:MAX_WHERE])
        self._refusal_timeouts.set(key, now + CONTEST_TIMEOUT)
        return not known

    def refused(self) -> tuple[Refused, ...]:
        """The duplicates that were refused here in the last CONTEST_TIMEOUT seconds."""
        return tuple(self._refused.values())

    def next_deadline(self) -> float | None:
        """When `expire` has work."""
        deadlines = (self._timeouts.next_deadline(), self._refusal_timeouts.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def expire(self, now: float) -> bool:
        """Drop what has timed out; True if a refused duplicate is among it, and the own record changes."""
        for node in self._timeouts.expire(now):
            del self._contests[node]
        over = self._refusal_timeouts.expire(now)
        for key in over:
            del self._refused[key]
        return bool(over)

    def check(self) -> None:
        """Raise AssertionError if an entry has no timeout, or there are too many."""
        if any(node not in self._timeouts for node in self._contests):
            raise AssertionError("a contested node id without a timeout")
        unlimited = any(key not in self._refusal_timeouts for key in self._refused)
        if unlimited or len(self._refused) > self._limits.refused_ids:
            raise AssertionError("a refused node id without a timeout, or too many of them")


def describe_duplicate(one: Record, other: Record, here: NodeId) -> str:
    """The text of a report about two live nodes with one id, for operators; `here` is the reporting node."""
    if one.node == here:
        text = f"another node called {here!r} is alive in the mesh, {describe_links(one)}"
    else:
        text = f"two nodes called {one.node!r} are alive, one {describe_links(one)}, one {describe_links(other)}"
    return f"{text}; one of the two must get another id"


def describe_refused(refused: Refused, at: NodeId, here: NodeId) -> str:
    """The text of a report about a duplicate that node `at` has refused, for operators; `here` reports it."""
    which = "another node" if refused.node == here else "a second node"
    where = f" {refused.where}" if refused.where else ""
    text = f"{which} called {refused.node!r} has tried to join at {at!r}{where} and was refused"
    return f"{text}; one of the two must get another id"


def describe_links(record: Record) -> str:
    """The first neighbours that a record lists, for the text of an error."""
    names = [node for node, _ in record.neighbours[:MAX_NEIGHBOURS_NAMED]]
    more = ", ..." if len(record.neighbours) > len(names) else ""
    return f"linked to {', '.join(names)}{more}" if names else "without a link"
