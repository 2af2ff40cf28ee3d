"""Node records, flooded to all: what each node offers and which neighbours it has (link state, as OSPF floods LSAs).

A record is replaced by one with a higher serial (ties by incarnation, so that all agree). A node that receives a record
of its own id that it did not originate, left over from before a restart, re-originates its record with a higher serial.
The records of reachable nodes make up the digest that travels in the probes: reachability is the same all over a
partition, so equal tables have equal digests, and the records of nodes that have left can be kept for a while without
being flooded again. For the same reason a record of a node without a route is flooded only once there is one, so that
forged ones get no further than to the neighbours of the node that sends them.

Any member can flood a record in another node's name. All nodes agree on the highest serial (`serials`), and between two
records of one serial and incarnation on the one with the higher digest (as OSPF does with checksums, RFC 2328 section
13.1), so the node itself receives the one that they all have, and re-originates above it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable

from zmesh.core.limits import DEFAULT_LIMITS
from zmesh.core.message import LinkId, NodeId
from zmesh.core.routing.quotas import Quotas
from zmesh.core.routing.serials import HIGHEST
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import (
    MAX_CAPABILITIES,
    MAX_CAPABILITY,
    MAX_NEIGHBOURS,
    MAX_RECORD,
    MAX_RECORDS,
    MAX_REFUSED,
    MAX_SOFTWARE,
    SOFTWARE,
    TAGS,
    Record,
    Refused,
    digest,
    encode,
    encode_tags,
)

KEEP_GONE = 60.0
COALESCE = 0.010
COALESCE_PER_LINK = 0.0004
"""Seconds that the pause between two floods is at least for each link."""
REORIGINATE_INITIAL = 0.25
REORIGINATE_MAX = 30.0
BATCH_BYTES = 48 * 1024
UNIT_BYTES = 2048
_NEIGHBOUR_BYTES = 160
_CAPABILITY_BYTES = 64
_MODULUS = 1 << 64


def unsigned(record: Record) -> Record:
    """The record as it is."""
    return record


class Records:
    """The records that this node knows, its own among them, and up to `max_nodes` of others."""

    def __init__(
        self,
        node: NodeId,
        incarnation: int,
        serial: int,
        alarm: Alarm,
        max_nodes: int = DEFAULT_LIMITS.nodes,
        *,
        started: float = 0.0,
        sign: Callable[[Record], Record] = unsigned,
    ) -> None:
        self._node = node
        self._alarm = alarm
        self._sign = sign
        self._own = sign(Record(node, incarnation, serial, (), (), b"", started))
        self.rekeyed: dict[NodeId, None] = {}
        """Nodes whose record has another key than before, or is gone; to be taken out."""
        self._records: dict[NodeId, Record] = {}
        self._blobs: dict[NodeId, bytes] = {}
        self._digests: dict[NodeId, int] = {}
        self._reachable: set[NodeId] = {node}
        self._gone: Timers[NodeId] = Timers(alarm)
        self._held_back: dict[NodeId, LinkId] = {}
        """The nodes whose record is flooded as soon as there is a route to them, and the link that it came on."""
        self._quotas: Quotas[NodeId] = Quotas(max_nodes)
        self._owners: dict[LinkId, Hashable] = {}
        self.refused: Counter[tuple[LinkId | None, str]] = Counter()
        """How many records were not accepted or kept, by the link that they came on and the reason."""
        self._left_out = (0, 0)
        self._reoriginate_pause = REORIGINATE_INITIAL
        self._reoriginate_at = 0.0
        self._reoriginate_above: int | None = None
        self.digest = 0
        self.changed_at = 0.0
        self._pending: dict[LinkId, dict[NodeId, None]] = {}
        self._flush_at: float | None = None
        self._flushed_at = -math.inf
        self._keep(self._own, encode(self._own))

    def __len__(self) -> int:
        return len(self._records)

    def link_up(self, link: LinkId, now: float, neighbour: NodeId | None = None) -> None:
        """A link to a neighbour is up: it gets the records of all reachable nodes."""
        self._owners[link] = neighbour or link
        self._send_all(link, now)

    def _send_all(self, link: LinkId, now: float) -> None:
        self._pending[link] = dict.fromkeys(node for node in self._records if node in self._reachable)
        self._flush_at = now
        self._alarm.at(now)

    def link_down(self, link: LinkId) -> None:
        """The link is down."""
        self._pending.pop(link, None)
        self._owners.pop(link, None)

    def resend(self, link: LinkId, now: float) -> None:
        """Send that neighbour all records once more."""
        if link in self._pending:
            self._send_all(link, now)

    def describe(
        self,
        capabilities: Iterable[str],
        neighbours: tuple[tuple[NodeId, int], ...],
        now: float,
        refused: tuple[Refused, ...] = (),
        tags: tuple[str, ...] = (),
        software: str = "",
    ) -> list[str]:
        """Originate the own record with this content if that is new, as far as a record has room for it. Returns a text
        for each list that was cut, if another number is left out than before.
        """
        offered = tuple(name[:MAX_CAPABILITY] for name in capabilities)
        names, beside = offered[:MAX_CAPABILITIES], neighbours[:MAX_NEIGHBOURS]
        kept = {number: content for number, content in self._own.extensions.items() if number not in (TAGS, SOFTWARE)}
        extensions = kept | ({TAGS: encode_tags(tags)} if tags else {})
        if software:
            extensions[SOFTWARE] = software.encode("ascii", "replace")[:MAX_SOFTWARE]
        own = self._own._replace(
            capabilities=names, neighbours=beside, refused=refused[:MAX_REFUSED], extensions=extensions
        )
        while (
            own != self._own and len(encode(own._replace(serial=HIGHEST))) > MAX_RECORD
        ):  # names of four bytes a character
            names = names[: len(names) // 2]
            own = own._replace(capabilities=names)
        own = self._sign(own)
        if own != self._own:
            self._publish(own._replace(serial=own.serial + 1), now)
        before, self._left_out = self._left_out, (len(offered) - len(names), len(neighbours) - len(beside))
        if self._left_out == before:
            return []
        offers = (
            (len(offered), "directives are offered", len(names)),
            (len(neighbours), "neighbours are there", len(beside)),
        )
        return [f"{count} {what}, and the mesh hears of {some}" for count, what, some in offers if some < count]

    def is_news(self, record: Record, blob: bytes) -> bool:
        """True if a record would replace the one that is known, or none is known."""
        known = self._records.get(record.node)
        return known is None or self._is_higher(record, blob, known)

    def forget(self, node: NodeId) -> None:
        """Drop the record of another node that is not believed any more."""
        self._drop(node)

    def update(self, link: LinkId, record: Record, blob: bytes, now: float, ceiling: int = HIGHEST) -> bool:
        """Process a record from a neighbour, with a serial of at most `ceiling`; True if it was accepted."""
        node = record.node
        if record.serial > ceiling:
            self.refused[link, "serial_ahead"] += 1
            return False
        known = self._records.get(node)
        if known is not None and not self._is_higher(record, blob, known):
            return False
        if node == self._node:
            self._reoriginate_above = record.serial + 1
            self._alarm.at(self._reoriginate_at)
            self._reoriginate_if_due(now)
            return False
        victims = self._quotas.take(node, self._owners.get(link, link), _units(record, blob))
        if victims is None:
            self.refused[link, "nodes"] += 1
            return False
        for victim in victims:
            self.refused[None, "gave_way"] += 1
            self._drop(victim)
        self._keep(record, blob)
        self.changed_at = now
        if node in self._reachable:
            self._spread(node, link, now)
        else:
            self._quotas.idle(node)
            self._gone.set_default(node, now + KEEP_GONE)
            self._held_back[node] = link
        return True

    def outranks(self, record: Record, ceiling: int = HIGHEST) -> bool:
        """True if the record replaces that of another incarnation, which may be this node's own."""
        known = self._records.get(record.node)
        if known is None or known.incarnation == record.incarnation or record.serial > ceiling:
            return False
        return _rank(record) > _rank(known)

    def set_reachable(self, node: NodeId, reachable: bool, now: float) -> None:
        """The route to `node` was found or lost; a record that stays unreachable is dropped after KEEP_GONE."""
        if reachable == (node in self._reachable) or node == self._node:
            return
        if reachable:
            self._reachable.add(node)
            self._gone.cancel(node)
            self._quotas.use(node)
            if node in self._held_back:
                self._spread(node, self._held_back.pop(node), now)
            sign = 1
        else:
            self._reachable.discard(node)
            if node in self._records:
                self._gone.set(node, now + KEEP_GONE)
                self._quotas.idle(node)
            sign = -1
        self.digest = (self.digest + sign * self._digests.get(node, 0)) % _MODULUS

    def known(self) -> dict[NodeId, Record]:
        """The records of all reachable nodes, and of this one."""
        return {node: record for node, record in self._records.items() if node in self._reachable}

    def get(self, node: NodeId) -> Record | None:
        """The record of a node, also of one that is not reachable at the moment."""
        return self._records.get(node)

    def all(self) -> dict[NodeId, Record]:
        """The records of all nodes, also of those that are not reachable at the moment."""
        return self._records

    def names(self) -> Iterable[NodeId]:
        """The ids of all nodes with a record."""
        return self._records.keys()

    def next_deadline(self) -> float | None:
        """When `flush` or `expire` has work."""
        deadlines = (
            self._gone.next_deadline(),
            self._flush_at,
            self._reoriginate_at if self._reoriginate_above is not None else None,
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def flush(self, now: float) -> list[tuple[LinkId, list[bytes]]]:
        """The records that are due, in batches by link."""
        if self._flush_at is None or self._flush_at > now:
            return []
        self._flush_at = None
        self._flushed_at = now
        batches: list[tuple[LinkId, list[bytes]]] = []
        for link, nodes in self._pending.items():
            batch: list[bytes] = []
            size = 0
            for node in nodes:
                blob = self._blobs.get(node)
                if blob is None:
                    continue
                if batch and (size + len(blob) > BATCH_BYTES or len(batch) == MAX_RECORDS):
                    batches.append((link, batch))
                    batch, size = [], 0
                batch.append(blob)
                size += len(blob)
            if batch:
                batches.append((link, batch))
            nodes.clear()
        return batches

    def expire(self, now: float) -> list[NodeId]:
        """Drop the records of nodes that were unreachable for KEEP_GONE, and return their ids; re-originate if due."""
        self._reoriginate_if_due(now)
        dropped = self._gone.expire(now)
        for node in dropped:
            self._drop(node)
        return dropped

    def _reoriginate_if_due(self, now: float) -> None:
        """Originate above a record in this node's name, with exponential backoff: two live nodes may do it in turn."""
        if self._reoriginate_above is not None and now >= self._reoriginate_at:
            calm = now >= self._reoriginate_at + REORIGINATE_MAX
            self._reoriginate_pause = REORIGINATE_INITIAL if calm else min(REORIGINATE_MAX, 2 * self._reoriginate_pause)
            self._reoriginate_at = now + self._reoriginate_pause
            serial, self._reoriginate_above = min(HIGHEST + 1, max(self._reoriginate_above, self._own.serial + 1)), None
            self._publish(self._own._replace(serial=serial), now)

    def _publish(self, own: Record, now: float) -> None:
        self._own = own
        self._keep(own, encode(own))
        self.changed_at = now
        self._spread(own.node, None, now)

    def _keep(self, record: Record, blob: bytes) -> None:
        node = record.node
        known = self._records.get(node)
        if record.public_key and node != self._node and (known is None or known.public_key != record.public_key):
            self.rekeyed[node] = None
        fresh = digest(blob)
        if node in self._reachable:
            self.digest = (self.digest + fresh - self._digests.get(node, 0)) % _MODULUS
        self._records[node], self._blobs[node], self._digests[node] = record, blob, fresh

    def _drop(self, node: NodeId) -> None:
        if node in self._reachable:
            self.digest = (self.digest - self._digests[node]) % _MODULUS
        if self._records[node].public_key:
            self.rekeyed[node] = None
        del self._records[node], self._blobs[node], self._digests[node]
        self._gone.cancel(node)
        self._held_back.pop(node, None)
        self._quotas.drop(node)

    def _is_higher(self, record: Record, blob: bytes, known: Record) -> bool:
        """True if a record replaces the one that is known."""
        rank, before = _rank(record), _rank(known)
        if rank != before:
            return rank > before
        return blob != self._blobs[known.node] and digest(blob) > self._digests[known.node]

    def _spread(self, node: NodeId, heard_on: LinkId | None, now: float) -> None:
        for link, nodes in self._pending.items():
            if link != heard_on:
                nodes[node] = None
        if self._flush_at is None:
            self._flush_at = max(now, self._flushed_at + max(COALESCE, COALESCE_PER_LINK * len(self._pending)))
            self._alarm.at(self._flush_at)

    def check(self) -> None:
        """Raise AssertionError if the digest is not the sum of the records, or the tables do not match."""
        total = sum(value for node, value in self._digests.items() if node in self._reachable) % _MODULUS
        if total != self.digest:
            raise AssertionError("the digest of the records is not their sum")
        if not self._records.keys() == self._blobs.keys() == self._digests.keys():
            raise AssertionError("a record without its bytes or its digest")
        if any(node not in self._reachable and node not in self._gone for node in self._records):
            raise AssertionError("an unreachable record without a timeout")
        self._quotas.check()
        if self._quotas.keys() != self._records.keys() - {self._node}:
            raise AssertionError("a record without an owner")
        if self._held_back.keys() & self._reachable or not self._held_back.keys() <= self._records.keys():
            raise AssertionError("a record that is held back for a node that there is a route to")


def _rank(record: Record) -> tuple[int, int]:
    return (record.serial, record.incarnation)


def _units(record: Record, blob: bytes) -> int:
    """For how many records of ordinary size this one counts, by the memory that it takes when it is decoded."""
    size = 2 * len(blob) + _NEIGHBOUR_BYTES * len(record.neighbours) + _CAPABILITY_BYTES * len(record.capabilities)
    return 1 + size // UNIT_BYTES
