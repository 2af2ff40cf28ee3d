"""The state of one node, as `zmesh:status` answers it: identity, links, work, resources, and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zmesh.operate.json_form import JsonForm, Seconds


@dataclass(frozen=True, slots=True)
class StatusWarning(JsonForm):
    """A warning about a node: a stable `code`, and a line that names the remedy."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class IdentityStatus(JsonForm):
    """The identity of a node: the mesh's name, the fingerprint of its key, and how long its certificate is valid.

    `not_after` is in seconds since 1970; `expires` and `renews` are the seconds until then, negative afterwards.
    """

    mesh: str
    key: str
    tags: tuple[str, ...]
    not_after: float
    expires: Seconds
    renews: Seconds


@dataclass(frozen=True, slots=True)
class LinkFall(JsonForm):
    """A link fell: how long ago, and why."""

    age: Seconds
    reason: str


@dataclass(frozen=True, slots=True)
class RefusedLink(JsonForm):
    """A link or connection that was refused: how long ago, with which node if that is known, where, and why."""

    age: Seconds
    node: str
    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class LinkReport(JsonForm):
    """One link, or one that is missing.

    `node` is the neighbour, "" for a peer that was never linked. `where` is the URL that this node dials (`dialled`),
    or the address that the neighbour dialled from. `state` is `up`, `suspect` (silent for two heartbeats) or `down`,
    `since` for how long it has been up or down, `heard` how long ago the last frame came. `cost` includes the penalty
    for the round-trip time `rtt`. Bytes and messages are those of this link; `queued_bytes` wait because it is full.
    `skew` is by how much the neighbour's clock was ahead at the handshake. A link that is down has a `reason`, and
    `tries` counts how often it was dialled since. `falls` are the last ones of links with that neighbour.
    """

    node: str
    where: str
    dialled: bool
    state: str
    since: Seconds
    heard: Seconds | None = None
    cost: int | None = None
    rtt: Seconds | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    messages_out: int = 0
    queued_bytes: int = 0
    skew: Seconds | None = None
    reason: str = ""
    tries: int = 0
    falls: tuple[LinkFall, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestsTaken(JsonForm):
    """The requests of one `client` for one `directive` since the node's start: how many were `taken` up, and how many
    `failed`. The client is a node, `cli@NODE` for all commands at a node, or `NAME@NODE` for those of a person."""

    client: str
    directive: str
    taken: int
    failed: int


@dataclass(frozen=True, slots=True)
class WorkStatus(JsonForm):
    """The requests and jobs of a node.

    `running` requests of others are at work, `max_running` may be; `directives` counts them by name. `served` were
    taken up since the start; `requests` has the 64 most frequent kinds of them. `requested` requests of its own are
    open, with `waiting_bytes` of payload that was not acknowledged yet. Jobs run or wait for their turn.
    """

    running: int
    max_running: int
    directives: Mapping[str, int]
    served: int
    requested: int
    waiting_bytes: int
    jobs_running: int = 0
    jobs_waiting: int = 0
    requests: tuple[RequestsTaken, ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessStatus(JsonForm):
    """The process of a node: memory and file descriptors in use, with their limits (None: there is none), threads, and
    the CPU time since its start."""

    pid: int
    host: str
    python: str
    memory_bytes: int
    memory_limit_bytes: int | None
    descriptors: int
    descriptor_limit: int | None
    threads: int
    cpu: Seconds


@dataclass(frozen=True, slots=True)
class LoopStatus(JsonForm):
    """The event loop of a node: how late it ran the last callback, and the latest one of the last one to two minutes,
    and how often it was blocked for a second or more."""

    lag: Seconds
    worst_lag: Seconds
    blocked: int


@dataclass(frozen=True, slots=True)
class NodeStatus(JsonForm):
    """The state of a node at one moment.

    `time` is its clock, in seconds since 1970; `skew` is by how much that is ahead of the client's clock,
    which is known to half a round trip. `incarnation` is 16 hex digits. `nodes` counts those that it can reach, itself
    among them, `leaves` the ephemeral nodes that are attached to it. `bytes_in` and `bytes_out` are those of all links
    since the start. `counters` are those of `Stats`.
    """

    node: str
    version: str
    incarnation: str
    time: float
    uptime: Seconds
    listening: tuple[str, ...]
    own_tags: tuple[str, ...]
    nodes: int
    leaves: int
    links: tuple[LinkReport, ...]
    bytes_in: int
    bytes_out: int
    work: WorkStatus
    process: ProcessStatus
    loop: LoopStatus
    identity: IdentityStatus | None = None
    warnings: tuple[StatusWarning, ...] = ()
    refused: tuple[RefusedLink, ...] = ()
    duplicates: tuple[str, ...] = ()
    counters: Mapping[str, int] | None = None
    skew: Seconds | None = None


@dataclass(frozen=True, slots=True)
class NodeLoad(JsonForm):
    """The load of a node, as counters since its start and gauges; two of them give rates.

    `served` requests were taken up, `running` are at work; `queued_bytes` wait for full links. `lag` is the longest
    delay of the event loop of late.
    """

    node: str
    uptime: Seconds
    served: int
    running: int
    bytes_in: int
    bytes_out: int
    queued_bytes: int
    lag: Seconds
    cpu: Seconds
    memory_bytes: int
