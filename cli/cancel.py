"""`zmesh cancel`: stop work that runs at some node, and see that it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from zmesh.arguments import parse_message_id
from zmesh.errors import MeshError, TimedOut
from zmesh.payloads.payload import Payload
from zmesh.serving.builtins import CANCEL
from zmesh_cli.exit_codes import DONE, FAILED, TIMED_OUT, UNREACHABLE, USAGE, Failure
from zmesh_cli.routes import ask
from zmesh_cli.session import Session
from zmesh_cli.terminal import Output, print_error, printable, record

DEFAULT_TIMEOUT = 10.0
"""Seconds to wait for the work to end, unless the user says otherwise."""


@dataclass(slots=True)
class Outcome:
    """What has come of it: where such work was found, or what those who were asked have said instead."""

    node: str | None = None
    cancelled: bool = False
    directive: str | None = None
    sender: str | None = None
    near: str | None = None
    unanswered: dict[str, MeshError] = field(default_factory=dict)


async def cancel(url: str, message_id: str, node: str | None, *, timeout: float | None, as_json: bool) -> int:
    """Stop the work for this message id at a node, or wherever in the mesh it runs; the exit code."""
    named = parse_message_id(message_id)
    if named is None:
        raise Failure(
            f"{message_id!r} is no message id: it has 32 hex digits, or is the number that a ping's reply lists",
            USAGE,
        )
    output = Output()
    async with Session(url, node, timeout, join_within=timeout) as session:
        search = _everywhere if node is None else _at
        outcome = await session.unless_not_found(search(session, named, timeout or DEFAULT_TIMEOUT))
    if as_json:
        await output.text(
            record(
                "zmesh.cancel/1",
                message_id=named,
                node=outcome.node,
                cancelled=outcome.cancelled,
                directive=outcome.directive,
                sender=outcome.sender,
                unanswered=sorted(outcome.unanswered),
            )
        )
    elif outcome.cancelled:
        what = f"{outcome.directive} of {outcome.sender} at {outcome.node}"
        await output.text(f"cancelled {printable(what)}\n")
    return DONE if outcome.cancelled else _explain(named, outcome)


def _explain(message_id: str, outcome: Outcome) -> int:
    """Say why nothing was cancelled; the exit code."""
    where = f"at {outcome.node!r}" if outcome.node is not None else "at any node that answers"
    hint = f" (did you mean {outcome.near}?)" if outcome.near else ""
    if not outcome.unanswered:
        ping = f"'zmesh ping {outcome.node or 'NODE'} --json'"
        print_error(f"no work {message_id} runs {where}; it may be over, {ping} lists what runs{hint}")
        return FAILED
    names = sorted(outcome.unanswered)
    first = outcome.unanswered[names[0]]
    more = f" and {len(names) - 1} more" if names[1:] else ""
    print_error(f"no work {message_id} was stopped {where}, but {names[0]!r}{more} did not answer: {first}{hint}")
    late = any(isinstance(error, TimedOut) for error in outcome.unanswered.values())
    return TIMED_OUT if late else UNREACHABLE


async def _at(session: Session, message_id: str, timeout: float) -> Outcome:
    payload = await session.controller.request(session.target, CANCEL, {"message_id": message_id}, timeout=timeout)
    outcome = Outcome()
    if not _take(outcome, payload):
        raise Failure(f"{session.target!r} answers with something else", FAILED)
    outcome.node = session.target
    return outcome


async def _everywhere(session: Session, message_id: str, timeout: float) -> Outcome:
    """Ask all nodes that the peer knows, until one has had such work."""
    outcome = Outcome()
    nodes = (await ask(session, timeout))["capabilities"]
    payload = {"message_id": message_id}
    async with session.controller.request_many(nodes, CANCEL, payload, timeout=timeout) as answers:
        async for answer in answers:
            if answer.error is not None:
                outcome.unanswered[answer.node] = answer.error
            elif _take(outcome, answer.payload) and outcome.cancelled:
                outcome.node = answer.node
                outcome.unanswered.clear()
                break
    return outcome


def _take(outcome: Outcome, payload: Payload | None) -> bool:
    """Read what a node has answered; False if that makes no sense. A remote node may send anything."""
    try:
        answer: Any = payload.json() if payload is not None else None
        if answer["cancelled"] is True:
            directive, sender = str(answer["directive"]), str(answer["sender"])
            outcome.cancelled, outcome.directive, outcome.sender = True, directive, sender
        else:
            near = [str(name) for name in answer["near"]]
            outcome.near = near[0] if near else outcome.near
    except (ValueError, TypeError, KeyError):
        return False
    return True
