"""`zmesh routes`: the table of routes of a node, and what it knows of the mesh."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from zmesh.payloads.payload import Payload
from zmesh.serving.builtins import ROUTES
from zmesh_cli.exit_codes import DONE, FAILED, Failure
from zmesh_cli.session import Session
from zmesh_cli.terminal import Output, printable, record

DEFAULT_TIMEOUT = 10.0
"""Seconds to wait for the answer, unless the user says otherwise."""


async def routes(url: str, node: str | None, *, timeout: float | None, as_json: bool) -> int:
    """Ask a node, or the one at the URL itself, for its routes."""
    output = Output()
    async with Session(url, node, timeout, join_within=timeout) as session:
        tables = await session.unless_not_found(ask(session, timeout or DEFAULT_TIMEOUT))
    await output.text(record("zmesh.routes/1", **tables) if as_json else "\n".join(_render(tables)) + "\n")
    return DONE


async def ask(session: Session, timeout: float) -> dict[str, Any]:
    """The tables of the session's target: `node`, `routes`, `edges`, `capabilities`. Raises ExchangeError, Failure."""
    payload = await session.controller.request(session.target, ROUTES, timeout=timeout)
    tables = _checked(payload)
    if tables is None:
        raise Failure(f"{session.target!r} answers with something that are no routes", FAILED)
    return tables


def _checked(payload: Payload | None) -> dict[str, Any] | None:
    """The tables that a node has sent, if they are such; a remote node may send anything."""
    try:
        answer: Any = payload.json() if payload is not None else None
        return {
            "node": str(answer["node"]),
            "routes": [_route(route) for route in answer["routes"]],
            "edges": [[str(a), str(b), int(cost)] for a, b, cost in answer["edges"]],
            "capabilities": {
                str(node): [str(directive) for directive in known] for node, known in answer["capabilities"].items()
            },
            "duplicates": [str(node) for node in answer["duplicates"]],
        }
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):  # the last for what is infinite
        return None


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


def _render(tables: dict[str, Any]) -> Iterable[str]:
    node, routes, edges = tables["node"], tables["routes"], tables["edges"]
    for name in tables["duplicates"]:
        yield f"Two live nodes are called {printable(name)}: give one of them another id"
    yield f"Routes of {printable(node)}"
    if routes:
        rows = [
            (r["destination"], r["next_hop"], str(r["metric"]), str(r["hops"]), _rtt(r), _age(r["age_s"]), r["why"])
            for r in routes
        ]
        yield from _table(("DESTINATION", "NEXT HOP", "COST", "HOPS", "RTT", "AGE", "WHY"), rows)
    else:
        yield "  none; it knows of no other node"
    if edges:
        yield ""
        yield "Links of the mesh"
        yield from _table(("NODE", "NODE", "COST"), [(a, b, str(cost)) for a, b, cost in edges])
    yield ""
    yield "Directives"
    known = tables["capabilities"].items()
    yield from _table(("NODE", "OFFERS"), [(name, " ".join(directives) or "-") for name, directives in known])


def _rtt(route: dict[str, Any]) -> str:
    return "-" if route["rtt_ms"] is None else f"{route['rtt_ms']:.3g} ms"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    """Aligned columns; those that hold numbers are right-aligned."""
    shown = [head, *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(head))]
    numbers = [all(row[column].isdigit() for row in shown[1:]) for column in range(len(head))]
    for row in shown:
        cells = zip(row, widths, numbers, strict=True)
        yield ("  " + "  ".join(cell.rjust(w) if number else cell.ljust(w) for cell, w, number in cells)).rstrip()
