"""How Typer is kept quick: values are converted here.

Typer (0.26 and later) has pydantic convert each value, also plain text, and importing that takes 60 ms, which is longer
than all that a ping does. What can't be converted is left to Typer, which finds the words for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from typer.core import TyperCommand, TyperGroup

NUMBERS: dict[str, Callable[[str], float]] = {
    "count": int,
    "interval": float,
    "timeout": float,
    "route_timeout": float,
}
"""The parameters that are numbers; all others are text, lists of text, or flags."""


class Command(TyperCommand):
    """A command that converts its values itself."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, made plain."""
        return [_plain(parameter) for parameter in super().get_params(ctx)]


class Group(TyperGroup):
    """A group of commands that converts its values itself."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, made plain."""
        return [_plain(parameter) for parameter in super().get_params(ctx)]


def _plain(parameter: Any) -> Any:
    """The parameter, with another `process_value`."""
    if "process_value" in vars(parameter):
        return parameter
    convert, callback = parameter.process_value, parameter.callback
    number = NUMBERS.get(parameter.name)

    def process_value(context: Any, value: Any) -> Any:
        try:
            if isinstance(value, str):
                value = number(value) if number is not None else value
            elif value is None and parameter.required:
                return convert(context, value)
        except ValueError:
            return convert(context, value)
        return value if callback is None else callback(context, parameter, value)

    parameter.process_value = process_value
    return parameter
