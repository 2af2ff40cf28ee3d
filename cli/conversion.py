"""The classes of Typer's commands: they convert values themselves, and lay out their help.

Typer (0.26 and later) has pydantic convert each value, plain text included. Importing that takes 60 ms, which is longer
than a ping takes. Other values that can't be converted are left to Typer, which has the error texts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from typer import BadParameter, Typer
from typer.core import TyperCommand, TyperGroup

from zmesh_cli.exit_codes import DONE, USAGE
from zmesh_cli.help import usage_pieces, write_examples, write_options

UsageError: Any = BadParameter.__base__
"""Typer's exception for an invalid command line; the class is public in some of its versions only."""


def _port(text: str) -> int:
    """A TCP port. Raises ValueError."""
    port = int(text)
    if not 0 <= port <= MAX_PORT:
        raise ValueError
    return port


MAX_PORT = 65_535
NUMBERS: dict[str, Callable[[str], float]] = {
    "canary": int,
    "count": int,
    "interval": float,
    "last": int,
    "limit": int,
    "max_parallel": int,
    "offset": int,
    "page_port": _port,
    "per_node_timeout": float,
    "priority": int,
    "timeout": float,
    "expires": float,
    "route_timeout": float,
    "samples": int,
}
"""The parameters that are numbers; all others are text, lists of text, or flags."""
_KINDS: dict[Callable[[str], float], str] = {
    int: "a whole number",
    float: "a number",
    _port: f"a TCP port from 0 to {MAX_PORT}",
}
FLAGS = {"true": True, "1": True, "false": False, "0": False, "": False}
"""The values of a flag's environment variable, as `Config.load` takes them."""


class Command(TyperCommand):
    """A command that converts its values itself."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, without Typer's conversion."""
        return [_converting(parameter) for parameter in super().get_params(ctx)]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the name of the command in the line of its usage."""
        return usage_pieces(self.get_params(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, and the options by groups."""
        write_options(self.get_params(ctx), ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        write_examples(ctx.command_path, formatter)


class Group(TyperGroup):
    """A group of commands that converts its values itself."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, without Typer's conversion."""
        return [_converting(parameter) for parameter in super().get_params(ctx)]

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command, and exit; what it was given wrongly is one line, and the exit code is USAGE."""
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except UsageError as error:
            from zmesh_cli.terminal import print_error  # here: few command lines are wrong

            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
            else:
                print_error(usage_line(error))
            code = USAGE
        sys.exit(code if isinstance(code, int) else DONE)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, then the exit codes."""
        write_examples(ctx.command_path, formatter)
        super().format_epilog(ctx, formatter)


def new_group(**options: Any) -> Typer:
    """A group of commands, empty yet; `options` are those of Typer."""
    return Typer(cls=Group, no_args_is_help=True, add_completion=False, rich_markup_mode=None, **options)


def subcommands(app: Typer, name: str, help: str) -> Typer:
    """A group of commands below `app`, empty yet."""
    group = new_group(name=name, help=help)
    app.add_typer(group)
    return group


def usage_line(error: Any) -> str:
    """The error in a command line, and where its usage is."""
    text = error.format_message().removeprefix("Invalid value: ").rstrip(".")
    where = "zmesh" if error.ctx is None else error.ctx.command_path
    return f"{text}; '{where} -h' has its usage"


def _converting(parameter: Any) -> Any:
    """The parameter, with a `process_value` that converts without Typer."""
    if "process_value" in vars(parameter):
        return parameter
    convert, callback = parameter.process_value, parameter.callback
    number = NUMBERS.get(parameter.name)

    def process_value(context: Any, value: Any) -> Any:
        try:
            if isinstance(value, str):
                if getattr(parameter, "is_flag", False):
                    value = FLAGS[value.strip().lower()]
                elif number is not None:
                    value = number(value)
            elif value is None and parameter.required:
                return convert(context, value)
        except (ValueError, KeyError):
            if number is not None:
                raise BadParameter(f"it must be {_KINDS[number]}, not {value!r}", context, parameter) from None
            return convert(context, value)
        return value if callback is None else callback(context, parameter, value)

    parameter.process_value = process_value
    return parameter
