"""Copies for programs without asyncio."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from zmesh.sync.blocking_node import BlockingNode
from zmesh.sync.iteration import Iteration, in_the_loop

if TYPE_CHECKING:
    from typing import Unpack

    from zmesh.files import Copied, CopyManyOptions, CopyOptions, Place
    from zmesh.remote import Outcome, Word


class Files(BlockingNode):
    """The part of a Controller that copies files."""

    def copy(self, sources: Place | Iterable[Place], destination: Place, /, **options: Unpack[CopyOptions]) -> Copied:
        """Copy files between this machine and a node: `mesh.copy("app.tar", "edge-7:/srv/app.tar")`.

        As `zmesh.Controller.copy`.
        """
        return self._do(lambda: self._mesh.copy(sources, destination, **options))

    def copy_many(
        self,
        sources: Place | Iterable[Place],
        nodes: Iterable[str] | str,
        path: Word,
        /,
        **options: Unpack[CopyManyOptions],
    ) -> Iteration[Outcome]:
        """Copy files to the same path of many nodes; iterate over what this returns for an Outcome of each.

        As `zmesh.Controller.copy_many`.
        """
        mesh, node_thread = self._mesh, self._opened()
        outcomes = node_thread.do(in_the_loop(lambda: mesh.copy_many(sources, nodes, path, **options)))
        return self._iterating(Iteration(node_thread, aiter(outcomes), outcomes.aclose))
