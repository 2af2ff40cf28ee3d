"""The answer to a ping, as a typed value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zmesh.arguments import parse_message_id
from zmesh.errors import RemoteError

if TYPE_CHECKING:
    from zmesh.payloads import Payload


@dataclass(frozen=True, slots=True)
class ActiveWork:
    """A request that a node serves: its message id (32 hex digits), its directive, and the node that sent it.

    None stands for a field missing in the answer.
    """

    message_id: str | None
    directive: str | None
    sender: str | None

    @property
    def id(self) -> int | None:
        """The message id as a number, as Receptor has it; `cancel_at` takes both forms."""
        return int(self.message_id, 16) if self.message_id is not None else None


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to one ping: `rtt` in seconds, `hops` in links, and the requests that the node serves.

    `time` is the clock of the node when it answered, in seconds since 1970; None if it does not say.
    """

    node: str
    rtt: float
    hops: int
    active_work: tuple[ActiveWork, ...]
    time: float | None = None


def read_pong(payload: Payload | None, node: str, rtt: float, hops: int) -> Pong:
    """The Pong of a reply of `node`. Raises RemoteError if its payload is not that of a ping's reply."""
    try:
        answer = payload.json() if payload is not None else None
        return Pong(node, rtt, hops, _all_active_work(answer), _time_in(answer))
    except ValueError:
        raise RemoteError(f"node {node!r} answers a ping with something else", node=node) from None


def _all_active_work(answer: object) -> tuple[ActiveWork, ...]:
    """The requests that the JSON of a ping's answer lists, which another node may have made up. Raises ValueError."""
    if not isinstance(answer, dict):
        raise ValueError("no answer to a ping")
    listed = answer.get("active_work")
    return tuple(_active_work(each) for each in listed if isinstance(each, dict)) if isinstance(listed, list) else ()


def _time_in(answer: object) -> float | None:
    """The clock of the node, in seconds since 1970."""
    said = answer.get("response_time") if isinstance(answer, dict) else None
    seconds = said.get("value") if isinstance(said, dict) else None
    return float(seconds) if isinstance(seconds, float) and math.isfinite(seconds) else None


def _active_work(listed: dict[str, object]) -> ActiveWork:
    id, directive, sender = listed.get("message_id", listed.get("id")), listed.get("directive"), listed.get("sender")
    return ActiveWork(
        parse_message_id(id) if isinstance(id, (str, int)) else None,
        None if directive is None else str(directive),
        None if sender is None else str(sender),
    )
