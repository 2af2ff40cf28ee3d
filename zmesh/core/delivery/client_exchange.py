"""The client's side of one exchange: its states, and the conditions under which it ends."""

from __future__ import annotations

import enum

from zmesh.core import wire
from zmesh.core.delivery.exchange import Exchange
from zmesh.core.delivery.peers import Peer
from zmesh.core.message import MessageId

CANCEL_TIMEOUT = 10.0

LAST_PROBE_BEFORE = 1.0
"""Seconds before the end of a request's timeout, or a quarter of that if it is less, at which the server is probed, so
that the error can say what holds the request back."""


class ClientState(enum.Enum):
    """The state of an exchange at its client; `ClientExchange` has the transitions."""

    DISCOVERING = enum.auto()
    OPEN = enum.auto()
    ROUTE_LOST = enum.auto()
    CANCELLING = enum.auto()
    ENDED = enum.auto()


class ClientExchange(Exchange):
    """A request of this node.

    | state | means | event | next state |
    | --- | --- | --- | --- |
    | DISCOVERING | the server's incarnation is not known; nothing was sent | incarnation known | OPEN |
    | | | no route | ROUTE_LOST |
    | OPEN | there is a route | no route, or the node's own id is contested | ROUTE_LOST |
    | | | the server restarted, and can't have received anything | DISCOVERING |
    | ROUTE_LOST | there is none, since `unreachable_since` | a route, or a frame of the server | OPEN or DISCOVERING |
    | CANCELLING | CANCEL is sent until it is confirmed, with or without a route | | |
    | any of these | | cancelled, and some of it may have arrived | CANCELLING |
    | any | | last reply, deadline, restart, silence, or the cancel is confirmed | ENDED |

    Times are the engine's, in seconds. `deadline` is when the timeout of the request is over, None if it has none, and
    `probe_after` how long after its beginning the server is probed for the last time before; `is_deadline_near` whether
    that time has come. `route_timeout` is how long it may be without a route; `last_heard` when a frame last came for
    it; `last_note` the last UNREACHABLE about it; `reset_code` with which code it is being cancelled.
    """

    __slots__ = (
        "cancelled_at",
        "deadline",
        "is_deadline_near",
        "last_heard",
        "last_note",
        "opened_at",
        "probe_after",
        "reset_code",
        "route_timeout",
        "state",
    )

    def __init__(
        self, message_id: MessageId, server: Peer, timeout: float | None, route_timeout: float, now: float
    ) -> None:
        Exchange.__init__(self, message_id, server, 0, request=True)  # three times as fast as `super()`
        self.state = ClientState.DISCOVERING
        self.deadline: float | None = None
        self.probe_after: float | None = None
        if timeout is not None:
            self.deadline = now + timeout
            self.probe_after = timeout - min(LAST_PROBE_BEFORE, timeout / 4)
        self.is_deadline_near = False
        self.route_timeout = route_timeout
        self.opened_at = self.last_heard = now
        self.cancelled_at: float | None = None
        self.reset_code = 0
        self.last_note: wire.Unreachable | None = None

    # -- transitions ---------------------------------------------------------------------------------------------

    def set_incarnation(self, incarnation: int) -> None:
        """The server's incarnation is known, or (0) has to be discovered anew."""
        self.peer_incarnation = incarnation
        if self.state is ClientState.DISCOVERING or self.state is ClientState.OPEN:
            self.state = ClientState.OPEN if incarnation else ClientState.DISCOVERING

    def lose_route(self, now: float) -> None:
        """There is no route to the server any more."""
        self.unreachable_since = now
        if self.state is not ClientState.CANCELLING:
            self.state = ClientState.ROUTE_LOST

    def find_route(self) -> None:
        """There is a route to the server, or a frame has come from it."""
        self.unreachable_since = None
        if self.state is ClientState.ROUTE_LOST:
            self.state = ClientState.OPEN if self.peer_incarnation else ClientState.DISCOVERING

    def cancel(self, reset_code: int, now: float) -> None:
        """The request is being cancelled, or with a code above 0 reset."""
        self.cancelled_at = now
        self.reset_code = reset_code
        self.state = ClientState.CANCELLING

    def end(self) -> None:
        """The exchange is over."""
        self.state = ClientState.ENDED

    # -- conditions ----------------------------------------------------------------------------------------------

    def cannot_have_arrived(self) -> bool:
        """Whether no copy of any chunk can have reached the server: none was sent, or all came back."""
        unacked = self.outbound.unacked.values()
        return len(unacked) == self.outbound.next and all(chunk.returned == chunk.transmissions for chunk in unacked)

    def next_limit(self) -> float | None:
        """The earliest of the deadlines that apply in this state, that of the request once it is near, or None."""
        limits = []
        if self.is_deadline_near and self.deadline is not None:
            limits.append(self.deadline)
        if self.unreachable_since is not None:
            limits.append(self.unreachable_since + self.route_timeout)
        if self.cancelled_at is not None:
            limits.append(self.cancelled_at + CANCEL_TIMEOUT)
        return min(limits, default=None)

    def check(self) -> None:
        """Raise AssertionError if the state contradicts what is known."""
        super().check()
        expected = ClientState.OPEN if self.peer_incarnation else ClientState.DISCOVERING
        if self.cancelled_at is not None:
            expected = ClientState.CANCELLING
        elif self.unreachable_since is not None:
            expected = ClientState.ROUTE_LOST
        if self.state is not expected:
            raise AssertionError(f"the state of a request is {self.state.name}, not {expected.name}")
