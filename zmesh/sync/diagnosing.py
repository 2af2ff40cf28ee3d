"""The diagnosis of nodes, for programs without asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmesh.operate import EVERYONE, EXAMINED_WITHIN, TIMEOUT
from zmesh.sync.iteration import Iteration
from zmesh.sync.operating import Operating

if TYPE_CHECKING:
    import os

    from zmesh.operate import BundleSummary, Diagnosis, NodeEvent, NodeSettings


class Diagnosing(Operating):
    """The part of a Controller that diagnoses nodes; each method, with its errors, is that of `zmesh.Controller`.

    A `timeout` is in seconds.
    """

    def doctor(self, node: str | None = None, *, timeout: float | None = EXAMINED_WITHIN) -> Diagnosis:
        """The diagnosis of a node: faults and their remedies."""
        return self._do(lambda: self._mesh.doctor(node, timeout=timeout))

    def events_of(
        self, node: str | None = None, *, since: float | None = None, last: int | None = None, follow: bool = False
    ) -> Iteration[NodeEvent]:
        """The last events of a node, the oldest first, and with `follow` all that come."""
        events = self._mesh.events_of(node, since=since, last=last, follow=follow)
        return self._iterating(Iteration(self._opened(), events, events.aclose))

    def settings_of(self, node: str | None = None, *, timeout: float | None = TIMEOUT) -> NodeSettings:
        """The settings of a node, without secrets, and the versions of what it runs on."""
        return self._do(lambda: self._mesh.settings_of(node, timeout=timeout))

    def bundle(
        self,
        path: str | os.PathLike[str],
        target: str = EVERYONE,
        at: str | None = None,
        *,
        timeout: float | None = EXAMINED_WITHIN,
        examine: bool = True,
    ) -> BundleSummary:
        """Write the state of the nodes of a target into a file, for a bug report; as `zmesh.Controller.bundle`."""
        return self._do(lambda: self._mesh.bundle(path, target, at, timeout=timeout, examine=examine))
