"""What every node says of itself, flooded to all.

A record is replaced by one with a higher serial (ties by incarnation, so that all agree). A node that hears of a record
in its own name that is not its own, left over from before a restart, outbids its serial. The records of reachable nodes
make up the digest that travels in the probes: reachability is the same all over a partition, so equal tables have equal
digests, and the records of nodes that are gone can be kept for a while without anybody sending them round again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from zmesh.core.message import LinkId, NodeId
from zmesh.core.timers import Alarm, Timers
from zmesh.core.wire import (
    MAX_CAPABILITIES,
    MAX_CAPABILITY,
    MAX_NEIGHBOURS,
    MAX_RECORDS,
    Record,
    digest,
    encode,
)

KEEP_GONE = 60.0
COALESCE = 0.010
OUTBID_FIRST = 0.25
OUTBID_LAST = 60.0
BATCH_BYTES = 48 * 1024
_MODULUS = 1 << 64


class Records:
    """The records that this node knows, its own among them."""

    def __init__(self, node: NodeId, incarnation: int, serial: int, alarm: Alarm) -> None:
        self._node = node
        self._alarm = alarm
        self._own = Record(node, incarnation, serial, (), (), b"")
        self._records: dict[NodeId, Record] = {}
        self._blobs: dict[NodeId, bytes] = {}
        self._digests: dict[NodeId, int] = {}
        self._reachable: set[NodeId] = {node}
        self._gone: Timers[NodeId] = Timers(alarm)
        self._outbid_pause = OUTBID_FIRST
        self._outbid_again = 0.0
        self._outbid: int | None = None
        self.digest = 0
        self.changed_at = 0.0
        self._pending: dict[LinkId, dict[NodeId, None]] = {}
        self._flush_at: float | None = None
        self._flushed_at = -math.inf
        self._keep(self._own, encode(self._own))

    def __len__(self) -> int:
        return len(self._records)

    def link_up(self, link: LinkId, now: float) -> None:
        """A neighbour is new: it is told all records of nodes that can be reached."""
        self._pending[link] = dict.fromkeys(node for node in self._records if node in self._reachable)
        self._flush_at = now
        self._alarm.at(now)

    def link_down(self, link: LinkId) -> None:
        """The neighbour is gone."""
        self._pending.pop(link, None)

    def resend(self, link: LinkId, now: float) -> None:
        """Tell that neighbour everything once more."""
        if link in self._pending:
            self.link_up(link, now)

    def describe(
        self, capabilities: Iterable[str], neighbours: tuple[tuple[NodeId, int], ...], public_key: bytes, now: float
    ) -> bool:
        """Say this of this node from now on, as far as a record has room for it; True if that is new."""
        names = tuple(name[:MAX_CAPABILITY] for name in capabilities)[:MAX_CAPABILITIES]
        own = self._own._replace(capabilities=names, neighbours=neighbours[:MAX_NEIGHBOURS], public_key=public_key)
        if own == self._own:
            return False
        self._publish(own._replace(serial=own.serial + 1), now)
        return True

    def update(self, link: LinkId, record: Record, blob: bytes, now: float) -> bool:
        """Take in a record that a neighbour passed on; True if it was news."""
        if record.node == self._node:
            if self.outranks(record):
                self._outbid = record.serial + 1
                self._alarm.at(self._outbid_again)
                self._outbid_if_due(now)
            return False
        known = self._records.get(record.node)
        if known is not None and _rank(record) <= _rank(known):
            return False
        self._keep(record, blob)
        self.changed_at = now
        if record.node not in self._reachable:
            self._gone.set_default(record.node, now + KEEP_GONE)
        self._spread(record.node, link, now)
        return True

    def outranks(self, record: Record) -> bool:
        """True if the record takes the place of another incarnation's, which may be this node's own."""
        known = self._records.get(record.node)
        return known is not None and known.incarnation != record.incarnation and _rank(record) > _rank(known)

    def set_reachable(self, node: NodeId, reachable: bool, now: float) -> None:
        """The route to `node` has come, or gone; a record that stays unreachable is dropped in the end."""
        if reachable == (node in self._reachable) or node == self._node:
            return
        if reachable:
            self._reachable.add(node)
            self._gone.cancel(node)
            sign = 1
        else:
            self._reachable.discard(node)
            if node in self._records:
                self._gone.set(node, now + KEEP_GONE)
            sign = -1
        self.digest = (self.digest + sign * self._digests.get(node, 0)) % _MODULUS

    def known(self) -> dict[NodeId, Record]:
        """The records of all nodes that can be reached, this one's among them."""
        return {node: record for node, record in self._records.items() if node in self._reachable}

    def get(self, node: NodeId) -> Record | None:
        """The record of a node, also of one that can't be reached at the moment."""
        return self._records.get(node)

    def names(self) -> Iterable[NodeId]:
        """The ids of all nodes with a record."""
        return self._records.keys()

    def next_deadline(self) -> float | None:
        """When `flush` or `expire` has work."""
        deadlines = (
            self._gone.next_deadline(),
            self._flush_at,
            self._outbid_again if self._outbid is not None else None,
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def flush(self, now: float) -> list[tuple[LinkId, list[bytes]]]:
        """What to send on which link, in batches; empty before its time."""
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
        """Drop the records of nodes that have been gone for long; outbid who speaks in this node's name."""
        self._outbid_if_due(now)
        dropped = self._gone.expire(now)
        for node in dropped:
            del self._records[node], self._blobs[node], self._digests[node]
        return dropped

    def _outbid_if_due(self, now: float) -> None:
        """Publish above what was said in this node's name, at pauses that double: two may do it to each other."""
        if self._outbid is not None and now >= self._outbid_again:
            calm = now >= self._outbid_again + OUTBID_LAST
            self._outbid_pause = OUTBID_FIRST if calm else min(OUTBID_LAST, 2 * self._outbid_pause)
            self._outbid_again = now + self._outbid_pause
            serial, self._outbid = max(self._outbid, self._own.serial + 1), None
            self._publish(self._own._replace(serial=serial), now)

    def _publish(self, own: Record, now: float) -> None:
        self._own = own
        self._keep(own, encode(own))
        self.changed_at = now
        self._spread(own.node, None, now)

    def _keep(self, record: Record, blob: bytes) -> None:
        node = record.node
        fresh = digest(blob)
        if node in self._reachable:
            self.digest = (self.digest + fresh - self._digests.get(node, 0)) % _MODULUS
        self._records[node], self._blobs[node], self._digests[node] = record, blob, fresh

    def _spread(self, node: NodeId, heard_on: LinkId | None, now: float) -> None:
        for link, nodes in self._pending.items():
            if link != heard_on:
                nodes[node] = None
        if self._flush_at is None:
            self._flush_at = max(now, self._flushed_at + COALESCE)
            self._alarm.at(self._flush_at)

    def check(self) -> None:
        """Raise AssertionError if the digest or the tables are not what they must be."""
        total = sum(value for node, value in self._digests.items() if node in self._reachable) % _MODULUS
        if total != self.digest:
            raise AssertionError("the digest of the records is not their sum")
        if not self._records.keys() == self._blobs.keys() == self._digests.keys():
            raise AssertionError("a record without its bytes or its digest")
        if any(node not in self._reachable and node not in self._gone for node in self._records):
            raise AssertionError("an unreachable record that nothing will drop")


def _rank(record: Record) -> tuple[int, int]:
    return (record.serial, record.incarnation)
