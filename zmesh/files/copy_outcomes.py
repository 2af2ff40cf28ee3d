"""A copy to many nodes, and its outcome at each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from zmesh.errors import MeshError
from zmesh.files.progress import Copied, OnProgress, Progress
from zmesh.remote import Outcomes, Rules

if TYPE_CHECKING:
    from zmesh.files.transfer import Transfer

CopyTo: TypeAlias = "Callable[[str, OnProgress, Callable[[Transfer], None]], Awaitable[Copied]]"

MIB = 1024 * 1024


class CopyOutcomes(Outcomes):
    """The result of `copy_many`: an async iterator of the Outcome of each node, in order of arrival."""

    def __init__(self, nodes: Iterable[str], copy: CopyTo, **rules: Any) -> None:
        super().__init__(nodes, Rules(**rules))
        self._copy = copy
        self._copied: dict[str, Copied] = {}
        self._progress: dict[str, Progress] = {}
        self._transfers: dict[str, Transfer] = {}

    @property
    def copied(self) -> dict[str, Copied]:
        """The Copied of each node at which everything was copied."""
        return self._copied

    def last_line(self, node: str) -> str:
        """How far the copy is at a node."""
        progress = self._progress.get(node)
        if progress is None:
            return ""
        return f"{progress.done / MIB:.1f} of {progress.total / MIB:.1f} MiB, {progress.files} files"

    def _waits_for_route(self, node: str) -> bool:
        transfer = self._transfers.get(node)
        return transfer is not None and transfer.waits_for_route

    def _progress_at(self, node: str) -> str:
        transfer = self._transfers.get(node)
        obstacle = "" if transfer is None else transfer.obstacle
        return "; ".join(filter(None, [self.last_line(node) or "nothing of it was copied", obstacle]))

    async def _run_to_its_end(self, node: str, streams: Mapping[int, bytearray]) -> tuple[int, MeshError | None]:
        def begun(transfer: Transfer) -> None:
            self._transfers[node] = transfer

        try:
            self._copied[node] = await self._copy(node, lambda progress: self._progress.update({node: progress}), begun)
        finally:
            self._transfers.pop(node, None)
            self._progress.pop(node, None)
        return 0, None
