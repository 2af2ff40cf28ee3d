"""Rates of nodes: two statuses of a node make one sample, samples make time lines; pure and bounded."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from zmesh.operate import NodeStatus

NODE_SAMPLES = 180
"""Samples of one node that are kept."""
MESH_SAMPLES = 900
"""Samples of the mesh that are kept, one a second."""
PLACES = 4
MAX_REQUESTS = 16
"""Rows of what was requested of one node; its page shows all that the node keeps."""
OWN = "zmesh:"
"""The namespace of the directives that show nodes."""
COUNT, RATE = 2, 3

ERRORS = frozenset(
    (
        "call_refused", "duplicate_id", "frame_dropped", "link_refused", "overloaded", "record_refused",
        "reply_dropped", "route_refused", "stranger_refused", "unreachable",
    )
)  # fmt: skip
"""Counters of a node that are errors, by the word before a colon."""


class Sample(NamedTuple):
    """The rates per second of a node, or of the mesh, at one time (seconds since 1970); `lag` in seconds."""

    time: float
    requests: float
    bytes_in: float
    bytes_out: float
    errors: float
    lag: float
    cpu: float


def errors_in(counters: Mapping[str, int] | None) -> int:
    """The errors among the counters of a node."""
    return sum(count for name, count in (counters or {}).items() if name.partition(":")[0] in ERRORS)


def sample(before: NodeStatus | None, status: NodeStatus, now: float) -> Sample:
    """The rates of a node between two statuses. One that was restarted meanwhile counts from its start."""
    same = before is not None and before.incarnation == status.incarnation and status.uptime > before.uptime
    base = before if same else None
    seconds = max(1e-3, status.uptime - (base.uptime if base is not None else 0.0))

    def rate(count: float, earlier: float) -> float:
        return round(max(0.0, count - earlier) / seconds, PLACES)

    return Sample(
        now,
        rate(status.work.served, base.work.served if base is not None else 0),
        rate(status.bytes_in, base.bytes_in if base is not None else 0),
        rate(status.bytes_out, base.bytes_out if base is not None else 0),
        rate(errors_in(status.counters), errors_in(base.counters) if base is not None else 0),
        round(status.loop.worst_lag, PLACES),
        rate(status.process.cpu, base.process.cpu if base is not None else 0.0),
    )


def requested(status: NodeStatus, before: NodeStatus | None) -> list[list[Any]]:
    """The requests of a node by client and directive, the most frequent at present first, without those of `zmesh:`.

    A row is the client, the directive, the count, how many a second, and how many failed.
    """
    same = before is not None and before.incarnation == status.incarnation and status.uptime > before.uptime
    base: dict[tuple[str, str], int] = {}
    seconds: float = status.uptime
    if before is not None and same:
        base = {(each.client, each.directive): each.taken for each in before.work.requests}
        seconds = status.uptime - before.uptime
    rows = [
        [
            each.client, each.directive, each.taken,
            round(max(0, each.taken - base.get((each.client, each.directive), 0)) / max(1e-3, seconds), PLACES),
            each.failed,
        ]
        for each in status.work.requests
        if not each.directive.startswith(OWN)
    ]  # fmt: skip
    return heapq.nsmallest(MAX_REQUESTS, rows, key=lambda row: (-row[RATE], -row[COUNT]))


def total(samples: Iterable[Sample], now: float) -> Sample:
    """The sample of the mesh: rates are added up, of `lag` and `cpu` the largest one counts."""
    requests = bytes_in = bytes_out = errors = lag = cpu = 0.0
    for each in samples:
        requests += each.requests
        bytes_in += each.bytes_in
        bytes_out += each.bytes_out
        errors += each.errors
        lag, cpu = max(lag, each.lag), max(cpu, each.cpu)
    requests, bytes_in, bytes_out, errors = (round(rate, PLACES) for rate in (requests, bytes_in, bytes_out, errors))
    return Sample(now, requests, bytes_in, bytes_out, errors, lag, cpu)


class Lines:
    """The last samples of each node, and of the mesh."""

    def __init__(self) -> None:
        self.mesh: deque[Sample] = deque(maxlen=MESH_SAMPLES)
        self._nodes: dict[str, deque[Sample]] = {}
        self._current: dict[str, Sample] = {}

    def add(self, node: str, one: Sample) -> None:
        """A new sample of a node."""
        self._nodes.setdefault(node, deque(maxlen=NODE_SAMPLES)).append(one)
        self._current[node] = one

    def stop(self, node: str) -> None:
        """The node is gone: it does nothing, and its line ends."""
        self._current.pop(node, None)

    def forget(self, node: str) -> None:
        """The node is not shown any more."""
        self._current.pop(node, None)
        self._nodes.pop(node, None)

    def of(self, node: str) -> list[Sample]:
        """The samples of a node."""
        return list(self._nodes.get(node, ()))

    def tick(self, now: float) -> Sample:
        """Add a sample to the line of the mesh, and return it."""
        one = total(self._current.values(), now)
        self.mesh.append(one)
        return one
