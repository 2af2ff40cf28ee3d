"""Copies as a program calls them: `copy`, which a Controller inherits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from zmesh.errors import CopyFailed, NodeRestarted
from zmesh.requests import Requester

if TYPE_CHECKING:
    from typing import Unpack

    from zmesh.files.copy_outcomes import CopyOutcomes
    from zmesh.files.places import Job, Place
    from zmesh.files.progress import Copied, OnProgress, Progress
    from zmesh.files.transfer import Transfer
    from zmesh.remote import Word

RULES = ("max_parallel", "canary", "stop_after", "per_node_timeout")
ATTEMPTS = 5
"""Attempts at a copy while its node restarts."""

T = TypeVar("T")


class CopyOptions(TypedDict, total=False):
    """How files are copied.

    `recursive` copies directories, and links as links. `on_progress(progress)` is called on the loop as the copy goes
    on. `route_timeout` is that of `stream`.
    """

    recursive: bool
    on_progress: OnProgress | None
    route_timeout: float | None


class CopyManyOptions(TypedDict, total=False):
    """How files are copied to many nodes: as in CopyOptions and, without the output, in FleetOptions."""

    recursive: bool
    route_timeout: float | None
    max_parallel: int
    canary: int
    stop_after: int | str | None
    per_node_timeout: float | None


class Files(Requester):
    """The part of a Controller that copies files."""

    @abstractmethod
    def nodes(self, target: str | None = None, *, tag: str | None = None) -> list[str]:
        """As `Controller.nodes`."""

    async def copy(
        self, sources: Place | Iterable[Place], destination: Place, /, **options: Unpack[CopyOptions]
    ) -> Copied:
        """Copy files to a node, from one, or from one to another: `await mesh.copy("app.tar", "edge-7:/srv/app.tar")`.

        A place is `NODE:PATH`, a NodePath, or a path of this machine. Several sources go into a directory. Each file
        gets its name when all of it is there and on the disk, with the mode and time of the source; a copy that is
        made again goes on where it was broken off. What is there with the same size, mode and time is left as it is.

        The nodes must allow `file:read` and `file:write`. From one node to another files travel without passing through
        this one. Options are those of CopyOptions. Raises CopyFailed if anything was not copied, when all else was;
        NotAllowed; ConfigError and TypeError for what can't be a place; and as `stream` does.
        """
        return await self._copied(sources, destination, None, **options)

    async def _copied(
        self,
        sources: Place | Iterable[Place],
        destination: Place,
        begun: Callable[[Transfer], None] | None,
        **options: Unpack[CopyOptions],
    ) -> Copied:
        """As `copy`; `begun` is called with each transfer."""
        from zmesh.files.progress import Copied  # here: few programs copy files
        from zmesh.files.transfer import listed, plan

        jobs = plan(listed(sources), destination)
        totals = Copied()
        failures: list[str] = []
        failed = 0
        for each in jobs:
            progress = await self._copy(each, begun, **options)
            totals += progress.copied
            failures += progress.failures
            failed += progress.failed
        if failed:
            more = f", and {failed - 1} more" if failed > 1 else ""
            raise CopyFailed(failures[0] + more, failures=failures, failed=failed)
        return totals

    def copy_many(
        self,
        sources: Place | Iterable[Place],
        nodes: Iterable[str] | str,
        path: Word,
        /,
        **options: Unpack[CopyManyOptions],
    ) -> CopyOutcomes:
        """Copy files to the same path of many nodes; iterate over what this returns for an Outcome of each.

        `nodes` are ids, or a target as `nodes` takes. An error at one is in its Outcome, and delays none of the others.
        Options are those of CopyManyOptions. Raises ConfigError for a malformed place, target or number.
        """
        from zmesh.files.copy_outcomes import CopyOutcomes  # here: few programs copy files
        from zmesh.files.places import NodePath
        from zmesh.files.transfer import listed, plan

        shared: dict[str, Any] = dict(options)
        given = listed(sources)
        ids = self.nodes(nodes) if isinstance(nodes, str) else list(nodes)
        for node in ids:
            plan(given, NodePath(node, path))

        async def copy(node: str, on_progress: OnProgress, begun: Callable[[Transfer], None]) -> Copied:
            return await self._copied(given, NodePath(node, path), begun, on_progress=on_progress, **shared)

        rules = {name: shared.pop(name) for name in RULES if name in shared}
        return CopyOutcomes(ids, copy, **rules)

    async def _copy(
        self,
        job: Job,
        begun: Callable[[Transfer], None] | None,
        *,
        recursive: bool = False,
        on_progress: OnProgress | None = None,
        route_timeout: float | None = None,
    ) -> Progress:
        """One exchange, and once more where its node has started anew."""
        from zmesh.files.transfer import Transfer  # here: few programs copy files

        for attempt in range(ATTEMPTS):
            transfer = Transfer(self.stream, recursive, on_progress, route_timeout)
            if begun is not None:
                begun(transfer)
            try:
                await transfer.make(job)
            except NodeRestarted:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return transfer.progress
        raise AssertionError
