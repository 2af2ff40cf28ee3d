"""One request of a simulation, as the programs at its two ends see it."""

from __future__ import annotations

from dataclasses import dataclass, field

from zmesh.core.message import Address, Eof, MessageId


@dataclass
class Outcome:
    """The outcome of one request, as its sender saw it; `ended_at` by the sender's clock."""

    message_id: MessageId
    recipient: str
    replies: list[bytes] = field(default_factory=list)
    serials: list[int] = field(default_factory=list)
    eofs: list[Eof] = field(default_factory=list)
    partial: bytearray = field(default_factory=bytearray)
    hops: int = 0
    ended_at: float = 0.0
    written: bytearray = field(default_factory=bytearray)
    """The bytes that were written to a request that was opened for writing."""

    stopped: bool = False
    """Whether its payload is no longer wanted, which the engine reports to a writer."""

    @property
    def eof(self) -> Eof | None:
        """The end of the exchange, once it has come."""
        return self.eofs[0] if self.eofs else None


@dataclass
class Job:
    """One request as the recipient's program sees it."""

    message_id: MessageId
    peer: Address
    directive: str
    payload: bytearray = field(default_factory=bytearray)
    complete: bool = False
    aborted: str = ""
    reset_code: int = 0
    ended: bool = False
    serial: int = 0
    """The number of its last reply, where a listener replies."""
