"""The commands that send requests as Typer has them: their parameters and their help, as in `commands`."""

from typing import Annotated

import typer

from zmesh_cli.conversion import Command, new_group
from zmesh_cli.help import OUTPUT, REQUEST
from zmesh_cli.parameters import (
    AsJson,
    Insecure,
    Node,
    Peer,
    RouteTimeout,
    Verbose,
    check_count,
    check_interval,
    complete_directives,
    complete_targets,
    finish,
    log,
    seconds,
)

app = new_group()


@app.command(cls=Command)
def ping(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[TARGET]",
            autocompletion=complete_targets,
            help="The id of a node, such as edge-7, of an ephemeral one ID@NODE; or which nodes: tag:NAME, !NODE to "
            "leave it out, or several with commas between them.",
            show_default=False,
        ),
    ] = None,
    all_nodes: Annotated[bool, typer.Option("--all", help="Ping all nodes, once.", rich_help_panel=REQUEST)] = False,
    count: Annotated[
        int,
        typer.Option(
            "-c", "--count", metavar="COUNT", callback=check_count, help="Number of pings.", rich_help_panel=REQUEST
        ),
    ] = 4,
    interval: Annotated[
        float,
        typer.Option(
            "-i",
            "--interval",
            metavar="SECONDS",
            callback=check_interval,
            help="Time from one ping to the next; with 0 it is sent when the one before is answered.",
            rich_help_panel=REQUEST,
        ),
    ] = 1.0,
    timeout: Annotated[float | None, seconds("--timeout", "Limit for each answer; by default 5.")] = None,
    route_timeout: RouteTimeout = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Measure round-trip times to nodes.

    Prints a line for each answer, then how many were lost and how long they took. Exits with 0 if there was any answer.

    Several nodes, or all, are pinged once, with a line for each: one that does not answer with the last node on the
    path that does. It ends when all have answered or failed, and exits with 0 only if none is missing that did not
    leave by itself.
    """
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.ping import ping, single

    log(verbose)
    node = single(target, all_nodes=all_nodes)
    if node is None:
        from zmesh_cli.ping_many import ping_many

        finish(ping_many(choose(peer, insecure=insecure), target, timeout=timeout, as_json=as_json))
    limits = {"timeout": timeout, "route_timeout": route_timeout}
    where = choose(peer, node, insecure=insecure)
    finish(ping(where, node, count=count, interval=interval, as_json=as_json, **limits))


@app.command(cls=Command)
def send(
    node: Node,
    directive: Annotated[
        str,
        typer.Argument(
            metavar="NAMESPACE:ACTION",
            help="The directive, which says what the node is to do, such as echo:echo; 'zmesh routes' lists those of "
            "each node.",
            autocompletion=complete_directives,
        ),
    ],
    payload: Annotated[
        str | None,
        typer.Argument(
            metavar="[PAYLOAD]",
            help="Text; - for standard input, @FILE for the content of a file; by default empty.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        seconds("--timeout", "Limit until the last reply; by default none, as long as the node can be reached."),
    ] = None,
    route_timeout: RouteTimeout = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "-H",
            "--metadata",
            metavar="KEY=VALUE",
            help="Metadata of the request, which the directive sees beside the payload. May be given more than once.",
            show_default=False,
            rich_help_panel=REQUEST,
        ),
    ] = None,
    content_type: Annotated[
        str | None,
        typer.Option(
            "--content-type",
            metavar="TYPE",
            help="What the payload is, such as application/json; by default text/plain for text, else "
            "application/octet-stream.",
            show_default=False,
            rich_help_panel=REQUEST,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the replies to this file, once all of them have come.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Send a directive and print the replies.

    The payloads of the replies go to stdout as they come, one after the other and nothing else. On a terminal, control
    characters other than newline and tab are shown as escapes, and the last line is ended.

    With --output they go to a file, which gets its name when the last reply has come and the work has succeeded. Until
    then a file of that name is left as it was. Ctrl-C stops the work at the other node too.
    """
    from zmesh_cli.input import open_input
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.send import described_by, send

    log(verbose)
    limits = {"timeout": timeout, "route_timeout": route_timeout}
    described = described_by(payload, content_type, metadata or [])
    given, where = open_input(payload), choose(peer, node, insecure=insecure)
    finish(send(where, node, directive, given, described, as_json=as_json, into=output, **limits))


@app.command(cls=Command)
def cancel(
    message_id: Annotated[
        str,
        typer.Argument(
            metavar="MESSAGE_ID",
            help="The id of the request, 32 hex digits: 'zmesh send -v' logs it, 'zmesh ping --json' lists it.",
            show_default=False,
        ),
    ],
    node: Annotated[
        str | None,
        typer.Argument(metavar="[NODE]", help="The id of the node where the work runs; by default all are asked."),
    ] = None,
    timeout: Annotated[float | None, seconds("--timeout", "Limit for the end of the work; by default 10.")] = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Stop work at another node.

    Any node may stop any work, whoever sent the request. Exits with 0 when the work has ended. Its sender gets a last
    reply that says that it was cancelled, and by whom.
    """
    from zmesh_cli.cancel import cancel
    from zmesh_cli.local_sockets import choose

    log(verbose)
    where = choose(peer, node, insecure=insecure)
    finish(cancel(where, message_id, node, timeout=timeout, as_json=as_json))
