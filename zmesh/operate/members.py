"""The mesh as one node knows it: members and links, as `zmesh:members` and `zmesh:graph` answer them."""

from __future__ import annotations

from dataclasses import dataclass

from zmesh.operate.json_form import JsonForm, Seconds


@dataclass(frozen=True, slots=True)
class Member(JsonForm):
    """A node that can be reached, or could until lately.

    `version` is that of zmesh there, "" if it does not say. The route to it begins at `next_hop` and has `cost` and
    `hops`; all three are None for a node that has `left` (that many seconds ago), and `next_hop` for the node itself.
    `rtt` is the round-trip time to it, if that was measured lately. `heard` is how long ago a frame came over a link
    with it, None where there is no such link; `heard_by` are the nodes that have one (the first three), or the one that
    had the last one.
    """

    node: str
    reachable: bool
    version: str = ""
    tags: tuple[str, ...] = ()
    own_tags: tuple[str, ...] = ()
    next_hop: str | None = None
    hops: int | None = None
    cost: int | None = None
    rtt: Seconds | None = None
    heard: Seconds | None = None
    heard_by: tuple[str, ...] = ()
    left: Seconds | None = None
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class MemberList(JsonForm):
    """The members of the mesh, as `node` knows them, sorted; those that have left come last, the latest first."""

    node: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class GraphNode(JsonForm):
    """A node of the mesh; `hops` count from the node that shows the graph."""

    node: str
    hops: int
    version: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GraphLink(JsonForm):
    """A link between two nodes: its `cost` in the record of `a`, and `cost_back` in that of `b`; None where that record
    does not list it, as for a moment after it came up or fell."""

    a: str
    b: str
    cost: int | None
    cost_back: int | None


@dataclass(frozen=True, slots=True)
class MeshGraph(JsonForm):
    """The nodes and links of the mesh, as `node` knows them."""

    node: str
    nodes: tuple[GraphNode, ...]
    links: tuple[GraphLink, ...]


@dataclass(frozen=True, slots=True)
class PingResult(JsonForm):
    """The result of the ping to one node.

    An answer has `rtt` and `hops`, and `skew`: by how much the clock there is ahead, to half a round trip. Without one
    `error` is the reason, and `last_hop` the last node on the path that answered. `left` is true of a node that had
    said goodbye.
    """

    node: str
    rtt: Seconds | None = None
    hops: int | None = None
    skew: Seconds | None = None
    error: str = ""
    last_hop: str | None = None
    left: bool = False
