"""`zmesh cp`: copy files to a node, from one, from one to another, or to many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from zmesh import Copied, NodePath, Outcome, Progress, Target
from zmesh.errors import ConfigError, CopyFailed, MeshError
from zmesh_cli.at_nodes import ROUTE_TIMEOUT, AtNodes, give_up_unknown, nodes_of
from zmesh_cli.exit_codes import DONE, FAILED, USAGE, Failure
from zmesh_cli.local_sockets import Place
from zmesh_cli.progress import ProgressLine, bar
from zmesh_cli.session import Session
from zmesh_cli.terminal import STDERR, Output, is_terminal, print_error, record

LISTED = 10
"""Failures that are printed, each on a line."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Sources and destination of a copy: paths of this machine, and NODE:PATH, as they were given."""

    sources: list[str]
    destination: str
    recursive: bool
    rules: dict[str, Any] = field(default_factory=dict)


def nodes_in(places: Sequence[str]) -> list[str]:
    """The nodes that places name, the last one first. Raises Failure for a malformed place."""
    try:
        found = [each.node for each in map(NodePath.parse, places) if isinstance(each, NodePath)]
    except ConfigError as error:
        raise Failure(str(error), USAGE) from None
    return list(reversed(found))


async def cp(place: Place, nodes: Sequence[str], copy: Copy, *, route_timeout: float | None, as_json: bool) -> int:
    """Copy; the exit code. `nodes` are those that it is for."""
    async with Session(place, nodes[0], None, route_timeout=route_timeout, others=nodes[1:]) as session:
        session.has_arrived = lambda: not session.controller.stats().is_handing_over
        bar = _Bar() if is_terminal(STDERR) else None
        copied, error = None, None
        try:
            copied = await session.unless_not_found(
                session.controller.copy(
                    copy.sources,
                    copy.destination,
                    recursive=copy.recursive,
                    on_progress=None if bar is None else bar.update,
                )
            )
        except CopyFailed as failure:
            error = failure
        finally:
            if bar is not None:
                bar.hide()
    if as_json:
        await Output().text(record("zmesh.cp/1", node=None, **_fields(copied, error)))
    if error is None:
        return DONE
    for line in error.failures[:LISTED]:
        print_error(line)
    if error.failed > LISTED:
        print_error(f"and {error.failed - LISTED} more could not be copied")
    return FAILED


async def cp_many(place: Place, target: Target, copy: Copy, *, route_timeout: float | None, as_json: bool) -> int:
    """Copy to the nodes of a target; DONE only if all was copied to all of them."""
    async with Session(place, None, route_timeout=route_timeout or ROUTE_TIMEOUT) as session:
        nodes = await nodes_of(session, target)
        return await _CopyToNodes(session, nodes, copy, waits=route_timeout is not None, as_json=as_json).run()


class _CopyToNodes(AtNodes):
    """A copy to several nodes."""

    def __init__(self, session: Session, nodes: Sequence[str], copy: Copy, *, waits: bool, as_json: bool) -> None:
        super().__init__(nodes)
        self._output = Output() if as_json else None
        self._copied: dict[str, Copied] = {}
        try:
            self._all = session.controller.copy_many(
                copy.sources, nodes, copy.destination, recursive=copy.recursive, **copy.rules
            )
        except ConfigError as error:
            raise Failure(str(error), USAGE) from None
        if not waits:
            session.controller.watch(lambda event: give_up_unknown(self._all, event))

    async def run(self) -> int:
        """Copy to all of them; the exit code."""
        await self._follow(self._all, table=self._output is None)
        return self._end()

    async def _on_outcome(self, outcome: Outcome) -> None:
        if self._output is None:
            self._print_reason(outcome)
            return
        fields = _fields(self._all.copied.get(outcome.node), outcome.error)
        state, seconds = outcome.state.value, round(outcome.seconds, 3)
        await self._output.text(record("zmesh.cp/1", node=outcome.node, **{**fields, "state": state}, seconds=seconds))


class _Bar(ProgressLine):
    """How far a copy is."""

    def __init__(self) -> None:
        super().__init__()
        self._progress = Progress()

    def update(self, progress: Progress) -> None:
        """The copy has gone on."""
        self._progress = progress

    def _line(self, seconds: float) -> str:
        progress = self._progress
        if not progress.is_listed and not progress.total:
            return "looking ..."
        line = bar(progress.done, progress.total, progress.sent / seconds, is_known=progress.is_listed)
        files = progress.files + progress.skipped
        return f"{line}  {files} files" if files > 1 else line


def _fields(copied: Copied | None, error: MeshError | None) -> dict[str, Any]:
    """The outcome of a copy, for JSON."""
    done = copied or Copied()
    return {
        "state": "failed" if error is not None else "done",
        "files": done.files,
        "directories": done.directories,
        "links": done.links,
        "skipped": done.skipped,
        "resumed": done.resumed,
        "size": done.size,
        "sent": done.sent,
        "failures": [] if error is None else error.failures if isinstance(error, CopyFailed) else [str(error)],
        "code": None if error is None else error.code,
    }
