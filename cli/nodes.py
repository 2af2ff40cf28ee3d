"""`zmesh nodes`: the nodes of the mesh, or those that a target stands for, with their tags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zmesh import Tags, Target
from zmesh.errors import ConfigError
from zmesh_cli.exit_codes import DONE, USAGE, Failure
from zmesh_cli.local_sockets import Place
from zmesh_cli.routes import DEFAULT_TIMEOUT, fetch_tables
from zmesh_cli.session import Session
from zmesh_cli.tables import table, width_of_stdout
from zmesh_cli.terminal import Output, record

EVERYONE = "*"


def target_of(text: str | None) -> Target:
    """The target that a command is given, by default all nodes. Raises Failure for one that can't be read."""
    try:
        return Target.of(text or EVERYONE)
    except ConfigError as error:
        raise Failure(str(error), USAGE) from None


def tags_in(tables: dict[str, Any]) -> dict[str, Tags]:
    """The tags of each node in the tables of one."""
    nodes = {tables["node"], *(route["destination"] for route in tables["routes"])}
    return {node: _tags(tables["tags"].get(node)) for node in sorted(nodes)}


def _tags(told: dict[str, list[str]] | None) -> Tags:
    return Tags() if told is None else Tags(tuple(told["certified"]), tuple(told["own"]))


async def nodes(place: Place, target: Target, *, timeout: float | None, as_json: bool) -> int:
    """Print the nodes that a target stands for; the exit code."""
    output = Output()
    async with Session(place, None, timeout, join_timeout=timeout) as session:
        tables = await session.unless_not_found(fetch_tables(session, timeout or DEFAULT_TIMEOUT))
    known = tags_in(tables)
    routes = {route["destination"]: route for route in tables["routes"]}
    rows = [_row(node, node in known, routes.get(node), known.get(node, Tags())) for node in target.nodes(known)]
    text = "".join(record("zmesh.nodes/1", **row) for row in rows) if as_json else "".join(_render(rows))
    await output.text(text)
    return DONE


def _row(node: str, reachable: bool, route: dict[str, Any] | None, tags: Tags) -> dict[str, Any]:
    return {
        "node": node,
        "reachable": reachable,
        "hops": route["hops"] if route is not None else 0 if reachable else None,
        "next_hop": route["next_hop"] if route is not None else None,
        "tags": list(tags.certified),
        "own_tags": list(tags.own),
    }


def _render(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The lines for people."""
    if not rows:
        yield "no node\n"
        return
    head = ("NODE", "NEXT HOP", "HOPS", "TAGS", "OWN TAGS")
    cells = [
        (
            row["node"],
            row["next_hop"] or ("-" if row["reachable"] else "unreachable"),
            "-" if row["hops"] is None else str(row["hops"]),
            " ".join(row["tags"]) or "-",
            " ".join(row["own_tags"]) or "-",
        )
        for row in rows
    ]
    yield from (f"{line.removeprefix('  ')}\n" for line in table(head, cells, width_of_stdout(), names=2))
