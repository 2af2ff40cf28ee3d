"""The command that copies files as Typer has it: its parameters and its help."""

from typing import Annotated, Any

import typer

from zmesh_cli.conversion import Command, new_group
from zmesh_cli.help import COMMAND, FLEET
from zmesh_cli.parameters import (
    AsJson,
    Canary,
    Insecure,
    MaxParallel,
    Peer,
    PerNodeTimeout,
    RouteTimeout,
    StopAfter,
    Verbose,
    complete_targets,
    finish,
    given,
    log,
)

app = new_group()


@app.command(cls=Command)
def cp(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC... DST",
            help="What to copy, and where to: a path of this machine, or NODE:PATH. Several go into a directory; with "
            "--to, DST is a path at those nodes.",
            show_default=False,
        ),
    ],
    recursive: Annotated[
        bool,
        typer.Option("-r", "--recursive", help="Copy directories too, and links as links.", rich_help_panel=COMMAND),
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="TARGET",
            help="Copy to several nodes: NODE, tag:NAME, !NODE to leave it out, or several with commas between them; "
            "* for all.",
            show_default=False,
            autocompletion=complete_targets,
            rich_help_panel=FLEET,
        ),
    ] = None,
    max_parallel: MaxParallel = None,
    canary: Canary = None,
    stop_after: StopAfter = None,
    per_node_timeout: PerNodeTimeout = None,
    route_timeout: RouteTimeout = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Copy files to nodes and from them.

    To a node, from one, from one to another, or to many.

    Each file gets its name when it is whole and on the disk, with the mode and time of the source. A copy that was
    broken off goes on where it was when the same command is given again; a file that is there with the same size, mode
    and time is not sent again. A relative path at a node starts in the home of the node's user.

    Ctrl-C ends it. The exit code is 0 only if all was copied; a line on stderr says what was not.

    The node must allow it: [allow] "file:read" and "file:write" in its configuration name who may, and [file] says in
    which directories.
    """
    from zmesh_cli.cp import Copy, cp, cp_many, nodes_in
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.nodes import target_of

    log(verbose)
    if len(places) < 2:
        raise typer.BadParameter("give what to copy, and where to, such as in: zmesh cp notes.txt edge-7:/tmp/")
    rules: dict[str, Any] = given(
        max_parallel=max_parallel, canary=canary, stop_after=stop_after, per_node_timeout=per_node_timeout
    )
    copy = Copy(places[:-1], places[-1], recursive, rules)
    options: dict[str, Any] = {"route_timeout": route_timeout, "as_json": as_json}
    if to is not None:
        nodes_in(copy.sources)
        finish(cp_many(choose(peer, insecure=insecure), target_of(to), copy, **options))
    if rules:
        raise typer.BadParameter(f"--{next(iter(rules)).replace('_', '-')} is for several nodes; give them with --to")
    nodes = nodes_in(places)
    if not nodes:
        raise typer.BadParameter("neither place is at a node; one at a node is written NODE:PATH, as in edge-7:/tmp")
    finish(cp(choose(peer, nodes[0], insecure=insecure), nodes, copy, **options))
