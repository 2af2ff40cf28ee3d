"""Two nodes of one name anywhere in the mesh, told apart from one that restarts.

A restarted node outbids the record of its old self once, and that never speaks again. Two nodes that are both alive
outbid each other: an incarnation that was outranked comes back with a higher serial, again and again. RETURNS such
returns are proof enough (one or two can be late records of a life that is over, where a clock went back), and every
node of the mesh sees them, so the name is known as a duplicate everywhere until CALM seconds have passed without one.
"""

from __future__ import annotations

from zmesh.core.limits import DEFAULT_LIMITS
from zmesh.core.message import NodeId
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import Record

RETURNS = 3
CALM = 180.0
MAX_LIVES = 8
MAX_NEIGHBOURS_NAMED = 4


class _Contest:
    """The lives that have claimed one name, each with the serial that it spoke with last."""

    __slots__ = ("lives", "returns")

    def __init__(self) -> None:
        self.lives: dict[int, int] = {}
        self.returns = 0


class Duplicates:
    """The table of names that more than one incarnation has claimed."""

    def __init__(self, alarm: Alarm, max_names: int = DEFAULT_LIMITS.contested_names) -> None:
        self._max_names = max_names
        self._contests: dict[NodeId, _Contest] = {}
        self._calm: Timers[NodeId] = Timers(alarm)

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
        if len(lives) > MAX_LIVES:
            del lives[next(iter(lives))]
        self._calm.set(winner.node, now + CALM)
        if before is None or winner.serial <= before:
            return False
        contest.returns += 1
        return contest.returns == RETURNS

    def _forget_one(self) -> None:
        """Make room for another name: the oldest that is not proven, or else the oldest."""
        node = next((node for node in self._contests if node not in self), next(iter(self._contests)))
        del self._contests[node]
        self._calm.cancel(node)

    def next_deadline(self) -> float | None:
        """When `expire` has work."""
        return self._calm.next_deadline()

    def expire(self, now: float) -> None:
        """Forget the names that have been calm for long."""
        for node in self._calm.expire(now):
            del self._contests[node]

    def check(self) -> None:
        """Raise AssertionError if a name would never be forgotten."""
        if any(node not in self._calm for node in self._contests):
            raise AssertionError("a contested name that nothing will forget")


def accuse(one: Record, other: Record, here: NodeId) -> str:
    """Where two nodes of one name are, for those who must give one of them another; `here` is who says so."""
    if one.node == here:
        text = f"another node called {here!r} is alive in the mesh, {_whereabouts(one)}"
    else:
        text = f"two nodes called {one.node!r} are alive, one {_whereabouts(one)}, one {_whereabouts(other)}"
    return f"{text}; one of the two must get another id"


def _whereabouts(record: Record) -> str:
    names = [node for node, _ in record.neighbours[:MAX_NEIGHBOURS_NAMED]]
    more = ", ..." if len(record.neighbours) > len(names) else ""
    return f"linked to {', '.join(names)}{more}" if names else "linked to nobody"
