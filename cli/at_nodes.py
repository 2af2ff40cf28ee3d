"""Commands at several nodes: which nodes, a table meanwhile, Ctrl-C, a summary and the exit code."""

from __future__ import annotations

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from zmesh import DestinationUnreachable, Event, Outcome, Outcomes, State, Target
from zmesh_cli.exit_codes import DONE, FAILED, INTERRUPTED, USAGE, Failure
from zmesh_cli.live_table import LiveTable
from zmesh_cli.nodes import tags_in
from zmesh_cli.routes import DEFAULT_TIMEOUT, fetch_tables
from zmesh_cli.session import SETTLED, Session
from zmesh_cli.signals import ENDING, not_ignored
from zmesh_cli.terminal import print_error, print_line, printable

ROUTE_TIMEOUT = 5.0
"""Seconds that a node may be out of reach, unless --route-timeout is given: shorter than for one node alone."""
LISTED = 10
"""Nodes of one state that the summary names."""


async def nodes_of(session: Session, target: Target) -> list[str]:
    """The nodes of a target. Raises Failure if there are none."""
    if target.names_nodes:
        nodes = target.nodes({})
    else:
        nodes = target.nodes(tags_in(await session.unless_not_found(fetch_tables(session, DEFAULT_TIMEOUT))))
    if not nodes:
        raise Failure("no node is meant: 'zmesh nodes' lists them, with their tags", USAGE)
    return nodes


def give_up_unknown(outcomes: Outcomes, event: Event) -> None:
    """Wait no longer for a node that has left the mesh, or that a node with settled routes has none to."""
    if not isinstance(event, DestinationUnreachable) or event.reason == "not_trusted":  # that is its answer
        return
    if event.reason == "gone" or event.settled >= SETTLED:
        meant = f" (did you mean {event.near[0]!r}?)" if event.near else ""
        outcomes.give_up(event.node, f"no route to {event.node!r}{meant}; {event.text or 'it has left the mesh'}")


class AtNodes(ABC):
    """Something that is done at several nodes."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self._nodes = nodes
        self._outcomes: list[Outcome] = []
        self._interrupted = 0
        self._table: LiveTable | None = None

    async def _follow(self, outcomes: Outcomes, *, table: bool) -> None:
        """Take the outcomes as they come, with a table meanwhile if that is wanted."""
        if table:
            self._table = LiveTable(self._nodes, outcomes, self._outcomes)
        try:
            async with outcomes:
                with self._stopping(outcomes):
                    async for outcome in outcomes:
                        self._outcomes.append(outcome)
                        await self._on_outcome(outcome)
        finally:
            if self._table is not None:
                self._table.close()

    @abstractmethod
    async def _on_outcome(self, outcome: Outcome) -> None:
        """Show what became of it at a node."""

    def _print_reason(self, outcome: Outcome) -> None:
        """Print what went wrong at a node, if something did."""
        if outcome.error is not None:
            if self._table is not None:
                self._table.erase()
            text = printable(str(outcome.error))
            print_error(text if repr(outcome.node) in text else f"node {outcome.node!r}: {text}")

    def _end(self) -> int:
        """Print the summary; the exit code."""
        for line in self._summary():
            print_error(line)
        if self._interrupted:
            return INTERRUPTED
        return DONE if all(each.state == State.DONE for each in self._outcomes) else FAILED

    def _summary(self) -> Iterator[str]:
        """A line on all of them, and one for each state but done."""
        states: dict[State, list[str]] = {state: [] for state in State}
        for each in self._outcomes:
            states[each.state].append(each.node)
        counts = ", ".join(f"{len(nodes)} {state}" for state, nodes in states.items() if nodes)
        count = len(self._outcomes)
        yield f"{count} node{'s' if count != 1 else ''}: {counts}"
        for state, nodes in states.items():
            if nodes and state != State.DONE:
                more = f" and {len(nodes) - LISTED} more" if len(nodes) > LISTED else ""
                yield f"{state}: {', '.join(sorted(nodes)[:LISTED])}{more}"

    @contextmanager
    def _stopping(self, outcomes: Outcomes) -> Iterator[None]:
        """Let a signal stop it everywhere meanwhile; a second one ends this command without waiting for that."""
        loop = asyncio.get_running_loop()
        signals = not_ignored(signal.SIGINT, *ENDING)
        for number in signals:
            loop.add_signal_handler(number, self._on_signal, outcomes)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def _on_signal(self, outcomes: Outcomes) -> None:
        self._interrupted += 1
        if self._interrupted > 1:
            os._exit(INTERRUPTED)
        running = outcomes.running
        if self._table is not None:
            self._table.erase()
        print_line(f"zmesh: stopping it at {len(running)} nodes; once more to leave them")
        outcomes.stop()
