"""How much of a node others may take up: every count and size that a neighbour or a member controls, by name.

The lengths of single fields and frames are limits of the wire (`zmesh.core.wire.limits`); these are limits of what a
node keeps and spends. Past one of them a request is refused as `overloaded` or a row is not taken up, and a Report says
so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Rate(NamedTuple):
    """The rate of a token bucket: tokens per second, and the burst that it holds at most."""

    per_second: float
    burst: float


class TokenBucket:
    """A token bucket. The last withdrawal may overdraw it; it is empty then until it has refilled above 0."""

    __slots__ = ("_at", "_burst", "_per_second", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._per_second, self._burst = rate
        self._tokens = self._burst
        self._at = now

    def has(self, now: float) -> bool:
        """True if there are tokens."""
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
            self._at = now
        return self._tokens > 0

    def spend(self, amount: float) -> None:
        """Take that many tokens out."""
        self._tokens -= amount


MEBIBYTE = 1024 * 1024

DEFAULT_COST = 100
"""The cost of a link that is configured without one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one engine. Tests set them low."""

    # -- routes and records (control plane): what a neighbour or member can make a node keep --

    destinations: int = 32768
    """Destinations that a node has routes or feasibility distances to, and rows that one neighbour may tell."""

    nodes: int = 32768
    """Records of other nodes; one that takes more than `records.UNIT_BYTES` of memory counts as several."""

    contested_names: int = 1024
    """Node ids in whose name several incarnations have spoken of late."""

    # -- what a neighbour can make a node spend, by the second --

    route_entries: Rate = Rate(8192, 65536)
    """Entries of UPDATEs that are read, for each link."""

    record_updates: Rate = Rate(2048, 32768)
    """Records that are read, for each link."""

    seqno_requests: Rate = Rate(4096, 65536)
    """Questions that are answered or passed on, each time that they are passed on counted, for each link."""

    resent_rows: Rate = Rate(4096, 65536)
    """Routes and records that are sent again because the neighbour asked, at least 64 each time, for each link."""

    probes: Rate = Rate(100, 400)
    """PROBEs and ECHOs that are answered or measured, for each link."""

    greetings: Rate = Rate(20, 100)
    """HELLOs, ASKs and frames before a greeting that are answered, for each link."""

    admissions: Rate = Rate(64, 1024)
    """Links that are admitted, each of which is told all routes and records; of the whole node."""

    error_frames: Rate = Rate(1000, 4000)
    """UNREACHABLEs and EXPIREDs about frames that came on one link and could not be passed on."""

    suggestions: Rate = Rate(5, 20)
    """Names that are compared with all others, to suggest a node that exists; of the whole node."""

    # -- exchanges, peers and nodes that have left --

    departed_nodes: int = 1024
    """How many nodes that have left are remembered, for errors to say when that was; the first is forgotten."""

    refused_ids: int = 8
    """How many second nodes of a name, refused here, this node's record tells the mesh of; at most wire.MAX_REFUSED."""

    services: int = 20_000
    """Requests of others that are open at a time; one more is answered as `overloaded`, and has not begun."""

    services_per_neighbour: int = 15_000
    """The same, of those whose sender's first frame came from one neighbour, whatever source it names."""

    services_per_peer: int = 12_000
    """The same, of one sender. Above the default of `max_work`, which says the same of work."""

    kept_bytes: int = 512 * MEBIBYTE
    """Payload that is kept of others' requests, unread, and of the replies to them, unacknowledged; of replies to this
    node what came before its turn. What comes beyond that is dropped, and sent again; a new request is answered as
    `overloaded`. From three quarters of it on, replies that stream take one chunk at a time."""

    kept_bytes_per_neighbour: int = 384 * MEBIBYTE
    """The same, of all whose first frame came from one neighbour."""

    kept_bytes_per_peer: int = 256 * MEBIBYTE
    """The same, of one other node."""

    peers: int = 20_000
    """Other nodes of which something is remembered after a frame of theirs; those of one more are dropped, and its
    requests answered as `overloaded`. A node that nothing is under way with is forgotten after PEER_IDLE_TIMEOUT."""

    peers_per_neighbour: int = 15_000
    """The same, of those whose first frame came from one neighbour."""

    request_numbers: int = 500_000
    """Numbers of requests that are remembered lest a copy runs again, of all peers; beyond that the peers with the most
    of them forget, and late copies of theirs are answered as over."""

    spooled_payloads: int = 256
    """Payloads of others' requests that lie in temporary files at a time, each of which takes up a descriptor; the
    request of one more ends as `overloaded`."""

    spooled_payloads_per_peer: int = 128
    """The same, of one other node."""

    spooled_bytes: int = 128 * 1024 * MEBIBYTE
    """Bytes of those payloads, of all other nodes together."""

    forgotten_peers: int = 20_000
    """Other nodes of which nothing is remembered but the number up to which their requests have come, lest a copy runs
    again that comes after the node was cut off for long; the first is forgotten."""

    @classmethod
    def serving(cls, max_work: int, max_payload_bytes: int = 0) -> Limits:
        """The limits of a node that is to run so many requests at a time, and to take a payload of that size.

        They are never lower than the default ones.
        """
        usual = cls()
        return cls(
            services=max(usual.services, 2 * max_work),
            services_per_neighbour=max(usual.services_per_neighbour, 3 * max_work // 2),
            services_per_peer=max(usual.services_per_peer, 6 * max_work // 5),
            spooled_bytes=max(usual.spooled_bytes, 2 * max_payload_bytes),
        )


DEFAULT_LIMITS = Limits()
