"""The commands that work on machines as Typer has them: their parameters and their help, as in `commands`."""

from typing import Annotated

import typer

from zmesh_cli.conversion import Command
from zmesh_cli.help import COMMAND
from zmesh_cli.parameters import Insecure, Node, Peer, RouteTimeout, Verbose, check_seconds, finish, log


def run(
    node: Node,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND", help="After --, the program that it is to run, and its arguments.", show_default=False
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            "-e",
            metavar="NAME[=VALUE]",
            help="Set a variable of the command's environment, without =VALUE to its value here. May be given more "
            "than once.",
            show_default=False,
            rich_help_panel=COMMAND,
        ),
    ] = None,
    cwd: Annotated[
        str | None,
        typer.Option(
            "--cwd",
            metavar="DIR",
            help="Run it in this directory of the node; by default the home of its user.",
            show_default=False,
            rich_help_panel=COMMAND,
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            metavar="NAME",
            help="Run it as this user of the node, which must run as root.",
            show_default=False,
            rich_help_panel=COMMAND,
        ),
    ] = None,
    shell: Annotated[
        bool,
        typer.Option("--shell", help="Have a shell there (/bin/sh) run the words as a line.", rich_help_panel=COMMAND),
    ] = False,
    terminal: Annotated[
        bool,
        typer.Option(
            "-t", "--terminal", help="Run it in a terminal, of the size of this one.", rich_help_panel=COMMAND
        ),
    ] = False,
    no_stdin: Annotated[
        bool, typer.Option("-n", "--no-stdin", help="Send it no standard input.", rich_help_panel=COMMAND)
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            callback=check_seconds,
            help="Stop it after so long; by default never.",
            show_default=False,
            rich_help_panel=COMMAND,
        ),
    ] = None,
    route_timeout: RouteTimeout = None,
    peer: Peer = None,
    insecure: Insecure = False,
    verbose: Verbose = 0,
) -> None:
    """Run a command at a node.

    Its stdin, stdout, stderr and exit code are those of this command; a command that signal N ends has 128 + N. If the
    mesh fails, the exit code is 255, and a line on stderr says why. Ctrl-C, SIGTERM, SIGHUP and SIGQUIT are passed on;
    a second one stops the command and all that it has started.

    The node must allow it: [allow] "exec:run" in its configuration names who may.
    """
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.run import Command as Line
    from zmesh_cli.run import run

    log(verbose)
    options = {"directory": cwd, "user": user, "timeout": timeout, "stdin": not no_stdin}
    command = Line.of(words or [], env or [], shell=shell, terminal=terminal, **options)
    finish(run(choose(peer, node, insecure=insecure), node, command, route_timeout=route_timeout))


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(cls=Command)(run)
