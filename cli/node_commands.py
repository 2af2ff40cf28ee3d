"""The commands that run nodes as Typer has them: their parameters and their help, as in `commands`."""

from typing import Annotated

import typer

from zmesh_cli.conversion import Command, new_group
from zmesh_cli.help import OUTPUT
from zmesh_cli.parameters import (
    ConfigFile,
    Listen,
    LogFormat,
    Metrics,
    NodeId,
    NodeInsecure,
    NodePeer,
    NodeSettings,
    NodeState,
    Verbose,
    finish,
    log,
)

app = new_group()


@app.command(cls=Command)
def node(
    node_id: NodeId = None,
    listen: Listen = None,
    peer: NodePeer = None,
    config: ConfigFile = None,
    insecure: NodeInsecure = False,
    state: NodeState = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print events on stdout, one JSON object a line.", rich_help_panel=OUTPUT)
    ] = False,
    log_format: LogFormat = None,
    metrics: Metrics = None,
    verbose: Verbose = 0,
    until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)] = False,
) -> None:
    """Run a node until Ctrl-C or SIGTERM.

    Every setting of a node can be given by environment: its variable is ZMESH_ and its name in capitals, such as
    ZMESH_HEARTBEAT or ZMESH_PEERS; the values of a list are separated by commas. An option goes before the environment,
    and that before the file of --config.

    The commands of this user on this machine find the node by themselves, also if it listens nowhere.

    On a signal it takes up to 5 seconds to finish its work; on a second one it stops at once.
    """
    from zmesh_cli.node import run_node

    settings = NodeSettings(config, node_id, listen, peer, insecure, state, log_format, metrics)
    finish(run_node(settings, as_json=as_json, verbose=verbose, until_eof=until_stdin_closes))


@app.command(cls=Command)
def demo() -> None:
    """Show a mesh of five nodes at work.

    One of them is killed, and the others find a new path. The nodes run on this machine for a few seconds, listen on
    the loopback address only, and leave nothing behind.
    """
    from zmesh_cli.demo import demo

    log(0)
    finish(demo())
