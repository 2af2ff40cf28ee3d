"""`zmesh invite`, `invites`, `authority` and `revoke`: what is done where the authority's key lies."""

from __future__ import annotations

import asyncio
import json
import os
import time

from zmesh import MeshError, trust
from zmesh_cli.exit_codes import DONE, USAGE, Failure
from zmesh_cli.terminal import print_error, printable, record, write_line
from zmesh_cli.trust import PASSPHRASE, ask_passphrase, day, left, new_passphrase, public_line

RELOAD = "zmesh:reload"
RELOAD_WITHIN = 5.0
SHOWN = 12


def invite(
    node_id: str, tags: list[str], urls: list[str], expires: float | None, *, state: str | None, as_json: bool
) -> int:
    """Print a ticket; what is said about it goes to stderr."""
    identity = trust.load(state)
    expires = trust.INVITE_FOR if expires is None else expires
    before = trust.holders(identity, node_id)
    ticket = trust.invite(identity, node_id, tags=tags, urls=urls, expires=expires)
    if as_json:
        fields = {"node_id": node_id, "tags": tags, "urls": list(ticket.urls), "expires": ticket.expires}
        write_line(record("zmesh.invite/1", ticket=str(ticket), mesh=ticket.mesh, **fields))
        return DONE
    write_line(f"{ticket}\n")
    if all(map(trust.is_loopback, ticket.urls)):
        print_error(f"{', '.join(ticket.urls)} can be dialled on this machine alone; --url names another address")
    for each in before:
        print_error(
            f"{node_id!r} has a certificate already, for the key {each.key}, valid until {day(each.not_after)}; if it "
            f"is another machine: zmesh revoke {each.key}"
        )
    return DONE


def invites_ls(*, state: str | None, as_json: bool) -> int:
    """List the tickets that are out."""
    now = time.time()
    found = trust.invites(trust.load(state))
    for each in found:
        status = each.status(now)
        if as_json:
            fields = {"node_id": each.node_id, "tags": list(each.tags), "status": status, "expires": each.expires}
            write_line(record("zmesh.invites/1", **fields, created=each.created, used_by=each.used_by or None))
            continue
        until = f"until {time.strftime('%H:%M', time.localtime(each.expires))}" if status == "open" else ""
        by = f"by {each.used_by}" if each.used_by else ""
        write_line(f"{printable(each.node_id):<20}  {status:<8}  {until or by}\n")
    if not (found or as_json):
        print_error("no tickets are out; zmesh invite NAME makes one")
    return DONE


def invites_rm(node_id: str, *, state: str | None) -> int:
    """Take tickets back."""
    if not trust.remove_invites(trust.load(state), node_id):
        raise Failure(f"no ticket is out for {node_id!r}; zmesh invites ls lists them", USAGE)
    return DONE


def authority_ls(*, state: str | None, as_json: bool) -> int:
    """List the authorities of the mesh, and who has a certificate of which."""
    now = time.time()
    for each in trust.standings(trust.load(state)):
        role = "signs" if each.signs else "next" if each.is_next else "trusted"
        role = "revoked" if each.revoked else role
        if as_json:
            fields = {"fingerprint": each.authority.fingerprint, "role": role, "nodes": list(each.nodes)}
            times = {"not_before": each.authority.not_before, "not_after": each.authority.not_after}
            write_line(record("zmesh.authority/1", **fields, **times))
            continue
        valid = f"until {day(each.authority.not_after)}, {left(each.authority.not_after - now)}"
        write_line(f"{role:<8}  {trust.grouped(each.authority.fingerprint)}\n          {valid}\n")
        if each.nodes:
            more = f" and {len(each.nodes) - SHOWN} more" if len(each.nodes) > SHOWN else ""
            write_line(f"          has signed {printable(', '.join(each.nodes[:SHOWN]))}{more}\n")
    return DONE


def authority_rotate(*, finish: bool, ask: bool, agent: str | None, state: str | None) -> int:
    """Make the next authority, or have it sign from now on."""
    identity = trust.load(state)
    issuer = _issuer(identity)
    if finish:
        mark = trust.finish_rotation(issuer)
        reload_node(identity)
        write_line(
            f"{trust.grouped(mark)} signs from now on.\n"
            "Certificates of the former one are replaced as they are renewed; 'zmesh authority ls' lists the\n"
            "nodes that still have one. When there is none, revoke the former authority by its fingerprint.\n"
        )
        return DONE
    passphrase, agent_key = new_passphrase() if ask else None, public_line(agent)
    made = trust.begin_rotation(issuer, identity, passphrase, agent_key)
    reload_node(identity)
    write_line(
        f"next authority  {trust.grouped(made.fingerprint)}\n"
        "Nodes that are up learn of it now, others when they are back. Back up its key.\n"
        "When all that matter have been up: zmesh authority rotate --finish\n"
    )
    return DONE


def authority_sign(
    file: str, node_id: str | None, tags: list[str], output: str | None, *, state: str | None, force: bool
) -> int:
    """Sign the public key of a node that joins without a network."""
    identity = trust.load(state)
    try:
        with open(file, encoding="utf-8") as source:
            line = source.read(4096)
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"can't read {file}: {getattr(error, 'strerror', None) or error}", USAGE) from None
    signed = trust.sign(_issuer(identity), identity, line, node_id, tags=tags)
    where = output if output is not None else f"{os.path.splitext(file)[0]}.signed"
    text = json.dumps(signed, indent=1) + "\n"
    if where == "-":
        write_line(text)
        return DONE
    try:
        with open(where, "w" if force else "x", encoding="utf-8") as target:
            target.write(text)
    except OSError as error:
        raise Failure(f"can't write {where}: {error.strerror} (--output FILE)", USAGE) from None
    write_line(f"{printable(where)} is for the machine of the key: zmesh join {printable(where)}\n")
    return DONE


def authority_export(*, state: str | None) -> int:
    """Print the public keys of the authorities."""
    for each in trust.standings(trust.load(state)):
        if not each.revoked:
            write_line(f"{trust.public_line(each.authority.public)}\n")
    return DONE


def revoke(subject: str, reason: str, *, state: str | None) -> int:
    """Revoke a node id or a key."""
    identity = trust.load(state)
    trust.revoke(_issuer(identity), identity, subject, reason)
    reloaded = reload_node(identity)
    if reloaded:
        write_line(f"{printable(subject)} is revoked; the mesh learns of it now, and ends its links.\n")
    else:
        write_line(f"{printable(subject)} is revoked; the mesh learns of it when the node of this identity runs.\n")
    return DONE


def reload_node(identity: trust.Identity) -> bool:
    """Have the node of this identity read its state anew, if it runs here; whether it has."""
    from zmesh_cli.local_sockets import Place, named
    from zmesh_cli.session import Session

    url = named(identity.node_id)
    if url is None:
        return False

    async def reload() -> None:
        async with Session(Place(url, False)) as session:
            await session.controller.request(session.host, RELOAD, timeout=RELOAD_WITHIN)

    try:
        asyncio.run(reload())
    except (Failure, MeshError) as error:
        print_error(f"the node {identity.node_id!r} here does not know of it yet: {error}; zmesh reload")
        return False
    return True


def _issuer(identity: trust.Identity) -> trust.Issuer:
    """The authority's key, with its passphrase if it has one."""
    given = os.environ.get(PASSPHRASE) or None
    try:
        return trust.Issuer.load(identity, given)
    except trust.LockedKey:
        return trust.Issuer.load(identity, ask_passphrase("the authority's key"))
