"""`zmesh nodes`: the nodes of the mesh, or those that a target stands for, with what is known of each."""

from __future__ import annotations

from typing import Any

from zmesh import Member, MemberList, Tags, Target
from zmesh.errors import ConfigError
from zmesh_cli.exit_codes import DONE, USAGE, Failure
from zmesh_cli.local_sockets import Place
from zmesh_cli.quantities import age, milliseconds
from zmesh_cli.session import Session
from zmesh_cli.status import DEFAULT_TIMEOUT, unless_too_old
from zmesh_cli.tables import table, width_of_stdout
from zmesh_cli.terminal import Output, record

EVERYONE = "*"


def target_of(text: str | None, tag: str | None = None) -> Target:
    """The target that a command is given, by default all nodes. Raises Failure for one that can't be read."""
    if text is not None and tag is not None:
        raise Failure("give either a TARGET or --tag; a target takes tags too, such as tag:gpu,!edge-9", USAGE)
    try:
        return Target.of(f"tag:{tag}" if tag is not None else text or EVERYONE)
    except ConfigError as error:
        raise Failure(str(error), USAGE) from None


def tags_in(tables: dict[str, Any]) -> dict[str, Tags]:
    """The tags of each node in the tables of one."""
    nodes = {tables["node"], *(route["destination"] for route in tables["routes"])}
    return {node: _tags(tables["tags"].get(node)) for node in sorted(nodes)}


def _tags(listed: dict[str, list[str]] | None) -> Tags:
    return Tags() if listed is None else Tags(tuple(listed["certified"]), tuple(listed["own"]))


async def nodes(place: Place, target: Target, at: str | None, *, timeout: float | None, as_json: bool) -> int:
    """Print the nodes that a target stands for, as the node `at` knows them; the exit code."""
    output = Output()
    async with Session(place, at, timeout, join_timeout=timeout) as session:
        asked = session.controller.members(session.target, timeout=timeout or DEFAULT_TIMEOUT)
        found = await session.unless_not_found(unless_too_old(session.target, asked))
    shown = chosen(found, target)
    if as_json:
        await output.text("".join(record("zmesh.nodes/1", **member.to_json()) for member in shown))
    else:
        await output.text("".join(f"{line}\n" for line in _render(shown, width_of_stdout())))
    return DONE


def chosen(found: MemberList, target: Target) -> list[Member]:
    """The members that a target stands for; one that it names need not be there."""
    known = {member.node: member for member in found.members}
    tags = {name: Tags(member.tags, member.own_tags) for name, member in known.items()}
    named = set(target.nodes(tags))
    order = [member for name, member in known.items() if name in named]
    return [*order, *(Member(name, False) for name in sorted(named - known.keys()))]


def _render(members: list[Member], width: int) -> list[str]:
    """The lines for people."""
    if not members:
        return ["no node"]
    head = ("NODE", "NEXT HOP", "HOPS", "RTT", "HEARD", "VERSION", "TAGS")
    cells = [
        (
            member.node,
            _next_hop(member),
            "-" if member.hops is None else str(member.hops),
            milliseconds(member.rtt),
            heard(member),
            member.version or "-",
            ", ".join([*member.tags, *(f"{tag} (own)" for tag in member.own_tags)]) or "-",
        )
        for member in members
    ]
    return [line.removeprefix("  ") for line in table(head, cells, width, names=2, note=True)]


def _next_hop(member: Member) -> str:
    if member.duplicate:
        return "two of them"
    if member.reachable:
        return member.next_hop or "-"
    return "left" if member.left is not None else "unreachable"


def heard(member: Member) -> str:
    """When a node was heard last, and by whom, if that was another one: `0.3 s ago`, `by north`, `12 s ago, north`."""
    if member.left is not None:
        return f"{age(member.left)} ago" + "".join(f", {by}" for by in member.heard_by)
    if member.heard is not None:
        return f"{age(member.heard)} ago"
    if not member.reachable or member.next_hop is None:
        return "-"
    more = f" +{len(member.heard_by) - 1}" if len(member.heard_by) > 1 else ""
    return f"by {member.heard_by[0]}{more}" if member.heard_by else "-"
