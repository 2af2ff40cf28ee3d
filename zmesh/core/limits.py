"""Resource limits of a node: every count and size that a neighbour or a member controls, by name.

The lengths of single fields and frames are limits of the wire (`zmesh.core.wire`); these are limits of what a node
keeps and spends. Past a limit a request is refused as `overloaded` or a row is not accepted, with a Report.
"""

from __future__ import annotations

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


class Limits(NamedTuple):
    """The limits of one engine."""

    # -- routes and records (control plane): what a neighbour or member can make a node keep --

    destinations: int = 32768
    """Destinations with a route or a feasibility distance, and rows that one neighbour may advertise."""

    nodes: int = 32768
    """Records of other nodes; one that takes more than `records.UNIT_BYTES` of memory counts as several."""

    held_record_bytes: int = 16 * MEBIBYTE
    """Records that wait for the certificate that their signature is verified with; one more is not accepted."""

    contested_names: int = 1024
    """Node ids that several incarnations have used lately."""

    # -- rates: what a neighbour can make a node spend --

    route_entries: Rate = Rate(8192, 65536)
    """Entries of UPDATEs that are read, for each link."""

    record_updates: Rate = Rate(2048, 32768)
    """Records that are read, for each link."""

    seqno_requests: Rate = Rate(4096, 65536)
    """Seqno requests that are answered, plus one for each link that one is forwarded on; for each link."""

    resent_rows: Rate = Rate(4096, 65536)
    """Routes, records and statements that are sent again because the neighbour asked, at least 64 each time, for each
    link."""

    probes: Rate = Rate(100, 400)
    """PROBEs and ECHOs that are answered or measured, for each link."""

    greetings: Rate = Rate(20, 100)
    """HELLOs, ASKs and frames before a HELLO that are answered, for each link."""

    admissions: Rate = Rate(64, 1024)
    """Links that are established, each of which gets all routes and records; of the whole node."""

    enrolling: int = 32
    """Links of leaves without a certificate, which may enrol and do nothing else, at a time."""

    error_frames: Rate = Rate(1000, 4000)
    """UNREACHABLEs and EXPIREDs about frames that came on one link and could not be forwarded."""

    reported_delays: Rate = Rate(200, 1000)
    """Probes for requests that are answered with what their work waits for, if it does; of the whole node."""

    suggestions: Rate = Rate(5, 20)
    """Names that are compared with all others, to suggest a node that exists; of the whole node."""

    shown_rows: Rate = Rate(4096, 32768)
    """Rows in the answers of the built-in directives that show a node's state, at least one each time; of the whole
    node."""

    certificates: Rate = Rate(2048, 32768)
    """Certificates that are sent because the neighbour asked, or read; for each link."""

    statements: Rate = Rate(512, 16384)
    """Revocations and endorsements that are read, for each link."""

    key_exchanges: Rate = Rate(100, 1000)
    """KEY_EXCHANGEs and GRANTs that are verified and answered, for each link; one costs a millisecond at most."""

    key_parties: int = 4096
    """Other ends of key exchanges, which are leaves with a certificate or a grant, and for such a leaf nodes. One
    without open exchanges is replaced by another; a leaf with a grant that finds no room has its node seal for it."""

    key_parties_per_identity: int = 1024
    """The same, of one certificate's id, which is that of the node for leaves with a grant."""

    # -- exchanges, peers and nodes that have left --

    departed_nodes: int = 1024
    """Nodes that have left and are remembered, for the texts of errors; the oldest is forgotten."""

    refused_ids: int = 8
    """Refused duplicates of a node id that this node's record lists; at most wire.MAX_REFUSED."""

    services: int = 20_000
    """Requests of other nodes that are open at a time; one more is answered with `overloaded`."""

    services_per_neighbour: int = 15_000
    """The same, of the clients whose first frame came from one neighbour, whatever its source."""

    services_per_peer: int = 12_000
    """The same, of one client. Above the default of `max_work`, the limit of running work."""

    kept_bytes: int = 512 * MEBIBYTE
    """Payload bytes that are kept for other nodes: unread requests, unacknowledged replies, and chunks of replies to
    this node that came out of order. Beyond that, chunks are dropped (and retransmitted), and a new request is answered
    with `overloaded`. From three quarters of it on, streamed replies take one chunk at a time."""

    kept_bytes_per_neighbour: int = 384 * MEBIBYTE
    """The same, of all peers whose first frame came from one neighbour."""

    kept_bytes_per_peer: int = 256 * MEBIBYTE
    """The same, of one other node."""

    peers: int = 20_000
    """Peers with state; frames of one more are dropped, and its requests answered with `overloaded`. A peer without
    open exchanges is forgotten after PEER_IDLE_TIMEOUT."""

    peers_per_neighbour: int = 15_000
    """The same, of those whose first frame came from one neighbour."""

    new_peers: Rate = Rate(200, 2000)
    """Peers that come into the table by a frame of one neighbour; the frames of more are dropped, and retransmitted."""

    refused_requests: int = 10_000
    """Ids of refused requests that are remembered, so that late copies are refused, too; the first is forgotten."""

    request_numbers: int = 500_000
    """Request numbers in all replay windows; beyond that the largest windows are compacted, and late copies of those
    requests are answered as closed."""

    spooled_payloads: int = 256
    """Payloads of requests in temporary files at a time, one descriptor each; the request of one more ends with
    `overloaded`."""

    spooled_payloads_per_neighbour: int = 192
    """The same, of the clients whose first frame came from one neighbour, whatever its source."""

    spooled_payloads_per_peer: int = 128
    """The same, of one other node."""

    spooled_bytes: int = 128 * 1024 * MEBIBYTE
    """Bytes of those payloads, of all other nodes together."""

    spooled_bytes_per_neighbour: int = 96 * 1024 * MEBIBYTE
    """The same, of the clients whose first frame came from one neighbour."""

    forgotten_peers: int = 20_000
    """Peers of which only the highest request number is kept, against copies that arrive after a long partition; the
    oldest is forgotten."""

    @classmethod
    def serving(cls, max_work: int, max_payload_bytes: int = 0) -> Limits:
        """The limits of a node that runs so many requests at a time, and accepts payloads of that size; at least the
        defaults.
        """
        usual = cls()
        return cls(
            services=max(usual.services, 2 * max_work),
            services_per_neighbour=max(usual.services_per_neighbour, 3 * max_work // 2),
            services_per_peer=max(usual.services_per_peer, 6 * max_work // 5),
            spooled_bytes=max(usual.spooled_bytes, 2 * max_payload_bytes),
            spooled_bytes_per_neighbour=max(usual.spooled_bytes_per_neighbour, 3 * max_payload_bytes // 2),
        )


DEFAULT_LIMITS = Limits()
