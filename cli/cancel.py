"""`zmesh cancel`: stop work at another node, and wait until it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from zmesh import Payload, parse_message_id
from zmesh.errors import MeshError, TimedOut
from zmesh_cli.exit_codes import DONE, FAILED, TIMED_OUT, UNREACHABLE, USAGE, Failure
from zmesh_cli.local_sockets import Place
from zmesh_cli.routes import fetch_tables
from zmesh_cli.session import Session
from zmesh_cli.terminal import Output, print_error, printable, record

CANCEL = "zmesh:cancel"

DEFAULT_TIMEOUT = 10.0
"""Seconds to wait for the work to end, unless --timeout is given."""


@dataclass(slots=True)
class Outcome:
    """The replies to a cancel: the work that was stopped and its node, or why none was."""

    node: str | None = None
    cancelled: bool = False
    directive: str | None = None
    sender: str | None = None
    near: str | None = None
    """A message id of running work that is spelled alike."""
    unanswered: dict[str, MeshError] = field(default_factory=dict)
    """The nodes that did not reply, and why."""


async def cancel(place: Place, message_id: str, node: str | None, *, timeout: float | None, as_json: bool) -> int:
    """Stop the work for this message id at a node, or (None) wherever in the mesh it runs; the exit code."""
    id = parse_message_id(message_id)
    if id is None:
        raise Failure(
            f"{message_id!r} is not a message id: that is 32 hex digits, or the number in the reply of zmesh:ping; "
            "'zmesh ping NODE --json' lists the ids of the work that runs at NODE",
            USAGE,
        )
    output = Output()
    async with Session(place, node, timeout, join_timeout=timeout) as session:
        search = _cancel_anywhere if node is None else _cancel_at_target
        outcome = await session.unless_not_found(search(session, id, timeout or DEFAULT_TIMEOUT))
    if as_json:
        await output.text(
            record(
                "zmesh.cancel/1",
                message_id=id,
                node=outcome.node,
                cancelled=outcome.cancelled,
                directive=outcome.directive,
                sender=outcome.sender,
                unanswered=sorted(outcome.unanswered),
            )
        )
    elif outcome.cancelled:
        work = f"{outcome.directive} of {outcome.sender} at {outcome.node}"
        await output.text(f"cancelled {printable(work)}\n")
    return DONE if outcome.cancelled else _print_failure(id, outcome)


def _print_failure(message_id: str, outcome: Outcome) -> int:
    """Print why no work was stopped; the exit code."""
    where = f"at {outcome.node!r}" if outcome.node is not None else "at any node that replied"
    hint = f" (did you mean {outcome.near}?)" if outcome.near else ""
    if not outcome.unanswered:
        ping = f"'zmesh ping {outcome.node or 'NODE'} --json'"
        print_error(f"no work for message {message_id} runs {where}; it may be over; {ping} lists what runs{hint}")
        return FAILED
    names = sorted(outcome.unanswered)
    first = outcome.unanswered[names[0]]
    more = f" and {len(names) - 1} more" if names[1:] else ""
    print_error(
        f"no work for message {message_id} was stopped {where}; no reply from {names[0]!r}{more}: {first}{hint}"
    )
    late = any(isinstance(error, TimedOut) for error in outcome.unanswered.values())
    return TIMED_OUT if late else UNREACHABLE


async def _cancel_at_target(session: Session, message_id: str, timeout: float) -> Outcome:
    payload = await session.controller.request(session.target, CANCEL, {"message_id": message_id}, timeout=timeout)
    outcome = Outcome()
    if not _read_reply(outcome, payload):
        raise Failure(f"node {session.target!r} sent a malformed reply to {CANCEL}", FAILED)
    outcome.node = session.target
    return outcome


async def _cancel_anywhere(session: Session, message_id: str, timeout: float) -> Outcome:
    """Send the cancel to all nodes that the peer knows, until one of them has stopped such work."""
    outcome = Outcome()
    nodes = (await fetch_tables(session, timeout))["capabilities"]
    payload = {"message_id": message_id}
    async with session.controller.request_many(nodes, CANCEL, payload, timeout=timeout) as answers:
        async for answer in answers:
            if answer.error is not None:
                outcome.unanswered[answer.node] = answer.error
            elif _read_reply(outcome, answer.payload) and outcome.cancelled:
                outcome.node = answer.node
                outcome.unanswered.clear()
                break
    return outcome


def _read_reply(outcome: Outcome, payload: Payload | None) -> bool:
    """Note a node's reply; False if it is malformed, since a remote node may send anything."""
    try:
        reply: Any = payload.json() if payload is not None else None
        if reply["cancelled"] is True:
            directive, sender = str(reply["directive"]), str(reply["sender"])
            outcome.cancelled, outcome.directive, outcome.sender = True, directive, sender
        else:
            near = [str(name) for name in reply["near"]]
            outcome.near = near[0] if near else outcome.near
    except (ValueError, TypeError, KeyError):
        return False
    return True
