"""The effects that the engine returns. The shell carries them out in order, and decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

from zmesh.core.message import Address, Eof, LinkId, MessageId, NodeId, ReplyHeader, RequestHeader, Stream
from zmesh.core.wire import Frames


class Transmit(NamedTuple):
    """Send these frames on the link; if it is full, call `engine.link_full` with the same frames."""

    link: LinkId
    frames: Frames


class Deliver(NamedTuple):
    """The next chunk of a stream, in order, none twice.

    `header` is there with the first chunk of a message, `last` with its last one, `eof` with the end of the exchange
    (which may come with payload or alone). `hops` is the number of links that the chunk crossed. `credit` is what it
    takes of the stream's window (flow control, RFC 9000, 4.1), in bytes; the shell gives it back with
    `engine.release_credit(stream, credit)` once the chunk has been read. `handle` is what the shell has attached to the
    exchange, None before that.
    """

    stream: Stream
    peer: Address
    header: RequestHeader | ReplyHeader | None
    body: bytes
    last: bool
    eof: Eof | None
    credit: int
    hops: int
    handle: object = None


deliver = cast("Callable[[tuple[object, ...]], Deliver]", partial(tuple.__new__, Deliver))
"""Deliver of its fields as a tuple; these two spare a call of Python code for each frame."""

transmit = cast("Callable[[tuple[LinkId, Frames]], Transmit]", partial(tuple.__new__, Transmit))


@dataclass(frozen=True, slots=True)
class Pull:
    """The stream has room for more payload; `engine.room(stream)` returns how much."""

    stream: Stream
    handle: object = None


@dataclass(frozen=True, slots=True)
class StreamOver:
    """The stream takes no more payload: stop reading what feeds it. Its exchange is over or was cancelled, or the other
    end wants no more of it (STOP_SENDING, RFC 9000 section 19.5).

    Emitted once, if the current message was not fed to its end, or if a Pull is outstanding.
    """

    stream: Stream
    handle: object = None


@dataclass(frozen=True, slots=True)
class Abort:
    """Stop the work of this request; `reason` is a code of zmesh.errors, `reset_code` what the client gave with it."""

    message_id: MessageId
    reason: str
    handle: object = None
    reset_code: int = 0


@dataclass(frozen=True, slots=True)
class ReportDelay:
    """The client probes for this request: if its work waits to begin, call `engine.report_delay` with the reason."""

    message_id: MessageId
    handle: object = None


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the link. One that this node dialled is dialled anew, after `pause` seconds at the earliest."""

    link: LinkId
    reason: str
    pause: float


@dataclass(frozen=True, slots=True)
class Report:
    """A fact for counters, logs and programs; `event` is in the past tense.

    `link_up`, `link_suspect`, `link_lost`, `link_refused`, `link_quarantined`, `link_not_greeted`, `node_joined`,
    `node_left`, `route_changed`, `duplicate_id`, `id_taken`, `frame_dropped`, `overloaded`, `unreachable`, `expired`,
    `certificate_expiring`, `certificate_renewed`, `trust_changed`, `clock_set`, `configuration_changed` (`text`: what
    waits for a restart), `node_started`, `node_stopped`, `call_refused`, `job_changed`, `link_synced`,
    `node_forgotten`, `record_cut`, `route_refused`, `record_refused`, `not_trusted` (`text`: one of
    `credentials.REASONS`). With `unreachable` come the names that are `near` the destination, for how long (seconds)
    the routes of the reporting node have been `settled`, and in `text` what it knows of the destination; with
    `link_not_greeted`, `text` is where the other end is, with `dial_failed` and `link_refused` a code. `count` is the
    number of occurrences.
    """

    event: str
    node: NodeId | None = None
    link: LinkId | None = None
    detail: str = ""
    near: tuple[NodeId, ...] = ()
    settled: float = 0.0
    text: str = ""
    count: int = 1


Effect = Transmit | Deliver | Pull | StreamOver | Abort | ReportDelay | HangUp | Report
