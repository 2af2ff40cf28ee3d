"""The commands that work on machines as Typer has them: their parameters and their help, as in `commands`."""

from typing import Annotated, Any

import typer

from zmesh_cli.conversion import Command, UsageError, new_group
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
    TargetOrAll,
    Verbose,
    check_seconds,
    finish,
    given,
    log,
)

app = new_group()

WORDS = "zmesh.words"


Env = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        "-e",
        metavar="NAME[=VALUE]",
        help="Set a variable of the command's environment, without =VALUE to its value here. May be given more than "
        "once.",
        show_default=False,
        rich_help_panel=COMMAND,
    ),
]
Cwd = Annotated[
    str | None,
    typer.Option(
        "--cwd",
        metavar="DIR",
        help="Run it in this directory of the node; by default the home of its user.",
        show_default=False,
        rich_help_panel=COMMAND,
    ),
]
User = Annotated[
    str | None,
    typer.Option(
        "--user",
        metavar="NAME",
        help="Run it as this user of the node, which must run as root.",
        show_default=False,
        rich_help_panel=COMMAND,
    ),
]
Shell = Annotated[
    bool,
    typer.Option("--shell", help="Have a shell there (/bin/sh) run the words as a line.", rich_help_panel=COMMAND),
]


class Run(Command):
    """A command whose arguments after `--` are not its own; they are in the context, by WORDS."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments before the first `--`."""
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[WORDS] = args[at + 1 :]
        try:
            return super().parse_args(ctx, args[:at])
        except UsageError as error:
            words = [word for word in args if not word.startswith("-")]
            is_command = len(words) > 1 and ":" not in words[1]  # words[0] is the target
            if at == len(args) and is_command and type(error).__name__ == "NoSuchOption":
                error.message += f"; what is to run comes after --, as in: {ctx.command_path} edge-7 -- uname -a"
            raise


@app.command(cls=Run)
def run(
    context: typer.Context,
    target: TargetOrAll = None,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND", help="After --, the program that it is to run, and its arguments.", show_default=False
        ),
    ] = None,
    env: Env = None,
    cwd: Cwd = None,
    user: User = None,
    shell: Shell = False,
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
    all_nodes: Annotated[bool, typer.Option("--all", help="Run it at all nodes.", rich_help_panel=FLEET)] = False,
    max_parallel: MaxParallel = None,
    canary: Canary = None,
    stop_after: StopAfter = None,
    per_node_timeout: PerNodeTimeout = None,
    group: Annotated[
        bool, typer.Option("--group", help="Print equal outputs once, when all have ended.", rich_help_panel=FLEET)
    ] = False,
    route_timeout: RouteTimeout = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Run a command at a node, or at many.

    Its stdin, stdout, stderr and exit code are those of this command; a command that signal N ends has 128 + N. If the
    mesh fails, the exit code is 255, and a line on stderr says why. Ctrl-C, SIGTERM, SIGHUP and SIGQUIT are passed on;
    a second one stops the command and all that it has started.

    At several nodes its output has the node before each line, it gets no standard input, and Ctrl-C stops it at all of
    them. The exit code is 0 only if it is done at all.

    The node must allow it: [allow] "exec:run" in its configuration names who may.
    """
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.nodes import target_of
    from zmesh_cli.run import Command as Line
    from zmesh_cli.run import run

    log(verbose)
    if all_nodes and target is not None:
        raise typer.BadParameter("give either a TARGET or --all; what is to run comes after --")
    if not all_nodes and target is None:
        raise typer.BadParameter("give a TARGET, such as edge-7 or tag:gpu, or --all")
    where = target_of(target)
    options = {"directory": cwd, "user": user, "timeout": timeout, "stdin": not no_stdin}
    line = [*(words or []), *context.meta[WORDS]]
    command = Line.of(line, env or [], shell=shell, terminal=terminal, **options)
    rules = given(max_parallel=max_parallel, canary=canary, stop_after=stop_after, per_node_timeout=per_node_timeout)
    if where.node is not None and not (rules or group or as_json):
        finish(run(choose(peer, where.node, insecure=insecure), where.node, command, route_timeout=route_timeout))
    if terminal:
        raise typer.BadParameter("a terminal (-t) is for one node")
    from zmesh_cli.fleet import Fleet, run_many

    fleet = Fleet(group=group, as_json=as_json, **rules)
    finish(run_many(choose(peer, insecure=insecure), where, command, fleet, route_timeout=route_timeout))
