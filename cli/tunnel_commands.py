"""The commands that reach ports through the mesh as Typer has them: their parameters and their help."""

from typing import Annotated

import typer

from zmesh_cli.conversion import Command, new_group
from zmesh_cli.parameters import AsJson, Insecure, Node, Peer, RouteTimeout, Verbose, finish, log

app = new_group()


@app.command(cls=Command)
def forward(
    listen: Annotated[
        str,
        typer.Argument(
            metavar="[HOST:]PORT",
            help="Where to listen on this machine; at localhost without a HOST. PORT 0 is any free one.",
        ),
    ],
    to: Annotated[
        str,
        typer.Argument(
            metavar="NODE:[HOST:]PORT",
            help="Where it leads: a port as NODE sees it, at its localhost without a HOST; or NODE:NAME of a service "
            "that it exposes.",
        ),
    ],
    route_timeout: RouteTimeout = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
    until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)] = False,
) -> None:
    """Let a port here lead to a port at a node.

    Each connection to it is one that the node makes there, until Ctrl-C. One that the node can't make is reset, and a
    line on stderr says why.

    The node must allow it: [allow] "tcp:connect" in its configuration names who may, and [tcp] targets says to which
    hosts and ports; by default to those of its own loopback.
    """
    from zmesh_cli.forward import forward
    from zmesh_cli.local_sockets import choose

    log(verbose)
    node = to.partition(":")[0]
    where = choose(peer, node, insecure=insecure)
    options = {"as_json": as_json, "until_eof": until_stdin_closes}
    finish(forward(where, listen, to, route_timeout=route_timeout, **options))


@app.command(cls=Command)
def expose(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="What others call it: 1 to 63 of a-z, 0-9 and '-', a letter among them."),
    ],
    port: Annotated[
        str,
        typer.Argument(
            metavar="[HOST:]PORT",
            help="Where it is, as the node sees it; at its localhost without a HOST.",
        ),
    ],
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Let others reach a port by a name.

    The node where this command joins exposes it, until Ctrl-C: others forward to NODE:NAME. [allow] "tcp:NAME" in its
    configuration names who may.

    The port is one that [tcp] targets allows there; by default one of its own loopback.
    """
    from zmesh_cli.forward import expose
    from zmesh_cli.local_sockets import choose

    log(verbose)
    finish(expose(choose(peer, insecure=insecure), name, port, as_json=as_json))


@app.command(cls=Command)
def nc(
    node: Node,
    port: Annotated[
        str,
        typer.Argument(
            metavar="[HOST:]PORT",
            help="The port as the node sees it, at its localhost without a HOST; or the NAME of a service that it "
            "exposes.",
        ),
    ],
    route_timeout: RouteTimeout = None,
    peer: Peer = None,
    insecure: Insecure = False,
    verbose: Verbose = 0,
) -> None:
    """Join stdin and stdout to a port at a node.

    What comes on stdin is sent there, and what is received goes to stdout, unchanged. Each of the two ends by itself;
    at a terminal it is over when the other end has nothing more to send.

    As a ProxyCommand of OpenSSH it lets ssh, scp, rsync and git reach any node.
    """
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.nc import nc

    log(verbose)
    finish(nc(choose(peer, node, insecure=insecure), node, port, route_timeout=route_timeout))
