"""Parameters that several commands have, and how a command begins and ends."""

import math
import os
import re
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

import typer

from zmesh_cli.help import CONNECTION, FLEET, NODE, OUTPUT, REQUEST

if TYPE_CHECKING:
    from zmesh.config import Config


def check_seconds(value: float | None) -> float | None:
    """The value of an option that is a number of seconds above 0. Raises BadParameter."""
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter("it must be a number of seconds above 0")
    return value


def check_positive(value: float) -> float:
    """The value of an option with a default that is a number of seconds above 0. Raises BadParameter."""
    check_seconds(value)
    return value


def check_interval(value: float) -> float:
    """The value of an option that is a number of seconds, 0 or more. Raises BadParameter."""
    if not 0 <= value < math.inf:
        raise typer.BadParameter("it must be a number of seconds, 0 or more")
    return value


def check_count(value: int) -> int:
    """The value of an option that is a count of at least 1. Raises BadParameter."""
    if value < 1:
        raise typer.BadParameter("it must be 1 or more")
    return value


def check_number(value: int | None) -> int | None:
    """The value of an option that is a count of at least 1, if it is given. Raises BadParameter."""
    if value is not None:
        check_count(value)
    return value


def check_stop_after(value: str | None) -> str | None:
    """The value of --stop-after: a number of nodes, or a share of them. Raises BadParameter."""
    if value is not None:
        found = re.fullmatch(r"([0-9]{1,9})(%?)", value)
        if found is None or int(found[1]) < 1 or (found[2] and int(found[1]) > 100):
            raise typer.BadParameter(f"it must be a number of nodes, or a share such as 5%, not {value!r}")
    return value


def option(
    *flags: str, metavar: str, help: str, panel: str = REQUEST, callback: Any = None, complete: Any = None
) -> Any:
    """An option with a value, in one group of the help; `complete` has the words that the shell offers."""
    return typer.Option(
        *flags,
        metavar=metavar,
        help=help,
        callback=callback,
        show_default=False,
        autocompletion=complete,
        rich_help_panel=panel,
    )


def seconds(flag: str, help: str) -> Any:
    """An option that is a number of seconds above 0."""
    return option(flag, metavar="SECONDS", callback=check_seconds, help=help)


_of_node = partial(option, panel=NODE)
NodeId = Annotated[
    str | None,
    _of_node(
        "--id",
        metavar="ID",
        help="The id of the node, unique in the mesh: 1 to 64 of A-Z a-z 0-9 . _ -; by default the host's name and "
        "six random hex digits.",
    ),
]
Listen = Annotated[
    list[str] | None,
    _of_node(
        "--listen",
        metavar="URL",
        help="Accept links at tcp://ADDRESS:PORT (ADDRESS * is all, PORT * any free one) or ipc://PATH. May be "
        "given more than once.",
    ),
]
NodePeer = Annotated[
    list[str] | None,
    _of_node(
        "--peer",
        metavar="URL",
        help="Keep a link to the node that listens at tcp://HOST:PORT or ipc://PATH. May be given more than once.",
    ),
]
ConfigFile = Annotated[str | None, _of_node("--config", metavar="FILE", help="Read settings from this TOML file.")]
_PLAINTEXT = "Allow plaintext to other machines: for a network that you trust."
NodeInsecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help=_PLAINTEXT,
        show_default=False,
        rich_help_panel=NODE,
    ),
]


NodeState = Annotated[
    str | None, option("--state", metavar="DIR", help="The folder of the identity of the node.", panel=CONNECTION)
]
LogFormat = Annotated[
    str | None,
    typer.Option(
        "--log",
        metavar="FORMAT",
        help="Log as text or json, one object a line; by default text.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]


Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="WHERE",
        help="Metrics for Prometheus at IP:PORT, or in FILE.prom for node_exporter.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]


class NodeSettings(NamedTuple):
    """The options that are settings of a node."""

    file: str | None
    node_id: str | None
    listen: list[str] | None
    peers: list[str] | None
    insecure: bool
    state: str | None = None
    log_format: str | None = None
    metrics: str | None = None

    def load(self) -> "Config":
        """The settings, with those of the file and the environment below them. Raises ConfigError."""
        from zmesh.config import Config

        given: dict[str, Any] = {
            "node_id": self.node_id,
            "listen": self.listen or None,
            "peers": self.peers or None,
            "insecure": self.insecure or None,
            "identity": self.state,
            "log_format": self.log_format,
            "metrics": self.metrics,
        }
        return Config.load(self.file, **given)


def complete_nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    """The nodes that the shell offers."""
    from zmesh_cli.completion import nodes

    return nodes(ctx, incomplete)


def complete_targets(ctx: typer.Context, incomplete: str) -> list[str]:
    """The nodes and tags that the shell offers."""
    from zmesh_cli.completion import targets

    return targets(ctx, incomplete)


def complete_tags(ctx: typer.Context, incomplete: str) -> list[str]:
    """The tags that the shell offers."""
    from zmesh_cli.completion import tags

    return tags(ctx, incomplete)


def complete_directives(ctx: typer.Context, incomplete: str) -> list[str]:
    """The directives that the shell offers."""
    from zmesh_cli.completion import directives

    return directives(ctx, incomplete)


Node = Annotated[
    str,
    typer.Argument(
        metavar="NODE",
        help="The id of a node, such as edge-7; of an ephemeral one ID@NODE, such as cli-4f2a@hub.",
        show_default=False,
        autocompletion=complete_nodes,
    ),
]
NodeOrHere = Annotated[
    str | None,
    typer.Argument(
        metavar="[NODE]",
        help="The id of a node; by default the one where the command joins.",
        autocompletion=complete_nodes,
    ),
]
Member = Annotated[
    str,
    typer.Argument(
        metavar="NODE", help="The id of a node, such as edge-7.", show_default=False, autocompletion=complete_nodes
    ),
]
_WHICH = "Which nodes: NODE, tag:NAME, !NODE to leave it out, or several with commas between them"
AnyTarget = Annotated[
    str | None,
    typer.Argument(metavar="[TARGET]", help=f"{_WHICH}; by default all.", autocompletion=complete_targets),
]
_target = typer.Argument(metavar="TARGET", help=f"{_WHICH}.", show_default=False, autocompletion=complete_targets)
Target = Annotated[str, _target]
TargetOrAll = Annotated[str | None, _target]
At = Annotated[
    str | None,
    option(
        "--at",
        metavar="NODE",
        help="As this node sees it; by default the one where the command joins.",
        complete=complete_nodes,
    ),
]
AnswerTimeout = Annotated[float | None, seconds("--timeout", "Limit for the answer; by default 10.")]
RouteTimeout = Annotated[
    float | None, seconds("--route-timeout", "Limit for being without a route to the node; by default 30.")
]
Peer = Annotated[
    str | None,
    typer.Option(
        "--peer",
        metavar="URL",
        envvar="ZMESH_PEER",
        help="Where to join the mesh: tcp://HOST:PORT, ipc://PATH, or the id of a node of yours on this machine; by "
        "default the one that runs here.",
        show_default=False,
        rich_help_panel=CONNECTION,
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        envvar="ZMESH_INSECURE",
        help=_PLAINTEXT,
        show_default=False,
        rich_help_panel=CONNECTION,
    ),
]


_fleet = partial(option, panel=FLEET)
MaxParallel = Annotated[
    int | None,
    _fleet("--max-parallel", metavar="N", callback=check_number, help="Do it at so many at a time; by default 50."),
]
Canary = Annotated[
    int | None,
    _fleet(
        "--canary",
        metavar="N",
        callback=check_number,
        help="Do it at so many first, and at the others if it is done at those.",
    ),
]
StopAfter = Annotated[
    str | None,
    _fleet(
        "--stop-after",
        metavar="N|P%",
        callback=check_stop_after,
        help="Start no more when it has failed, was unreachable or timed out at so many.",
    ),
]
PerNodeTimeout = Annotated[
    float | None,
    _fleet(
        "--per-node-timeout",
        metavar="SECONDS",
        callback=check_seconds,
        help="Limit for each node, from the request to the end; by default none.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.", rich_help_panel=OUTPUT)]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        help="Log on stderr; -vv logs everything.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def log(verbose: int) -> None:
    """Set up the log of a command that joins a mesh, and report environment variables that are misspelt."""
    from zmesh.config import unknown_variables
    from zmesh_cli.logs import set_up_logging
    from zmesh_cli.terminal import print_error

    set_up_logging(verbose)
    for line in unknown_variables(os.environ):
        print_error(line)


def finish(work: Coroutine[Any, Any, int]) -> NoReturn:
    """Run what the command does, and exit with the exit code that it returns."""
    from zmesh_cli.signals import run

    raise typer.Exit(run(work))


def end(code: int) -> NoReturn:
    """Exit with this code."""
    raise typer.Exit(code)
