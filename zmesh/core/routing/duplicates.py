"""Two nodes of one name anywhere in the mesh, told apart from one that restarts.

A restarted node outbids the record of its old self once, and that never speaks again. Two nodes that are both alive
outbid each other: an incarnation that was outranked comes back with a higher serial, again and again. RETURNS such
returns are proof enough (one or two can be late records of a life that is over, where a clock went back), and every
node of the mesh sees them, so the name is known as a duplicate everywhere until CONTEST_TIMEOUT seconds have passed
without one.

A second node that is refused when it greets never speaks to the mesh. The node that refuses it says so in its own
record, for as long, so that the first one and all others know of it too.

The one that was started later gives way: it alone is told `id_taken`, of which `zmesh node` ends. What a record says of
a name is no proof against a member that lies, so a node believes a record only in its first STARTUP seconds; later it
believes only a neighbour's greeting or refusal.
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
    """The lives that have claimed one name, each with the serial that it spoke with last."""

    __slots__ = ("lives", "returns")

    def __init__(self) -> None:
        self.lives: dict[int, int] = {}
        self.returns = 0


class Duplicates:
    """The table of names that more than one incarnation has claimed."""

    def __init__(self, alarm: Alarm, limits: Limits = DEFAULT_LIMITS) -> None:
        self._max_names = limits.contested_names
        self._contests: dict[NodeId, _Contest] = {}
        self._calm: Timers[NodeId] = Timers(alarm)
        self._limits = limits
        self._refused: dict[tuple[NodeId, int], Refused] = {}
        self._refusals: Timers[tuple[NodeId, int]] = Timers(alarm)

    def __len__(self) -> int:
        return len(self._contests)

    def __contains__(self, node: NodeId) -> bool:
        contest = self._contests.get(node)
        return contest is not None and contest.returns >= RETURNS

    def names(self) -> list[NodeId]:
        """The names that are known to be borne by two nodes, sorted."""
        return sorted(node for node in self._contests if node in self)

    def witness(self, winner: Record, loser: Record, now: float) -> bool:
        """A record has outranked that of another incarnation; True if that has just proved two nodes to be alive."""
        contest = self._contests.get(winner.node)
        if contest is None:
            if len(self._contests) >= self._max_names:
                self._forget_one()
            contest = self._contests[winner.node] = _Contest()
        lives = contest.lives
        before = lives.pop(winner.incarnation, None)
        lives.pop(loser.incarnation, None)
        lives[loser.incarnation], lives[winner.incarnation] = loser.serial, winner.serial
        if len(lives) > MAX_INCARNATIONS:
            del lives[next(iter(lives))]
        self._calm.set(winner.node, now + CONTEST_TIMEOUT)
        if before is None or winner.serial <= before:
            return False
        contest.returns += 1
        return contest.returns == RETURNS

    def _forget_one(self) -> None:
        """Make room for another name: the oldest that is not proven, or else the oldest."""
        node = next((node for node in self._contests if node not in self), next(iter(self._contests)))
        del self._contests[node]
        self._calm.cancel(node)

    def refuse(self, node: NodeId, incarnation: int, started: float, where: str, now: float) -> bool:
        """A second node of a name was refused here; True if the mesh is to hear of that, for the first time."""
        key = (node, incarnation)
        known = key in self._refused
        if not known and len(self._refused) >= self._limits.refused_ids:
            return False
        self._refused[key] = Refused(node, incarnation, started, where[:MAX_WHERE])
        self._refusals.set(key, now + CONTEST_TIMEOUT)
        return not known

    def refused(self) -> tuple[Refused, ...]:
        """The second nodes of a name that were refused here lately."""
        return tuple(self._refused.values())

    def next_deadline(self) -> float | None:
        """When `expire` has work."""
        deadlines = (self._calm.next_deadline(), self._refusals.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def expire(self, now: float) -> bool:
        """Forget the names that have been calm for long; True if one of them was refused here."""
        for node in self._calm.expire(now):
            del self._contests[node]
        over = self._refusals.expire(now)
        for key in over:
            del self._refused[key]
        return bool(over)

    def check(self) -> None:
        """Raise AssertionError if a name would never be forgotten, or too many are kept."""
        if any(node not in self._calm for node in self._contests):
            raise AssertionError("a contested name that nothing will forget")
        if any(key not in self._refusals for key in self._refused) or len(self._refused) > self._limits.refused_ids:
            raise AssertionError("a refused name that nothing will forget, or more than may be kept")


def accuse(one: Record, other: Record, here: NodeId) -> str:
    """Where two nodes of one name are, for those who must give one of them another; `here` is who says so."""
    if one.node == here:
        text = f"another node called {here!r} is alive in the mesh, {whereabouts(one)}"
    else:
        text = f"two nodes called {one.node!r} are alive, one {whereabouts(one)}, one {whereabouts(other)}"
    return f"{text}; one of the two must get another id"


def told(refused: Refused, at: NodeId, here: NodeId) -> str:
    """What `at` says of a second node of a name, for those who must give one of the two another; `here` says so."""
    which = "another node" if refused.node == here else "a second node"
    where = f" {refused.where}" if refused.where else ""
    text = f"{which} called {refused.node!r} has tried to join at {at!r}{where} and was refused"
    return f"{text}; one of the two must get another id"


def whereabouts(record: Record) -> str:
    """Whom a node is linked to, in words."""
    names = [node for node, _ in record.neighbours[:MAX_NEIGHBOURS_NAMED]]
    more = ", ..." if len(record.neighbours) > len(names) else ""
    return f"linked to {', '.join(names)}{more}" if names else "linked to nobody"
