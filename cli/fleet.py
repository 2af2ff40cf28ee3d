"""`zmesh run` at several nodes: output by node, a summary, and an end that leaves nothing running."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from zmesh import Outcome, Outcomes, State, Target
from zmesh.errors import ConfigError
from zmesh_cli.exit_codes import DONE, FAILED, INTERRUPTED, USAGE, Failure
from zmesh_cli.live_table import LiveTable
from zmesh_cli.local_sockets import Place
from zmesh_cli.nodes import tags_in
from zmesh_cli.routes import DEFAULT_TIMEOUT, fetch_tables
from zmesh_cli.run import Command
from zmesh_cli.session import Session
from zmesh_cli.signals import ENDING, not_ignored
from zmesh_cli.terminal import STDERR, STDOUT, Output, print_error, print_line, printable, record

ROUTE_TIMEOUT = 5.0
"""Seconds that a node may be out of reach, unless --route-timeout is given: shorter than for one node alone."""
LISTED = 10
"""Nodes of one state that the summary names."""
MAX_LINE = 64 * 1024
"""Bytes of a line without an end that wait for it."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """How a command runs at several nodes, and how its output is shown: by lines, by `group` or as JSON."""

    max_parallel: int = 50
    canary: int = 0
    stop_after: str | None = None
    per_node_timeout: float | None = None
    group: bool = False
    as_json: bool = False

    @property
    def rules(self) -> dict[str, Any]:
        """The options of `run_many`."""
        return {name: getattr(self, name) for name in ("max_parallel", "canary", "stop_after", "per_node_timeout")}


async def run_many(place: Place, target: Target, command: Command, fleet: Fleet, *, route_timeout: float | None) -> int:
    """Run a command at the nodes of a target; DONE only if it is done at all of them."""
    async with Session(place, None, route_timeout=route_timeout or ROUTE_TIMEOUT) as session:
        nodes = await _nodes(session, target)
        return await _Run(session, nodes, command, fleet).run()


async def _nodes(session: Session, target: Target) -> list[str]:
    """The nodes of a target. Raises Failure if there are none."""
    if target.names_nodes:
        nodes = target.nodes({})
    else:
        nodes = target.nodes(tags_in(await session.unless_not_found(fetch_tables(session, DEFAULT_TIMEOUT))))
    if not nodes:
        raise Failure("no node is meant: 'zmesh nodes' lists them, with their tags", USAGE)
    return nodes


class _Run:
    """One command at several nodes."""

    def __init__(self, session: Session, nodes: list[str], command: Command, fleet: Fleet) -> None:
        self._session = session
        self._nodes = nodes
        self._command = command
        self._fleet = fleet
        self._outcomes: list[Outcome] = []
        self._outputs = {1: Output(STDOUT), 2: Output(STDERR, "stderr")}
        self._lines: dict[tuple[str, int], bytes] = {}
        self._interrupted = 0
        self._table: LiveTable | None = None

    async def run(self) -> int:
        """Run it to the end of all; the exit code."""
        command, fleet = self._command, self._fleet
        by_line = not fleet.group and not fleet.as_json
        try:
            outcomes = self._session.controller.run_many(
                self._nodes,
                command.words,
                env=command.environment,
                cwd=command.directory,
                user=command.user,
                timeout=command.timeout,
                on_output=self._show_lines if by_line else None,
                **fleet.rules,
            )
        except ConfigError as error:
            raise Failure(str(error), USAGE) from None
        if fleet.group:
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
        if fleet.group:
            await self._show_groups()
        for line in self._summary():
            print_error(line)
        if self._interrupted:
            return INTERRUPTED
        return DONE if all(each.state == State.DONE for each in self._outcomes) else FAILED

    async def _on_outcome(self, outcome: Outcome) -> None:
        if self._fleet.as_json:
            await self._outputs[1].text(_json(outcome))
            return
        for stream in self._outputs:
            if rest := self._lines.pop((outcome.node, stream), b""):
                await self._line(outcome.node, stream, rest + b"\n")
        if outcome.error is not None:
            if self._table is not None:
                self._table.erase()
            print_error(_reason(outcome))

    # -- output --------------------------------------------------------------------------------------------------

    async def _show_lines(self, node: str, stream: int, data: bytes) -> None:
        """Show the whole lines among what has come, each after the id of its node."""
        *lines, rest = (self._lines.pop((node, stream), b"") + data).split(b"\n")
        if len(rest) > MAX_LINE:
            lines, rest = [*lines, rest], b""
        if rest:
            self._lines[node, stream] = rest
        if lines:
            await self._line(node, stream, b"".join(line + b"\n" for line in lines))

    async def _line(self, node: str, stream: int, lines: bytes) -> None:
        prefix = f"{node}: ".encode()
        text = b"".join(prefix + line + b"\n" for line in lines.split(b"\n")[:-1])
        await self._outputs[stream].payload(text)

    async def _show_groups(self) -> None:
        """Show the output of each node, and equal ones once."""
        groups: dict[tuple[object, ...], list[str]] = {}
        for each in self._outcomes:
            if each.state != State.NOT_STARTED:
                groups.setdefault((each.state, each.returncode, each.stdout, each.stderr), []).append(each.node)
        for (state, code, out, err), nodes in sorted(groups.items(), key=lambda group: sorted(group[1])):
            how = f"exit code {code}" if state == State.FAILED and code is not None else state
            await self._outputs[1].text(f"--- {', '.join(sorted(nodes))} ({len(nodes)}): {how}\n")
            for data in (out, err):
                assert isinstance(data, bytes)
                await self._outputs[1].payload(data if not data or data.endswith(b"\n") else data + b"\n")

    def _summary(self) -> Iterator[str]:
        """A line on all of them, and one for each state but done."""
        states: dict[State, list[str]] = {state: [] for state in State}
        for each in self._outcomes:
            states[each.state].append(each.node)
        counts = ", ".join(f"{len(nodes)} {state}" for state, nodes in states.items() if nodes)
        yield f"{len(self._outcomes)} nodes: {counts}"
        for state, nodes in states.items():
            if nodes and state != State.DONE:
                more = f" and {len(nodes) - LISTED} more" if len(nodes) > LISTED else ""
                yield f"{state}: {', '.join(sorted(nodes)[:LISTED])}{more}"

    # -- signals -------------------------------------------------------------------------------------------------

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


def _reason(outcome: Outcome) -> str:
    """What went wrong at a node, as a line that names it."""
    text = printable(str(outcome.error))
    return text if repr(outcome.node) in text else f"node {outcome.node!r}: {text}"


def _json(outcome: Outcome) -> str:
    error = outcome.error
    return record(
        "zmesh.run/1",
        node=outcome.node,
        state=outcome.state.value,
        returncode=outcome.returncode,
        stdout=outcome.stdout.decode(errors="replace"),
        stderr=outcome.stderr.decode(errors="replace"),
        error=None if error is None else str(error),
        code=None if error is None else error.code,
        seconds=round(outcome.seconds, 3),
    )
