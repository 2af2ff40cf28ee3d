"""The command line as Typer has it: its commands, each imported when it is used.

Annotations are not postponed in the modules of commands: Typer would compile each of them when a command starts, which
takes longer. What a command does is imported when it runs.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.main import get_group

from zmesh_cli.conversion import Group

MODULE_OF = {
    "node": "node_commands",
    "ping": "request_commands",
    "send": "request_commands",
    "run": "machine_commands",
    "cp": "files_commands",
    "job": "job_commands",
    "forward": "tunnel_commands",
    "expose": "tunnel_commands",
    "nc": "tunnel_commands",
    "status": "operate_commands",
    "nodes": "operate_commands",
    "routes": "operate_commands",
    "trace": "operate_commands",
    "why": "operate_commands",
    "graph": "operate_commands",
    "top": "operate_commands",
    "dashboard": "operate_commands",
    "bundle": "diagnosis_commands",
    "doctor": "diagnosis_commands",
    "events": "diagnosis_commands",
    "cancel": "request_commands",
    "reload": "service_commands",
    "config": "service_commands",
    "service": "service_commands",
    "init": "trust_commands",
    "invite": "trust_commands",
    "invites": "trust_commands",
    "join": "trust_commands",
    "identity": "trust_commands",
    "authority": "trust_commands",
    "revoke": "trust_commands",
    "context": "trust_commands",
    "completion": "service_commands",
    "demo": "node_commands",
}
"""For each command, in the order of `zmesh --help`, the module whose `app` has it."""


class _Commands(Mapping[str, Any]):
    """The commands by name; the module of one is imported when it is first used."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            module = import_module(f"zmesh_cli.{MODULE_OF[name]}")
            self._loaded.update(get_group(module.app).commands)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(MODULE_OF)

    def __len__(self) -> int:
        return len(MODULE_OF)


class Program(Group):
    """The program: a group whose commands are imported when they are used."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands: Any = _Commands()


app = typer.Typer(
    cls=Program,
    help="Link machines into one mesh, with no broker, and send directives to any of them by name.",
    epilog="Exit codes: 0 done, 1 the remote work failed, 2 usage, 3 unreachable, 4 timed out, 6 not allowed or not "
    "trusted, 130 interrupted.",
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


@app.callback()
def _zmesh(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Link machines into one mesh, with no broker, and send directives to any of them by name."""
