"""Signed records, and the certificates that they are verified with.

A record carries its node's signature and the digest of the node's certificate, in the extension SIGNATURE. A node
without that certificate holds the record, and requests the certificate from the neighbour that has sent the
record, which has verified it before. So each certificate travels to each node once, while records, which are sent again
at each change of a cost, name it in 16 bytes. The same signature is verified once: a record that differs from the known
one in serial and costs only is as good as that.

Two keys of one id, each with a certificate, are not for this node to choose between: while the former one is alive, the
record of the other is refused and both are reported, until one of them is revoked.
"""

from __future__ import annotations

from typing import NamedTuple

from zmesh.core import wire
from zmesh.core.credentials import Certified, Credentials, Disbelieved
from zmesh.core.limits import DEFAULT_LIMITS, Limits
from zmesh.core.message import LinkId, NodeId
from zmesh.core.timers import Alarm, Timers, WallClock
from zmesh.core.wire import GRANTS, SIGNATURE, TAGS, Record, WireError

REQUEST_TIMEOUT = 5.0
"""Seconds that a record waits for a certificate. It is sent again later: the digests of both tables differ."""

SPARE = 256


class Unverified(Exception):
    """A record that is not accepted; `reason`: why, in a word."""

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(text or reason)
        self.reason = reason
        self.text = text


class Held(NamedTuple):
    """A record that waits for a certificate, as it came."""

    link: LinkId
    record: Record
    blob: bytes


class Certificates:
    """The certificates of the nodes whose records are known, and the records that wait for one."""

    def __init__(
        self, credentials: Credentials, clock: WallClock, alarm: Alarm, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._credentials = credentials
        self._clock = clock
        self._known: dict[bytes, Certified] = {}
        self._held: dict[bytes, dict[NodeId, Held]] = {}
        self._timeouts: Timers[bytes] = Timers(alarm)
        self._max_held_bytes = limits.held_record_bytes
        self._wanted: dict[LinkId, list[bytes]] = {}
        self._signed = (b"", b"")
        """The record that was signed last, and the extension with its signature."""
        self.held_bytes = 0

    # -- the own record ------------------------------------------------------------------------------------------

    def sign(self, record: Record) -> Record:
        """The record of this node with its key and its signature; it takes the key exchanges of leaves with grants."""
        credentials = self._credentials
        own = credentials.own.digest
        record = record._replace(public_key=credentials.exchange_key)
        statement = wire.signed_record(credentials.mesh, record, own)
        if statement != self._signed[0]:
            self._signed = (statement, wire.encode_signature(own, credentials.sign(statement)))
        return record._replace(extensions={**record.extensions, SIGNATURE: self._signed[1], GRANTS: b""})

    # -- records of others ---------------------------------------------------------------------------------------

    def verify(self, link: LinkId, record: Record, blob: bytes, known: Record | None, now: float) -> bool:
        """Whether a record is that of its node; False if its certificate has to be requested. Raises Unverified."""
        if known is not None and _signed_part(record) == _signed_part(known):
            return True
        extension = record.extensions.get(SIGNATURE)
        if extension is None:
            raise Unverified("unsigned")
        try:
            digest, signature = wire.decode_signature(extension)
        except WireError:
            raise Unverified("signature") from None
        certified = self._find(digest)
        if certified is None:
            self._hold(digest, Held(link, record, blob), now)
            return False
        try:
            self._credentials.check(certified, record.node, self._clock.at(now))
        except Disbelieved as error:
            raise Unverified(error.reason, error.text) from None
        statement = wire.signed_record(self._credentials.mesh, record, digest)
        if not self._credentials.is_signed(certified, signature, statement):
            raise Unverified("signature")
        return True

    def of(self, record: Record | None) -> Certified | None:
        """The certificate of a record that was accepted."""
        extension = record.extensions.get(SIGNATURE) if record is not None else None
        return self._find(extension[: wire.DIGEST_BYTES]) if extension is not None else None

    def disbelief(self, record: Record, now: float, *, in_full: bool) -> str:
        """Why a record that was accepted is not believed any more, or ""; `in_full`: trust may have changed."""
        certified = self.of(record)
        if certified is None:
            return "unsigned"
        wall = self._clock.at(now)
        if in_full or wall >= certified.valid_until:
            try:
                self._credentials.check(certified, record.node, wall)
            except Disbelieved as error:
                return error.reason
        return ""

    def _hold(self, digest: bytes, held: Held, now: float) -> None:
        waiting = self._held.get(digest)
        before = waiting.get(held.record.node) if waiting is not None else None
        grows = len(held.blob) - (len(before.blob) if before is not None else 0)
        if self.held_bytes + grows > self._max_held_bytes:
            raise Unverified("held_record_bytes")
        self.held_bytes += grows
        if waiting is None:
            waiting = self._held[digest] = {}
            self._timeouts.set(digest, now + REQUEST_TIMEOUT)
            self._wanted.setdefault(held.link, []).append(digest)
        waiting[held.record.node] = held

    def _release(self, digest: bytes) -> list[Held]:
        waiting = self._held.pop(digest, {})
        self._timeouts.cancel(digest)
        self.held_bytes -= sum(len(held.blob) for held in waiting.values())
        return list(waiting.values())

    # -- certificates --------------------------------------------------------------------------------------------

    def take_wanted(self) -> dict[LinkId, list[bytes]]:
        """Take out the digests of the certificates to be requested, by link."""
        wanted, self._wanted = self._wanted, {}
        return wanted

    @property
    def has_wanted(self) -> bool:
        """Whether there is one to be requested."""
        return bool(self._wanted)

    def requested(self, digests: list[bytes]) -> list[bytes]:
        """The certificates that a neighbour has requested, as far as they are known."""
        found = (self._find(digest) for digest in digests)
        return [certified.data for certified in found if certified is not None]

    def learn(self, data: bytes) -> list[Held]:
        """A certificate has come: the records that waited for it. Raises Unverified if none did, or it is none."""
        try:
            certified = self._credentials.read(data)
        except Disbelieved as error:
            raise Unverified(error.reason, error.text) from None
        if certified.digest not in self._held:
            raise Unverified("unrequested")
        self._known[certified.digest] = certified
        return self._release(certified.digest)

    def add(self, certified: Certified) -> None:
        """A neighbour has shown its certificate."""
        self._known[certified.digest] = certified

    def _find(self, digest: bytes) -> Certified | None:
        own = self._credentials.own
        return own if digest == own.digest else self._known.get(digest)

    def link_down(self, link: LinkId) -> None:
        """A link is down: nothing comes of what was requested there."""
        self._wanted.pop(link, None)
        for digest in [digest for digest, held in self._held.items() if any(one.link == link for one in held.values())]:
            self._release(digest)

    def next_deadline(self) -> float | None:
        """When `expire` has work."""
        return self._timeouts.next_deadline()

    def expire(self, now: float, records: dict[NodeId, Record]) -> None:
        """Drop records that no certificate came for, and certificates that no record names."""
        for digest in self._timeouts.expire(now):
            self._release(digest)
        if len(self._known) > 2 * len(records) + SPARE:
            named = {record.extensions.get(SIGNATURE, b"")[: wire.DIGEST_BYTES] for record in records.values()}
            self._known = {digest: certified for digest, certified in self._known.items() if digest in named}

    def check(self) -> None:
        """Raise AssertionError if the count of held bytes is wrong, or a held record has no time-out."""
        if self.held_bytes != sum(len(one.blob) for held in self._held.values() for one in held.values()):
            raise AssertionError("the count of held bytes is not that of the records")
        if any(digest not in self._timeouts for digest in self._held):
            raise AssertionError("a held record without a time-out")


def _signed_part(record: Record) -> tuple[object, ...]:
    return (
        record.incarnation,
        record.capabilities,
        record.public_key,
        record.started,
        record.refused,
        record.extensions.get(SIGNATURE),
        record.extensions.get(TAGS),
    )
