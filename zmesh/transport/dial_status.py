"""The status of dialling a peer: its state, and the failure of the last try, for logs and errors."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import StrEnum

import zmq


class DialState(StrEnum):
    """The state of a dialler."""

    RESOLVING = "resolving"
    """The peer's name is being looked up."""

    CONNECTING = "connecting"
    """A connection is being made, or its ZMTP handshake is under way."""

    LINKED = "linked"
    """There is a connection, and ZeroMQ runs over it."""

    WAITING = "waiting"
    """The last try failed or the link was lost; the next try begins after a pause."""


class DialFailure(StrEnum):
    """The reason of a failed try: stable codes, for programs and tests."""

    UNRESOLVED = "unresolved"
    """The name does not resolve to an address."""

    RESOLVE_TIMED_OUT = "resolve_timed_out"
    """No name server answered in time."""

    REFUSED = "refused"
    """The machine answers, and nothing listens on that port (ECONNREFUSED); or there is no such Unix socket."""

    TIMED_OUT = "timed_out"
    """Nothing answered in time: the machine is down, or a firewall drops what is sent to it."""

    NO_ROUTE = "no_route"
    """The network is down or has no route to the address (ENETUNREACH, EHOSTUNREACH)."""

    NOT_ZEROMQ = "not_zeromq"
    """Something listens there that does not speak ZMTP."""

    CLOSED = "closed"
    """The other end closed the connection during the handshake."""

    NOT_ADMITTED = "not_admitted"
    """The other end does not admit this node (ZAP)."""

    ENCRYPTED = "encrypted"
    """The other end takes encrypted links only, and the URL has no key."""

    PLAINTEXT = "plaintext"
    """The other end speaks plaintext, and the URL has a key."""

    WRONG_KEY = "wrong_key"
    """The other end has another key than the URL, or closed the connection: CURVE does not say which."""

    PROXY = "proxy"
    """The proxy is reached and did not connect to the peer."""

    RESOURCES = "resources"
    """This process or machine has no descriptor, memory, port or thread left for it."""

    OTHER = "other"
    """Anything else that the operating system says."""


NOT_TRUSTED = frozenset((DialFailure.ENCRYPTED, DialFailure.NOT_ADMITTED, DialFailure.PLAINTEXT, DialFailure.WRONG_KEY))
"""The failures with which one end does not trust the other."""


@dataclass(frozen=True, slots=True)
class DialStatus:
    """How dialling one peer stands.

    `url`      the peer's URL as it was given, without a password of a proxy.
    `state`    what is being done now.
    `failure`  why the last try failed; None while linked, and before the first try has failed.
    `reason`   the same in words that fit after "can't reach URL: "; empty where `failure` is None.
    `since`    time.monotonic() at which the link came up; while there is none, at which it was lost or first dialled.
    `tries`    how many tries have failed since then.
    """

    url: str
    state: DialState
    failure: DialFailure | None
    reason: str
    since: float
    tries: int


class DialError(Exception):
    """A try to reach a peer has failed; `failure` and `reason` are those of a DialStatus."""

    def __init__(self, failure: DialFailure, reason: str) -> None:
        super().__init__(reason)
        self.failure = failure
        self.reason = reason


_BY_ERRNO = {
    errno.ECONNREFUSED: (DialFailure.REFUSED, "connection refused"),
    errno.ENOENT: (DialFailure.REFUSED, "there is no such socket"),
    errno.ETIMEDOUT: (DialFailure.TIMED_OUT, "the connection timed out"),
    errno.EHOSTUNREACH: (DialFailure.NO_ROUTE, "no route to the host"),
    errno.ENETUNREACH: (DialFailure.NO_ROUTE, "the network is unreachable"),
    errno.ENETDOWN: (DialFailure.NO_ROUTE, "the network is down"),
    errno.EHOSTDOWN: (DialFailure.NO_ROUTE, "the host is down"),
    errno.ECONNRESET: (DialFailure.CLOSED, "the connection was reset"),
    errno.EACCES: (DialFailure.OTHER, "permission denied"),
    errno.EPERM: (DialFailure.OTHER, "not permitted, by a firewall of this machine perhaps"),
}
_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN}


def failed(error: OSError | zmq.ZMQError) -> DialError:
    """The DialError for an error of the operating system (or of ZeroMQ, which has the same numbers)."""
    number = error.errno or 0
    if number in _RESOURCES:
        return DialError(DialFailure.RESOURCES, f"this machine has no more to give: {os.strerror(number).lower()}")
    return DialError(*_BY_ERRNO.get(number, (DialFailure.OTHER, str(error.strerror or error).lower())))
