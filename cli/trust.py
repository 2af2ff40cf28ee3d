"""`zmesh init` and `zmesh identity`: make a mesh, and show who a node is."""

from __future__ import annotations

import getpass
import os
import sys
import time

from zmesh import trust
from zmesh_cli.exit_codes import DONE, USAGE, Failure
from zmesh_cli.terminal import printable, record, write_line

PASSPHRASE = "ZMESH_PASSPHRASE"
DAY = 86400


def init(
    name: str,
    node_id: str | None,
    listen: list[str],
    urls: list[str],
    *,
    ask: bool,
    agent: str | None,
    state: str | None,
    as_json: bool,
) -> int:
    """Make a mesh, and say what it is and what comes next."""
    passphrase = new_passphrase() if ask else None
    if ask and agent is not None:
        raise Failure("--passphrase is for a key in a file; that of --agent lies in ssh-agent", USAGE)
    made = trust.init(
        name,
        node_id=node_id,
        listen=tuple(listen),
        urls=tuple(urls),
        passphrase=passphrase,
        agent_key=public_line(agent),
        state=state,
    )
    identity = made.identity
    authority = trust.Issuer.load(identity, passphrase)
    mark = trust.fingerprint(authority.public)
    if as_json:
        fields = {"mesh": identity.mesh, "node_id": identity.node_id, "fingerprint": mark, "state": identity.where}
        write_line(record("zmesh.init/1", **fields, authority=str(authority.where), urls=list(identity.profile.urls)))
        return DONE
    where = f"{authority.where}" if agent is None else f"in ssh-agent ({printable(agent)})"
    whoever = f"reads this file{' and has its passphrase' if ask else ''}" if agent is None else "can use that key"
    lines = [
        f"mesh {identity.mesh}",
        f"  fingerprint  {trust.grouped(mark)}",
        f"  this node    {identity.node_id}, valid until {day(identity.certificate.not_after)}, renewed by itself",
        f"  authority    {where}",
        f"               Whoever {whoever} decides who is in the mesh.",
        "               Back it up: without it nobody can join any more, and no certificate is renewed.",
    ]
    if made.context is not None:
        lines.append(f"  context      {made.context}, which commands use from now on")
    if not listen:
        lines.append("  This node listens nowhere, so that nobody can dial it: zmesh node --listen tcp://0.0.0.0:7323")
    elif all(map(trust.is_loopback, identity.profile.urls)):
        lines.append("  It can be reached from this machine alone; --url names another address for tickets.")
    lines += [
        "",
        "next:  zmesh node               runs it here",
        "       zmesh invite edge-7      makes a ticket for another machine",
    ]
    write_line("".join(f"{printable(line)}\n" for line in lines))
    return DONE


def public_line(file: str | None) -> str | None:
    """The public key in a file such as ssh-add -L or ~/.ssh has."""
    if file is None:
        return None
    try:
        with open(file, encoding="utf-8") as source:
            return source.read(4096)
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"can't read {file}: {getattr(error, 'strerror', None) or error}", USAGE) from None


def identity(state: str | None, *, as_json: bool) -> int:
    """Show who this node is."""
    shown = trust.load(state)
    now, certificate = time.time(), shown.certificate
    authority = trust.fingerprint(certificate.authority)
    renews = shown.renews_at
    if as_json:
        write_line(
            record(
                "zmesh.identity/1",
                node_id=shown.node_id,
                mesh=shown.mesh,
                tags=list(shown.tags),
                key=shown.fingerprint,
                authority=authority,
                not_before=certificate.not_before,
                not_after=certificate.not_after,
                renews_at=int(renews),
                state=shown.where,
                listen=list(shown.profile.listen),
                peers=list(shown.profile.peers),
                holds_authority=trust.holds_authority(shown),
            )
        )
        return DONE
    valid = f"until {day(certificate.not_after)}, {left(certificate.not_after - now)}"
    rows = [
        ("node", shown.node_id),
        ("mesh", shown.mesh),
        ("tags", ", ".join(shown.tags) or "none"),
        ("key", trust.grouped(shown.fingerprint)),
        ("authority", trust.grouped(authority)),
        ("valid", valid),
        ("renewal", "due" if renews <= now else f"from {day(renews)} on, by a node that runs"),
        ("state", shown.where),
    ]
    if shown.profile.listen:
        rows.append(("listens", ", ".join(shown.profile.listen)))
    if shown.profile.peers:
        rows.append(("dials", ", ".join(url.partition("?")[0] for url in shown.profile.peers)))
    if trust.holds_authority(shown):
        rows.append(("", "the authority's key lies here: this node lets others in"))
    write_line("".join(f"{name:<9}  {printable(value)}\n" for name, value in rows))
    return DONE


def new_passphrase() -> str:
    """A passphrase from ZMESH_PASSPHRASE, or typed twice on the terminal. Raises Failure."""
    if given := os.environ.get(PASSPHRASE):
        return given
    _check_terminal()
    first = getpass.getpass("passphrase for the authority's key: ")
    if not first or first != getpass.getpass("the same again: "):
        raise Failure("the two are not the same, or empty; nothing was made", USAGE)
    return first


def ask_passphrase(where: str) -> str:
    """The passphrase of a key. Raises Failure without a terminal to ask at."""
    _check_terminal()
    return getpass.getpass(f"passphrase of {where}: ")


def _check_terminal() -> None:
    if not sys.stdin.isatty():
        raise Failure(
            f"the authority's key needs a passphrase, and there is no terminal; give it in {PASSPHRASE}", USAGE
        )


def day(seconds: float) -> str:
    """A date, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def left(seconds: float) -> str:
    """How much is left of a validity."""
    if seconds <= 0:
        return "expired"
    return f"{seconds // DAY:.0f} days left" if seconds >= 2 * DAY else f"{seconds // 3600:.0f} h left"
