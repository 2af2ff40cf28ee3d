"""The commands, as Typer sees them: what each takes and what its help says. What they do is imported when one runs."""

from __future__ import annotations

import math
import os
from collections.abc import Coroutine
from typing import Annotated, Any, NoReturn

import typer

from zmesh_cli.conversion import Command, Group

app = typer.Typer(
    cls=Group,
    help="A mesh of programs over ZeroMQ, with no broker.",
    epilog="Exit codes: 0 done, 1 the remote work failed, 2 usage, 3 unreachable, 4 timed out, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import zmesh

        typer.echo(f"zmesh {zmesh.__version__}")
        raise typer.Exit


def _seconds(value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter("it must be a number of seconds above 0")
    return value


def _interval(value: float) -> float:
    if not 0 <= value < math.inf:
        raise typer.BadParameter("it must be a number of seconds, 0 or more")
    return value


def _count(value: int) -> int:
    if value < 1:
        raise typer.BadParameter("it must be 1 or more")
    return value


Node = Annotated[str, typer.Argument(metavar="NODE", help="The node's name.", show_default=False)]
Peer = Annotated[
    str | None,
    typer.Option(
        "--peer",
        metavar="URL",
        envvar="ZMESH_PEER",
        help="Join the mesh at this node (or its name, if it is a local one); else at the local one.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Verbose = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="Tell more on stderr; twice: all.", show_default=False)
]


@app.callback()
def _zmesh(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A mesh of programs over ZeroMQ, with no broker."""


@app.command(cls=Command)
def node(
    node_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Its name, unique in the mesh.", show_default=False)
    ] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option("--listen", metavar="URL", help="Listen here; port * is any free one.", show_default=False),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", metavar="URL", help="Keep a link to the node there.", show_default=False),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="Settings, in TOML.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = 0,
    until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)] = False,
) -> None:
    """Run a node until Ctrl-C or SIGTERM.

    --listen and --peer may be given more than once. A setting that is not given comes from the environment, else from
    the file. Its variable is ZMESH_ and its name in capitals: ZMESH_NODE_ID, ZMESH_HEARTBEAT, ZMESH_PEERS (a list has
    commas). The commands of this user on this machine find the node by themselves, also if it listens nowhere.

    When told to stop, it takes up to 5 seconds to finish what it works on; told twice, it stops at once.
    """
    from zmesh_cli.node import run_node

    _finish(run_node(config, node_id, listen, peer, as_json=as_json, verbose=verbose, until_eof=until_stdin_closes))


@app.command(cls=Command)
def ping(
    node: Node,
    count: Annotated[int, typer.Option("-c", "--count", metavar="COUNT", callback=_count, help="How many pings.")] = 4,
    interval: Annotated[
        float,
        typer.Option(
            "-i", "--interval", metavar="SECONDS", callback=_interval, help="From one to the next; 0: when answered."
        ),
    ] = 1.0,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            callback=_seconds,
            help="To wait for each answer; else 5.",
            show_default=False,
        ),
    ] = None,
    route_timeout: Annotated[
        float | None,
        typer.Option(
            "--route-timeout",
            metavar="SECONDS",
            callback=_seconds,
            help="To go on without a route to the node; else 30.",
            show_default=False,
        ),
    ] = None,
    peer: Peer = None,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Ask a node for signs of life, and time them.

    One line for each answer, then how many were lost and how long they took. Succeeds if there was any answer.
    """
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.ping import ping

    _log(verbose)
    limits = {"timeout": timeout, "route_timeout": route_timeout}
    _finish(ping(choose(peer, node), node, count=count, interval=interval, as_json=as_json, **limits))


@app.command(cls=Command)
def send(
    node: Node,
    directive: Annotated[str, typer.Argument(metavar="DIRECTIVE", help="What to do, such as http:execute.")],
    payload: Annotated[
        str | None,
        typer.Argument(
            metavar="[PAYLOAD | - | @FILE]", help="Text; - for stdin, @FILE for a file.", show_default=False
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            callback=_seconds,
            help="To wait for the last reply; else as long as the node can be reached.",
            show_default=False,
        ),
    ] = None,
    route_timeout: Annotated[
        float | None,
        typer.Option(
            "--route-timeout",
            metavar="SECONDS",
            callback=_seconds,
            help="To go on without a route to the node; else 30.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the replies there, once all of them have come.",
            show_default=False,
        ),
    ] = None,
    peer: Peer = None,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Have a node do something, print its replies.

    The replies go to stdout as they come, one after the other, and nothing else does; only if stdout is a terminal,
    control characters other than newline and tab are shown as escapes. With --output they go to the file, which is
    there when all of them have come and the work has succeeded, and is left as it was otherwise. Ctrl-C stops the work
    at the other node too.
    """
    from zmesh_cli.input import open_input
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.send import send

    _log(verbose)
    limits = {"timeout": timeout, "route_timeout": route_timeout}
    _finish(send(choose(peer, node), node, directive, open_input(payload), as_json=as_json, into=output, **limits))


@app.command(cls=Command)
def routes(
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="Whose; that of the peer itself if left out.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            callback=_seconds,
            help="To wait for the answer; else 10.",
            show_default=False,
        ),
    ] = None,
    peer: Peer = None,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Show routes, links and directives.

    The routes are those of NODE; the links and what each node can do are as that node knows them.
    """
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.routes import routes

    _log(verbose)
    _finish(routes(choose(peer, node), node, timeout=timeout, as_json=as_json))


@app.command(cls=Command)
def cancel(
    message_id: Annotated[
        str,
        typer.Argument(
            metavar="MESSAGE_ID",
            help="The request's, as 'zmesh send -v' and 'zmesh ping --json' tell it, or as a number.",
            show_default=False,
        ),
    ],
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="Where the work runs; if left out, every node is asked.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            callback=_seconds,
            help="To wait for the work to end; else 10.",
            show_default=False,
        ),
    ] = None,
    peer: Peer = None,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Stop work at another node, whoever asked for it.

    Succeeds when the work has ended; who asked for it is told that it was cancelled, and by whom.
    """
    from zmesh_cli.cancel import cancel
    from zmesh_cli.local_sockets import choose

    _log(verbose)
    _finish(cancel(choose(peer, node), message_id, node, timeout=timeout, as_json=as_json))


@app.command(cls=Command)
def demo() -> None:
    """Watch a mesh of five nodes work and heal.

    They run on this machine for a few seconds, listen on the loopback address only, and leave nothing behind.
    """
    from zmesh_cli.demo import demo

    _log(0)
    _finish(demo())


def _log(verbose: int) -> None:
    """Set up the log of a command that joins a mesh, and mention variables that are misspelt."""
    from zmesh.config import unknown_variables
    from zmesh_cli.logs import set_up_logging
    from zmesh_cli.terminal import print_error

    set_up_logging(verbose)
    for line in unknown_variables(os.environ):
        print_error(line)


def _finish(work: Coroutine[Any, Any, int]) -> NoReturn:
    from zmesh_cli.signals import run

    raise typer.Exit(run(work))
