"""Copies for programs without asyncio."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from zmesh.sync.blocking_node import BlockingNode

if TYPE_CHECKING:
    from typing import Unpack

    from zmesh.files import Copied, CopyOptions, Place


class Files(BlockingNode):
    """The part of a Controller that copies files."""

    def copy(self, sources: Place | Iterable[Place], destination: Place, /, **options: Unpack[CopyOptions]) -> Copied:
        """Copy files between this machine and a node: `mesh.copy("app.tar", "edge-7:/srv/app.tar")`.

        As `zmesh.Controller.copy`.
        """
        return self._do(lambda: self._mesh.copy(sources, destination, **options))
