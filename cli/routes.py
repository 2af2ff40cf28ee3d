"""`zmesh routes`: the routes of a node, and the links and directives that it knows of in the mesh."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zmesh import Payload
from zmesh_cli.exit_codes import DONE, FAILED, Failure
from zmesh_cli.local_sockets import Place
from zmesh_cli.quantities import age, milliseconds
from zmesh_cli.session import Session
from zmesh_cli.tables import groups, table, width_of_stdout
from zmesh_cli.terminal import Output, printable, record

ROUTES = "zmesh:routes"

DEFAULT_TIMEOUT = 10.0
"""Seconds to wait for the reply, unless --timeout is given."""


async def routes(place: Place, node: str | None, *, timeout: float | None, as_json: bool) -> int:
    """Print the routes of a node, or (None) of the node where the command joins; the exit code."""
    output = Output()
    async with Session(place, node, timeout, join_timeout=timeout) as session:
        tables = await session.unless_not_found(fetch_tables(session, timeout or DEFAULT_TIMEOUT))
    lines = _render(tables, width_of_stdout())
    await output.text(record("zmesh.routes/1", **tables) if as_json else "\n".join(lines) + "\n")
    return DONE


async def fetch_tables(session: Session, timeout: float) -> dict[str, Any]:
    """The tables of the session's target: `node`, `routes`, `edges`, `capabilities`, `duplicates`, `tags`.

    Raises ExchangeError, and Failure for a malformed reply.
    """
    payload = await session.controller.request(session.target, ROUTES, timeout=timeout)
    tables = _checked(payload)
    if tables is None:
        raise Failure(f"node {session.target!r} sent a malformed reply to {ROUTES}", FAILED)
    return tables


def _checked(payload: Payload | None) -> dict[str, Any] | None:
    """The tables in a reply; None if it is malformed, since a remote node may send anything."""
    try:
        reply: Any = payload.json() if payload is not None else None
        return {
            "node": str(reply["node"]),
            "routes": [_route(route) for route in reply["routes"]],
            "edges": [[str(a), str(b), int(cost)] for a, b, cost in reply["edges"]],
            "capabilities": {
                str(node): [str(directive) for directive in known] for node, known in reply["capabilities"].items()
            },
            "duplicates": [str(node) for node in reply["duplicates"]],
            "tags": {str(node): _tags(tags) for node, tags in reply.get("tags", {}).items()},
        }
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):  # the last for an infinite number
        return None


def _tags(tags: dict[str, Any]) -> dict[str, list[str]]:
    return {kind: [str(tag) for tag in tags[kind]] for kind in ("certified", "own")}


def _route(route: dict[str, Any]) -> dict[str, Any]:
    rtt = route["rtt_ms"]
    return {
        "destination": str(route["destination"]),
        "next_hop": str(route["next_hop"]),
        "metric": int(route["metric"]),
        "hops": int(route["hops"]),
        "rtt_ms": None if rtt is None else float(rtt),
        "age_s": float(route["age_s"]),
        "why": str(route["why"]),
    }


def _render(tables: dict[str, Any], width: int) -> Iterator[str]:
    """The lines for people, of at most `width` columns each."""
    node, routes, edges = tables["node"], tables["routes"], tables["edges"]
    for name in tables["duplicates"]:
        yield f"Two live nodes are called {printable(name)}: give one of them another id"
    yield f"Routes of {printable(node)}"
    if routes:
        head = ("DESTINATION", "NEXT HOP", "COST", "HOPS", "RTT", "AGE", "WHY")
        rows = [
            (r["destination"], r["next_hop"], str(r["metric"]), str(r["hops"]), _rtt(r), age(r["age_s"]), r["why"])
            for r in routes
        ]
        yield from table(head, rows, width, names=2, note=True)
    else:
        yield "  none; it knows of no other node"
    if edges:
        yield ""
        yield "Links of the mesh"
        yield from table(("NODE", "NODE", "COST"), [(a, b, str(cost)) for a, b, cost in edges], width, names=2)
    yield ""
    yield "Directives"
    yield from groups(tables["capabilities"], width)


def _rtt(route: dict[str, Any]) -> str:
    return milliseconds(route["rtt_ms"] and route["rtt_ms"] / 1000)
