"""The commands about the settings of a node as Typer has them: their parameters and their help, as in `commands`."""

from typing import Annotated

import typer

from zmesh_cli.conversion import Command, new_group, subcommands
from zmesh_cli.help import NODE, OUTPUT
from zmesh_cli.parameters import (
    AsJson,
    ConfigFile,
    Listen,
    NodeId,
    NodeInsecure,
    NodePeer,
    NodeSettings,
    NodeState,
    end,
    finish,
)

app = new_group()


@app.command(cls=Command)
def reload(
    node: Annotated[
        str | None,
        typer.Argument(
            metavar="[NODE]",
            help="The id of a node of this user on this machine; by default that of the identity, or the only one.",
        ),
    ] = None,
    state: NodeState = None,
    as_json: AsJson = False,
) -> None:
    """Read the settings of a local node anew.

    Peers, addresses, tags, permissions, limits and the log level change at once, and so do its certificate and trust.
    Links that stay in the settings are kept. What can't be used is one line, and changes nothing.
    """
    from zmesh_cli.service import reload

    finish(reload(node, state=state, as_json=as_json))


config = subcommands(app, "config", "Check and show the settings of a node.")


@config.command("check", cls=Command)
def config_check(
    node_id: NodeId = None,
    listen: Listen = None,
    peer: NodePeer = None,
    file: ConfigFile = None,
    insecure: NodeInsecure = False,
    state: NodeState = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a node could start with these.

    Reads the file, the environment and the identity as 'zmesh node' does, loads the plugins for their settings, and
    opens nothing. What is wrong is one line, with its place.
    """
    from zmesh_cli.service import check

    end(check(NodeSettings(file, node_id, listen, peer, insecure, state), as_json=as_json))


@config.command("show", cls=Command)
def config_show(
    node_id: NodeId = None,
    listen: Listen = None,
    peer: NodePeer = None,
    file: ConfigFile = None,
    insecure: NodeInsecure = False,
    state: NodeState = None,
    as_json: AsJson = False,
) -> None:
    """Show each setting, and where it comes from.

    That is its default, a line of the file, a variable of the environment, the command line, or the identity.
    """
    from zmesh_cli.service import show

    end(show(NodeSettings(file, node_id, listen, peer, insecure, state), as_json=as_json))


service = subcommands(app, "service", "Run a node as a systemd unit.")
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="The name of the unit.", rich_help_panel=NODE)]
OfUser = Annotated[
    bool, typer.Option("--user", help="A unit of this user, also if that is root.", rich_help_panel=NODE)
]


@service.command("install", cls=Command)
def service_install(
    name: Name = "zmesh",
    user: OfUser = False,
    file: ConfigFile = None,
    state: NodeState = None,
    unconfined: Annotated[
        bool,
        typer.Option(
            "--unconfined",
            help="Without a sandbox: for a node whose commands (zmesh run) work on the machine.",
            rich_help_panel=NODE,
        ),
    ] = False,
    no_start: Annotated[
        bool, typer.Option("--no-start", help="Start it at the next boot only.", rich_help_panel=NODE)
    ] = False,
    only_print: Annotated[
        bool, typer.Option("--print", help="Print the unit, and do nothing.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Have systemd run a node from now on.

    As root it is a unit of the system, with a user and a folder of its own unless there is an identity, which is used
    then; for others a unit of this user. It is watched over, started again when it ends, and confined to what a node
    needs.
    """
    from zmesh_cli.systemd import install, unit_of

    unit = unit_of(name, user=user, config=file, state=state, unconfined=unconfined)
    end(install(unit, start=not no_start, only_print=only_print))


@service.command("uninstall", cls=Command)
def service_uninstall(name: Name = "zmesh", user: OfUser = False) -> None:
    """Stop the unit, and remove it.

    The identity and the state of the node stay.
    """
    from zmesh_cli.systemd import uninstall, unit_of

    end(uninstall(unit_of(name, user=user)))


@service.command("status", cls=Command)
def service_status(name: Name = "zmesh", user: OfUser = False, as_json: AsJson = False) -> None:
    """Show whether the unit runs.

    The exit code is 0 if it does, and 3 if not.
    """
    from zmesh_cli.systemd import status, unit_of

    end(status(unit_of(name, user=user), as_json=as_json))


@app.command(cls=Command)
def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.", show_default=False)],
) -> None:
    """Print the completion script of a shell.

    It completes node ids, targets and directives of the mesh too, where a node answers within a second. For bash put
    this into ~/.bashrc: source <(zmesh completion bash)
    """
    from zmesh_cli.completion import SHELLS, script

    if shell not in SHELLS:
        raise typer.BadParameter(f"it must be one of {', '.join(SHELLS)}")
    typer.echo(script(shell), nl=False)
