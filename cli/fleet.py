"""`zmesh run` at several nodes: output by node, a summary, and an end that leaves nothing running."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zmesh import Outcome, State, Target
from zmesh_cli.at_nodes import ROUTE_TIMEOUT, AtNodes, give_up_unknown, nodes_of
from zmesh_cli.input import mention_unread
from zmesh_cli.local_sockets import Place
from zmesh_cli.run import Command
from zmesh_cli.session import Session
from zmesh_cli.terminal import STDERR, STDOUT, Output, record

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
    advice = "as commands at many nodes get none: -n says so" if command.stdin else None
    with mention_unread(advice):
        async with Session(place, None, route_timeout=route_timeout or ROUTE_TIMEOUT) as session:
            nodes = await nodes_of(session, target)
            return await _Run(session, nodes, command, fleet, waits=route_timeout is not None).run()


class _Run(AtNodes):
    """One command at several nodes."""

    def __init__(self, session: Session, nodes: list[str], command: Command, fleet: Fleet, *, waits: bool) -> None:
        super().__init__(nodes)
        self._waits = waits
        self._session = session
        self._command = command
        self._fleet = fleet
        self._outputs = {1: Output(STDOUT), 2: Output(STDERR, "stderr")}
        self._lines: dict[tuple[str, int], bytes] = {}

    async def run(self) -> int:
        """Run it to the end of all; the exit code."""
        command, fleet = self._command, self._fleet
        by_line = not fleet.group and not fleet.as_json
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
        if not self._waits:
            self._session.controller.watch(lambda event: give_up_unknown(outcomes, event))
        await self._follow(outcomes, table=fleet.group)
        if fleet.group:
            await self._show_groups()
        return self._end()

    async def _on_outcome(self, outcome: Outcome) -> None:
        if self._fleet.as_json:
            await self._outputs[1].text(_json(outcome))
            return
        for stream in self._outputs:
            if rest := self._lines.pop((outcome.node, stream), b""):
                await self._line(outcome.node, stream, rest + b"\n")
        self._print_reason(outcome)

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
