"""The commands about jobs as Typer has them: their parameters and their help, as in `commands`."""

import re
from functools import partial
from typing import Annotated, Any

import typer

from zmesh_cli.conversion import Command, new_group, subcommands
from zmesh_cli.help import COMMAND, JOB, OUTPUT
from zmesh_cli.machine_commands import WORDS, Cwd, Env, Run, Shell, User
from zmesh_cli.parameters import (
    AnyTarget,
    AsJson,
    Insecure,
    Peer,
    RouteTimeout,
    Target,
    Verbose,
    check_number,
    check_seconds,
    complete_nodes,
    finish,
    log,
    option,
)

app = new_group()

job = subcommands(app, "job", "Leave work at nodes, and find it again.")


_option = partial(option, panel=JOB)


def _check_offset(value: int) -> int:
    if value < 0:
        raise typer.BadParameter("it must be 0 or more")
    return value


def _check_priority(value: int) -> int:
    if not -100 <= value <= 100:
        raise typer.BadParameter("it must be from -100 to 100")
    return value


def _check_restart(value: str) -> str:
    if value not in ("never", "on-restart") and re.fullmatch(r"[1-9][0-9]{0,2}|1000", value) is None:
        raise typer.BadParameter(f"it must be never, on-restart or a number from 1 to 1000, not {value!r}")
    return value


def _check_states(values: list[str] | None) -> list[str] | None:
    if values:
        from zmesh import JobState

        for value in values:
            if value not in list(JobState):
                raise typer.BadParameter(f"it must be one of {', '.join(JobState)}, not {value!r}")
    return values


JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="The id of a job, such as edge-7/3f9a8b0c4d5e6f70: its node, and its number or the first digits of that.",
        show_default=False,
    ),
]
JobArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="JOB",
        help="The id of a job, such as edge-7/3f9a8b0c4d5e6f70; there may be several.",
        show_default=False,
    ),
]
From = Annotated[
    int,
    _option(
        "--from", metavar="BYTE", callback=_check_offset, help="Begin after so many bytes of output.", panel=OUTPUT
    ),
]


@job.command("submit", cls=Run)
def submit(
    context: typer.Context,
    target: Target,
    directive: Annotated[
        str | None,
        typer.Argument(metavar="[DIRECTIVE]", help="The directive to run, such as echo:echo.", show_default=False),
    ] = None,
    payload: Annotated[
        str | None,
        typer.Argument(
            metavar="[PAYLOAD]",
            help="Its payload: text; - for standard input, @FILE for the content of a file; by default empty.",
            show_default=False,
        ),
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND",
            help="Or after --, the program that is to run, and its arguments.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None,
        _option("--key", metavar="KEY", help="A name of your own: submitting the same again gives the same job."),
    ] = None,
    priority: Annotated[
        int,
        _option(
            "--priority",
            metavar="N",
            callback=_check_priority,
            help="From -100 to 100; higher ones start first. By default 0.",
        ),
    ] = 0,
    restart: Annotated[
        str,
        _option(
            "--restart",
            metavar="WHEN",
            callback=_check_restart,
            help="When it may run again: never (the default), on-restart of its node, or at most N times after that or "
            "after a failure.",
        ),
    ] = "never",
    timeout: Annotated[
        float | None,
        _option(
            "--timeout", metavar="SECONDS", callback=check_seconds, help="Stop it after so long; by default never."
        ),
    ] = None,
    stdin: Annotated[
        bool,
        typer.Option("--stdin", "-i", help="Send a command this command's standard input.", rich_help_panel=COMMAND),
    ] = False,
    env: Env = None,
    cwd: Cwd = None,
    user: User = None,
    shell: Shell = False,
    route_timeout: RouteTimeout = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Leave a job at a node, or at many.

    Prints its id. The node stores it and runs it in its turn, whatever becomes of this command. The id names the node,
    so that any node of the mesh finds the job again: 'zmesh job show', 'attach', 'logs', 'result', 'cancel', 'rm'.

    The node must allow it: [allow] "job:*" in its configuration names who may, and what is to run must be allowed too.
    """
    from zmesh_cli.input import open_input
    from zmesh_cli.jobs import Order
    from zmesh_cli.jobs import submit as submit_jobs
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.nodes import target_of
    from zmesh_cli.run import Command as Line

    log(verbose)
    where, after = target_of(target), [*(words or []), *context.meta[WORDS]]
    options: dict[str, Any] = {"key": key, "priority": priority, "restart": restart, "timeout": timeout}
    if directive is not None and after:
        raise typer.BadParameter("give either a DIRECTIVE, or a command after --")
    if directive is not None:
        if env or cwd or user or shell or stdin:
            raise typer.BadParameter("--env, --cwd, --user, --shell and --stdin are for a command, after --")
        order = Order(directive, open_input(payload), options)
    elif after:
        line = Line.of(after, env or [], shell=shell, terminal=False)
        options |= {"env": line.environment, "cwd": cwd, "user": user}
        order = Order(line.words, open_input("-" if stdin else None), options)
    else:
        raise typer.BadParameter("give a DIRECTIVE, such as echo:echo, or a command after --, such as: -- make all")
    place = choose(peer, where.node, insecure=insecure)
    finish(submit_jobs(place, where, order, route_timeout=route_timeout, as_json=as_json))


@job.command("ls", cls=Command)
def ls(
    target: AnyTarget = None,
    state: Annotated[
        list[str] | None,
        _option(
            "--state",
            metavar="STATE",
            callback=_check_states,
            help="Only those that are queued, running, done, failed, cancelled or lost.",
        ),
    ] = None,
    owner: Annotated[
        str | None,
        _option("--owner", metavar="NODE", help="Only those that this node submitted.", complete=complete_nodes),
    ] = None,
    limit: Annotated[
        int | None,
        _option("--limit", metavar="N", callback=check_number, help="The newest so many of each node; by default all."),
    ] = None,
    route_timeout: RouteTimeout = None,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """List jobs, the newest first.

    Shows yours, and those of others that you may see.
    """
    from zmesh_cli.jobs import ls as list_jobs
    from zmesh_cli.local_sockets import choose
    from zmesh_cli.nodes import target_of

    log(verbose)
    where = target_of(target)
    place = choose(peer, where.node, insecure=insecure)
    wanted = {"states": state or [], "owner": owner, "limit": limit}
    finish(list_jobs(place, where, route_timeout=route_timeout, as_json=as_json, **wanted))  # type: ignore[arg-type]


@job.command("show", cls=Command)
def show(
    job: JobArgument,
    peer: Peer = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Show a job: its state, and why.

    Also its times, exit code, and how much output there is. If its node can't be reached, this says for how long there
    was no contact, and exits with 3.
    """
    from zmesh_cli import jobs
    from zmesh_cli.local_sockets import choose

    log(verbose)
    id = jobs.named(job)
    finish(jobs.show(choose(peer, id.node, insecure=insecure), id, as_json=as_json))


@job.command("attach", cls=Command)
def attach(
    job: JobArgument, offset: From = 0, peer: Peer = None, insecure: Insecure = False, verbose: Verbose = 0
) -> None:
    """Follow the output of a job up to its end.

    The exit code is that of its command, or 1 if a directive has failed. Ctrl-C leaves the job as it is, and prints how
    to go on from the byte that was reached.
    """
    _attach(job, offset, peer, insecure, verbose, follow=True, mirror=True)


@job.command("logs", cls=Command)
def logs(
    job: JobArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, up to its end.", rich_help_panel=OUTPUT)
    ] = False,
    offset: From = 0,
    peer: Peer = None,
    insecure: Insecure = False,
    verbose: Verbose = 0,
) -> None:
    """Write what a job has written so far.

    The exit code is 0, however it ended.
    """
    _attach(job, offset, peer, insecure, verbose, follow=follow, mirror=False)


def _attach(
    job: str, offset: int, peer: str | None, insecure: bool, verbose: int, *, follow: bool, mirror: bool
) -> None:
    from zmesh_cli import jobs
    from zmesh_cli.local_sockets import choose

    log(verbose)
    id = jobs.named(job)
    place = choose(peer, id.node, insecure=insecure)
    finish(jobs.attach(place, id, offset=offset, follow=follow, mirror=mirror))


@job.command("result", cls=Command)
def result(
    job: JobArgument,
    timeout: Annotated[
        float | None,
        _option("--timeout", metavar="SECONDS", callback=check_seconds, help="Limit for its end; by default none."),
    ] = None,
    peer: Peer = None,
    insecure: Insecure = False,
    verbose: Verbose = 0,
) -> None:
    """Wait for the end of a job; write its replies.

    Of a command, this is its stdout.
    """
    from zmesh_cli import jobs
    from zmesh_cli.local_sockets import choose

    log(verbose)
    id = jobs.named(job)
    finish(jobs.result(choose(peer, id.node, insecure=insecure), id, timeout=timeout))


@job.command("cancel", cls=Command)
def cancel(
    jobs: JobArguments, peer: Peer = None, insecure: Insecure = False, as_json: AsJson = False, verbose: Verbose = 0
) -> None:
    """End jobs, and wait until they have ended.

    What they have written is kept.
    """
    from zmesh_cli import jobs as commands
    from zmesh_cli.local_sockets import choose

    log(verbose)
    ids = [commands.named(each) for each in jobs]
    finish(commands.cancel(lambda node: choose(peer, node, insecure=insecure), ids, as_json=as_json))


@job.command("rm", cls=Command)
def rm(
    jobs: JobArguments,
    force: Annotated[
        bool, typer.Option("--force", help="End those that wait or run before.", rich_help_panel=JOB)
    ] = False,
    peer: Peer = None,
    insecure: Insecure = False,
    verbose: Verbose = 0,
) -> None:
    """Delete jobs that have ended.

    Their output is deleted with them.
    """
    from zmesh_cli import jobs as commands
    from zmesh_cli.local_sockets import choose

    log(verbose)
    ids = [commands.named(each) for each in jobs]
    finish(commands.rm(lambda node: choose(peer, node, insecure=insecure), ids, force=force))
