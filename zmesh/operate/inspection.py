"""The built-in directives by which a node shows its state.

Each answers at once, in one reply, from tables that the node has anyway. Together they may answer so many rows a second
(`Limits.shown_rows`), so that looking at a node can't keep it busy. Examinations (`examiner`) take longer.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from zmesh.core.limits import Limits, TokenBucket
from zmesh.core.message import is_node_id
from zmesh.errors import NodeOverloaded
from zmesh.operate.directives import DOCTOR, GRAPH, HOP, LOAD, MEMBERS, SETTINGS, STATUS, WHY
from zmesh.operate.event_log import EventLog
from zmesh.payloads import Outgoing
from zmesh.runtime import ThreadPool

if TYPE_CHECKING:
    from zmesh.observe import LinkHistory
    from zmesh.operate.examiner import Examiner
    from zmesh.operate.host import Host
    from zmesh.operate.json_form import JsonForm
    from zmesh.operate.mesh_reader import MeshReader
    from zmesh.operate.node_reader import NodeReader
    from zmesh.operate.node_settings import NodeSettings
    from zmesh.serving import Work


MANY_ROWS = 250
"""Rows from which on an answer is written as JSON by a thread: that of a thousand links takes 12 ms."""


class Inspection:
    """The directives that show the state of one node and its view of the mesh; `limits` bound what they answer."""

    def __init__(self, host: Host, history: LinkHistory, limits: Limits) -> None:
        self._host, self._history = host, history
        self._node_id = host.config.node_id
        self._rows = TokenBucket(limits.shown_rows, time.monotonic())
        self._threads: ThreadPool | None = None
        identity = host.identity
        state = identity.state.folder if identity is not None and identity.state is not None else None
        self.events = EventLog(host.config.node_id, state, host.directives, limits)
        shown: dict[str, Callable[[Work], JsonForm]] = {
            STATUS: lambda work: self._own.status(),
            LOAD: lambda work: self._own.load(),
            MEMBERS: lambda work: self._mesh.members(),
            GRAPH: lambda work: self._mesh.graph(),
            WHY: lambda work: self._mesh.why(_node_in(work, "destination")),
            HOP: lambda work: self._mesh.hop(_node_in(work, "destination"), _node_in(work, "origin")),
            SETTINGS: lambda work: self._settings(),
        }
        for directive, answer in shown.items():
            host.serving.add_builtin(directive, self._limited(directive, answer))
        host.serving.add_builtin(DOCTOR, lambda work: self.examiner.answer(work))

    # Modules are imported when the first request needs them, since few nodes are looked at.

    @cached_property
    def examiner(self) -> Examiner:
        """The examinations of this node."""
        from zmesh.operate.examiner import Examiner

        return Examiner(self._host, self._own.status)

    @cached_property
    def _own(self) -> NodeReader:
        from zmesh.operate.node_reader import NodeReader

        return NodeReader(self._host, self._history)

    @cached_property
    def _mesh(self) -> MeshReader:
        from zmesh.operate.mesh_reader import MeshReader

        return MeshReader(self._host, self._own)

    def _settings(self) -> NodeSettings:
        from zmesh.operate.node_settings import NodeSettings, ShownSetting, versions

        shown = (ShownSetting(name, value, origin.kind, origin.where) for name, value, origin in self._host.settings())
        return NodeSettings(self._node_id, tuple(shown), versions())

    def _limited(self, directive: str, answer: Callable[[Work], JsonForm]) -> Callable[[Work], object]:
        """The function of a directive, with the schema in its answer, within the limit of rows."""
        schema = f"{directive.replace(':', '.')}/1"

        def limited(work: Work) -> object:
            if not self._rows.has(time.monotonic()):
                raise NodeOverloaded(
                    f"node {self._node_id!r} has shown as much as it does in a second; try again in one",
                    limit="shown_rows",
                )
            shown = answer(work)
            rows = _rows_of(shown)
            self._rows.spend(max(1, rows))
            if rows < MANY_ROWS:
                return {"schema": schema, **shown.to_json()}
            if self._threads is None:
                self._threads = ThreadPool(1, "zmesh-shown")
            return self._threads.submit(lambda: Outgoing(_written(schema, shown), "application/json"))

        return limited

    def close(self) -> None:
        """End the thread, if there is one."""
        if self._threads is not None:
            self._threads.close()


def _rows_of(shown: JsonForm) -> int:
    """The length of its longest table."""
    values = (getattr(shown, field.name) for field in dataclasses.fields(cast("Any", shown)))
    return max((len(each) for each in values if isinstance(each, tuple)), default=0)


def _written(schema: str, shown: JsonForm) -> bytes:
    """An answer as JSON."""
    return json.dumps({"schema": schema, **shown.to_json()}).encode()


def _node_in(work: Work, key: str) -> str:
    """The node that the payload of a request names. Raises ValueError."""
    asked = work.payload.json()
    node = asked.get(key) if isinstance(asked, dict) else None
    if not isinstance(node, str) or not is_node_id(node):
        raise ValueError(f"{work.directive} takes an object whose {key!r} is the id of a node")
    return node
