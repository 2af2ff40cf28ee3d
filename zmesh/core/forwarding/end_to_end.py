"""Key exchanges on the wire: what a leaf with a certificate of its own sends and takes, and what a node answers it.

A packet of the leaf for a node that no key was exchanged with waits for it, and a KEY_EXCHANGE goes out when the
stimulus ends; each further attempt of its stream sends that again. What comes for the leaf in plain is taken from its
own node only, and in the name of that node: another one's packets are sealed by their source, or that node could have
made them.
"""

from __future__ import annotations

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

    def send_requests(self, now: float) -> None:
        """Send the KEY_EXCHANGEs that are wanted."""
        if not self._wanted:
            return
        wanted, self._wanted = self._wanted, {}
        for address in wanted:
            head = self._exchanges.request(address, now)
            if head is not None:
                self._send(address, head)

    def on_key_exchange(self, packet: Packet, frames: Frames | list[bytes], now: float) -> None:
        """A KEY_EXCHANGE has come for this node: answer it, or send what has waited for the answer."""
        try:
            wire.verify(frames, packet)
            answer = self._exchanges.take(packet, now)
        except Unsealable as error:
            self._drop(packet, f"key_exchange: {error.reason}")
        except Disbelieved as error:
            self._drop(packet, f"key_exchange: {error.reason}: {error.text}")
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
                head, body = self._exchanges.open(packet)
                packet = packet._replace(head=head, body=body, sealed=0)
            else:
                wire.verify(frames, packet)
                if packet.kind not in _NOTES and wire.host_of(packet.source) != home:
                    self._want(packet.source)
                    raise Unsealable("not_sealed")
            return self._read_note(packet) if packet.kind in _NOTES else [packet]
        except Unsealable as error:
            self._drop(packet, f"unsealable: {error.reason}")
        except WireError as error:
            self._drop(packet, f"{error.reason}: {error}")
        return []

    def _read_note(self, packet: Packet) -> list[Packet]:
        """An error about a packet of this leaf, with that one's head in plain. Raises Unsealable, WireError."""
        note = read_note(packet.kind, packet.head, wire.host_of(packet.source))
        if note.kind == Kind.KEY_EXCHANGE:
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
        """Exchange keys with who may seal for an address: its node, and the leaf itself if that has a certificate."""
        self._wanted[Address(wire.host_of(address))] = None
        if "." in address.partition("@")[0]:
            self._wanted[address] = None

    def _send(self, address: Address, head: bytes) -> None:
        forwarding = self._forwarding
        link = forwarding.egress(address)
        if link is not None:
            forwarding.enqueue(link, wire.encode_packet(Kind.KEY_EXCHANGE, address, forwarding.address, head, b""))

    def _drop(self, packet: Packet, reason: str) -> None:
        self._forwarding.emit(Report("frame_dropped", wire.host_of(packet.source), None, reason))

    def check(self) -> None:
        """Raise AssertionError if keys are wanted and were not asked for, or a table is not in order."""
        if self._wanted:
            raise AssertionError("keys that were not exchanged")
        self._exchanges.check()
