"""The commands about trust as Typer has them: their parameters and their help, as in `commands`."""

from functools import partial
from typing import Annotated

import typer

from zmesh_cli.conversion import Command, new_group, subcommands
from zmesh_cli.help import CONNECTION, OUTPUT, TRUST
from zmesh_cli.parameters import AsJson, end, option

app = new_group()

State = Annotated[
    str | None,
    option(
        "--state",
        metavar="DIR",
        help="The folder of the identity; by default ZMESH_STATE, systemd's STATE_DIRECTORY, or that of the current "
        "context.",
        panel=CONNECTION,
    ),
]
_option = partial(option, panel=TRUST)
AgentKey = Annotated[
    str | None,
    _option(
        "--agent",
        metavar="FILE",
        help="The authority's key is the one in ssh-agent whose public half (Ed25519) this file has; no file holds it.",
    ),
]
Listen = Annotated[
    list[str] | None,
    _option(
        "--listen",
        metavar="URL",
        help="Where 'zmesh node' will accept links: tcp://ADDRESS:PORT. May be given more than once.",
    ),
]


@app.command(cls=Command)
def init(
    name: Annotated[str, _option("--name", metavar="NAME", help="The name of the mesh; by default 'mesh'.")] = "mesh",
    listen: Listen = None,
    url: Annotated[
        list[str] | None,
        _option(
            "--url",
            metavar="URL",
            help="Where others reach this node, for tickets, such as behind a port that is forwarded; by default the "
            "addresses of this machine. May be given more than once.",
        ),
    ] = None,
    node_id: Annotated[
        str | None, _option("--id", metavar="ID", help="The id of this node; by default the host's name.")
    ] = None,
    passphrase: Annotated[
        bool,
        typer.Option(
            "--passphrase", help="Ask for a passphrase, and encrypt the authority's key with it.", rich_help_panel=TRUST
        ),
    ] = False,
    agent: AgentKey = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Make a mesh, and this node's identity.

    The authority is a key that decides who is in the mesh. It stays in a file here; 'zmesh invite' makes tickets that
    it accepts.

    A second one of the same name is refused, and nothing is overwritten.
    """
    from zmesh_cli.trust import init

    end(init(name, node_id, listen or [], url or [], ask=passphrase, agent=agent, state=state, as_json=as_json))


@app.command(cls=Command)
def identity(state: State = None, as_json: AsJson = False) -> None:
    """Show the identity of this node."""
    from zmesh_cli.trust import identity

    end(identity(state, as_json=as_json))


NodeId = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A node id: 1 to 64 of A-Z a-z 0-9 . _ -; such as edge-7.", show_default=False),
]
Tags = Annotated[
    list[str] | None,
    _option("--tag", metavar="TAG", help="A tag of the node, for permissions. May be given more than once."),
]


@app.command(cls=Command)
def invite(
    name: NodeId,
    tag: Tags = None,
    expires: Annotated[
        float | None,
        _option("--expires", metavar="SECONDS", help="How long the ticket may be used; by default 3600."),
    ] = None,
    url: Annotated[
        list[str] | None,
        _option(
            "--url",
            metavar="URL",
            help="Where the node that joins dials; by default as given to 'zmesh init'. May be given more than once.",
        ),
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Print a ticket that lets one node join.

    It works where 'zmesh init' was run. The ticket is a secret until it is used: whoever has it can become that node.
    """
    from zmesh_cli.authority import invite

    end(invite(name, tag or [], url or [], expires, state=state, as_json=as_json))


invites = subcommands(app, "invites", "List and take back tickets.")


@invites.command("ls", cls=Command)
def invites_ls(state: State = None, as_json: AsJson = False) -> None:
    """List tickets, also those of the last day."""
    from zmesh_cli.authority import invites_ls

    end(invites_ls(state=state, as_json=as_json))


@invites.command("rm", cls=Command)
def invites_rm(name: NodeId, state: State = None) -> None:
    """Take the tickets for a node back."""
    from zmesh_cli.authority import invites_rm

    end(invites_rm(name, state=state))


@app.command(cls=Command)
def join(
    what: Annotated[
        str,
        typer.Argument(
            metavar="TICKET",
            help="The ticket that 'zmesh invite' has printed, which begins with zm1; or a file that 'zmesh authority "
            "sign' or ssh-keygen has written.",
            show_default=False,
        ),
    ],
    listen: Listen = None,
    url: Annotated[
        list[str] | None,
        _option("--url", metavar="URL", help="Where others reach this node. May be given more than once."),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="Make the key of the node of that name, and a file to be signed, where there is no network.",
            rich_help_panel=TRUST,
        ),
    ] = False,
    authority: Annotated[
        str | None,
        _option("--authority", metavar="FILE", help="The public keys to trust, with a certificate of ssh-keygen."),
    ] = None,
    peer: Annotated[
        list[str] | None,
        _option("--peer", metavar="URL", help="Whom to dial, with a certificate of ssh-keygen; with its ?key=."),
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Join a mesh: as a node, or as a person.

    The key is made here, and stays here. The certificate comes from the node that has made the ticket. Compare the
    fingerprint that this prints with that of 'zmesh init'.
    """
    from zmesh_cli.join import join
    from zmesh_cli.signals import run

    given = {"listen": listen or [], "urls": url or [], "peers": peer or []}
    end(run(join(what, authority=authority, offline=offline, state=state, as_json=as_json, **given)))


authority = subcommands(app, "authority", "Show and change the authority's keys.")


@authority.command("ls", cls=Command)
def authority_ls(state: State = None, as_json: AsJson = False) -> None:
    """List authorities, and whom each has signed."""
    from zmesh_cli.authority import authority_ls

    end(authority_ls(state=state, as_json=as_json))


@authority.command("rotate", cls=Command)
def authority_rotate(
    finish: Annotated[
        bool,
        typer.Option("--finish", help="Have the next authority sign from now on.", rich_help_panel=TRUST),
    ] = False,
    passphrase: Annotated[
        bool,
        typer.Option(
            "--passphrase", help="Ask for a passphrase, and encrypt the next key with it.", rich_help_panel=TRUST
        ),
    ] = False,
    agent: AgentKey = None,
    state: State = None,
) -> None:
    """Make the next authority, or have it take over.

    Both are trusted meanwhile; with --finish the next one signs from then on.
    """
    from zmesh_cli.authority import authority_rotate

    end(authority_rotate(finish=finish, ask=passphrase, agent=agent, state=state))


@authority.command("sign", cls=Command)
def authority_sign(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="The public key that 'zmesh join --offline' has written.", show_default=False
        ),
    ],
    node_id: Annotated[
        str | None, _option("--id", metavar="ID", help="The id of the node; by default as the file says.")
    ] = None,
    tag: Tags = None,
    output: Annotated[
        str | None,
        _option("--output", metavar="FILE", help="Where to write; by default beside it, as NAME.signed."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.", rich_help_panel=OUTPUT)
    ] = False,
    state: State = None,
) -> None:
    """Sign the key of a node without a network."""
    from zmesh_cli.authority import authority_sign

    end(authority_sign(file, node_id, tag or [], output, state=state, force=force))


@authority.command("export", cls=Command)
def authority_export(state: State = None) -> None:
    """Print the public keys as OpenSSH has them."""
    from zmesh_cli.authority import authority_export

    end(authority_export(state=state))


@app.command(cls=Command)
def revoke(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="A node id, or the fingerprint of a key, which begins with SHA256: (see 'zmesh invites ls').",
            show_default=False,
        ),
    ],
    reason: Annotated[str, _option("--reason", metavar="TEXT", help="Why, for those who read of it.")] = "",
    state: State = None,
) -> None:
    """Have a node or a key believed no more.

    An id may be invited again, with a new key; a key stays revoked. The mesh learns of it within seconds, and a node
    that is down when it is back.
    """
    from zmesh_cli.authority import revoke

    end(revoke(subject, reason, state=state))


context = subcommands(app, "context", "Show and choose the meshes of this user.")


@context.command("ls", cls=Command)
def context_ls(as_json: AsJson = False) -> None:
    """List the contexts."""
    from zmesh_cli.contexts import ls

    end(ls(as_json=as_json))


ContextName = Annotated[str, typer.Argument(metavar="NAME", help="The name of a context.", show_default=False)]


@context.command("use", cls=Command)
def context_use(name: ContextName) -> None:
    """Make a context the current one."""
    from zmesh_cli.contexts import use

    end(use(name))


@context.command("rm", cls=Command)
def context_rm(
    name: ContextName,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete it although the authority's key of its mesh lies there.")
    ] = False,
) -> None:
    """Delete a context with its keys."""
    from zmesh_cli.contexts import rm

    end(rm(name, yes=yes))
