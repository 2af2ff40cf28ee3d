"""The state of several nodes at one time, for a bug report, as values. `bundle_file` keeps it in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from zmesh.operate.diagnosis import Diagnosis
from zmesh.operate.json_form import JsonForm, Seconds
from zmesh.operate.members import MemberList, MeshGraph
from zmesh.operate.node_event import NodeEvent
from zmesh.operate.node_settings import NodeSettings
from zmesh.operate.status import NodeStatus

MAX_NODES = 256
"""Nodes whose state a bundle has."""
MAX_EVENTS = 1_000
"""Events of each node."""


@dataclass(frozen=True, slots=True)
class RouteRow(JsonForm):
    """A route in use: `metric` is its cost, `age` how long it has been used, `why` the reason of its selection."""

    destination: str
    next_hop: str
    metric: int
    hops: int
    rtt_ms: float | None
    age: Seconds
    why: str = ""


@dataclass(frozen=True, slots=True)
class RouteTable(JsonForm):
    """The routes of a node, and the directives of each node that it knows; the answer to `zmesh:routes`."""

    node: str
    routes: tuple[RouteRow, ...]
    capabilities: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class NodeReport(JsonForm):
    """The state of one node, as `zmesh status`, `nodes`, `graph`, `routes`, `doctor`, `events` and `config show` show
    it.

    A part that is missing is None, or has no events; `errors` has the reason of each.
    """

    node: str
    status: NodeStatus | None = None
    members: MemberList | None = None
    graph: MeshGraph | None = None
    routes: RouteTable | None = None
    diagnosis: Diagnosis | None = None
    events: tuple[NodeEvent, ...] = ()
    settings: NodeSettings | None = None
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BundleSummary(JsonForm):
    """The contents of a bundle: the `nodes` whose state it has, and of each that is `missing` the reason.

    `incomplete` has the parts that are missing of a node, each with its reason.
    `time` is when it was begun, in seconds since 1970; `at` the node that knew which nodes there are. `versions` are
    those of the program that has made it.
    """

    time: float
    at: str
    nodes: tuple[str, ...]
    missing: Mapping[str, str]
    incomplete: Mapping[str, Mapping[str, str]]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read from a file: its summary, and the reports by node."""

    summary: BundleSummary
    reports: Mapping[str, NodeReport]
