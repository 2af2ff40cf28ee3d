"""The commands that show the mesh as Typer has them: their parameters and their help, as in `commands`."""

from typing import Annotated

import typer

from zmesh_cli.conversion import Command, new_group
from zmesh_cli.help import OUTPUT, REQUEST
from zmesh_cli.parameters import (
    AnswerTimeout,
    AnyTarget,
    AsJson,
    At,
    Insecure,
    Member,
    NodeOrHere,
    Peer,
    Verbose,
    check_number,
    check_positive,
    complete_tags,
    finish,
    log,
    seconds,
)

app = new_group()


@app.command(cls=Command)
def status(
    node: NodeOrHere = None,
    timeout: AnswerTimeout = None,
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


@app.command(cls=Command)
def nodes(
    target: AnyTarget = None,
    tag: Annotated[
        str | None,
        typer.Option(
            "--tag",
            metavar="NAME",
            help="Those with this tag.",
            show_default=False,
            autocompletion=complete_tags,
            rich_help_panel=REQUEST,
        ),
    ] = None,
    at: At = None,
    timeout: AnswerTimeout = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """List nodes, with what is known of each.

    All nodes of the mesh, or those that a target stands for: the next hop to each, how long a round trip took, when it
    was heard last, by whom if that is another node, its version of zmesh and its tags. Those that have left come last.

    A certificate gives a node its tags; those that it gives itself (tags = ["gpu"] in its configuration) are marked as
    its own.
    """
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.nodes import nodes, target_of

    log(verbose)
    chosen = target_of(target, tag)
    finish(nodes(choose(peer, at, insecure=insecure), chosen, at, timeout=timeout, as_json=as_json))


@app.command(cls=Command)
def trace(
    node: Member,
    at: At = None,
    timeout: Annotated[float | None, seconds("--timeout", "Limit for the answer of each hop; by default 5.")] = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Show the path to a node, hop by hop.

    Each node on the path is asked where it sends on, and is shown as soon as it has answered: the time that its answer
    took, and the link to the next hop with its round-trip time, its cost and what waits for it. Then the path back, if
    it is another one. Exits with 3 if the path ends before the node, and says where and why.
    """
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.trace import trace

    log(verbose)
    finish(trace(choose(peer, at, insecure=insecure), node, at, timeout=timeout, as_json=as_json))


@app.command(cls=Command)
def why(
    node: Member,
    at: At = None,
    timeout: AnswerTimeout = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Show why a route is as it is, or missing.

    The route in use, what every neighbour offers and why it is not taken, and which one takes over if the link is lost.
    Of a node that can't be reached: when its last route was lost, which node lost it, and why. Exits with 3 then.
    """
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.why import why

    log(verbose)
    finish(why(choose(peer, at, insecure=insecure), node, at, timeout=timeout, as_json=as_json))


@app.command(cls=Command)
def graph(
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="dot for Graphviz, svg for a drawing, or json.",
            rich_help_panel=OUTPUT,
        ),
    ] = "dot",
    at: At = None,
    timeout: AnswerTimeout = None,
    peer: Peer = None,
    insecure: Insecure = False,
    verbose: Verbose = 0,
) -> None:
    """Draw the nodes and links of the mesh.

    Beside each link stands its cost, once if both ends say the same. A dashed link is listed by one end only.
    """
    from zmesh_cli.graph import checked_format, graph
    from zmesh_cli.local_sockets import choose

    log(verbose)
    checked_format(form)
    finish(graph(choose(peer, at, insecure=insecure), at, form, timeout=timeout))


@app.command(cls=Command)
def top(
    target: AnyTarget = None,
    interval: Annotated[
        float,
        typer.Option(
            "-i",
            "--interval",
            metavar="SECONDS",
            callback=check_positive,
            help="Time from one sample to the next, at least; with many nodes it is longer.",
            rich_help_panel=REQUEST,
        ),
    ] = 2.0,
    sort: Annotated[
        str,
        typer.Option(
            "--sort",
            metavar="COLUMN",
            help="Order by name, requests, in, out, queue, lag, work or cpu.",
            rich_help_panel=OUTPUT,
        ),
    ] = "cpu",
    samples: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--samples",
            metavar="N",
            callback=check_number,
            help="End after so many samples; by default never.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Watch what the nodes do.

    Requests and bytes per second, bytes that wait for full links, the delay of the event loop, requests at work, and
    the share of a core. Keys sort by another column, and q ends it. Where stdout is no terminal, and with -n, each
    sample is a table of its own.
    """
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.nodes import target_of
    from zmesh_cli.top import checked_sort, top

    log(verbose)
    chosen, order = target_of(target), checked_sort(sort)
    where = choose(peer, insecure=insecure)
    finish(top(where, chosen, interval=interval, sort=order, count=samples, as_json=as_json))


@app.command(cls=Command)
def dashboard(
    page_port: Annotated[
        int,
        typer.Option(
            "--port",
            metavar="PORT",
            min=0,
            max=65535,
            help="The port of 127.0.0.1 that the page is at; by default a free one.",
            show_default=False,
            rich_help_panel=REQUEST,
        ),
    ] = 0,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Show the mesh in a browser.

    Prints the URL of a page that this machine alone can open, with a token in it: nodes and links as they are now, the
    path between two of them, what each node does, and what happens. Ctrl-C ends it. It needs the extra 'web'.
    """
    from zmesh_cli.dashboard import check_extra, dashboard
    from zmesh_cli.local_sockets import choose

    log(verbose)
    check_extra()
    finish(dashboard(choose(peer, insecure=insecure), port=page_port, as_json=as_json))


@app.command(cls=Command)
def routes(
    node: NodeOrHere = None,
    timeout: AnswerTimeout = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Show routes, links and directives.

    The routes are those of NODE, and so are the links and directives of the mesh, as this node knows them. A cost is
    what a link adds to a route: 100 for most links, more for slow ones; the route with the lowest sum is used. Hops are
    the links of a route.
    """
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.routes import routes

    log(verbose)
    finish(routes(choose(peer, node, insecure=insecure), node, timeout=timeout, as_json=as_json))
