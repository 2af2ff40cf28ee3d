"""The commands that find out what is wrong as Typer has them: their parameters and their help, as in `commands`."""

from typing import Annotated

import typer

from zmesh_cli.conversion import Command
from zmesh_cli.help import OUTPUT
from zmesh_cli.parameters import AsJson, Insecure, NodeOrHere, Peer, Verbose, finish, log, seconds


def doctor(
    node: NodeOrHere = None,
    timeout: Annotated[float | None, seconds("--timeout", "Limit for the answer; by default 30.")] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing; the exit code says it.", rich_help_panel=OUTPUT)
    ] = False,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Find what is wrong with a node.

    The node looks at its certificate, clock, id, version, peers and their names, links, limits, event loop,
    encryption, folders and the MTU of its paths, and asks its neighbours for theirs. What is wrong comes first, each
    with the command that mends it. The exit code is 0 only if all is well.
    """
    from zmesh_cli.doctor import doctor
    from zmesh_cli.local_sockets import choose

    log(verbose)
    where = choose(peer, node, insecure=insecure)
    finish(doctor(where, node, timeout=timeout, quiet=quiet, as_json=as_json))


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(cls=Command)(doctor)
