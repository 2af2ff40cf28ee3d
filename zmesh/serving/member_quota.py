"""A quota of what is under way for others at a time, in all and for one member, so that one leaves room for others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from zmesh.core.effects import Report
from zmesh.core.message import Address, NodeId
from zmesh.errors import NodeOverloaded


def member_of(sender: str) -> str:
    """The node that a sender is, or is attached to: `hub` for `cli-4f2a@hub`."""
    return sender.rpartition("@")[2]


class MemberQuota:
    """Counts the uses of one resource: `limit` is the setting of `[section]`, `what` its plural in errors.

    `per` names the setting for one member, `max_commands_per_node`. `attach` takes the function that counts refusals.
    """

    __slots__ = ("_note", "_of", "_per", "_section", "_total", "_what", "limit")

    def __init__(self, section: str, limit: str, what: str, per: str = "node") -> None:
        self._section = section
        self.limit = limit
        self._per = per
        self._what = what
        self._of: Counter[str] = Counter()
        self._total = 0
        self._note: Callable[[Report], None] | None = None

    def attach(self, note: Callable[[Report], None]) -> None:
        """Count each refusal by a report."""
        self._note = note

    @contextmanager
    def one_more(self, node: object, member: str, most: int, most_of_one: int) -> Iterator[None]:
        """Count a use at `node` meanwhile. Raises NodeOverloaded past a limit, and counts that."""
        own = self._of[member]
        if self._total >= most:
            self._refuse(node, member, self.limit, f"{self._total} {self._what}")
        if own >= most_of_one:
            self._refuse(node, member, f"{self.limit}_per_{self._per}", f"{own} {self._what} for {member!r}")
        self._total += 1
        self._of[member] += 1
        try:
            yield
        finally:
            self._total -= 1
            self._of[member] -= 1
            if not self._of[member]:
                del self._of[member]

    def _refuse(self, node: object, member: str, limit: str, what: str) -> None:
        if self._note is not None:
            self._note(Report("overloaded", NodeId(Address(member)), None, f"{self._section}_{limit}"))
        raise NodeOverloaded(
            f"node {node!r} has {what} already ([{self._section}] {limit}); "
            "try again when some have ended, or set it higher there"
        )
