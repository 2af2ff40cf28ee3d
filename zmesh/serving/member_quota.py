"""A quota of what is under way for others at a time, in all and for one member, so that one leaves room for others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from zmesh.errors import NodeOverloaded


def member_of(sender: str) -> str:
    """The node that a sender is, or is attached to: `hub` for `cli-4f2a@hub`."""
    return sender.rpartition("@")[2]


class MemberQuota:
    """Counts the uses of one resource: `limit` is the setting of `[section]`, `what` its plural in errors.

    `per` names the setting for one member, `max_commands_per_node`.
    """

    __slots__ = ("_of", "_per", "_section", "_total", "_what", "limit")

    def __init__(self, section: str, limit: str, what: str, per: str = "node") -> None:
        self._section = section
        self.limit = limit
        self._per = per
        self._what = what
        self._of: Counter[str] = Counter()
        self._total = 0

    @contextmanager
    def one_more(self, node: object, member: str, most: int, most_of_one: int) -> Iterator[None]:
        """Count a use at `node` meanwhile. Raises NodeOverloaded past a limit."""
        own = self._of[member]
        if self._total >= most:
            raise self._refusal(node, self.limit, f"{self._total} {self._what}")
        if own >= most_of_one:
            raise self._refusal(node, f"{self.limit}_per_{self._per}", f"{own} {self._what} for {member!r}")
        self._total += 1
        self._of[member] += 1
        try:
            yield
        finally:
            self._total -= 1
            self._of[member] -= 1
            if not self._of[member]:
                del self._of[member]

    def _refusal(self, node: object, limit: str, what: str) -> NodeOverloaded:
        return NodeOverloaded(
            f"node {node!r} has {what} already ([{self._section}] {limit}); "
            "try again when some have ended, or set it higher there",
            limit=f"{self._section}_{limit}",
        )
