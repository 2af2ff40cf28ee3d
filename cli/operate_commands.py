"""The commands that show the mesh as Typer has them: their parameters and their help, as in `commands`."""

from typing import Annotated

import typer

from zmesh_cli.conversion import Command
from zmesh_cli.parameters import AsJson, Insecure, NodeOrHere, Peer, Verbose, finish, log, seconds


def status(
    node: NodeOrHere = None,
    timeout: Annotated[float | None, seconds("--timeout", "Limit for the answer; by default 10.")] = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Show the state of a node.

    What needs attention comes first. Then who it is and until when its certificate is valid, its work, memory, file
    descriptors and event loop, and its links: those that it dials and those that others dial, with cost, round-trip
    time and bytes each way; of one that is down, why and since when; and why they fell the last times.
    """
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.status import status

    log(verbose)
    finish(status(choose(peer, node, insecure=insecure), node, timeout=timeout, as_json=as_json))


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(cls=Command)(status)
