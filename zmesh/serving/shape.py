"""Calling conventions of directives: plain or async functions and generators, detected by inspection."""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable
from typing import Any


class Shape(enum.Enum):
    """The calling convention of a directive."""

    COROUTINE = enum.auto()
    ASYNC_GENERATOR = enum.auto()
    FUNCTION = enum.auto()
    GENERATOR = enum.auto()
    QUEUE = enum.auto()
    """`run(work, put)` in a thread; `put` sends one reply."""


def shape_of(function: Callable[..., Any]) -> Shape:
    """The calling convention of this function."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):  # an object with `__call__`
        function = type(function).__call__
    if inspect.iscoroutinefunction(function):
        return Shape.COROUTINE
    if inspect.isasyncgenfunction(function):
        return Shape.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(function):
        return Shape.GENERATOR
    return Shape.FUNCTION


def check_arguments(function: Callable[..., Any], name: str, count: int = 1) -> None:
    """Raises TypeError if the function for the directive `name` can't be called with `count` arguments by position.

    A function without a signature, as some written in C, is accepted.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*[None] * count)
    except TypeError as error:
        takes = "one argument, the Work" if count == 1 else f"{count} arguments"
        raise TypeError(
            f"the directive {name!r} is called with {takes}, but its function takes {signature}: {error}"
        ) from None
