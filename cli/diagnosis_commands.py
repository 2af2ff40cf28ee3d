"""The commands that diagnose as Typer has them: their parameters and their help, as in `commands`."""

from typing import Annotated

import typer

from zmesh_cli.conversion import Command, new_group
from zmesh_cli.help import OUTPUT, REQUEST
from zmesh_cli.parameters import (
    AnyTarget,
    AsJson,
    At,
    Insecure,
    NodeOrHere,
    Peer,
    Verbose,
    check_number,
    finish,
    log,
    seconds,
)

app = new_group()


@app.command(cls=Command)
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


@app.command(cls=Command)
def events(
    node: NodeOrHere = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with those that come, until Ctrl-C.", rich_help_panel=REQUEST)
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="SPAN",
            help="Those of the last 90 (seconds), 15m, 1h or 2d.",
            show_default=False,
            rich_help_panel=REQUEST,
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--last",
            metavar="N",
            callback=check_number,
            help="So many at most; by default 50, or all of --since.",
            show_default=False,
            rich_help_panel=REQUEST,
        ),
    ] = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Show what has happened to a node.

    Links that came and went, nodes, what was refused and why, jobs, settings and certificates, the latest last. A node
    keeps the last 4,000 events; with an identity, over restarts too.
    """
    from zmesh_cli.events import events, seconds_of
    from zmesh_cli.local_sockets import choose

    log(verbose)
    span = seconds_of(since)
    where = choose(peer, node, insecure=insecure)
    finish(events(where, node, follow=follow, since=span, last=last, as_json=as_json))


@app.command(cls=Command)
def bundle(
    target: AnyTarget = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file; by default zmesh-DATE-TIME.tar.gz here.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    no_doctor: Annotated[
        bool,
        typer.Option("--no-doctor", help="Without examinations, which take seconds.", rich_help_panel=REQUEST),
    ] = False,
    at: At = None,
    timeout: Annotated[float | None, seconds("--timeout", "Limit for each answer; by default 30.")] = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Collect the state of nodes in a file.

    For a bug report: what status, nodes, graph, routes, doctor and events show of each, the settings of those that let
    them be seen, and all versions; no payloads, keys, passwords or other secrets, and of 256 nodes at most. The
    simulator can load the file as a mesh. The exit code is 0 if the file is there, whatever is missing in it, which
    stands on stderr.
    """
    from zmesh_cli.bundle import bundle
    from zmesh_cli.local_sockets import choose

    log(verbose)
    where = choose(peer, at, insecure=insecure)
    finish(bundle(where, target, at, output, timeout=timeout, examine=not no_doctor, as_json=as_json))
