"""`zmesh why`: why a node sends where it sends, or why another one can't be reached."""

from __future__ import annotations

from collections.abc import Iterator

from zmesh import RouteExplanation, RouteOffer
from zmesh_cli.exit_codes import DONE, UNREACHABLE
from zmesh_cli.local_sockets import Place
from zmesh_cli.quantities import age
from zmesh_cli.session import Session
from zmesh_cli.status import DEFAULT_TIMEOUT, unless_too_old
from zmesh_cli.tables import INDENT, table, width_of_stdout, wrapped
from zmesh_cli.terminal import Output, printable, record


async def why(place: Place, node: str, at: str | None, *, timeout: float | None, as_json: bool) -> int:
    """Print why the node `at`, or (None) the node where the command joins, sends to a node as it does."""
    output = Output()
    async with Session(place, at, timeout, join_timeout=timeout) as session:
        asked = session.controller.why(node, session.target, timeout=timeout or DEFAULT_TIMEOUT)
        found = await session.unless_not_found(unless_too_old(session.target, asked))
    lines = _render(found, width_of_stdout())
    await output.text(record("zmesh.why/1", **found.to_json()) if as_json else "".join(f"{one}\n" for one in lines))
    return DONE if found.state in ("reachable", "self") else UNREACHABLE


def _render(found: RouteExplanation, width: int) -> Iterator[str]:
    """The lines for people, of at most `width` columns each."""
    for line in _summary(found):
        yield from wrapped(printable(line).split(), width, first="", rest=INDENT)
    if found.offers:
        yield ""
        yield "Offers of the neighbours"
        head = ("NEIGHBOUR", "STATE", "COST", "OFFERED", "LINK", "HOPS")
        rows = [
            (o.neighbour, o.state, str(o.cost), str(o.advertised), str(o.link_cost), str(o.hops)) for o in found.offers
        ]
        first, *rest = table(head, rows, width, names=1)
        yield first
        for line, offer in zip(rest, found.offers, strict=True):
            yield line
            yield from wrapped(printable(_note(offer)).split(), width, first=2 * INDENT, rest=3 * INDENT)
    if found.silent:
        yield from wrapped(
            ["No", "offer", "of", *printable(", ".join(found.silent)).split()], width, first="", rest=INDENT
        )


def _note(offer: RouteOffer) -> str:
    return f"{offer.text} (at {offer.where})" if offer.where else offer.text


def _summary(found: RouteExplanation) -> Iterator[str]:
    """The lines that come first."""
    here, there = found.node, found.destination
    if found.state == "self":
        yield f"{there} is {here} itself"
        return
    if found.next_hop is not None:
        since = age(found.since or 0.0)
        hops = "1 hop" if found.hops == 1 else f"{found.hops} hops"
        suspect = " over a suspect link" if found.offers and found.offers[0].suspect else ""
        yield f"{here} sends to {there} over {found.next_hop}: cost {found.cost}{suspect}, {hops}, for {since}"
        if found.following is not None:
            yield f"if that link is lost, {found.following} takes over at once"
        else:
            yield "if that link is lost, nothing takes over: no other neighbour offers a feasible route"
    elif found.state == "left" and found.lost is not None:
        lost = found.lost
        yield f"{here} has no route to {there}: it left {age(lost.age)} ago"
        over = f" over {lost.next_hop}" if lost.next_hop is not None else ""
        yield f"the last route had cost {lost.cost} and {lost.hops} hops{over}"
        if lost.heard_by is not None:
            yield f"{lost.heard_by} lost it: {lost.reason}" if lost.reason else f"last heard by {lost.heard_by}"
        else:
            yield "who heard it last is not known"
    else:
        near = f"; did you mean {' or '.join(found.near)}?" if found.near else ""
        yield f"{here} has no route to {there}, and never had one{near}"
    if found.dialling:
        yield f"dialling fails at {found.dialling}"
    if found.feasibility_distance is not None:
        yield f"feasibility distance: {found.feasibility_distance}, under seqno {found.seqno}"
    if found.starvation != "none":
        asked = "was sent" if found.starvation == "requested" else "is due"
        yield f"a cheaper route, or the only one, is unfeasible; a seqno request for it {asked}"
    for fall in found.falls:
        yield f"a link with it fell {age(fall.age)} ago: {fall.reason}"
