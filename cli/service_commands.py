"""The commands about the settings of a node as Typer has them: their parameters and their help, as in `commands`."""

from typing import Annotated, NoReturn

import typer

from zmesh_cli.conversion import Command, Group
from zmesh_cli.help import CONNECTION
from zmesh_cli.parameters import AsJson, ConfigFile, Listen, NodeId, NodeInsecure, NodePeer, NodeSettings, finish


def reload(
    node: Annotated[
        str | None,
        typer.Argument(
            metavar="[NODE]",
            help="The id of a node of this user on this machine; by default that of the identity, or the only one.",
        ),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="DIR",
            help="The folder of the identity of the node.",
            show_default=False,
            rich_help_panel=CONNECTION,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read the settings of a local node anew.

    Peers, addresses, tags, permissions, limits and the log level change at once, and so do its certificate and trust.
    Links that stay in the settings are kept. What can't be used is one line, and changes nothing.
    """
    from zmesh_cli.service import reload

    finish(reload(node, state=state, as_json=as_json))


config = typer.Typer(
    name="config",
    cls=Group,
    help="Check and show the settings of a node.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@config.command("check", cls=Command)
def config_check(
    node_id: NodeId = None,
    listen: Listen = None,
    peer: NodePeer = None,
    file: ConfigFile = None,
    insecure: NodeInsecure = False,
    as_json: AsJson = False,
) -> None:
    """Say whether a node could be started with these settings.

    Reads the file, the environment and the identity as 'zmesh node' does, loads the plugins for their settings, and
    opens nothing. What is wrong is one line, with its place.
    """
    from zmesh_cli.service import check

    _end(check(NodeSettings(file, node_id, listen, peer, insecure), as_json=as_json))


@config.command("show", cls=Command)
def config_show(
    node_id: NodeId = None,
    listen: Listen = None,
    peer: NodePeer = None,
    file: ConfigFile = None,
    insecure: NodeInsecure = False,
    as_json: AsJson = False,
) -> None:
    """Show each setting, and where it comes from.

    That is its default, a line of the file, a variable of the environment, the command line, or the identity.
    """
    from zmesh_cli.service import show

    _end(show(NodeSettings(file, node_id, listen, peer, insecure), as_json=as_json))


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command(cls=Command)(reload)
    app.add_typer(config)


def _end(code: int) -> NoReturn:
    raise typer.Exit(code)
