"""`zmesh join`: make this machine, or this person, a member of a mesh."""

from __future__ import annotations

from zmesh import Unreachable, trust
from zmesh_cli.exit_codes import DONE, USAGE, Failure
from zmesh_cli.local_sockets import Place
from zmesh_cli.quantities import milliseconds
from zmesh_cli.session import Session
from zmesh_cli.terminal import print_error, printable, record, write_line
from zmesh_cli.trust import day

PING_WITHIN = 10.0
MAX_FILE = 1 << 20


async def join(
    what: str,
    listen: list[str],
    urls: list[str],
    *,
    authority: str | None,
    peers: list[str],
    offline: bool,
    state: str | None,
    as_json: bool,
) -> int:
    """Join with a ticket or a signed file, ping the hub, and print the path to it."""
    if offline:
        return begin_offline(what, state)
    if what.startswith("zm1"):
        ticket = trust.Ticket.parse(what)
        if authority or peers:
            raise Failure("a ticket names the authority and the peers itself", USAGE)
        made = await trust.join(ticket, state=state, listen=listen, urls=urls)
    else:
        given = None if authority is None else _read(authority)
        text = _read(what)
        made = trust.finish_offline(text, authorities=given, peers=peers, listen=listen, urls=urls, state=state)
    identity = made.identity
    path, problem = await _path(made) if identity.profile.peers else (None, "")
    mark = trust.fingerprint(identity.certificate.authority)
    if as_json:
        fields = {"mesh": identity.mesh, "node_id": identity.node_id, "tags": list(identity.tags), "fingerprint": mark}
        write_line(
            record("zmesh.join/1", **fields, state=identity.where, path=path and path[0], rtt_ms=path and path[1])
        )
        return DONE
    rows = [
        ("mesh", identity.mesh),
        ("fingerprint", f"{trust.grouped(mark)}, as 'zmesh identity' shows it at the hub"),
        ("this node", f"{identity.node_id}, valid until {day(identity.certificate.not_after)}, renewed by itself"),
    ]
    if identity.tags:
        rows.append(("tags", ", ".join(identity.tags)))
    if path is not None:
        rows.append(("path", f"{' > '.join(path[0])}, {milliseconds(path[1] / 1000)}"))
    write_line("".join(f"{name:<11}  {printable(text)}\n" for name, text in rows))
    if problem:
        print_error(f"joined, but no node answers yet: {problem}")
    if path is not None:
        write_line(
            f"\nnext:  zmesh node               runs it here\n       zmesh ping {path[0][-1]:<15} works without\n"
        )
    return DONE


async def _path(made: trust.Made) -> tuple[tuple[list[str], float] | None, str]:
    """The nodes from here to the hub and the round-trip time in milliseconds, or why it can't be reached."""
    identity = made.identity
    try:
        async with Session(Place(None, True), identity=identity) as session:
            pong = await session.ping(PING_WITHIN)
            return ([identity.node_id, session.host], 1000 * pong.rtt), ""
    except (Failure, Unreachable) as error:
        return None, str(error)


def begin_offline(node_id: str, state: str | None) -> int:
    """Make a key, and write its public half to a file."""
    line = trust.begin_offline(node_id, state=state)
    where = f"{node_id}.pub"
    try:
        with open(where, "w", encoding="utf-8") as target:
            target.write(line + "\n")
    except OSError as error:
        raise Failure(f"can't write {where}: {error.strerror}", USAGE) from None
    write_line(
        f"{where} is the public key of {printable(node_id)}; the private one stays here.\n"
        f"where the authority's key lies:  zmesh authority sign {where}\n"
        f"then here:                       zmesh join {node_id}.signed\n"
    )
    return DONE


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(MAX_FILE)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise Failure(f"{path!r} is no ticket (zm1...), and can't be read as a file: {why}", USAGE) from None
