"""Key exchanges on the wire: what a leaf with a certificate or a grant sends and takes, and what a node answers it.

A packet of the leaf for a node that no key was exchanged with waits for it, and a KEY_EXCHANGE goes out when the
stimulus ends; each further attempt of its stream sends that again. What comes for the leaf in plain is taken from its
own node only, and in the name of that node: another one's packets are sealed by their source, or that node could have
made them. A leaf with a grant takes what its node has opened for it from those with whom it has not exchanged keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from zmesh.core import wire
from zmesh.core.credentials import Disbelieved, Unsealable
from zmesh.core.effects import Report
from zmesh.core.forwarding.key_exchanges import KeyExchanges, Waiting
from zmesh.core.forwarding.sealing import read_note
from zmesh.core.message import Address, NodeId
from zmesh.core.wire import FLAG_LEAF, Frames, Kind, Packet, Unreachable, WireError

if TYPE_CHECKING:
    from zmesh.core.forwarding.forwarding import Forwarding

_NOTES = (Kind.UNREACHABLE, Kind.EXPIRED)


class EndToEnd:
    """The key exchanges of a node with a certificate, on the wire."""

    def __init__(self, forwarding: Forwarding, key_exchanges: KeyExchanges) -> None:
        self._forwarding = forwarding
        self._exchanges = key_exchanges
        self._wanted: dict[Address, None] = {}
        self.request_grant: Callable[[float], None] = lambda now: None
        """Has a leaf's node asked for a grant, at most once a second."""

    def wait(self, packet: Waiting) -> None:
        """Keep a packet of this leaf until there is a key for it."""
        host = Address(wire.host_of(packet.destination))
        self._exchanges.wait(host, packet)
        self._wanted[host] = None

    def sweep(self, now: float) -> None:
        """Exchange keys anew where it is time, and forget those of whom is not talked to any more."""
        self._exchanges.sweep(now)
        if self._forwarding.leaf:
            self._wanted.update(dict.fromkeys(self._exchanges.worn(now)))
        if self._exchanges.is_grant_due(now):
            self.request_grant(now)

    def want(self, addresses: Iterable[Address]) -> None:
        """Exchange keys with these when the stimulus ends."""
        self._wanted.update(dict.fromkeys(addresses))

    def send_requests(self, now: float) -> None:
        """Send the KEY_EXCHANGEs that are wanted."""
        if not self._wanted:
            return
        if not self._exchanges.has_credentials:
            self.request_grant(now)
            return
        wanted, self._wanted = self._wanted, {}
        for address in wanted:
            head = self._exchanges.request(address, now)
            if head is not None:
                self._send(address, head)

    def refuse_waiting(self, text: str) -> None:
        """There is no grant for this leaf: end what waits for one, with that text."""
        forwarding, text = self._forwarding, text[: wire.MAX_TEXT]
        wanted, self._wanted = self._wanted, {}
        for each in (waiting for address in wanted for waiting in self._exchanges.take_waiting(address)):
            note = Unreachable(each.kind, "not_trusted", forwarding.node, each.destination, (), 0.0, text)
            packet = wire.loop_packet(Kind.UNREACHABLE, forwarding.address, wire.encode(note), each.head)
            forwarding.looped.append(packet)

    def on_key_exchange(self, packet: Packet, frames: Frames | list[bytes], now: float) -> None:
        """A KEY_EXCHANGE has come for this node: answer it, or send what has waited for the answer."""
        try:
            wire.verify(frames, packet)
            answer = self._exchanges.take(packet, now)
        except Unsealable as error:
            self._drop(packet, f"key_exchange: {error.reason}")
            if error.reason.startswith("key_parties"):
                self._forwarding.returned.refuse_keys(packet, "no_grants", "", now)
        except Disbelieved as error:
            self._drop(packet, f"key_exchange: {error.reason}: {error.text}")
            self._forwarding.emit(
                Report("not_trusted", wire.host_of(packet.source), None, error.text, text=error.reason)
            )
            if not self._forwarding.leaf:
                self._forwarding.returned.refuse_keys(packet, "not_trusted", error.text, now)
            elif error.reason == "authority":  # which the node of this leaf may know by now
                self.request_grant(now)
        except WireError as error:
            self._drop(packet, f"{error.reason}: {error}")
        else:
            if answer:
                self._send(packet.source, answer)
            for waiting in self._exchanges.take_waiting(packet.source):
                self._forwarding.originate(waiting.destination, waiting.kind, waiting.head, waiting.body)

    def unseal_at_leaf(self, packet: Packet, frames: Frames | list[bytes], home: NodeId) -> list[Packet]:
        """A packet for this leaf in plain, and none if it is dropped; `home`: the node that it came from.

        An error about a KEY_EXCHANGE is one about each of the packets that wait for it.
        """
        try:
            if packet.sealed & FLAG_LEAF:
                packet = wire.in_plain(packet, *self._exchanges.open(packet))
            else:
                wire.verify(frames, packet)
                if packet.kind not in _NOTES and wire.host_of(packet.source) != home and self._must_seal(packet.source):
                    self._want(packet.source)
                    raise Unsealable("not_sealed")
            return self._read_note(packet, home) if packet.kind in _NOTES else [packet]
        except Unsealable as error:
            self._drop(packet, f"unsealable: {error.reason}")
        except WireError as error:
            self._drop(packet, f"{error.reason}: {error}")
        return []

    def _must_seal(self, source: Address) -> bool:
        return self._exchanges.home is None or self._exchanges.knows(source)

    def _read_note(self, packet: Packet, home: NodeId) -> list[Packet]:
        """An error about a packet of this leaf, with that one's head in plain. Raises Unsealable, WireError."""
        note = read_note(packet.kind, packet.head, wire.host_of(packet.source))
        if note.kind == Kind.KEY_EXCHANGE:
            if not self._exchanges.is_about(note.destination, packet.body):
                raise Unsealable("not_ours")
            if isinstance(note, Unreachable) and note.reason == "no_grants" and self._exchanges.home is not None:
                if note.at not in (home, wire.host_of(note.destination)):
                    raise Unsealable("forged")
                self._exchanges.use_home(note.destination)
                for each in self._exchanges.take_waiting(note.destination):
                    self._forwarding.originate(each.destination, each.kind, each.head, each.body)
                return []
            waiting = self._exchanges.take_waiting(note.destination) if isinstance(note, Unreachable) else []
            return [
                packet._replace(head=wire.encode(note._replace(kind=each.kind)), body=each.head) for each in waiting
            ]
        host = wire.host_of(note.destination)
        if not self._exchanges.knows(note.destination) and not self._exchanges.knows(Address(host)):
            return [packet]  # about a packet for the own node, or one that was sealed there
        body = self._exchanges.reopen(note.kind, note.destination, packet.destination, packet.body)
        if isinstance(note, Unreachable) and note.reason == "no_key":
            self._exchanges.forget(note.destination)
            return []
        return [packet._replace(body=body)]

    def _want(self, address: Address) -> None:
        """Exchange keys with who may seal for an address: its node, and the leaf itself if that has a certificate or a
        grant.
        """
        self._wanted[Address(wire.host_of(address))] = self._wanted[address] = None

    def _send(self, address: Address, head: bytes) -> None:
        forwarding = self._forwarding
        link = forwarding.egress(address)
        if link is not None:
            forwarding.enqueue(link, wire.encode_packet(Kind.KEY_EXCHANGE, address, forwarding.address, head, b""))

    def _drop(self, packet: Packet, reason: str) -> None:
        self._forwarding.emit(Report("frame_dropped", wire.host_of(packet.source), None, reason))

    def check(self) -> None:
        """Raise AssertionError if keys are wanted and were not asked for, or a table is not in order."""
        if self._wanted and self._exchanges.has_credentials:
            raise AssertionError("keys that were not exchanged")
        self._exchanges.check()
