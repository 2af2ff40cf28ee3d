"""The commands about trust as Typer has them: their parameters and their help, as in `commands`."""

from typing import Annotated, NoReturn

import typer

from zmesh_cli.conversion import Command, Group
from zmesh_cli.help import CONNECTION, OUTPUT, TRUST

State = Annotated[
    str | None,
    typer.Option(
        "--state",
        metavar="DIR",
        help="The folder of the identity; by default ZMESH_STATE, systemd's STATE_DIRECTORY, or that of the current "
        "context.",
        show_default=False,
        rich_help_panel=CONNECTION,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.", rich_help_panel=OUTPUT)]


def _option(*flags: str, metavar: str, help: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(
        *flags, metavar=metavar, help=help, show_default=False, rich_help_panel=TRUST
    )
    return found


def _group(name: str, help: str) -> typer.Typer:
    return typer.Typer(
        name=name, cls=Group, help=help, no_args_is_help=True, add_completion=False, rich_markup_mode=None
    )


def init(
    name: Annotated[str, _option("--name", metavar="NAME", help="The name of the mesh; by default 'mesh'.")] = "mesh",
    listen: Annotated[
        list[str] | None,
        _option(
            "--listen",
            metavar="URL",
            help="Where 'zmesh node' will accept links: tcp://ADDRESS:PORT. May be given more than once.",
        ),
    ] = None,
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
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Make a mesh, and the identity of this node.

    The authority is a key that decides who is in the mesh. It stays in a file here; 'zmesh invite' makes tickets that
    it accepts.

    A second one of the same name is refused, and nothing is overwritten.
    """
    from zmesh_cli.trust import init

    _end(init(name, node_id, listen or [], url or [], ask=passphrase, state=state, as_json=as_json))


def identity(state: State = None, as_json: AsJson = False) -> None:
    """Show the identity of this node."""
    from zmesh_cli.trust import identity

    _end(identity(state, as_json=as_json))


context = _group("context", "Show and choose the meshes of this user.")


@context.command("ls", cls=Command)
def context_ls(as_json: AsJson = False) -> None:
    """List the contexts."""
    from zmesh_cli.contexts import ls

    _end(ls(as_json=as_json))


ContextName = Annotated[str, typer.Argument(metavar="NAME", help="The name of a context.", show_default=False)]


@context.command("use", cls=Command)
def context_use(name: ContextName) -> None:
    """Make a context the current one."""
    from zmesh_cli.contexts import use

    _end(use(name))


@context.command("rm", cls=Command)
def context_rm(
    name: ContextName,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete it although the authority's key of its mesh lies there.")
    ] = False,
) -> None:
    """Delete a context with its keys."""
    from zmesh_cli.contexts import rm

    _end(rm(name, yes=yes))


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command(cls=Command)(init)
    app.command(cls=Command)(identity)
    app.add_typer(context)


def _end(code: int) -> NoReturn:
    raise typer.Exit(code)
